"""The clock: ends what has come to its last day, and says which day came without what was due on it.

Commit points, and what a crash at each leaves behind:

1. a rule's end, or a `due` row, with its entry in the outbox    one transaction: all or none, found again;
2. the entry in the log                                          a gateway's sweep appends it, the same bytes;
3. the event on `consent.records`                                it is sent again: rule, limit and day are the same.

Decisions do not wait for it: they look at the days themselves. What fails here fails alone, and is done a minute later.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import structlog
from aiokafka import AIOKafkaProducer

from bus import audit, metrics
from bus.db import connect, postgres_errors, queries
from bus.gateway import revisions, rulebook
from bus.gateway.catalogue import own_values
from bus.gateway.deadlines import Deadlines
from bus.gateway.rulebook import from_row
from bus.kafka import kafka_errors
from bus.pki import Signer
from bus.topics import RULES
from consent import lifecycle
from consent.calendar import Years
from consent.deadlines import Standing
from consent.decide import CHINA
from consent.law import LIMITS
from consent.lifecycle import Act, Role
from consent.model import parties
from schemas.catalogue import Catalogue
from schemas.errors import DeptbusError, Unavailable

LOOK_SECONDS = 60.0  # everything here is counted in days
BATCH = 50  # rules or rows in one transaction, some tens of milliseconds: the log itself must not wait
SEND_SECONDS = 20.0
PURPOSE, DATA_LIFE = "PURPOSE_REACHED", "DATA_LIFE_OVER"  # besides the limits of `consent.law`
FIRST = UUID(int=0)

SQL = queries(Path(__file__).with_name("clock.sql"))
log = structlog.get_logger()

Row = tuple[UUID, str, date, str, str, str, str, int]  # as the table `due` begins


class Clock:
    """Looks at the rules of a database again and again, as the operator, whose act an expiry is."""

    def __init__(self, signer: Signer, bus: str, catalogue: Catalogue, years: Years, dsn: str) -> None:
        self._signer = signer
        self._bus = bus
        self._deadlines = Deadlines(catalogue, years)
        self._dsn = dsn

    async def run(self, producer: AIOKafkaProducer) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    await self._look(producer)
                except DeptbusError as exc:
                    log.warning("clock_delayed", code=exc.code, detail=exc.detail)
                except Exception:  # a defect of the clock must not end the log
                    log.exception("clock_failed")
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            metrics.DEADLINES.clear()  # another recorder's to say now

    async def _look(self, producer: AIOKafkaProducer) -> None:
        connection = await connect(self._dsn)
        try:
            await self.tick(connection, producer, datetime.now(CHINA))
        finally:
            with suppress(Exception):
                await connection.close(timeout=1)

    async def tick(self, connection: asyncpg.Connection, producer: AIOKafkaProducer, now: datetime) -> None:
        """Everything that has come to its day by `now`, in batches. Raises `Unavailable`: the rest is done later."""
        today = now.astimezone(CHINA).date()
        async with postgres_errors("looking at the days of rules"):
            while await self._expire(connection, producer, today):
                pass
            await self._late(connection, today)
            while await self._purposes(connection, today):
                pass
            while await self._data_lives(connection, today):
                pass
            while await self._tell(connection, producer):
                pass

    async def _expire(self, connection: asyncpg.Connection, producer: AIOKafkaProducer, today: date) -> bool:
        """Ends some of what had its last day; False if that were all."""
        async with connection.transaction():
            rows = await connection.fetch(SQL["expired"], today, BATCH)
            ended = [lifecycle.act(from_row(row), Act.EXPIRE, frozenset({Role.CLOCK})) for row in rows]
            for one in ended:
                await rulebook.update(connection, one, Act.EXPIRE, self._signer.uscc, "")
            if ended:
                said = [(one, Act.EXPIRE, "") for one in ended]
                await revisions.keep(connection, own_values(self._signer, self._bus, said))
        for one in ended:
            metrics.EXPIRED.labels(kind=one.kind).inc()
        try:
            await _send(producer, [(one.id, {"kind": one.kind, **one.to_json()}) for one in ended])
        except Unavailable as exc:
            log.warning("announcement_lost", code=exc.code)  # as a gateway's: the database is what decides
        return len(rows) == BATCH

    async def _late(self, connection: asyncpg.Connection, today: date) -> None:
        """Finds who is late, and counts how deadlines stand."""
        counts: Counter[tuple[str, Standing]] = Counter()
        after = FIRST
        while rows := await connection.fetch(SQL["waiting"], after, BATCH):
            after = rows[-1]["id"]
            waiting = {row["id"]: from_row(row) for row in rows}
            late: list[Row] = []
            found = await self._deadlines.of(connection, list(waiting.values()))
            for identifier, deadline in found.items():
                standing = deadline.standing(today)
                counts[deadline.limit.id, standing] += 1
                if standing is Standing.LATE and deadline.due is not None:
                    one = waiting[identifier]
                    provider, consumer = parties(one)
                    item = getattr(one, "item", "")
                    late.append((one.id, deadline.limit.id, deadline.due, consumer, one.kind, provider, item, 1))
            async with connection.transaction():
                await self._found(connection, late)
        for limit in LIMITS:
            for standing in Standing:
                metrics.DEADLINES.labels(limit=limit, state=standing.name.lower()).set(counts[limit, standing])

    async def _purposes(self, connection: asyncpg.Connection, today: date) -> bool:
        rows = await connection.fetch(SQL["reached"], today.isoformat(), PURPOSE, BATCH)
        found = [(r["id"], PURPOSE, r["day"], r["grantee"], r["kind"], r["grantor"], r["item"], 1) for r in rows]
        async with connection.transaction():
            await self._found(connection, found)
        return len(rows) == BATCH

    async def _data_lives(self, connection: asyncpg.Connection, today: date) -> bool:
        async with connection.transaction():
            rows = await connection.fetch(SQL["outlived"], today, BATCH)
            found = [
                (r["rule"], DATA_LIFE, r["ends_on"], r["consumer"], r["kind"], r["grantor"], r["item"], r["records"])
                for r in rows
            ]
            await self._found(connection, found)
        return len(rows) == BATCH

    async def _found(self, connection: asyncpg.Connection, rows: Sequence[Row]) -> None:
        """Keeps what was not known with its entry, inside the caller's transaction."""
        if not rows:
            return
        new = await connection.fetch(SQL["found"], *map(list, zip(*rows, strict=True)))
        if new:
            bodies = [("Due", _body(row)) for row in new]
            values = audit.log_values(self._signer, self._bus, secrets.token_bytes(16), bodies, datetime.now(CHINA))
            await revisions.keep(connection, values)
        for row in new:
            metrics.DUE.labels(limit=row["name"]).inc()
        if new:
            log.warning("days_came", limits=dict(Counter(row["name"] for row in new)))

    async def _tell(self, connection: asyncpg.Connection, producer: AIOKafkaProducer) -> bool:
        """Puts some of what was found on the topic; False if that were all."""
        rows = await connection.fetch(SQL["untold"], BATCH)
        await _send(producer, [(row["rule"], _event(row)) for row in rows])
        await connection.executemany(SQL["told"], [(r["rule"], r["name"], r["day"], r["consumer"]) for r in rows])
        return len(rows) == BATCH


async def _send(producer: AIOKafkaProducer, events: Sequence[tuple[UUID, Any]]) -> None:
    """Returns when the topic has them. Raises `Unavailable`."""
    async with kafka_errors("saying that a day came"), asyncio.timeout(SEND_SECONDS):
        sent = [
            await producer.send(RULES, json.dumps(event, ensure_ascii=False).encode(), key=identifier.bytes)
            for identifier, event in events
        ]
        await asyncio.gather(*sent)


def _body(row: Any) -> dict[str, Any]:
    """A `Due` entry's fields."""
    return {
        "kind": row["kind"],
        "id": str(row["rule"]),
        "limit": row["name"],
        "due": row["day"].isoformat(),
        "provider": row["provider"],
        "consumer": row["consumer"],
        "item": row["item"],
        "count": row["count"],
    }


def _event(row: Any) -> dict[str, Any]:
    """For the parties' systems: `kind` is what tells it from a document's copy, `document` the kind of the rule."""
    return _body(row) | {"kind": "due", "document": row["kind"]}
