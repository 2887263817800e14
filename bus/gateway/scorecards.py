"""A department's scorecard (信息共享评估): what was asked of it and of others on some days, and what came of it.

Figures, and no mark made of them: whoever weighs them says how. All follow from the log and the licence index, so
nobody reports about oneself. Counts of the log hold at the checkpoint that the answer names, those of the licence index
now. Days are civil days (UTC+8), both ends counted.

**Exchanges**, by counterpart and item, counted in decisions, one a record asked for: `demanded` (需求); `granted`, a
section was opened; `refused`, a section was refused (a decision can be both); `codes`, decisions by code of refusal;
`voided`, taken back before a key left, and counted as refused with their code. `demanded - granted` are records that
the bus had and the asker did not get.

**Response**. A gateway decides by itself, so two times are told apart. `answer`: where there was no agreement
(AGREEMENT_NONE), since when it was asked (the first such refusal of these days), and when one was put to use: the log's
first activation of an agreement thereafter, null while there is none. `decided_to_logged_ms`: from a decision until the
log had it, after which its key leaves, of the first thousand decisions, on either side, of the last day that has some.
It is the difference of two clocks, the gateway's and the broker's. The log does not know when a request arrived.

**Freshness**, by item and issuer, of records admitted on these days: how many; the newest one's event and admission;
`occurred_to_admitted_s`, from the event that a record tells of until it was admitted. The catalogue states no interval
of updates (更新周期), so age is not compared with one.

**Collected again** although the bus had it (重复采集), of certificates that the department issued on these days:
`source_unopened` name a licence of somebody else as what they rest on, which the department never opened: what they say
was taken from the citizen or a copy. `source_unnamed` name none though an agreement for another item was in force: at
most so many. More can't be known here, on purpose: a subject has another pseudonym under each item, so the bus
does not see that a holder of one licence has another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from statistics import quantiles
from typing import Any, Literal

import asyncpg
import msgspec

from bus.db import queries
from bus.gateway import control, embargoes, rulebook, trail
from bus.gateway.auditing import NOBODY
from bus.gateway.embargoes import Connect, LogReading, ReaderBody
from bus.gateway.shapes import CheckpointAnswer, Codes, Count, CreditCode, Hash, PercentilesAnswer, Time
from bus.gateway.trail import Filter, Published
from bus.httpsig import Signed
from bus.terms import Word, asked, term
from consent.decide import CHINA
from consent.lifecycle import Act
from schemas.errors import Code, Misuse, Refused

DAYS = 30
MOST_DAYS = 92  # a quarter: records are counted one by one
SAMPLE = 1_000  # decisions whose time is looked at
MOST_ANSWERS = 100  # demands without an agreement that are followed, those with most refusals first
MOST_NAMED = 20_000  # sources of new certificates that are looked for in the log
EXAMPLES = 20
WHAT = "scorecards:show"

SIDES: Mapping[str, str] = {"provider": "consumer", "consumer": "provider"}
DECISIONS: Word = ("kind", "Decision")
GRANTED: Word = ("decision", "PERMIT")
REFUSED: Word = ("decision", "REFUSE")

SQL = queries(Path(__file__).with_name("scorecards.sql"))


class ScorecardBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/scorecards:show`: by default the caller's, of the last 30 days. Auditors may name a department."""

    department: CreditCode | None = None
    since: date | None = None
    until: date | None = None
    reader: ReaderBody = NOBODY


class AgreedAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Since when an agreement was missing, and when there was one."""

    asked: Time
    agreed: Time | None


class ExchangeAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What one department asked of another for one item, in decisions."""

    role: Literal["provider", "consumer"]
    counterpart: CreditCode
    item: str
    demanded: Count
    granted: Count
    refused: Count
    voided: Count
    codes: Codes
    answer: AgreedAnswer | None


class LoggingAnswer(PercentilesAnswer, forbid_unknown_fields=True, kw_only=True):
    """From a decision until the log had it, in milliseconds, of some decisions of a day."""

    day: date
    decisions: Count


class FreshnessAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An issuer's records of an item, and how long after their events they were admitted."""

    issuer: CreditCode
    item: str
    records: Count
    newest_occurred_at: Time
    newest_admitted_at: Time
    occurred_to_admitted_s: PercentilesAnswer


class ExamplesAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How many records, and the leaf hashes of some."""

    records: Count
    examples: list[Hash]


class CollectedAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """重复采集. `complete` is false if not all certificates were looked at."""

    issued: Count
    with_source: Count
    source_unopened: ExamplesAnswer
    source_unnamed: ExamplesAnswer
    complete: bool


class ScorecardAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A department's scorecard, from the first to the last day."""

    checkpoint: CheckpointAnswer
    department: CreditCode
    since: date
    until: date
    exchanges: list[ExchangeAnswer]
    decided_to_logged_ms: LoggingAnswer | None
    freshness: list[FreshnessAnswer]
    collected_again: CollectedAnswer


@dataclass(slots=True)
class Exchange:
    """What one department asked of another for one item. Counts are of decisions."""

    role: str
    counterpart: str
    item: str
    demanded: int = 0
    granted: int = 0
    refused: int = 0
    voided: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    answer: dict[str, str | None] | None = None

    def void(self, code: str, *, refused_already: bool) -> None:
        """Takes back a decision that had opened something."""
        self.granted -= 1
        self.voided += 1
        self.refused += not refused_already
        self.codes[code] = self.codes.get(code, 0) + 1

    def to_json(self) -> dict[str, Any]:
        """As the answer shows it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Civil days (UTC+8), both ends counted."""

    first: date
    last: date

    @classmethod
    def of(cls, body: ScorecardBody, today: date) -> Span:
        """Raises `Misuse` (REQUEST_MALFORMED) if there are none or too many."""
        last = body.until or today
        first = body.since or last - timedelta(days=DAYS - 1)
        if not timedelta(0) <= last - first < timedelta(days=MOST_DAYS):
            raise Misuse(Code.REQUEST_MALFORMED, f"since and until are the first and the last of 1 to {MOST_DAYS} days")
        return cls(first=first, last=last)

    @property
    def begin(self) -> datetime:
        """Its first moment."""
        return datetime.combine(self.first, time.min, CHINA)

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        return datetime.combine(self.last + timedelta(days=1), time.min, CHINA)

    def filter(self, *words: Word) -> Filter:
        """The log's entries of these days that have all these words."""
        return Filter(groups=tuple(frozenset([word]) for word in words), since=self.begin, until=self.end)


class Scorecards:
    """The question about sharing, over a gateway's connections."""

    def __init__(self, connect: Connect, log_reading: LogReading) -> None:
        self._connect = connect
        self._log_reading = log_reading

    async def show(self, signed: Signed, body: ScorecardBody) -> Any:
        """The scorecard, in the log before it is answered. See the module for what each figure says.

        Raises `Refused` (REQUEST_FORBIDDEN) for another's if the caller is no auditor, `Misuse` as `Span.of`.
        """
        embargoes.check_reader(signed, body.reader)
        caller = signed.caller.uscc
        whose = caller if body.department is None else asked("party", body.department)[1]
        span = Span.of(body, datetime.now(CHINA).date())
        async with self._connect("making a scorecard") as connection:
            if whose != caller and not await control.is_auditor(connection, caller):
                raise Refused(Code.REQUEST_FORBIDDEN, "a department is shown its own scorecard, an auditor any")
            at = await trail.published(connection)
            exchanges = await _exchanges(connection, whose, span, at)
            logging = await _decided_to_logged(connection, whose, span, at)
            pairs = {(one.counterpart, one.item) for one in exchanges if one.role == "consumer"}
            freshness = await _freshness(connection, whose, span, pairs)
            again = await _collected_again(connection, whose, span, at)
        others = [whose] if whose != caller else []
        await embargoes.tell(self._connect, self._log_reading, signed, body.reader, WHAT, [], len(exchanges), others)
        return {
            "checkpoint": at.to_json(),
            "department": whose,
            "since": span.first.isoformat(),
            "until": span.last.isoformat(),
            "exchanges": [one.to_json() for one in exchanges],
            "decided_to_logged_ms": logging,
            "freshness": freshness,
            "collected_again": again,
        }


async def _exchanges(connection: asyncpg.Connection, whose: str, span: Span, at: Published) -> list[Exchange]:
    """On both sides; the most demanded first."""
    items = await trail.listed(connection, "item")
    measures = [DECISIONS, GRANTED, REFUSED, *await trail.listed(connection, "code")]
    found: dict[tuple[str, str, str], Exchange] = {}
    for role, other in SIDES.items():
        axes = (items, await trail.listed(connection, other), measures)
        counted = await trail.cross(connection, span.filter(DECISIONS, (role, whose)), at, axes)
        for ((_, item), (_, counterpart), measure), count in counted.items():
            one = found.setdefault((role, counterpart, item), Exchange(role, counterpart, item))
            _count(one, measure, count)
    await _take_back(connection, whose, span, at, found)
    made = sorted(found.values(), key=lambda one: (one.role, -one.demanded, one.counterpart, one.item))
    unagreed = sorted(
        (one for one in made if one.codes.get(Code.AGREEMENT_NONE)), key=lambda one: -one.codes[Code.AGREEMENT_NONE]
    )
    for one in unagreed[:MOST_ANSWERS]:
        one.answer = await _answer(connection, whose, span, at, one)
    return made


def _count(one: Exchange, measure: Word, count: int) -> None:
    match measure:
        case ("kind", _):
            one.demanded = count
        case ("decision", "PERMIT"):
            one.granted = count
        case ("decision", _):
            one.refused = count
        case (_, code) if code != Code.PERMIT:
            one.codes[code] = count


async def _take_back(
    connection: asyncpg.Connection,
    whose: str,
    span: Span,
    at: Published,
    found: Mapping[tuple[str, str, str], Exchange],
) -> None:
    """Decisions that were voided opened nothing. There are few: one a rule that changed in that very moment."""
    wanted = Filter(groups=(frozenset([("kind", "Voided")]),), since=span.begin)
    async for page in trail.pages(connection, wanted, at):
        codes = {one.entry.body["entry"]: one.entry.body["code"] for one in page}
        entries = frozenset(("entry", entry.hex()) for entry in codes)
        decided = Filter(groups=(entries, frozenset([("party", whose)])), since=span.begin, until=span.end)
        async for decisions in trail.pages(connection, decided, at):
            for one in decisions:
                body = one.entry.body
                refused = any(section["code"] != Code.PERMIT for section in body["sections"])
                for role, other in SIDES.items():
                    if (exchange := found.get((role, body[other], body["item"]))) and body[role] == whose:
                        exchange.void(codes[one.entry.leaf_hash], refused_already=refused)


async def _answer(
    connection: asyncpg.Connection, whose: str, span: Span, at: Published, one: Exchange
) -> dict[str, str | None] | None:
    """Since when an agreement was missing, and when the log has the one that was made then."""
    between: tuple[Word, ...] = ((one.role, whose), (SIDES[one.role], one.counterpart), ("item", one.item))
    refused, _ = await trail.page(connection, span.filter(*between, ("code", Code.AGREEMENT_NONE.value)), at, -1, 1)
    if not refused:
        return None
    since = refused[0].stored
    revisions = Filter(groups=tuple(frozenset([word]) for word in (*between, ("kind", "Revision"))))
    made: int | None = since.index
    while made is not None:
        found, made = await trail.page(connection, revisions, at, made, EXAMPLES)
        for revision in found:
            body = revision.entry.body
            if (body["kind"], body["act"]) == ("agreement", Act.ACTIVATE):
                return {"asked": since.logged_at.isoformat(), "agreed": revision.stored.logged_at.isoformat()}
    return {"asked": since.logged_at.isoformat(), "agreed": None}


async def _decided_to_logged(
    connection: asyncpg.Connection, whose: str, span: Span, at: Published
) -> dict[str, Any] | None:
    """Of the first decisions of the last day that has some, in milliseconds."""
    days = await trail.counts(connection, span.filter(DECISIONS, ("party", whose)), at)
    if not days:
        return None
    last, _ = days[-1]
    day = Span(first=last, last=last).filter(DECISIONS, ("party", whose))
    found, _ = await trail.page(connection, day, at, -1, SAMPLE)
    taken = [(one.stored.logged_at - one.entry.time) / timedelta(milliseconds=1) for one in found]
    return {"day": last.isoformat(), "decisions": len(taken), **_percentiles(taken)} if taken else None


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    """`p50` and `p95`; of one value they are that one."""
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    return {"p50": round(cuts[49], 3), "p95": round(cuts[94], 3)}


async def _freshness(
    connection: asyncpg.Connection, whose: str, span: Span, of_others: set[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Of the department's own items, and of those that it asked others for."""
    issuers, items = [issuer for issuer, _ in of_others], [item for _, item in of_others]
    rows = await connection.fetch(SQL["freshness"], span.begin, span.end, whose, issuers, items)
    return [
        {
            "issuer": row["issuer"],
            "item": row["item"],
            "records": row["records"],
            "newest_occurred_at": row["newest_occurred_at"].astimezone(UTC).isoformat(),
            "newest_admitted_at": row["newest_admitted_at"].astimezone(UTC).isoformat(),
            "occurred_to_admitted_s": {
                name: round(value.total_seconds(), 3)
                for name, value in zip(("p50", "p95"), row["percentiles"], strict=True)
            },
        }
        for row in rows
    ]


async def _collected_again(connection: asyncpg.Connection, whose: str, span: Span, at: Published) -> dict[str, Any]:
    """Counts of records, and the leaf hashes of some."""
    days = (span.begin, span.end, whose)
    issued = await connection.fetchrow(SQL["issued"], *days)
    agreed = await _agreed(connection, whose)
    unnamed = (
        await connection.fetch(SQL["source_unnamed"], *days, *map(list, zip(*agreed, strict=True)), EXAMPLES)
        if agreed
        else []
    )
    named = await connection.fetch(SQL["named"], *days, MOST_NAMED + 1)
    unopened = await _unopened(connection, whose, at, named[:MOST_NAMED])
    return {
        "issued": issued["issued"],
        "with_source": issued["with_source"],
        "source_unopened": {"records": len(unopened), "examples": unopened[:EXAMPLES]},
        "source_unnamed": {
            "records": unnamed[0]["total"] if unnamed else 0,
            "examples": [row["record"].hex() for row in unnamed],
        },
        "complete": issued["complete"] and len(named) <= MOST_NAMED,
    }


async def _agreed(connection: asyncpg.Connection, whose: str) -> list[tuple[str, datetime, datetime]]:
    """Items that the department may receive, since when and until when: in use, valid, and not yet ended."""
    rows = await connection.fetch(SQL["agreements"], whose, rulebook.LIST_LIMIT)
    return [(row["item"], row["begin"], row["end"]) for row in rows]


async def _unopened(connection: asyncpg.Connection, whose: str, at: Published, named: Sequence[Any]) -> list[str]:
    """Records that name a licence of which the department opened nothing, in any version, by the checkpoint.

    One that it opened and that was taken back counts as opened.
    """
    licences = sorted({row["licence"] for row in named})
    terms = [term(("licence", licence.hex())) for licence in licences]
    also = [term(("consumer", whose)), term(GRANTED)]
    newest, covered = trail.edge(at)
    rows = await connection.fetch(SQL["opened"], licences, terms, *also, newest, covered)
    opened = {row["licence"] for row in rows}
    return sorted({row["record"].hex() for row in named if row["licence"] not in opened})
