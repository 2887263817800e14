"""`deptbus dispute`: parties of an agreement who differ; the operator coordinates, and decides if need be."""

from __future__ import annotations

from typing import Annotated

import typer

from consent.lifecycle import Act
from deploy.commands import documents
from deploy.commands.documents import Reason
from deploy.commands.options import Caller
from deploy.home import Home, HomeOption
from deploy.output import Json, command

Id = Annotated[str, typer.Argument(help="The dispute's id.")]
COLUMNS = ("id", "agreement", "provider", "consumer", "raised_by", "reason", "state")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    dispute = typer.Typer(help="Disputes (争议) over agreements.", no_args_is_help=True)
    app.add_typer(dispute, name="dispute")

    @command(dispute)
    async def add(
        agreement: Annotated[str, typer.Argument(help="The agreement's id.")],
        reason: Reason,
        department: Caller = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Raise a dispute with the other party of an agreement."""
        body = {"agreement": agreement, "reason": reason}
        await documents.ask(Home.find(home), department, "/v1/disputes", body, "Dispute", as_json=json)

    @command(dispute)
    async def act(
        identifier: Id,
        what: Annotated[Act, typer.Argument(help="SETTLE, by a party; COORDINATE, DECIDE, by the operator.")],
        department: Caller = None,
        reason: Reason = "",
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Settle one, or coordinate and decide it."""
        await documents.act(Home.find(home), department, "dispute", identifier, [what], reason, as_json=json)

    @command(dispute, name="list")
    async def list_(department: Caller = None, home: HomeOption = None, json: Json = False) -> None:
        """Show the department's, on either side; to the operator all. With the deadlines that run."""
        await documents.list_all(Home.find(home), department, "dispute", COLUMNS, as_json=json)

    @command(dispute)
    async def show(identifier: Id, department: Caller = None, home: HomeOption = None, json: Json = False) -> None:
        """Show one whole, with its deadline and every act on it."""
        body = {"id": identifier}
        await documents.ask(Home.find(home), department, "/v1/disputes:show", body, "Dispute", as_json=json)
