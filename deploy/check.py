"""Is anything lost, twice, or opened without an entry? Computed from Kafka and PostgreSQL themselves.

No counter of the pipeline is believed: every topic is read from its beginning to its present end.

* lost        a record on a topic that the index neither admitted nor refused nor holds in conflict; an audit entry on
              the topic that is not in the log
* duplicated  the same record twice on its topic; two certificates of one issuer and item from one licence
* unaudited   a certificate derived from a record that its issuer never had permission to open in the log
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import asyncpg

from bus import audit, db, envelope, merkle
from bus.db import postgres_errors
from bus.envelope import Record
from bus.gateway.sets import members_of
from bus.kafka import everything
from bus.sets import Member
from bus.transport import Cluster
from schemas.catalogue import Catalogue
from schemas.errors import DeptbusError

Place = tuple[str, int, int]  # topic, partition, offset
Derived = tuple[int, Place, Record]  # with the broker's time, in milliseconds

BEHIND_SECONDS = 5.0  # the recorder takes in what came within a second or two
LOOK_SECONDS = 0.5
SHOWN = 20  # examples of each finding: enough to start from, not a dump


@dataclass(slots=True)
class Findings:
    """What was read and what is wrong. Examples name topic, partition and offset, or a leaf hash."""

    records: int = 0
    entries: int = 0
    refused: int = 0
    conflicts: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    unaudited: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is lost, twice or unaudited."""
        return not (self.lost or self.duplicated or self.unaudited)

    def to_json(self) -> dict[str, Any]:
        """Counts, and the first examples of each."""
        return {
            "records": self.records,
            "audit_entries": self.entries,
            "refused": self.refused,
            "conflicts": self.conflicts,
            "lost": len(self.lost),
            "duplicated": len(self.duplicated),
            "unaudited": len(self.unaudited),
            "examples": {
                "lost": self.lost[:SHOWN],
                "duplicated": self.duplicated[:SHOWN],
                "unaudited": self.unaudited[:SHOWN],
            },
        }


async def check(kafka: Cluster, dsn: str, catalogue: Catalogue) -> Findings:
    """Reads everything. Memory: about 200 bytes a record and entry. Raises `Unavailable`."""
    findings = Findings()
    topics = [item.topic for item in catalogue.items.values()]
    opened = await _entries(kafka, dsn, findings)
    connection = await db.connect(dsn)
    try:
        async with postgres_errors("reading the index"):
            known = await _known(connection)
            refused = {(r["topic"], r["partition"], r["position"]) for r in await _rows(connection, "refusal")}
            findings.conflicts = await connection.fetchval("SELECT count(*) FROM conflict")
    finally:
        await connection.close()
    findings.refused = len(refused)
    seen: set[bytes] = set()
    unknown: dict[bytes, Place] = {}
    licences: dict[bytes, bytes] = {}
    derived: list[Derived] = []
    async for message in everything(kafka, topics):
        place = (message.topic, message.partition, message.offset)
        findings.records += 1
        try:
            record = envelope.parse(message.value)
        except DeptbusError:
            if place not in refused:
                findings.lost.append(_named(place) + " (unreadable, and not refused)")
            continue
        if record.leaf_hash in seen:
            findings.duplicated.append(_named(place) + " (the same record again)")
            continue
        seen.add(record.leaf_hash)
        licences[record.leaf_hash] = record.claims.licence
        if record.leaf_hash not in known and place not in refused:
            unknown[record.leaf_hash] = place
        if record.claims.parents:
            derived.append((message.timestamp, place, record))
    lost = await _still_missing(dsn, set(unknown), _known_or_refused)
    findings.lost.extend(_named(place) + " (not in the index)" for leaf, place in unknown.items() if leaf in lost)
    # The topics were read one partition after another: by the broker's time, the second of two is the later one.
    derived.sort(key=lambda one: one[:2])
    _check_derived(derived, licences, opened, findings)
    return findings


def _check_derived(
    derived: Sequence[Derived],
    licences: dict[bytes, bytes],
    opened: set[tuple[str, bytes]],
    findings: Findings,
) -> None:
    """One certificate of an issuer and item a licence; each after a permitted opening of its parent."""
    issued: Counter[tuple[str, str, bytes]] = Counter()
    for _, at, record in derived:
        claims, place = record.claims, _named(at)
        for parent in claims.parents:
            if (claims.issuer, parent) not in opened:
                findings.unaudited.append(place + " (its parent was never opened by its issuer)")
            if claims.sequence == 1:
                source = (claims.issuer, claims.item, licences.get(parent, parent))
                issued[source] += 1
                if issued[source] > 1:
                    findings.duplicated.append(place + " (a second certificate from one licence)")


async def _entries(kafka: Cluster, dsn: str, findings: Findings) -> set[tuple[str, bytes]]:
    """(consumer, record) of every permit on the audit topic; rows that are missing are findings."""
    offsets: dict[bytes, int] = {}
    opened: set[tuple[str, bytes]] = set()
    voided: dict[bytes, tuple[str, bytes]] = {}
    sets: dict[bytes, tuple[str, bytes]] = {}
    async for message in everything(kafka, [audit.TOPIC]):
        findings.entries += 1
        try:
            entry = audit.parse(message.value)[0]
        except DeptbusError:
            continue
        offsets[entry.leaf_hash] = message.offset
        if entry.kind == "Decision" and any(s["code"] == "PERMIT" for s in entry.body["sections"]):
            permit = (entry.body["consumer"], entry.body["record"])
            opened.add(permit)
            voided[entry.leaf_hash] = permit
        elif entry.kind == "SetDecision":
            sets[entry.leaf_hash] = (entry.body["consumer"], entry.body["root"])
        elif entry.kind == "Voided":
            opened.discard(voided.get(entry.body["entry"], ("", b"")))
            sets.pop(entry.body["entry"], None)
    for leaf, members in (await _members(dsn, sets)).items():
        consumer, root = sets[leaf]
        opened.update((consumer, member.record) for member in members)
        if merkle.root([member.leaf for member in members]) != root:
            findings.lost.append(f"{audit.TOPIC}/0/{offsets[leaf]} (a set whose members do not give its root)")
    for leaf in await _still_missing(dsn, set(offsets), _leaves):
        findings.lost.append(f"{audit.TOPIC}/0/{offsets[leaf]} (an audit entry that is not in the log)")
    return opened


async def _members(dsn: str, entries: Iterable[bytes]) -> dict[bytes, list[Member]]:
    """The members of sets, as the database has them now."""
    connection = await db.connect(dsn)
    try:
        async with postgres_errors("reading sets"):
            return {entry: await members_of(connection, entry) for entry in entries}
    finally:
        await connection.close()


async def _still_missing(dsn: str, wanted: set[bytes], read: Callable[[Any], Awaitable[set[bytes]]]) -> set[bytes]:
    """Which of these the database does not have, also after a moment: on a bus that runs, the recorder is behind."""
    deadline = monotonic() + BEHIND_SECONDS
    connection = await db.connect(dsn)
    try:
        while True:
            async with postgres_errors("reading the index"):
                wanted = wanted and wanted - await read(connection)
            if not wanted or monotonic() > deadline:
                return wanted
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await connection.close()


async def _known_or_refused(connection: asyncpg.Connection) -> set[bytes]:
    refused = await _rows(connection, "refusal WHERE leaf_hash IS NOT NULL", "leaf_hash")
    return await _known(connection) | {row["leaf_hash"] for row in refused}


async def _leaves(connection: asyncpg.Connection) -> set[bytes]:
    """The log's leaf hashes, out of its tiles."""
    tiles = await _rows(connection, "log_tile WHERE level = 0", "hashes")
    return {row["hashes"][at : at + 32] for row in tiles for at in range(0, len(row["hashes"]), 32)}


async def _known(connection: asyncpg.Connection) -> set[bytes]:
    rows = await connection.fetch("SELECT leaf_hash FROM record UNION ALL SELECT leaf_hash FROM conflict")
    return {row["leaf_hash"] for row in rows}


async def _rows(connection: asyncpg.Connection, table: str, columns: str = "*") -> list[Any]:
    rows: list[Any] = await connection.fetch(f"SELECT {columns} FROM {table}")  # noqa: S608 - both are literals above
    return rows


def _named(place: Place) -> str:
    return "/".join(map(str, place))
