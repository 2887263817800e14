"""The trail: finding entries of the log by what they say, at a checkpoint.

An answer is made of the log's own bytes, at places that the index names (`bus/terms.py`), and holds for one published
checkpoint: what came later is not in it. A cursor is an entry's place in the log, so pages neither skip nor repeat
while entries arrive.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import asyncpg

from bus import audit, tilestore
from bus.audit import KINDS, Entry
from bus.db import queries
from bus.terms import Word, places, term, words
from bus.tilestore import Stored
from bus.tlog.tiles import WIDTH
from consent.decide import CHINA
from schemas.errors import Code, Unavailable

PAGE = 1_000
FIRST_ROWS, MOST_ROWS = 256, 8_192  # of the index at once: a page is mostly in the first, a rare pair is soon found
RARE = 2_000  # rows of the index: below this it does not matter which group leads
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(9999, 1, 1)

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

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last civil day (UTC+8) that may hold one."""
        first = FIRST_DAY if self.since is None else self.since.astimezone(CHINA).date()
        last = LAST_DAY if self.until is None else self.until.astimezone(CHINA).date()
        return first, last

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
    """The newest checkpoint. `note` is signed; `cosigned` has the witnesses' signatures too, on an older size."""

    size: int
    root: bytes
    note: bytes
    cosigned_size: int
    cosigned: bytes | None

    @property
    def origin(self) -> str:
        """The log's name: `<bus origin>/log/<region>`."""
        return self.note.partition(b"\n")[0].decode()

    def to_json(self) -> dict[str, Any]:
        """As every answer names it."""
        return {"origin": self.origin, "size": self.size, "root": b64encode(self.root).decode()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An entry that was looked for."""

    stored: Stored
    entry: Entry

    def to_json(self) -> dict[str, Any]:
        """As every answer shows an entry: bytes in hex, times in UTC."""
        entry = self.entry
        return {
            "index": self.stored.index,
            "entry": entry.leaf_hash.hex(),
            "logged_at": self.stored.logged_at.isoformat(),
            "time": entry.time.isoformat(),
            "kind": entry.kind,
            "request": entry.group.hex(),
            "logged_by": entry.signer.hex(),
            "body": _plain(entry.body),
        }


async def published(connection: asyncpg.Connection) -> Published:
    """Raises `Unavailable` (AUDIT_STALLED) if nothing was published yet."""
    row = await connection.fetchrow(SQL["checkpoint"])
    if row is None:
        raise Unavailable(Code.AUDIT_STALLED, "the log has no checkpoint yet: see that a recorder runs")
    return Published(**row)


async def page(
    connection: asyncpg.Connection, wanted: Filter, size: int, after: int, limit: int
) -> tuple[list[Found], int | None]:
    """The first `limit` entries behind the place `after`, of the log's first `size`; and the cursor of the next page.

    No cursor: there are no more now.
    """
    limit = min(max(limit, 1), PAGE)
    found: list[Found] = []
    async for indices in _places(connection, wanted, size, after):
        for at in range(0, len(indices), limit):  # no more entries are read than a page has
            for stored in await tilestore.entries(connection, indices[at : at + limit]):
                entry = audit.parse(stored.value)[0]
                if wanted.met_by(stored, entry):
                    found.append(Found(stored=stored, entry=entry))
                if len(found) == limit:
                    return found, stored.index
    return found, None


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


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case datetime():
            return value.isoformat()
        case Mapping():
            return {name: _plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
    return value
