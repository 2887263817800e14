"""`deptbus record impact` and `deptbus record notices`: who relied on a licence, and what was said to them."""

from __future__ import annotations

import json as json_
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.tree import Tree

from bus.notices import Notice, Notices
from deploy.commands.options import As, acting
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, out, table

Record = Annotated[str, typer.Argument(help="A record's leaf hash (64 hex digits).")]
OPERATIONS = {"REVOKED": "撤销", "CANCELLED": "注销", "PUNISHED": "吊销", "CORRECTED": "更正"}
_OPENERS = ("who opened", "times", "first (UTC)", "last (UTC)", "what for", "sections", "versions")
_NOTICES = ("when (UTC)", "operation", "item", "licence", "times opened", "derived", "log entry")
SHORT = 12  # hex digits of a hash in a table: enough to tell a department's few apart; --json has all of them


def register(record: typer.Typer) -> None:
    """Adds the commands to `deptbus record`."""

    @command(record)
    async def impact(record_: Record, department: As, home: HomeOption = None, json: Json = False) -> None:
        """Show who relied on a record's licence: who opened it, what was derived from it. The question is logged.

        The record's issuer and auditors see everybody, another department what is its own.
        """
        where = Home.find(home)
        async with acting(where, department) as client:
            found = await client.post_json("/v1/records:impact", {"record": record_})
        emit(found, as_json=json, human=lambda: _show(found, where.names()))

    @command(record)
    async def notices(
        department: As,
        follow: Annotated[bool, typer.Option("--follow", help="Go on, and show what comes.")] = False,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """List what the department was told: licences that it opened or derived from, revoked or corrected since.

        Each notice is verified. With --follow and --json one document a line.
        """
        where = Home.find(home)
        reader = Notices(where.identity(department), where.stack().kafka)
        if follow:
            await reader.run(lambda batch: _lines(batch, as_json=json))
            return
        found: dict[bytes, Notice] = {}

        async def keep(batch: Sequence[Notice]) -> None:
            found.update((notice.id, notice) for notice in batch)

        await reader.drain(keep)
        document = [notice.to_json() for notice in found.values()]
        rows = [_row(notice) for notice in document]
        emit(document, as_json=json, human=lambda: table(f"Notices: {len(rows)}", _NOTICES, rows))


async def _lines(batch: Sequence[Notice], *, as_json: bool) -> None:
    for notice in batch:
        if as_json:
            sys.stdout.write(json_.dumps(notice.to_json(), ensure_ascii=False) + "\n")
        else:
            out.print("  ".join(str(cell) for cell in _row(notice.to_json())), markup=False, highlight=False)
    sys.stdout.flush()


def _row(notice: Mapping[str, Any]) -> list[Any]:
    return [
        _when(notice["time"]),
        _operation(notice["operation"]),
        notice["item"],
        notice["licence"][:SHORT],
        notice["count"] or "",
        [one["record"][:SHORT] for one in notice["derived"]],
        notice["entry"],
    ]


def _show(found: Mapping[str, Any], names: Mapping[str, str]) -> None:
    rows = [
        [
            names.get(one["consumer"], one["consumer"]),
            one["count"],
            _when(one["first"]),
            _when(one["last"]),
            one["purposes"],
            one["sections"],
            len(one["records"]),
        ]
        for one in found["openers"]
    ]
    issuer = names.get(found["issuer"], found["issuer"])
    title = f"{found['item']} {found['licence'][:SHORT]} of {issuer}, {found['status']}"
    table(f"{title}. Who opened it: {len(rows)} (at checkpoint {found['checkpoint']['size']})", _OPENERS, rows)
    if found["derived"]:
        _show_tree(found, names)
    else:
        out.print("Nothing that the bus knows was derived from it.")
    told = {names.get(one["addressee"], one["addressee"]) for one in found["notices"]}
    if told:
        out.print(f"Told of {_operations(found['notices'])}: {', '.join(sorted(told))}", markup=False, highlight=False)


def _show_tree(found: Mapping[str, Any], names: Mapping[str, str]) -> None:
    tree = Tree(f"{len(found['derived'])} records follow from it" + ("" if found["complete"] else ", and more"))
    nodes = {found["licence"]: tree}
    for one in found["derived"]:  # nearest first: what a record hangs on is there before it
        of = names.get(one["issuer"], one["issuer"])
        above = nodes.get(one["parent_licence"], tree)  # a department that sees its own alone may lack what is between
        node = above.add(f"{one['item']} of {of}, {one['status']}: {one['record']}")
        nodes.setdefault(one["licence"], node)
    out.print(tree, highlight=False)


def _operations(notices: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(_operation(one) for one in sorted({notice["operation"] for notice in notices}))


def _operation(operation: str) -> str:
    return f"{operation} {OPERATIONS.get(operation, '')}".strip()


def _when(time: str) -> str:
    return time[:19].replace("T", " ")
