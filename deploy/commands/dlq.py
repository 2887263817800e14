"""`deptbus dlq`: what a subscriber group could not open, and bringing it back."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from bus import deadletters
from bus.deadletters import DeadLetter
from bus.topics import group_of
from bus.transport import Cluster
from deploy.commands.options import As
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, table

Group = Annotated[str, typer.Argument(help="The subscriber's group.")]
SHOWN = 50  # rows for a person; --json has all


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    dlq = typer.Typer(help="Dead letters (死信) of a subscriber group.", no_args_is_help=True)
    app.add_typer(dlq, name="dlq")

    @command(dlq, name="list")
    async def list_(group: Group, as_: As, home: HomeOption = None, json: Json = False) -> None:
        """Show what was set aside, with its code, and whether it was replayed."""
        cluster, whole = _of(Home.find(home), as_, group)
        letters = await deadletters.read(cluster, whole)
        document = {
            "group": group,
            "waiting": sum(not one.replayed for one in letters),
            "by_code": dict(Counter(one.code for one in letters)),
            "letters": [_plain(one) for one in letters],
        }
        rows = [
            (
                one.number,
                f"{one.at:%Y-%m-%d %H:%M:%S}",
                one.code,
                _place(one),
                "yes" if one.replayed else "",
                one.detail,
            )
            for one in letters[-SHOWN:]
        ]
        title = f"{group}: {document['waiting']} of {len(letters)} dead letters wait"
        columns = ("number", "when (UTC)", "code", "record", "replayed", "what is wrong")
        emit(document, as_json=json, human=lambda: table(title, columns, rows))

    @command(dlq)
    async def replay(
        group: Group,
        as_: As,
        number: Annotated[list[int] | None, typer.Option("--number", help="Only this one; may be repeated.")] = None,
        code: Annotated[list[str] | None, typer.Option("--code", help="Only of this code; may be repeated.")] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Give dead letters to their group again: all that wait, or those named. Nobody else sees them twice."""
        cluster, whole = _of(Home.find(home), as_, group)
        chosen = deadletters.choose(await deadletters.read(cluster, whole), number or (), code or ())
        count = await deadletters.replay(cluster, whole, chosen)
        document = {"group": group, "replayed": count, "numbers": [one.number for one in chosen]}
        emit(document, as_json=json, human=lambda: err.print(f"{count} dead letters go to {group} again"))


def _of(home: Home, department: str, group: str) -> tuple[Cluster, str]:
    """Kafka as the department, and its group's name there: nobody else may read it."""
    identity = home.identity(department)
    return identity.cluster(home.stack().kafka), group_of(identity.uscc, group)


def _plain(one: DeadLetter) -> dict[str, object]:
    return {
        "number": one.number,
        "at": one.at.isoformat(),
        "code": one.code,
        "detail": one.detail,
        "origin": one.origin.to_json(),
        "bytes": len(one.value),
        "replayed": one.replayed,
    }


def _place(one: DeadLetter) -> str:
    return f"{one.origin.topic}/{one.origin.partition}/{one.origin.offset}"
