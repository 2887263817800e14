"""`deptbus audit scorecard`: what was asked of a department and of others by it, and what came of it (信息共享评估)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from bus.gateway.scorecards import DAYS, MOST_DAYS
from deploy.commands.filters import Investigation, Reader, reader_of
from deploy.commands.options import Caller, asking
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, out, table
from schemas.catalogue import Catalogue

WIDTH = 10  # of a bar
_SIDES = {"provider": "作为提供方 asked of us", "consumer": "作为需求方 asked by us"}
_EXCHANGES = (
    *("对方 counterpart", "事项 item", "需求 demanded", "共享 granted", "共享率", "拒绝 refused", "原因 codes"),
    "无协议→达成 asked, agreed",
)
_FRESHNESS = (
    "提供方 issuer",
    "事项 item",
    "入库 admitted",
    "最新业务 event",
    "最新入库 admission",
    "时滞 lag p50, p95",
)


def register_scorecard(audit: typer.Typer) -> None:
    """Adds the command to the `audit` group."""

    @command(audit)
    async def scorecard(
        department: Caller = None,
        whose: Annotated[
            str | None, typer.Option("--department", help="Another's, for auditors: a name or a credit code.")
        ] = None,
        since: Annotated[str | None, typer.Option("--since", help=f"First day (default: of {DAYS} days).")] = None,
        until: Annotated[
            str | None, typer.Option("--until", help=f"Last day (default: today); at most {MOST_DAYS} days.")
        ] = None,
        reader: Reader = None,
        investigation: Investigation = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Show a department's sharing scorecard (信息共享评估): demanded, granted, refused, how fast, how fresh.

        And what was collected again although the bus had it (重复采集). The question is logged.
        """
        where = Home.find(home)
        body = {
            "department": None if whose is None else where.uscc_of(whose),
            "since": since,
            "until": until,
        } | reader_of(reader, investigation)
        async with asking(where, department) as client:
            card = await client.post_json("/v1/scorecards:show", body)
        emit(card, as_json=json, human=lambda: _show(card, where.names()))


def _show(card: Mapping[str, Any], names: Mapping[str, str]) -> None:
    whose = names.get(card["department"], card["department"])
    out.print(
        f"信息共享评估: {whose}, {card['since']} to {card['until']}, at checkpoint {card['checkpoint']['size']}",
        markup=False,
        highlight=False,
    )
    for role, title in _SIDES.items():
        rows = [_exchange(one, names) for one in card["exchanges"] if one["role"] == role]
        table(f"{title}: {len(rows)}", _EXCHANGES, rows)
    table("数据时效 freshness", _FRESHNESS, [_fresh(one, names) for one in card["freshness"]])
    for line in _sentences(card):
        out.print(line, markup=False, highlight=False)


def _exchange(one: Mapping[str, Any], names: Mapping[str, str]) -> list[Any]:
    answer = one["answer"]
    return [
        names.get(one["counterpart"], one["counterpart"]),
        _item(one["item"]),
        one["demanded"],
        one["granted"],
        bar(one["granted"], one["demanded"]),
        one["refused"],
        [f"{code} {count}" for code, count in sorted(one["codes"].items(), key=lambda pair: (-pair[1], pair[0]))],
        "" if answer is None else _answered(answer),
    ]


def _answered(answer: Mapping[str, str | None]) -> str:
    """How long an agreement was waited for."""
    asked, agreed = answer["asked"], answer["agreed"]
    assert asked is not None
    if agreed is None:
        return f"since {asked[:10]}: 未达成"
    return str(datetime.fromisoformat(agreed) - datetime.fromisoformat(asked)).partition(".")[0]


def bar(part: int, whole: int) -> str:
    """A share as a bar and in per cent: rounded down, so that only all of it is 100."""
    if not whole:
        return ""
    full = part * WIDTH // whole
    return "█" * full + "░" * (WIDTH - full) + f" {part * 100 // whole}%"


def _fresh(one: Mapping[str, Any], names: Mapping[str, str]) -> list[Any]:
    lag = one["occurred_to_admitted_s"]
    return [
        names.get(one["issuer"], one["issuer"]),
        _item(one["item"]),
        one["records"],
        one["newest_occurred_at"][:19].replace("T", " "),
        one["newest_admitted_at"][:19].replace("T", " "),
        f"{lag['p50']:.0f} s, {lag['p95']:.0f} s",
    ]


def _sentences(card: Mapping[str, Any]) -> Sequence[str]:
    logged, again = card["decided_to_logged_ms"], card["collected_again"]
    lines = []
    if logged is not None:
        lines.append(
            f"响应 response: decision to log, {logged['decisions']} of {logged['day']}: "
            f"p50 {logged['p50']:.0f} ms, p95 {logged['p95']:.0f} ms"
        )
    unopened, unnamed = again["source_unopened"], again["source_unnamed"]
    lines.append(
        f"重复采集 collected again: of {again['issued']} new certificates {unopened['records']} rest on a licence that "
        f"was never opened; at most {unnamed['records']} more name none though others' could be asked for"
    )
    lines += [f"  {record}" for record in unopened["examples"]]
    if not again["complete"]:
        lines.append("  (not all of them were looked at: ask for fewer days, or again later)")
    return lines


def _item(name: str) -> str:
    item = Catalogue.load().items.get(name)
    return name if item is None else f"{item.zh} {name}"
