"""The trail: finding entries of the log by what they say, at a checkpoint.

An answer is made of the log's own bytes, at places that the index names (`bus/terms.py`), and holds for one published
checkpoint: what came later is not in it. A cursor is an entry's place in the log, so pages neither skip nor repeat
while entries arrive.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from bus import audit, tilestore
from bus.audit import KINDS, Entry
from bus.db import queries
from bus.terms import LISTED, Word, bit, places, term, words
from bus.tilestore import Stored
from bus.tlog.checkpoint import Checkpoint
from bus.tlog.tiles import WIDTH
from consent.decide import CHINA
from schemas.errors import Code, Malformed, Misuse, Unavailable

PAGE = 1_000
FIRST_ROWS, MOST_ROWS = 256, 8_192  # of the index at once: a page is mostly in the first, a rare pair is soon found
RARE = 2_000  # rows of the index: below this it does not matter which group leads
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(9999, 1, 1)
MOST_CELLS = 400_000  # values and days that are counted at once: a thousand values in a year, and 30 MB of answer

SQL = queries(Path(__file__).with_name("trail.sql"))

Group = frozenset[Word]  # an entry must have one of these words
Place = tuple[date, int]  # day and bundle of a row of the index
ANY_KIND: Group = frozenset(("kind", kind) for kind in KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is looked for: one word of each group, and the log's time, from `since` until before `until`."""

    groups: tuple[Group, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        """Raises `Misuse` (REQUEST_MALFORMED) for a time without its offset, or of no log."""
        for name, when in (("since", self.since), ("until", self.until)):
            if when is not None and (when.tzinfo is None or not FIRST_DAY.year < when.year < LAST_DAY.year):
                raise Misuse(
                    Code.REQUEST_MALFORMED, f"{name} is a time with its offset, such as 2026-03-01T00:00:00+08:00"
                )

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last civil day (UTC+8) that may hold one."""
        first = FIRST_DAY if self.since is None else self.since.astimezone(CHINA).date()
        last = LAST_DAY if self.until is None else self.until.astimezone(CHINA).date()
        return first, last

    @property
    def whole_days(self) -> tuple[date, date]:
        """The first and the last civil day. Raises `Misuse` (REQUEST_MALFORMED) if it begins or ends within one."""
        ends = [when.astimezone(CHINA) for when in (self.since, self.until) if when is not None]
        if any(end.time() != time.min for end in ends):
            raise Misuse(
                Code.REQUEST_MALFORMED,
                "counts are of whole days: since and until are midnights of UTC+8, such as 2026-03-01T00:00:00+08:00",
            )
        first, last = self.days
        return first, last if self.until is None else last - timedelta(days=1)

    def met_by(self, stored: Stored, entry: Entry) -> bool:
        """Whether it is truly so: the index's numbers are hashes cut short."""
        if self.since is not None and stored.logged_at < self.since:
            return False
        if self.until is not None and stored.logged_at >= self.until:
            return False
        said = words(entry)
        return all(not group.isdisjoint(said) for group in self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The newest checkpoint. `note` is signed; `cosigned` has the witnesses' signatures too, on an older size.

    Entries below `minimum` are not served any more (`bus.recorder.log.LogKeys.keep_years`).
    """

    size: int
    root: bytes
    note: bytes
    cosigned_size: int
    cosigned: bytes | None
    minimum: int

    @property
    def origin(self) -> str:
        """The log's name: `<bus origin>/log/<region>`."""
        return self.note.partition(b"\n")[0].decode()

    def to_json(self) -> dict[str, Any]:
        """As every answer names it."""
        return Checkpoint(self.origin, self.size, self.root).to_json()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An entry that was looked for."""

    stored: Stored
    entry: Entry

    def to_json(self) -> dict[str, Any]:
        """As every answer shows an entry."""
        return audit.document(self.entry, self.stored.index, self.stored.logged_at)


async def published(connection: asyncpg.Connection) -> Published:
    """Raises `Unavailable` (AUDIT_STALLED) if nothing was published yet, or what was is not all stored."""
    row = await connection.fetchrow(SQL["checkpoint"])
    if row is None:
        raise Unavailable(Code.AUDIT_STALLED, "the log has no checkpoint yet: see that a recorder runs")
    fields = dict(row)
    if (stored := fields.pop("stored")) < row["size"]:  # what is not there yet would be taken for what never was
        raise Unavailable(
            Code.AUDIT_STALLED, f"the log is being read again, {stored} of {row['size']} entries: ask again later"
        )
    return Published(**fields)


async def page(
    connection: asyncpg.Connection, wanted: Filter, at: Published, after: int, limit: int
) -> tuple[list[Found], int | None]:
    """The first `limit` entries behind the place `after`, of what the checkpoint covers; and the next page's cursor.

    No cursor: there are no more now.
    """
    limit, after = min(max(limit, 1), PAGE), min(after, at.size)
    found: list[Found] = []
    async for indices in _places(connection, wanted, at.size, max(after, at.minimum - 1)):
        for begin in range(0, len(indices), limit):  # no more entries are read than a page has
            for stored in await tilestore.entries(connection, indices[begin : begin + limit]):
                entry = audit.parse(stored.value)[0]
                if wanted.met_by(stored, entry):
                    found.append(Found(stored=stored, entry=entry))
                if len(found) == limit:
                    return found, stored.index
    return found, None


async def pages(connection: asyncpg.Connection, wanted: Filter, at: Published) -> AsyncIterator[list[Found]]:
    """All pages of what a checkpoint covers, none of them empty."""
    after: int | None = -1
    while after is not None:
        found, after = await page(connection, wanted, at, after, PAGE)
        if found:
            yield found


def parties(found: Iterable[Found]) -> set[str]:
    """The departments that these entries concern, on either side."""
    return {value for one in found for name, value in words(one.entry) if name == "party"}


async def counts(connection: asyncpg.Connection, wanted: Filter, at: Published) -> list[tuple[date, int]]:
    """Entries a civil day (UTC+8), of what the checkpoint covers: days that have some.

    The index is believed: 64 bits of a hash tell the log's words apart. Raises `Misuse` as `Filter.whole_days`.
    """
    rows = await connection.fetch(SQL["counts"], *_matching(wanted, at))
    return [(row["day"], row["count"]) for row in rows]


async def counts_by(
    connection: asyncpg.Connection, wanted: Filter, at: Published, dimension: str, today: date
) -> list[tuple[date, str, int]]:
    """The same for each value of a dimension with few; most entries first. An entry may have several values, or none.

    Raises `Misuse` as `Filter.whole_days` and for a dimension of many values; `Malformed` (REQUEST_TOO_LARGE).
    """
    if dimension not in LISTED:
        raise Misuse(Code.REQUEST_MALFORMED, f"by is one of: {', '.join(sorted(LISTED))}")
    first, last = wanted.whole_days
    opened = await connection.fetchval(SQL["first_day"]) or today
    days = max((min(last, today) - max(first, opened)).days + 1, 1)
    values = [row["value"] for row in await connection.fetch(SQL["values"], dimension, MOST_CELLS + 1)]
    if len(values) * days > MOST_CELLS:
        raise Malformed(
            Code.REQUEST_TOO_LARGE,
            f"{days} days of {len(values)} values of {dimension}: ask for {MOST_CELLS // len(values)} days at once, "
            "with since and until",
        )
    terms = [term((dimension, value)) for value in values]
    rows = await connection.fetch(SQL["counts_by"], *_matching(wanted, at), terms, values)
    return [(row["day"], row["value"], row["count"]) for row in rows]


async def uses(
    connection: asyncpg.Connection, rules: Mapping[Word, UUID], at: Published
) -> dict[UUID, tuple[int, date]]:
    """Of each rule, known by the words of its revisions: in how many entries something was opened under it, and the
    last civil day (UTC+8). Rules that opened nothing are left out. The index is believed, as by `counts`.
    """
    oldest, before = divmod(at.minimum, WIDTH)
    rows = await connection.fetch(
        SQL["uses"],
        [term(word) for word in rules],
        list(rules.values()),
        term(("decision", "PERMIT")),
        oldest,
        _bits(before, WIDTH),
        *edge(at),
    )
    return {row["rule"]: (row["count"], row["last"]) for row in rows}


async def listed(connection: asyncpg.Connection, dimension: str) -> list[Word]:
    """The words of a dimension with few values that the log has."""
    rows = await connection.fetch(SQL["values"], dimension, MOST_CELLS)
    return [(dimension, row["value"]) for row in rows]


async def cross(
    connection: asyncpg.Connection, wanted: Filter, at: Published, axes: tuple[list[Word], list[Word], list[Word]]
) -> dict[tuple[Word, Word, Word], int]:
    """How many entries have a word of each axis, by these words, as `counts` counts: combinations that some have."""
    numbers = {term(word): word for axis in axes for word in axis}
    terms = [[term(word) for word in axis] for axis in axes]
    async with connection.transaction(readonly=True):
        await connection.execute(SQL["hashed"])
        rows = await connection.fetch(SQL["cross"], *_matching(wanted, at), *terms)
    return {(numbers[row["one"]], numbers[row["two"]], numbers[row["three"]]): row["count"] for row in rows}


def _matching(wanted: Filter, at: Published) -> tuple[Any, ...]:
    """What `log_matches` takes: terms, the group of each, how many groups; days; the first and the last bundle, and
    which of their entries count.
    """
    groups = wanted.groups or (ANY_KIND,)
    numbered = [(term(word), number) for number, group in enumerate(groups) for word in group]
    oldest, before = divmod(at.minimum, WIDTH)
    return (
        [one for one, _ in numbered],
        [number for _, number in numbered],
        len(groups),
        *wanted.whole_days,
        oldest,
        _bits(before, WIDTH),
        *edge(at),
    )


def edge(at: Published) -> tuple[int, asyncpg.BitString]:
    """The last bundle that the checkpoint covers, and which of its entries: maybe none."""
    newest, covered = divmod(at.size, WIDTH)
    return newest, _bits(0, covered)


def _bits(first: int, end: int) -> asyncpg.BitString:
    """The bits of a bundle's entries from one place until before another."""
    return asyncpg.BitString.from_int(sum(map(bit, range(first, end))), length=WIDTH)


async def _places(connection: asyncpg.Connection, wanted: Filter, size: int, after: int) -> Any:
    """Places that the index says to have what is wanted, in order, a chunk at a time.

    The rarest group leads; the others are looked up where it has something.
    """
    first, last = wanted.days
    bundle = max(after + 1, 0) // WIDTH
    opened = await connection.fetchval(SQL["opened"], bundle)
    if opened is not None:
        first = max(first, opened)
    lead, *others = await _rarest_first(connection, wanted.groups or (ANY_KIND,), first, last)
    rows = FIRST_ROWS
    while True:
        bits, horizon = await _scan(connection, lead, first, last, bundle, rows)
        for group in others:
            if bits:
                there = await _probe(connection, group, bits)
                bits = {place: mask & there.get(place, 0) for place, mask in bits.items()}
        indices = [
            index
            for place in sorted(bits)
            for inside in places(bits[place])
            if after < (index := place[1] * WIDTH + inside) < size
        ]
        if indices:
            yield indices
        if horizon is None or horizon[1] * WIDTH >= size:
            return
        # A bundle that two days share has a row of each: the last one is read again, and what was given is behind us.
        first, bundle = horizon
        after = max(after, indices[-1]) if indices else after
        rows = min(rows * 4, MOST_ROWS)


async def _rarest_first(
    connection: asyncpg.Connection, groups: Sequence[Group], first: date, last: date
) -> list[Group]:
    if len(groups) == 1:
        return list(groups)
    count = {group: await connection.fetchval(SQL["how_many"], _terms(group), first, last, RARE) for group in groups}
    return sorted(groups, key=lambda group: count[group])


async def _scan(
    connection: asyncpg.Connection, group: Group, first: date, last: date, bundle: int, rows: int
) -> tuple[dict[Place, int], Place | None]:
    """The group's places from a bundle on, and how far they are complete (None: to the end)."""
    bits: dict[Place, int] = {}
    ends: dict[int, list[Place]] = {}
    for row in await connection.fetch(SQL["scan"], _terms(group), first, last, bundle, rows):
        place = (row["day"], row["bundle"])
        bits[place] = bits.get(place, 0) | int.from_bytes(row["bits"].bytes)
        ends.setdefault(row["term"], []).append(place)
    cut = [max(of_term) for of_term in ends.values() if len(of_term) == rows]
    if not cut:
        return bits, None
    horizon = min(cut)
    return {place: mask for place, mask in bits.items() if place <= horizon}, horizon


async def _probe(connection: asyncpg.Connection, group: Group, at: Collection[Place]) -> dict[Place, int]:
    days, numbers = [day for day, _ in at], [number for _, number in at]
    rows = await connection.fetch(SQL["probe"], _terms(group), days, numbers)
    return {(row["day"], row["bundle"]): int.from_bytes(row["bits"].bytes) for row in rows}


def _terms(group: Group) -> list[int]:
    return [term(word) for word in group]
