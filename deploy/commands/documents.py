"""What commands about agreements, corrections and disputes have in common: acts, and documents as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from consent.deadlines import Standing
from consent.lifecycle import Act
from deploy.commands.options import asking
from deploy.home import Home
from deploy.output import emit, facts, table

Reason = Annotated[str, typer.Option("--reason", help="Why; no personal id in it. Some acts need one.")]

_COLOURS = {Standing.RUNNING: "green", Standing.LATE: "bold red", Standing.UNKNOWN: "yellow"}


async def ask(
    where: Home, department: str | None, path: str, body: Mapping[str, Any], title: str, *, as_json: bool
) -> None:
    """Posts a request whose answer is one document, and shows it."""
    async with asking(where, department) as client:
        answer = await client.post_json(path, dict(body))
    emit(answer, as_json=as_json, human=lambda: show(title, answer))


async def act(
    where: Home, department: str | None, kind: str, identifier: str, acts: Sequence[Act], reason: str, *, as_json: bool
) -> None:
    """Does acts to a document, one after the other, and shows it after the last. What was done stays done."""
    answer: Any = None
    async with asking(where, department) as client:
        for one in acts:
            body = {"id": identifier, "act": one.value, "reason": reason}
            answer = await client.post_json(f"/v1/{kind}s:act", body)
    emit(answer, as_json=as_json, human=lambda: show(kind.capitalize(), answer))


async def list_all(where: Home, department: str | None, kind: str, columns: Sequence[str], *, as_json: bool) -> None:
    """Shows the department's documents of a kind, each with its deadline."""
    async with asking(where, department) as client:
        found = await client.post_json(f"/v1/{kind}s:list", {})
    names = where.names()
    rows = [[*(names.get(str(one[name]), one[name]) for name in columns), deadline(one["deadline"])] for one in found]
    emit(found, as_json=as_json, human=lambda: table(f"{kind.capitalize()}s", [*columns, "deadline"], rows))


def deadline(one: Mapping[str, Any] | None) -> Text:
    """A deadline as a person reads it: who is late sees red."""
    if one is None:
        return Text()
    standing = Standing(one["standing"])
    day = one["due"] or "the calendar does not reach so far"
    said = Text(f"{standing.name} {one['limit']}: {day}", _COLOURS[standing])
    return said if one["verified"] else Text.assemble(said, " (article not verified)")


def show(title: str, answer: Mapping[str, Any]) -> None:
    """One document for a person, with its deadline and its acts, as far as the answer has them."""
    shown = dict(answer)
    acts = shown.pop("acts", [])
    if "deadline" in shown:
        shown["deadline"] = deadline(shown["deadline"])
    facts(title, shown)
    if acts:
        show_acts(acts)


def show_acts(acts: Sequence[Mapping[str, Any]]) -> None:
    """What was done to a document, in order."""
    columns = ("at", "act", "state", "author", "reason")
    table("Acts", columns, [[one[name] for name in columns] for one in acts])
