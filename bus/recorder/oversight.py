"""Supervision at work (大数据监督): reads the published log behind the recorder, and says what the rules find.

Commit points, and what a crash at each leaves behind:

1. findings, memories and the position    one transaction: all or none, the same entries are read again;
2. the event on its topic                 it is sent again, under the same id;
3. the finding's own entry in the log     durable: read there, the finding is known to be said. Only a crash before
                                          the next checkpoint says it twice, under the same id.

So no finding is lost, and who counts them counts ids. What fails here, fails alone: the log and the releases go on, and
`bus_supervision_behind_entries` grows.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import structlog
from aiokafka import AIOKafkaProducer

from bus import audit, merkle, metrics, terms, tilestore
from bus.audit import Entry
from bus.db import connect, postgres_errors, queries
from bus.kafka import bounded
from bus.pki import Signer
from bus.supervision import Finding, Rules, Watch, operator_of
from bus.tlog.tiles import WIDTH
from bus.topics import SUPERVISION
from schemas.errors import Code, DeptbusError, Unavailable

T = TypeVar("T")

KINDS = ("Decision", "Reading", "Finding")
BUNDLES = 2  # at once: some 40 ms of work
TURN = 32  # entries, some 2 ms: then others have their turn
OPERATORS = 2_000  # in memory: at most some 100 KiB each, and they come back from their rows
POLL_SECONDS = 0.5
RETRY_SECONDS = 5.0
SEND_SECONDS = 20.0

SQL = queries(Path(__file__).with_name("oversight.sql"))
_TERMS = [terms.term(("kind", kind)) for kind in KINDS]
_FIELDS = ("id", "rule", "severity", "at", "consumer", "operator", "first", "last", "count", "entries", "detail")
log = structlog.get_logger()


class Oversight:
    """Feeds a log's entries to the rules, from where the database says."""

    def __init__(self, signer: Signer, bus: str, rules: Rules, dsn: str) -> None:
        self._signer = signer
        self._bus = bus
        self._rules = rules
        self._dsn = dsn
        self._titles = {rule.id: {"zh": rule.zh, "en": rule.en} for rule in rules.rules}

    async def run(self, producer: AIOKafkaProducer) -> None:
        """Until cancelled: begins anew from the database after whatever went wrong."""
        while True:
            try:
                await self._run(producer)
            except DeptbusError as exc:
                log.warning("supervision_restarts", code=exc.code, detail=exc.detail)
            except Exception:  # a defect of supervision must not end the log that it looks at
                log.exception("supervision_failed")
            await asyncio.sleep(RETRY_SECONDS)

    async def _run(self, producer: AIOKafkaProducer) -> None:
        watch = Watch(self._rules)
        connection = await connect(self._dsn)
        try:
            while True:
                async with postgres_errors("supervising"):
                    if await self._step(connection, watch):
                        await asyncio.sleep(0)
                        continue
                    # Only now: what an earlier run has logged has been read.
                    for row in await connection.fetch(SQL["unlogged"]):
                        entry = await self._say(producer, dict(row))
                        await connection.execute(SQL["logged"], row["id"], entry)
                await asyncio.sleep(POLL_SECONDS)
        finally:
            with suppress(Exception):
                await connection.close(timeout=1)

    async def _step(self, connection: asyncpg.Connection, watch: Watch) -> bool:
        """Some entries further; False if there is nothing new."""
        start = await connection.fetchval(SQL["next_index"])
        size = await connection.fetchval(SQL["published_size"]) or 0
        metrics.SUPERVISION_BEHIND.set(max(0, size - start))
        if start >= size:
            return False
        rows = await connection.fetch(SQL["marked"], start // WIDTH, _TERMS, BUNDLES)
        end = min(size, (rows[-1]["number"] + 1) * WIDTH) if rows else size
        marked = [index for row in rows for index in _marked(row) if start <= index < end]
        stored = await tilestore.entries(connection, marked)
        # What is in the index has been verified; what has been changed since is the scrub's to find.
        read = [(one.index, one.logged_at, audit.parse(one.value)[0]) async for one in _in_turns(stored)]
        await _take_back(connection, watch, [entry for _, _, entry in read])
        unknown = watch.unknown
        found = [finding async for index, at, entry in _in_turns(read) for finding in watch.feed(index, at, entry)]
        said = [entry for _, _, entry in read if entry.kind == "Finding"]
        async with connection.transaction():
            await connection.executemany(SQL["add_finding"], [(*_row(finding), None) for finding in found])
            await connection.executemany(
                SQL["add_finding"], [(*(entry.body[name] for name in _FIELDS), entry.leaf_hash) for entry in said]
            )
            await _put_away(connection, watch)
            if await connection.fetchval(SQL["advance"], start, end) is None:
                raise Unavailable(Code.POSTGRES_UNAVAILABLE, "another recorder supervises: beginning anew")
        watch.put_away(OPERATORS)
        metrics.SUPERVISION_UNKNOWN.inc(watch.unknown - unknown)
        for finding in found:
            metrics.SUPERVISION_FINDINGS.labels(rule=finding.rule.id).inc()
            log.warning(
                "supervision_finding", rule=finding.rule.id, consumer=finding.consumer, entry=finding.entries[-1].hex()
            )
        return True

    async def _say(self, producer: AIOKafkaProducer, finding: Mapping[str, Any]) -> bytes:
        """The event, then the entry; its leaf hash once every in-sync replica has it."""
        bodies = [("Finding", finding)]
        (value,) = audit.log_values(self._signer, self._bus, finding["id"], bodies, datetime.now(UTC))
        entry = merkle.leaf_hash(value)
        event = self._event(finding, entry)
        sending = producer.send_and_wait(SUPERVISION, event, key=finding["id"], headers=_headers(finding))
        await bounded(sending, SEND_SECONDS, "announcing a finding")
        await bounded(producer.send_and_wait(audit.TOPIC, value, partition=0), SEND_SECONDS, "logging a finding")
        metrics.APPENDED.labels(outcome="ok").inc()
        return entry

    def _event(self, finding: Mapping[str, Any], entry: bytes) -> bytes:
        """The finding as JSON: bytes in hex, `entry` the leaf hash of the log's entry about it."""
        shown = {
            **finding,
            "id": finding["id"].hex(),
            "at": finding["at"].isoformat(),
            "entries": [one.hex() for one in finding["entries"]],
            "title": self._titles.get(finding["rule"], {}),
            "entry": entry.hex(),
        }
        return json.dumps(shown, ensure_ascii=False).encode()


async def _in_turns(items: Sequence[T]) -> AsyncIterator[T]:
    """One after the other, and others in between: the log itself has a poll to write and a checkpoint to sign."""
    for number, item in enumerate(items):
        if number % TURN == 0:
            await asyncio.sleep(0)
        yield item


def _marked(row: Any) -> list[int]:
    """The places in the log that a bundle's bits name: the leftmost is its first entry."""
    bits = 0 if row["bits"] is None else int.from_bytes(row["bits"].bytes)
    return [row["number"] * WIDTH + place for place in range(WIDTH) if bits >> (WIDTH - 1 - place) & 1]


def _row(finding: Finding) -> tuple[Any, ...]:
    f = finding
    return (
        f.id, f.rule.id, f.rule.severity.value, f.at, f.consumer, f.operator, f.first, f.last, f.count,
        list(f.entries), f.detail,
    )  # fmt: skip


def _headers(finding: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0, Kafka binary mode."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", finding["id"].hex().encode()),
        ("ce_source", b"urn:deptbus:supervision"),
        ("ce_type", f"supervision.{finding['rule']}".encode()),
        ("ce_time", finding["at"].isoformat().encode()),
        ("content-type", b"application/json"),
    ]


async def _take_back(connection: asyncpg.Connection, watch: Watch, entries: Sequence[Entry]) -> None:
    """What is remembered of the operators of these entries, as far as it is not in memory."""
    wanted = {operator for entry in entries if (operator := operator_of(entry)) and not watch.knows(operator)}
    if wanted:
        rows = await connection.fetch(SQL["memories"], [c for c, _ in wanted], [o for _, o in wanted])
        for row in rows:
            watch.remember((row["consumer"], row["operator"]), json.loads(row["memory"]))


async def _put_away(connection: asyncpg.Connection, watch: Watch) -> None:
    changed = sorted(watch.changed)
    memories = [json.dumps(watch.remembered(operator)) for operator in changed]
    await connection.execute(SQL["keep_memories"], [c for c, _ in changed], [o for _, o in changed], memories)
