"""Reads a small topic whole, and goes on reading it: what every process of the bus must know."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from bus.kafka import bounded, consumer, kafka_errors, partitions_of, stop
from bus.transport import Cluster
from schemas.errors import DeptbusError, Unavailable

CATCH_UP_SECONDS = 30.0  # 100,000 values of 1 KiB come in a few seconds
RETRY_SECONDS = 2.0

log = structlog.get_logger()


class Feed:
    """`catch_up` to the topic's present end, `follow` for as long as a process runs, `glance` between two works.

    Anybody may write to a topic: `accept` raises for what does not verify, which then has no effect but a warning.
    """

    def __init__(self, topic: str, cluster: Cluster, client_id: str) -> None:
        self._topic = topic
        self._cluster = cluster
        self._client_id = client_id
        self._consumer: AIOKafkaConsumer | None = None
        self._partitions: list[TopicPartition] = []

    async def accept(self, key: bytes | None, value: bytes, at: datetime) -> None:
        """Takes one value in, which the broker had `at` that time. Raises `DeptbusError` if it means nothing."""
        raise NotImplementedError

    async def start(self) -> None:
        """Connects and reads everything there is. Raises `Unavailable`."""
        self._consumer = await consumer(self._cluster, self._client_id)
        self._partitions = await partitions_of(self._consumer, self._topic)
        self._consumer.assign(self._partitions)
        async with kafka_errors(f"reading {self._topic}"):
            await self._consumer.seek_to_beginning(*self._partitions)
        await self.catch_up()

    async def stop(self) -> None:
        """Closes the connection; what is known stays known."""
        if self._consumer is not None:
            await stop(self._consumer)
            self._consumer = None

    async def catch_up(self) -> None:
        """Everything that was on the topic when this was called is known when it returns."""
        await bounded(self._catch_up(), CATCH_UP_SECONDS, f"reading {self._topic}")

    async def glance(self) -> None:
        """What has come already: waits for nothing."""
        await self._take(timeout_ms=0)

    async def follow(self) -> None:
        """Runs until cancelled. A Kafka that is away is waited for: what is known goes on being known."""
        while True:
            try:
                await self._take(timeout_ms=1_000)
            except Unavailable as exc:
                log.warning("feed_unavailable", topic=self._topic, code=exc.code)
                await asyncio.sleep(RETRY_SECONDS)

    async def _catch_up(self) -> None:
        assert self._consumer is not None
        ends = await self._consumer.end_offsets(self._partitions)
        for partition, end in ends.items():
            while await self._consumer.position(partition) < end:
                await self._take(timeout_ms=200)

    async def _take(self, timeout_ms: int) -> None:
        assert self._consumer is not None
        async with kafka_errors(f"reading {self._topic}"):
            polled = await self._consumer.getmany(*self._partitions, timeout_ms=timeout_ms)
        for records in polled.values():
            for record in records:
                if record.value is None:
                    continue
                try:
                    await self.accept(record.key, record.value, datetime.fromtimestamp(record.timestamp / 1000, UTC))
                except Unavailable:
                    raise
                except DeptbusError as exc:
                    # Anybody may write here. What does not verify has no effect; ops see that it was tried.
                    log.warning(
                        "value_refused", topic=self._topic, code=exc.code, detail=exc.detail, offset=record.offset
                    )
