"""The audit log: entries a second in tiles and in the search index, beside Tessera; how soon they are published.

Entries are what gateways write, signed in calls of 50. They go through real Kafka, every batch flushed to disk, into
PostgreSQL as it is set up for use (`fsync` and `synchronous_commit` on), by a recorder in its own process. Who appends
is never more than 10,000 ahead: it shares the machine with the recorder all the while, as Tessera's load does with
Tessera. An entry counts when the transaction of its tiles is committed.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import httpx
from aiokafka import AIOKafkaProducer

from bus import audit
from bus.kafka import producer
from bus.transport import client_context
from tests.bench import tessera
from tests.bench.entries import GROUP, groups
from tests.bench.measure import Outcome, Said, compare
from tests.bench.world import World, process, world

ENTRIES = 100_000  # a round: some seconds in tiles, some more with the index
WARM = 10_000  # of them, before the clock
AHEAD = 10_000
ROUNDS = 3
TILES_FLOOR = 1.0
INDEX_FLOOR = 0.5
STEADY = 2_000  # entries a second while waits are measured: over a hundred million a day
STEADY_SECONDS = 30
PUBLISHED_FLOOR = 2.0  # seconds
STALL_SECONDS = 60.0
POLL_SECONDS = 0.02


def tiles(said: Said) -> Outcome:
    """Into tiles and bundles alone: what Tessera does."""
    return _beside_tessera(said, "tests.bench.tiles_only", TILES_FLOOR)


def index(said: Said) -> Outcome:
    """Into tiles, bundles and the search index: every entry parsed, its proof verified, its words indexed."""
    return _beside_tessera(said, "tests.bench.index_only", INDEX_FLOOR)


def published(said: Said) -> Outcome:
    """Seconds from Kafka's acknowledgement of a call to a gateway's first checkpoint that covers it."""
    with (
        asyncio.Runner() as runner,
        world(runner, said) as there,
        process(there, "recorder"),
        process(there, "gateway") as (_, gateway, _),
    ):
        calls = _calls(there, 0, STEADY * STEADY_SECONDS)
        said(f"{STEADY:,} entries a second for {STEADY_SECONDS} s")
        waits = sorted(runner.run(_waits(there, f"{gateway}/log/{there.bus.region}/checkpoint", calls)))
    p50, p99 = (waits[len(waits) * percent // 100] for percent in (50, 99))
    return Outcome(
        unit="s",
        ours=p99,
        peer=None,
        ratio=PUBLISHED_FLOOR / p99,
        floor=PUBLISHED_FLOOR,
        spread=0.0,
        rounds=1,
        more={"entries_a_second": STEADY, "p50_ms": round(p50 * 1000), "p99_ms": round(p99 * 1000)},
    )


def _beside_tessera(said: Said, recorder: str, floor: float) -> Outcome:
    with TemporaryDirectory(prefix="deptbus-tessera-") as folder:
        said("building Tessera")
        peer = tessera.built(Path(folder))
        with asyncio.Runner() as runner, world(runner, said) as there, process(there, "recorder", recorder):
            size = _mean_size(_calls(there, 0, 100 * GROUP))
            outcome = compare(
                lambda number: runner.run(_rate(there, _calls(there, number * ENTRIES, ENTRIES))),
                lambda number: tessera.integrated(peer, size),
                floor=floor,
                said=said,
                rounds=ROUNDS,
                unit="entries/s",
            )
            outcome.more.update(entry_bytes=size, **runner.run(_stored(there)))
            return outcome


def _calls(there: World, start: int, count: int) -> list[list[bytes]]:
    """The values of calls of 50, signed by the bus's gateway."""
    signer = there.bus.signer("gateway")
    return [one.values for one in groups(signer, start, count, count, whole=True, bus=there.bus.origin)]


def _mean_size(calls: Sequence[Sequence[bytes]]) -> int:
    sizes = [len(value) for values in calls for value in values]
    return sum(sizes) // len(sizes)


async def _rate(there: World, calls: Sequence[Sequence[bytes]]) -> float:
    """Entries a second from the first commit behind the warm ones to the last."""
    async with _clients(there) as (kafka, connection):
        size = before = sent = await _size(connection)
        waiting, under_way = deque(calls), []
        began, first, moved = 0.0, 0, time.monotonic()
        while size < before + ENTRIES:
            while waiting and sent - size < AHEAD:
                sent += len(waiting[0])
                under_way.append(await _append(kafka, waiting.popleft()))
            await asyncio.sleep(POLL_SECONDS)
            if (now := await _size(connection)) != size:
                size, moved = now, time.monotonic()
                if not began and size - before >= WARM:
                    began, first = time.perf_counter(), size
            elif time.monotonic() - moved > STALL_SECONDS:
                raise SystemExit(f"the log stays at {size - before:,} of {ENTRIES:,} entries")
        seconds = time.perf_counter() - began
        await asyncio.gather(*under_way)
        return (size - first) / seconds


async def _waits(there: World, url: str, calls: Sequence[Sequence[bytes]]) -> list[float]:
    """Each call's. An entry's place in the log is its offset: nothing in this topic is skipped."""
    acknowledged: list[tuple[int, float]] = []  # the size that covers a call, and when Kafka had it
    published: list[tuple[int, float]] = []

    async def acknowledge(sending: asyncio.Future[Any], count: int) -> None:
        acknowledged.append(((await sending).offset + count, time.perf_counter()))

    def covered() -> bool:
        return len(acknowledged) == len(calls) and bool(published) and published[-1][0] >= max(acknowledged)[0]

    async def watch(client: httpx.AsyncClient) -> None:
        while not covered():  # the log also has findings of supervision, in between: an end can't be told before
            answer = (await client.get(url)).raise_for_status()
            published.append((int(answer.text.split("\n")[1]), time.perf_counter()))
            await asyncio.sleep(POLL_SECONDS)

    async with (
        _clients(there) as (kafka, _),
        httpx.AsyncClient(verify=client_context(there.bus.tls_authority)) as client,
        asyncio.timeout(STEADY_SECONDS + STALL_SECONDS),
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(watch(client))
        began = time.perf_counter()
        for number, values in enumerate(calls):
            await asyncio.sleep(max(began + number * GROUP / STEADY - time.perf_counter(), 0))
            tasks.create_task(acknowledge(await _append(kafka, values), len(values)))
    sizes = [size for size, _ in published]
    return [published[bisect_left(sizes, end)][1] - at for end, at in acknowledged]


@asynccontextmanager
async def _clients(there: World) -> AsyncIterator[tuple[AIOKafkaProducer, asyncpg.Connection]]:
    kafka = await producer(there.kafka, "bench", linger_ms=0)  # as a gateway's
    connection = await asyncpg.connect(there.postgres)
    try:
        yield kafka, connection
    finally:
        await kafka.stop()
        await connection.close()


async def _append(kafka: AIOKafkaProducer, values: Sequence[bytes]) -> asyncio.Future[Any]:
    """A call's entries in one batch, as gateways send them; done when Kafka has it on disk."""
    batch = kafka.create_batch()
    for value in values:
        batch.append(key=None, value=value, timestamp=None)
    sending: asyncio.Future[Any] = await kafka.send_batch(batch, audit.TOPIC, partition=0)
    return sending


async def _size(connection: asyncpg.Connection) -> int:
    """Entries of which tiles are committed."""
    return await connection.fetchval("SELECT size FROM log_state") or 0


async def _stored(there: World) -> dict[str, float]:
    """Bytes an entry on PostgreSQL's disk, indexes and all."""
    connection = await asyncpg.connect(there.postgres)
    try:
        size = await connection.fetchval("SELECT size FROM log_state")
        rows = await connection.fetch(
            "SELECT split_part(relname, '_', 2) AS part, sum(pg_table_size(oid) + pg_indexes_size(oid)) AS bytes"
            "  FROM pg_class WHERE relkind = 'r' AND relname ~ '^log_(tile|bundle|term)' GROUP BY 1"
        )
    finally:
        await connection.close()
    return {f"{row['part']}_bytes_an_entry": round(float(row["bytes"] / size), 1) for row in rows}
