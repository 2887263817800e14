"""`deptbus consent`: what a subject allows a recipient."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from deploy.commands.options import As, Item, Purposes, Sections, Subject, acting, subject
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, facts, table

Id = Annotated[str, typer.Argument(help="The consent's id.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    consent = typer.Typer(help="Consents (授权同意) of citizens and firms.", no_args_is_help=True)
    app.add_typer(consent, name="consent")

    @command(consent)
    async def create(
        department: As,
        about: Subject,
        recipient: Annotated[str, typer.Option("--recipient", help="Who may open: a name or a credit code.")],
        item: Item,
        section: Sections,
        purpose: Purposes,
        valid_from: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD.")],
        valid_until: Annotated[str | None, typer.Option("--until", help="Last day, inclusive.")] = None,
        sensitive: Annotated[
            list[str] | None, typer.Option("--sensitive", help="A section separately consented to (单独同意).")
        ] = None,
        max_uses: Annotated[int | None, typer.Option(help="At most so many openings.")] = None,
        evidence: Annotated[str, typer.Option(help="SHA-256 of the signed form, in hex.")] = "",
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Record a consent that was given to the department that acts. The recipient can't record its own."""
        where = Home.find(home)
        body = {
            "subject": subject(about),
            "recipient": where.uscc_of(recipient),
            "item": item,
            "purposes": purpose,
            "sections": section,
            "sensitive": sensitive or [],
            "valid_from": valid_from,
            "valid_until": valid_until,
            "max_uses": max_uses,
            "evidence": evidence,
        }
        async with acting(where, department) as client:
            (made,) = await client.post_json("/v1/consents", {"consents": [body]})
        _emit(made, as_json=json)

    @command(consent)
    async def show(identifier: Id, department: As, home: HomeOption = None, json: Json = False) -> None:
        """Show one whole."""
        async with acting(Home.find(home), department) as client:
            _emit(await client.post_json("/v1/consents:show", {"id": identifier}), as_json=json)

    @command(consent, name="list")
    async def list_(department: As, about: Subject, item: Item, home: HomeOption = None, json: Json = False) -> None:
        """Show a subject's consents over an item that the department is a party to."""
        async with acting(Home.find(home), department) as client:
            found = await client.post_json("/v1/consents:search", {"item": item, "subject": subject(about)})
        columns = ("id", "recipient", "purposes", "sections", "state")
        rows = [[one[name] for name in columns] for one in found]
        emit(found, as_json=json, human=lambda: table("Consents", columns, rows))

    @command(consent)
    async def withdraw(identifier: Id, department: As, home: HomeOption = None, json: Json = False) -> None:
        """Withdraw one: the next release under it is refused, on every gateway."""
        async with acting(Home.find(home), department) as client:
            _emit(await client.post_json("/v1/consents:withdraw", {"id": identifier}), as_json=json)


def _emit(one: dict[str, Any], *, as_json: bool) -> None:
    emit(one, as_json=as_json, human=lambda: facts("Consent", one))
