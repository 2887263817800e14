"""`publish`: to real Kafka, counted when acknowledged, beside plain aiokafka and fastavro."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from io import BytesIO
from json import loads
from typing import Any, TypeVar

import fastavro

from bus.kafka import producer
from bus.publisher import Publisher
from schemas.catalogue import Catalogue
from tests.bench.measure import Outcome, Said, compare
from tests.bench.sample import BATCH, drafts, item, licences
from tests.bench.world import PLAIN_TOPIC, World, world

RECORDS = 64 * BATCH  # a round of one to two seconds
IN_FLIGHT = 4  # batches: while brokers acknowledge one, the next are prepared; the same on both sides

T = TypeVar("T")


def publish(said: Said) -> Outcome:
    """Publisher.publish, 64 a call."""
    with asyncio.Runner() as runner, world(runner, said) as there:
        publisher = Publisher(there.market, there.servers, Catalogue.load())
        runner.run(publisher.__aenter__())
        plain = _Plain(there)
        runner.run(plain.start())
        try:
            return compare(
                lambda number: runner.run(rate(publisher.publish, list(drafts(RECORDS, number * RECORDS)))),
                lambda number: runner.run(rate(plain.publish, _batches(number))),
                floor=0.3,
                said=said,
            )
        finally:
            runner.run(plain.stop())
            runner.run(publisher.__aexit__(None, None, None))


class _Plain:
    """What one would write without a bus: one Avro record of all fields, the holder's code as the key."""

    def __init__(self, there: World) -> None:
        self._kafka = there.kafka  # over TLS as the bus's publisher; its topic is none of the bus's
        self._topic = PLAIN_TOPIC
        self._schema = fastavro.parse_schema(loads(item().schema.document))

    async def start(self) -> None:
        self._producer = await producer(self._kafka, "plain")  # the bus's own settings

    async def stop(self) -> None:
        await self._producer.stop()

    async def publish(self, batch: Sequence[dict[str, Any]]) -> None:
        waiting = [
            await self._producer.send(self._topic, self._encode(values), key=values["uscc"].encode())
            for values in batch
        ]
        await asyncio.gather(*waiting)

    def _encode(self, values: dict[str, Any]) -> bytes:
        out = BytesIO()
        fastavro.schemaless_writer(out, self._schema, values)
        return out.getvalue()


async def rate(publish: Callable[[T], Awaitable[Any]], batches: Iterable[T]) -> float:
    """Records a second until all are acknowledged. Batches begin in order, a few wait for their acknowledgement."""
    free = asyncio.Semaphore(IN_FLIGHT)

    async def one(batch: T) -> None:
        try:
            await publish(batch)
        finally:
            free.release()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for batch in batches:
            await free.acquire()
            tasks.create_task(one(batch))
    return RECORDS / (time.perf_counter() - began)


def _batches(number: int) -> list[list[dict[str, Any]]]:
    values = list(licences(RECORDS, number * RECORDS))
    return [values[at : at + BATCH] for at in range(0, RECORDS, BATCH)]
