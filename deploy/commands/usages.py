"""`deptbus audit subject` and `deptbus audit tracker`: who opened a person's or a firm's data, asked by a portal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from deploy.commands.filters import Investigation, reader_of, time_of
from deploy.commands.options import As, Caller, Subject, acting, asking, subject
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, table

_COLUMNS = (
    *("时间 when (UTC)", "使用方 who", "提供方 whose", "事项 item", "目的 what for", "依据 ground", "内容 sections"),
    *("状态", "log entry"),
)


def register_usages(audit: typer.Typer) -> None:
    """Adds the commands to the `audit` group."""

    @command(audit, name="subject")
    async def subject_(
        about: Subject,
        department: Caller = None,
        since: Annotated[str | None, typer.Option("--since", help="A day, or a time with its offset.")] = None,
        until: Annotated[str | None, typer.Option("--until", help="The same, exclusive.")] = None,
        after: Annotated[int, typer.Option("--after", help="Go on behind a page: its `next`.")] = -1,
        limit: Annotated[int, typer.Option("--limit", help="At most so many usages, 1 to 1,000.")] = 100,
        reader: Annotated[str | None, typer.Option("--reader", help="Who asks at the portal, by its own id.")] = None,
        investigation: Investigation = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Show who opened a subject's data, when, for what, on which ground. For portals and auditors; it is logged.

        `deptbus audit proof` gets the proof of an entry: the subject's receipt.
        """
        where = Home.find(home)
        body = {
            "subject": subject(about),
            "since": None if since is None else time_of("since", since).isoformat(),
            "until": None if until is None else time_of("until", until).isoformat(),
            "after": after,
            "limit": limit,
        } | reader_of(reader, investigation)
        async with asking(where, department) as client:
            page = await client.post_json("/v1/subjects/usages:query", body)
        rows = [_row(one) for one in page["usages"]]
        title = f"{len(rows)} usages at checkpoint {page['checkpoint']['size']}" + (
            "" if page["next"] is None else f" (go on with --after {page['next']})"
        )
        emit(page, as_json=json, human=lambda: table(title, _COLUMNS, rows))

    @command(audit)
    async def tracker(
        department: As,
        port: Annotated[int, typer.Option("--port", min=1, max=65_535, help="On loopback.")] = 8_480,
        home: HomeOption = None,
    ) -> None:
        """Serve a portal's own systems in the shape of Estonia's data tracker: findUsage, usagePeriod, heartbeat.

        Whoever reaches the port asks as the portal. Ctrl-C ends it.
        """
        from adapters import tracker as data_tracker  # a server: of no use to those who ask
        from deploy.probes import Served, serve

        where = Home.find(home)
        async with acting(where, department) as client:
            err.print(f"http://127.0.0.1:{port}/v2/heartbeat: as {department}")
            await serve(Served(data_tracker.create_app(client), port), work=_until_told())


async def _until_told() -> None:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await told.wait()


def _row(one: Mapping[str, Any]) -> list[Any]:
    onward = one["onward_to_name"] or one["onward_to"]
    return [
        one["logged_at"][:19].replace("T", " "),
        (one["receiver_name"] or one["receiver"]) + (f" → {onward}" if onward else ""),
        one["provider_name"] or one["provider"],
        one["item_zh"] or one["item"],
        one["purpose_zh"] or one["purpose"],
        " ".join(part for part in (one["ground_zh"] or one["ground"], one["citation"]) if part),
        ", ".join(one["sections"]) + (f" (批量 set of {one['set']['size']})" if one["set"] else ""),
        "已撤回 voided" if one["voided"] else "",
        one["entry"],
    ]
