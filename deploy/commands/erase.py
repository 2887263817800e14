"""`deptbus erase`: a record's keys are destroyed (删除). What was opened before can't be called back."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from deploy.commands.options import As, Operator, Subject, acting, subject
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, table

Records = Annotated[list[str], typer.Argument(help="Leaf hashes of records (64 hex digits each).")]
Basis = Annotated[str, typer.Option("--basis", help="Why: the log keeps it. No personal id.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    erase = typer.Typer(
        help="Erase (删除): destroy the keys of records, so that nobody opens them any more.", no_args_is_help=True
    )
    app.add_typer(erase, name="erase")

    @command(erase)
    async def record(
        records: Records,
        department: As,
        basis: Basis,
        operator: Operator,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Erase records that the department issued. Refused from now on everywhere; `show` says when it is complete."""
        body = {"records": records, "basis": basis, "operator": operator}
        async with acting(Home.find(home), department) as client:
            _emit(await client.post_json("/v1/erasures", body), as_json=json)

    @command(erase, name="subject")
    async def of_subject(
        subject_: Subject,
        department: As,
        basis: Basis,
        operator: Operator,
        item: Annotated[str | None, typer.Option("--item", help="Only of this item.")] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Erase every version of a subject's licences that the department issued, but for what the law keeps."""
        body = {"subject": subject(subject_), "item": item, "basis": basis, "operator": operator}
        async with acting(Home.find(home), department) as client:
            _emit(await client.post_json("/v1/erasures", body), as_json=json)

    @command(erase)
    async def show(records: Records, department: As, home: HomeOption = None, json: Json = False) -> None:
        """Show how far an erasure is: STARTED, PUNCTURED (nothing stored yields its keys), COMPLETE."""
        async with acting(Home.find(home), department) as client:
            _emit(await client.post_json("/v1/erasures:show", {"records": records}), as_json=json)


def _emit(answer: dict[str, Any], *, as_json: bool) -> None:
    def human() -> None:
        rows = [
            (
                one["record"],
                one["item"],
                one["state"],
                one["started_at"],
                one["completed_at"] or one["complete_from"] or "",
            )
            for one in answer["erasures"]
        ]
        table("Erasures", ("record", "item", "state", "started", "complete (from)"), rows)
        if answer["kept"]:
            kept = [(one["record"], one["item"], one["code"], one["reason"]) for one in answer["kept"]]
            table("Not erased", ("record", "item", "code", "why"), kept)
        err.print(answer["note"])

    emit(answer, as_json=as_json, human=human)
