"""`deptbus correction`: a consumer doubts a record, its issuer corrects or confirms it."""

from __future__ import annotations

from typing import Annotated

import typer

from consent.lifecycle import Act
from deploy.commands import documents
from deploy.commands.documents import Reason
from deploy.commands.options import As, Caller
from deploy.home import Home, HomeOption
from deploy.output import Json, command

Id = Annotated[str, typer.Argument(help="The correction's id.")]
COLUMNS = ("id", "provider", "consumer", "item", "section", "record", "reason", "state")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    correction = typer.Typer(help="Doubts about records (校核纠错).", no_args_is_help=True)
    app.add_typer(correction, name="correction")

    @command(correction)
    async def add(
        record: Annotated[str, typer.Argument(help="The record's leaf hash, 64 hex digits.")],
        department: As,
        section: Annotated[str, typer.Option("--section", help="What is doubted.")],
        reason: Reason,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Ask a record's issuer to look at it again."""
        body = {"record": record, "section": section, "reason": reason}
        await documents.ask(Home.find(home), department, "/v1/corrections", body, "Correction", as_json=json)

    @command(correction)
    async def act(
        identifier: Id,
        what: Annotated[Act, typer.Argument(help="FIX, once the right record is published, or CONFIRM.")],
        department: Caller = None,
        reason: Reason = "",
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Answer one, by the issuer: corrected, or confirmed."""
        await documents.act(Home.find(home), department, "correction", identifier, [what], reason, as_json=json)

    @command(correction, name="list")
    async def list_(department: Caller = None, home: HomeOption = None, json: Json = False) -> None:
        """Show the department's, on either side, with the deadlines that run."""
        await documents.list_all(Home.find(home), department, "correction", COLUMNS, as_json=json)

    @command(correction)
    async def show(identifier: Id, department: Caller = None, home: HomeOption = None, json: Json = False) -> None:
        """Show one whole, with its deadline and every act on it."""
        body = {"id": identifier}
        await documents.ask(Home.find(home), department, "/v1/corrections:show", body, "Correction", as_json=json)
