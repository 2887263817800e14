"""`deptbus audit readings` and `deptbus audit embargo`: when departments learn that auditors read about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from bus import tables
from deploy.commands.filters import time_of
from deploy.commands.options import Caller, asking
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, facts, table

Who = Annotated[str, typer.Option("--operator", help="With --as: your own id in the department. It stays in the log.")]

_READINGS = ("read (UTC+8)", "by", "operator", "what", "investigation", "shown from", "entry")
_EMBARGOES = ("id", "investigation", "until (UTC+8)", "proposed by", "confirmed by")


def register_embargo(audit: typer.Typer) -> None:
    """Adds the commands to the `audit` group."""
    embargo = typer.Typer(help="How long readings stay between auditors (保密期).", no_args_is_help=True)
    audit.add_typer(embargo, name="embargo")

    @command(audit)
    async def readings(
        department: Caller = None,
        limit: Annotated[int, typer.Option("--limit", help="At most so many, 1 to 1,000.")] = 100,
        before: Annotated[int | None, typer.Option("--before", help="Go on behind a page: its `next`.")] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Who of the auditors read entries about us: newest first, each when its embargo is over."""
        where = Home.find(home)
        body = {"limit": limit} | ({} if before is None else {"before": before})
        async with asking(where, department) as client:
            page = await client.post_json("/v1/audit/readings:list", body)
        names = where.names()
        rows = [
            [
                tables.civil(one["at"])[:19],
                names.get(one["reader"], one["reader"]),
                *(one[name] for name in ("operator", "what", "investigation")),
                tables.civil(one["shown_from"])[:19],
                one["entry"][:16],
            ]
            for one in page["readings"]
        ]
        title = f"{len(rows)} readings" + ("" if page["next"] is None else f" (go on with --before {page['next']})")
        emit(page, as_json=json, human=lambda: table(title, _READINGS, rows))

    @command(embargo)
    async def propose(
        investigation: Annotated[str, typer.Option("--investigation", help="As the readings name it.")],
        until: Annotated[str, typer.Option("--until", help="A day or a time with its offset; at most 180 days away.")],
        department: Caller = None,
        operator: Who = "",
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Propose an embargo. It counts when a second person has confirmed it."""
        body = {"investigation": investigation, "until": time_of("until", until).isoformat(), "operator": operator}
        await _act(home, department, "/v1/audit/embargoes", body, as_json=json)

    @command(embargo)
    async def confirm(
        number: Annotated[str, typer.Argument(help="The embargo's id.", metavar="ID")],
        department: Caller = None,
        operator: Who = "",
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Confirm an embargo: not by who proposed it, nor by who has read for the investigation."""
        await _act(home, department, "/v1/audit/embargoes:confirm", {"id": number, "operator": operator}, as_json=json)

    @command(embargo, name="list")
    async def list_(department: Caller = None, home: HomeOption = None, json: Json = False) -> None:
        """All embargoes, newest first. For auditors."""
        where = Home.find(home)
        async with asking(where, department) as client:
            found = await client.post_json("/v1/audit/embargoes:list", {})
        names = where.names()
        rows = [
            [
                one["id"],
                one["investigation"],
                tables.civil(one["until"])[:19],
                _person(one, "proposed", names),
                _person(one, "confirmed", names),
            ]
            for one in found
        ]
        emit(found, as_json=json, human=lambda: table(f"{len(rows)} embargoes", _EMBARGOES, rows))


async def _act(home: Any, department: str | None, path: str, body: Mapping[str, Any], *, as_json: bool) -> None:
    async with asking(Home.find(home), department) as client:
        made = await client.post_json(path, body)
    emit(made, as_json=as_json, human=lambda: facts("Embargo", made))


def _person(embargo: Mapping[str, Any], did: str, names: Mapping[str, str]) -> str:
    by = embargo[f"{did}_by"]
    return f"{names.get(by, by)}: {embargo[f'{did}_operator']}" if by else ""
