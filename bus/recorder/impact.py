"""Impact: a licence is revoked, cancelled, punished or corrected, and who relied on it is told within seconds.

Commit points, and what a crash at each leaves behind:

1. a pending row, in the record's admission    admitted is due: none is lost;
2. the notices as entries of the log           read there, they are not made again;
3. the same bytes on `event.impact`            sent again: the same id, the same entry;
4. the row marked as done                      then, and only then, are all of them sent.

The log is the outbox: what a receiver holds is what the log proves.

Who is told is exact. A gateway makes its entry durable, then reads the licence's status again, then lets the key go: a
key that left on the old status has its entry on the topic before the new status was committed. So once the row is
seen, the topic's end is behind every such entry, and a checkpoint that covers that end shows them all. A notice waits
for it, however long: what is half known would have to be said twice. Who asks later is refused, or has an agreement to
open ended licences as what they are, and is not told (`opened_before`). Records that are derived later still are:
their issuer may have opened the licence while it was good.

What follows is said of the licence's own derived records at any depth, not of who opened those: whether a derived
certificate falls, its issuer decides, and if it is revoked, its own impact goes out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Any

import asyncpg
import structlog
from aiokafka import AIOKafkaProducer

from bus import audit, envelope, impact, metrics
from bus.db import connect, postgres_errors, queries
from bus.gateway import trail
from bus.gateway.trail import Published
from bus.impact import DEPTH, OPERATIONS, Derived, Opening, Root
from bus.kafka import kafka_errors
from bus.pki import Signer
from bus.recorder.admission import Checked
from bus.topics import notices_of
from schemas.errors import DeptbusError, Unavailable

DUE = 5_000  # records looked at under one checkpoint: a mass correction (数据订正) need not wait for many
TRIGGERS = 100  # of them at once
EVIDENCE = 16  # entries that a notice names: the first and the last eight
RECORDS = 256  # of each kind in one notice: an entry has at most 65,535 bytes
SCANNED = 500
POLL_SECONDS = 0.2
# A gateway that has decided just before reads the status again within milliseconds and voids its decision. Whoever was
# given nothing is not to be told, so a moment is left for that to reach the topic.
SETTLE_SECONDS = 0.5
COVERED_SECONDS = 0.05
RETRY_SECONDS = 1.0
SEND_SECONDS = 20.0

SQL = queries(Path(__file__).with_name("impact.sql"))
log = structlog.get_logger()


async def admit(connection: asyncpg.Connection, admitted: Sequence[Checked]) -> None:
    """The rows that admitted records make due. In the transaction that admits them, after their own rows."""
    links = [(parent, one.record.leaf_hash) for one in admitted for parent in one.record.claims.parents]
    due = [one.record for one in admitted if one.record.claims.operation in OPERATIONS]
    if links:
        await connection.execute(SQL["add_parents"], *map(list, zip(*links, strict=True)))
        await connection.execute(SQL["late_children"], sorted({child for _, child in links}), DEPTH)
    if due:
        await connection.execute(SQL["add_triggers"], [r.leaf_hash for r in due], [r.claims.licence for r in due])


def notices(
    trigger: Mapping[str, Any],
    versions: Mapping[bytes, int],
    openings: Sequence[Opening],
    derived: Sequence[Derived],
    said: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The bodies of the `Impact` entries that are still due to a record, each addressee's together.

    `trigger` is its row, `versions` its licence's records and their sequences, `said` the bodies that the log has.
    """
    known: dict[str, set[bytes]] = {}
    for body in said:
        told = known.setdefault(body["addressee"], set())
        told.update(body["opened"], (one["record"] for one in body["derived"]))
    opened: dict[str, list[Opening]] = {}
    for one in openings:
        if versions.get(one.record, trigger["sequence"]) < trigger["sequence"] and one.index < trigger["opened_before"]:
            opened.setdefault(one.consumer, []).append(one)
    follows: dict[str, list[Derived]] = {}
    for each in derived:
        follows.setdefault(each.issuer, []).append(each)
    return [
        body
        for addressee in sorted(opened.keys() | follows.keys())
        for body in _bodies(
            trigger, addressee, opened.get(addressee, ()), follows.get(addressee, ()), known.get(addressee, set())
        )
    ]


def _bodies(
    trigger: Mapping[str, Any],
    addressee: str,
    openings: Sequence[Opening],
    derived: Sequence[Derived],
    told: Collection[bytes],
) -> Iterator[dict[str, Any]]:
    opened = list(dict.fromkeys(one.record for one in openings if one.record not in told))
    follows = [one for one in derived if one.record not in told]
    for records, certificates in zip_longest(_cut(opened), _cut(follows), fillvalue=()):
        decisions = [one.entry for one in openings if one.record in records]
        hashes = (trigger["record"], addressee.encode(), *records, *(one.record for one in certificates))
        half = EVIDENCE // 2
        yield {
            "id": sha256(b"".join(hashes)).digest()[:16],
            "record": trigger["record"],
            "licence": trigger["licence"],
            "item": trigger["item"],
            "issuer": trigger["issuer"],
            "operation": trigger["operation"],
            "occurred_at": trigger["occurred_at"],
            "admitted": trigger["admitted"],
            "addressee": addressee,
            "opened": list(records),
            "count": len(decisions),
            "entries": decisions if len(decisions) <= EVIDENCE else decisions[:half] + decisions[-half:],
            "derived": [
                {"record": one.record, "licence": one.licence, "item": one.item, "parent": one.parent}
                for one in certificates
            ],
        }


def _cut(found: Sequence[Any]) -> list[Sequence[Any]]:
    return [found[at : at + RECORDS] for at in range(0, len(found), RECORDS)]


class Impact:
    """Tells who is concerned by what was admitted. `end` asks the broker where the audit topic ends now."""

    def __init__(self, signer: Signer, bus: str, dsn: str) -> None:
        self._signer = signer
        self._bus = bus
        self._dsn = dsn

    async def run(self, producer: AIOKafkaProducer, end: Callable[[], Awaitable[int]]) -> None:
        """Until cancelled: begins anew from the database after whatever went wrong."""
        while True:
            try:
                await self._run(producer, end)
            except DeptbusError as exc:
                log.warning("impact_restarts", code=exc.code, detail=exc.detail)
            except Exception:  # a defect here must not end admission
                log.exception("impact_failed")
            await asyncio.sleep(RETRY_SECONDS)

    async def _run(self, producer: AIOKafkaProducer, end: Callable[[], Awaitable[int]]) -> None:
        connection = await connect(self._dsn)
        try:
            async with postgres_errors("looking for parents"):
                await _scan(connection)
            while True:
                async with postgres_errors("looking for who is concerned"):
                    metrics.IMPACT_PENDING.set(await connection.fetchval(SQL["how_many"]))
                    due = await connection.fetch(SQL["pending"], DUE)
                    if not due:
                        await asyncio.sleep(POLL_SECONDS)
                        continue
                    await asyncio.sleep(SETTLE_SECONDS)
                    at = await _covering(connection, await end())
                    for first in range(0, len(due), TRIGGERS):
                        await self._tell(connection, producer, due[first : first + TRIGGERS], at)
        finally:
            with suppress(Exception):
                await connection.close(timeout=1)

    async def _tell(
        self, connection: asyncpg.Connection, producer: AIOKafkaProducer, triggers: Sequence[Any], at: Published
    ) -> None:
        """Everything that is due to these records by a checkpoint."""
        await connection.execute(SQL["looked_at"], [t["record"] for t in triggers], at.size)
        rows = [{**t, "opened_before": t["opened_before"] or at.size} for t in triggers]
        licences = {t["licence"] for t in rows}
        versions = await impact.versions(connection, licences)
        openings = await impact.openings(connection, licences, at)
        derived = await _derived(connection, rows)
        said = await impact.said(connection, {t["record"] for t in rows}, at)
        values: list[tuple[dict[str, Any], bytes]] = []
        new: list[bytes] = []
        sent: list[int] = []
        for row, follows in zip(rows, derived, strict=True):
            licence, known = row["licence"], said.get(row["record"], [])
            bodies = [one.entry.body for one in known]
            due = notices(row, versions[licence], openings.get(licence, ()), follows, bodies)
            made = [(body, self._value(body)) for body in due]
            new += [value for _, value in made]
            values += [(one.entry.body, one.stored.value) for one in known[row["sent"] :]] + made
            sent.append(len(known) + len(made))
        await _send(producer, [(audit.TOPIC, 0, None, value, []) for value in new])
        metrics.APPENDED.labels(outcome="ok").inc(len(new))
        await _send(
            producer,
            [
                (notices_of(body["addressee"]).name, None, body["addressee"].encode(), value, _headers(body))
                for body, value in values
            ],
        )
        await connection.execute(SQL["done"], [t["record"] for t in rows], [t["since"] for t in rows], sent)
        for body, _ in values:
            metrics.IMPACT_NOTICES.labels(operation=body["operation"]).inc()
        for row in rows:
            metrics.IMPACT_SECONDS.observe((datetime.now(UTC) - row["since"]).total_seconds())
        log.info("impact_told", records=[t["record"].hex() for t in rows], notices=len(values))

    def _value(self, body: Mapping[str, Any]) -> bytes:
        (value,) = audit.log_values(self._signer, self._bus, body["id"], [("Impact", body)], datetime.now(UTC))
        return value


async def _scan(connection: asyncpg.Connection) -> None:
    """Looks through the records from before there was a table of parents; goes on where it was interrupted."""
    while (after := await connection.fetchval(SQL["scanned"])) is not None:
        rows = await connection.fetch(SQL["unscanned"], after, SCANNED)
        links = [(parent, row["leaf_hash"]) for row in rows for parent in envelope.parse(row["value"]).claims.parents]
        async with connection.transaction():
            if links:
                await connection.execute(SQL["add_parents"], *map(list, zip(*links, strict=True)))
            if rows:
                await connection.execute(SQL["scan_on"], rows[-1]["leaf_hash"])
            else:
                await connection.execute(SQL["scan_done"])


async def _covering(connection: asyncpg.Connection, end: int) -> Published:
    """A checkpoint that covers the audit topic up to an offset."""
    size: int | None = None
    while True:
        if size is None:
            row = await connection.fetchrow(SQL["integrated"], audit.TOPIC)
            size = row["size"] if row is not None and row["next_offset"] >= end else None
        if size is not None:
            with suppress(Unavailable):  # the first one is not published yet
                at = await trail.published(connection)
                if at.size >= size:
                    return at
        await asyncio.sleep(COVERED_SECONDS)


async def _derived(connection: asyncpg.Connection, rows: Sequence[Mapping[str, Any]]) -> list[list[Derived]]:
    roots = [Root(row["licence"], row["sequence"]) for row in rows]
    found, whole = await impact.derived(connection, roots)
    if whole:
        return found
    found = []
    for root in roots:  # each on its own has the whole bound
        (one,), whole = await impact.derived(connection, [root])
        found.append(one)
        if not whole:
            log.error("impact_too_large", licence=root.licence.hex(), told=len(one))
    return found


async def _send(producer: AIOKafkaProducer, messages: Sequence[tuple[str, int | None, Any, bytes, Any]]) -> None:
    """Returns once every in-sync replica has them."""
    async with kafka_errors("telling who is concerned"), asyncio.timeout(SEND_SECONDS):
        waiting = [
            await producer.send(topic, value, key=key, partition=partition, headers=headers)
            for topic, partition, key, value, headers in messages
        ]
        await asyncio.gather(*waiting)


def _headers(body: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0, Kafka binary mode, as records have them."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", body["id"].hex().encode()),
        ("ce_source", f"urn:deptbus:{body['issuer']}".encode()),
        ("ce_type", f"impact.{body['operation']}".encode()),
        ("ce_time", body["occurred_at"].isoformat().replace("+00:00", "Z").encode()),
        ("content-type", b"application/avro"),
    ]
