"""`deptbus power`: what a department delegates to another (--open, --issue), and who acts for a subject (--agent)."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bus.client import GatewayClient
from consent.lifecycle import Act
from deploy.commands import documents
from deploy.commands.options import SUBJECT_HELP, As, acting, subject
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, table
from schemas.errors import Code, DeptbusError, Misuse

Id = Annotated[str, typer.Argument(help="The power's or mandate's id.")]
POWERS, MANDATES = "/v1/powers", "/v1/mandates"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    power = typer.Typer(help="Powers (授权) of departments and mandates (委托) of agents.", no_args_is_help=True)
    app.add_typer(power, name="power")

    @command(power)
    async def add(
        department: As,
        item: Annotated[list[str], typer.Option("--item", help="A catalogue item; may be repeated.")],
        valid_from: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD.")],
        opens: Annotated[bool, typer.Option("--open", help="To open what the department's agreements share.")] = False,
        issues: Annotated[bool, typer.Option("--issue", help="To issue what the department may issue.")] = False,
        agent: Annotated[
            str | None, typer.Option("--agent", help="The id of an agent (代办员) who acts for --subject.")
        ] = None,
        to: Annotated[str | None, typer.Option("--to", help="Who gets it: a name or a credit code.")] = None,
        about: Annotated[str | None, typer.Option("--subject", help=SUBJECT_HELP)] = None,
        purpose: Annotated[list[str] | None, typer.Option("--purpose", help="What for; may be repeated.")] = None,
        region: Annotated[
            list[str] | None, typer.Option("--region", help="A division prefix; none means everywhere.")
        ] = None,
        basis: Annotated[str, typer.Option("--basis", help="The deed of delegation (授权确认书).")] = "",
        evidence: Annotated[str, typer.Option(help="SHA-256 of the signed mandate (委托书), in hex.")] = "",
        valid_until: Annotated[str | None, typer.Option("--until", help="Last day, inclusive.")] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Delegate a power (--open or --issue, --to, --basis), or record a mandate (--agent, --subject, --evidence)."""
        if [opens, issues, agent is not None].count(True) != 1:
            raise Misuse(Code.REQUEST_MALFORMED, "one of --open, --issue and --agent")
        where = Home.find(home)
        body: dict[str, Any] = {"items": item, "valid_from": valid_from, "valid_until": valid_until}
        if agent is not None:
            if about is None or valid_until is None:
                raise Misuse(Code.REQUEST_MALFORMED, "a mandate needs --subject and --until")
            path = MANDATES
            body |= {"agent": agent, "subject": subject(about), "purposes": purpose or [], "evidence": evidence}
        else:
            if to is None:
                raise Misuse(Code.REQUEST_MALFORMED, "a power needs --to")
            path = POWERS
            body |= {"right": "OPEN" if opens else "ISSUE", "grantee": where.uscc_of(to), "basis": basis}
            body |= {"purposes": purpose or [], "regions": region or []}
        async with acting(where, department) as client:
            made = await client.post_json(path, body)
        _emit(made, as_json=json)

    @command(power, name="list")
    async def list_(department: As, home: HomeOption = None, json: Json = False) -> None:
        """Show the powers that the department gave or got, and the mandates that it recorded."""
        async with acting(Home.find(home), department) as client:
            found = [*await client.post_json(f"{POWERS}:list", {}), *await client.post_json(f"{MANDATES}:list", {})]
        rows = [
            [
                one["id"],
                one.get("right", "AGENT"),
                one.get("grantor") or one["recorded_by"],
                one.get("grantee") or one["agent"],
                one.get("items") or [holder["item"] for holder in one["subjects"]],
                one["purposes"],
                one["valid_until"],
                one["state"],
            ]
            for one in found
        ]
        columns = ("id", "right", "from", "to", "items", "purposes", "until", "state")
        emit(found, as_json=json, human=lambda: table("Powers", columns, rows))

    @command(power)
    async def show(identifier: Id, department: As, home: HomeOption = None, json: Json = False) -> None:
        """Show one whole, with every act on it."""
        async with acting(Home.find(home), department) as client:
            _emit(await _either(client, "show", {"id": identifier}), as_json=json)

    @command(power)
    async def end(identifier: Id, department: As, home: HomeOption = None, json: Json = False) -> None:
        """End one (收回): the next release or record under it is refused, on every gateway."""
        async with acting(Home.find(home), department) as client:
            _emit(await _either(client, "act", {"id": identifier, "act": Act.END}), as_json=json)


async def _either(client: GatewayClient, what: str, body: dict[str, Any]) -> Any:
    """A power of this id, else a mandate: ids are unique over both."""
    try:
        return await client.post_json(f"{POWERS}:{what}", body)
    except DeptbusError as exc:
        if exc.code is not Code.NOT_FOUND:
            raise
    return await client.post_json(f"{MANDATES}:{what}", body)


def _emit(one: dict[str, Any], *, as_json: bool) -> None:
    emit(one, as_json=as_json, human=lambda: documents.show("Power", one))
