"""`deptbus agreement`: what a provider shares with a consumer."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from deploy.commands.options import As, Item, Purposes, Sections, acting
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, facts, table

Id = Annotated[str, typer.Argument(help="The agreement's id.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    agreement = typer.Typer(help="Sharing agreements (共享协议) between departments.", no_args_is_help=True)
    app.add_typer(agreement, name="agreement")

    @command(agreement)
    async def create(
        department: As,
        consumer: Annotated[str, typer.Option("--consumer", help="Who may open: a name or a credit code.")],
        item: Item,
        section: Sections,
        purpose: Purposes,
        ground: Annotated[list[str], typer.Option("--ground", help="STATUTORY_DUTY or CONSENT; may be repeated.")],
        valid_from: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD.")],
        valid_until: Annotated[str | None, typer.Option("--until", help="Last day, inclusive.")] = None,
        duty: Annotated[
            list[str] | None, typer.Option("--duty", help="An article that a statutory duty may cite; may be repeated.")
        ] = None,
        region: Annotated[
            list[str] | None, typer.Option("--region", help="A division prefix; none means everywhere.")
        ] = None,
        records_a_day: Annotated[int | None, typer.Option(help="At most so many records a day.")] = None,
        max_age: Annotated[int | None, typer.Option(help="Seconds that a consumer may keep a key.")] = None,
        status: Annotated[
            list[str] | None, typer.Option("--status", help="A licence state beside VALID that still opens.")
        ] = None,
        superseded: Annotated[bool, typer.Option("--superseded", help="Older versions open, too.")] = False,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Share sections of an item with a consumer. The department that acts is the provider."""
        where = Home.find(home)
        body: dict[str, Any] = {
            "consumer": where.uscc_of(consumer),
            "item": item,
            "sections": section,
            "purposes": purpose,
            "grounds": ground,
            "valid_from": valid_from,
            "valid_until": valid_until,
            "duties": duty or [],
            "regions": region or [],
            "records_a_day": records_a_day,
            "statuses": status or [],
            "superseded": superseded,
        }
        if max_age is not None:
            body["max_age"] = max_age
        await _show(where, department, "/v1/agreements", body, as_json=json)

    @command(agreement, name="list")
    async def list_(department: As, home: HomeOption = None, json: Json = False) -> None:
        """Show the department's agreements, on either side."""
        async with acting(Home.find(home), department) as client:
            found = await client.post_json("/v1/agreements:list", {})
        columns = ("id", "provider", "consumer", "item", "sections", "purposes", "state")
        rows = [[one[name] for name in columns] for one in found]
        emit(found, as_json=json, human=lambda: table("Agreements", columns, rows))

    @command(agreement)
    async def show(identifier: Id, department: As, home: HomeOption = None, json: Json = False) -> None:
        """Show one whole."""
        await _show(Home.find(home), department, "/v1/agreements:show", {"id": identifier}, as_json=json)

    @command(agreement)
    async def end(identifier: Id, department: As, home: HomeOption = None, json: Json = False) -> None:
        """End one: the next release under it is refused, on every gateway."""
        await _show(Home.find(home), department, "/v1/agreements:end", {"id": identifier}, as_json=json)


async def _show(where: Home, department: str, path: str, body: dict[str, Any], *, as_json: bool) -> None:
    async with acting(where, department) as client:
        answer = await client.post_json(path, body)
    emit(answer, as_json=as_json, human=lambda: facts("Agreement", answer))
