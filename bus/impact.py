"""Who relied on a licence: the departments that opened it, and the records that were derived from it.

Openings are decisions of the log that permitted something and were not voided, and set grants of which it is a member.
A record is derived from another if it
names it in its parents; from there on the whole licence is: a later version of a derived certificate is still derived.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import asyncpg

from bus.db import queries
from bus.gateway import trail
from bus.gateway.trail import Filter, Found, Published
from schemas.errors import Code
from schemas.operations import Operation

# What ends or mends what was relied on. CHANGED, RENEWED and SUSPENDED are a licence's normal life: whoever needs to
# follow it subscribes to its topic.
OPERATIONS = frozenset((Operation.REVOKED, Operation.CANCELLED, Operation.PUNISHED, Operation.CORRECTED))
DEPTH = 16  # certificates derived from certificates: real chains have two or three
MOST = 10_000  # derived records of a licence; a parcel of land has some hundred flats
NO_END = 2**63 - 1  # behind every sequence

SQL = queries(Path(__file__).with_name("impact.sql"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One decision that opened something of a record. `entry` is its leaf hash in the log, `index` its place there."""

    index: int
    at: datetime
    consumer: str
    record: bytes
    entry: bytes
    purpose: str
    sections: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A record that follows from another. `parent` is the record that it names, `depth` 1 for the licence's own.

    `operation` is the record's, `status` its licence's now.
    """

    record: bytes
    licence: bytes
    item: str
    issuer: str
    operation: str
    status: str
    admitted_at: datetime
    parent: bytes
    parent_licence: bytes
    depth: int


@dataclass(frozen=True, slots=True)
class Root:
    """A licence, and before which of its versions what follows from it is looked for."""

    licence: bytes
    before: int = NO_END


async def versions(connection: asyncpg.Connection, licences: Collection[bytes]) -> dict[bytes, dict[bytes, int]]:
    """By licence, its records and their sequences."""
    found: dict[bytes, dict[bytes, int]] = {}
    for row in await connection.fetch(SQL["versions"], list(licences)):
        found.setdefault(row["licence"], {})[row["record"]] = row["sequence"]
    return found


async def openings(
    connection: asyncpg.Connection, licences: Collection[bytes], at: Published
) -> dict[bytes, list[Opening]]:
    """By licence, who opened it by a checkpoint, in the log's order.

    Held in memory whole: 100,000 openings of one licence take some 50 MB.
    """
    found: dict[bytes, list[Opening]] = {}
    async for page in trail.pages(connection, _filter("licence", licences, kind="Decision", decision="PERMIT"), at):
        taken_back = await voided(connection, page, at)
        for one in page:
            if one.entry.leaf_hash not in taken_back and not one.entry.body["onward_to"]:  # which opens nothing
                found.setdefault(one.entry.body["licence"], []).append(_opening(one))
    members: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for row in await connection.fetch(SQL["sets"], list(licences)):
        members.setdefault(row["entry"], []).append((row["licence"], row["record"]))
    if members:
        async for page in trail.pages(connection, _filter("entry", members, kind="SetDecision"), at):
            for one in page:
                for licence, record in members[one.entry.leaf_hash]:
                    found.setdefault(licence, []).append(_opening_in_set(one, record))
    return {licence: sorted(group, key=lambda one: one.index) for licence, group in found.items()}


async def derived(connection: asyncpg.Connection, roots: Sequence[Root]) -> tuple[list[list[Derived]], bool]:
    """Of each root, what follows from it, nearest first; and whether that is all (see `DEPTH`, `MOST`)."""
    found: list[list[Derived]] = [[] for _ in roots]
    # Records could only go round in a circle if hashes did; licences can, where two name each other's versions.
    seen: list[set[bytes]] = [set() for _ in roots]
    wanted = {(number, root.licence): (0, root.before) for number, root in enumerate(roots)}
    for depth in range(1, DEPTH + 1):
        rows = await connection.fetch(
            SQL["children"],
            [number for number, _ in wanted],
            [licence for _, licence in wanted],
            [first for first, _ in wanted.values()],
            [before for _, before in wanted.values()],
            MOST + 1,
        )
        wanted = {}
        for row in rows:
            number, record, licence = row["number"], row["record"], row["licence"]
            if record in seen[number] or licence == roots[number].licence:
                continue
            seen[number].add(record)
            found[number].append(_derived(row, depth))
            first, _ = wanted.get((number, licence), (row["sequence"], NO_END))
            wanted[number, licence] = (min(first, row["sequence"]), NO_END)
        if sum(map(len, found)) > MOST or len(rows) > MOST:
            return found, False
        if not wanted:
            return found, True
    return found, False


async def said(connection: asyncpg.Connection, records: Collection[bytes], at: Published) -> dict[bytes, list[Found]]:
    """By the record that they are due to, the notices in the log by a checkpoint, in the log's order."""
    found: dict[bytes, list[Found]] = {}
    async for page in trail.pages(connection, _filter("record", records, kind="Impact"), at):
        for one in page:
            if one.entry.body["record"] in records:  # a notice can also be found by what it concerns
                found.setdefault(one.entry.body["record"], []).append(one)
    return found


async def voided(connection: asyncpg.Connection, page: Sequence[Found], at: Published) -> set[bytes]:
    """Those of these decisions, by leaf hash, that were taken back before a key left."""
    about = {one.entry.leaf_hash for one in page}
    return {
        one.entry.body["entry"]
        async for found in trail.pages(connection, _filter("about", about, kind="Voided"), at)
        for one in found
    }


def _filter(dimension: str, values: Collection[bytes], **words: str) -> Filter:
    groups = [frozenset((dimension, value.hex()) for value in values)]
    groups += [frozenset([word]) for word in words.items()]
    return Filter(groups=tuple(groups))


def _opening(found: Found) -> Opening:
    body = found.entry.body
    return Opening(
        index=found.stored.index,
        at=found.stored.logged_at,
        consumer=body["consumer"],
        record=body["record"],
        entry=found.entry.leaf_hash,
        purpose=body["purpose"],
        sections=tuple(s["name"] for s in body["sections"] if s["code"] == Code.PERMIT),
    )


def _opening_in_set(found: Found, record: bytes) -> Opening:
    body = found.entry.body
    return Opening(
        index=found.stored.index,
        at=found.stored.logged_at,
        consumer=body["consumer"],
        record=record,
        entry=found.entry.leaf_hash,
        purpose=body["purpose"],
        sections=tuple(body["sections"]),
    )


def _derived(row: Mapping[str, object], depth: int) -> Derived:
    fields = {name: row[name] for name in Derived.__slots__ if name != "depth"}
    return Derived(**fields, depth=depth)  # type: ignore[arg-type]
