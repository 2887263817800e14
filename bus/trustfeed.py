"""Keeps a `Trust` in step with `bus.certificates`."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from bus.kafka import bounded, consumer, kafka_errors, partitions_of
from bus.trust import Trust
from schemas.errors import DeptbusError, Unavailable

TOPIC = "bus.certificates"
CATCH_UP_SECONDS = 30.0  # 100,000 certificates of 1 KiB come in a few seconds
RETRY_SECONDS = 2.0

log = structlog.get_logger()


class TrustFeed:
    """Reads the topic from its beginning: `catch_up` to its present end, `follow` for as long as a process runs."""

    def __init__(self, trust: Trust, bootstrap: str, client_id: str) -> None:
        self.trust = trust
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._consumer: AIOKafkaConsumer | None = None
        self._partitions: list[TopicPartition] = []

    async def start(self) -> None:
        """Connects and reads everything there is. Raises `Unavailable`."""
        self._consumer = await consumer(self._bootstrap, f"{self._client_id}-certificates")
        self._partitions = await partitions_of(self._consumer, TOPIC)
        self._consumer.assign(self._partitions)
        async with kafka_errors("reading the certificates"):
            await self._consumer.seek_to_beginning(*self._partitions)
        await self.catch_up()

    async def stop(self) -> None:
        """Closes the connection; what is known stays known."""
        if self._consumer is not None:
            await self._consumer.stop()
            self._consumer = None

    async def catch_up(self) -> None:
        """Everything that was on the topic when this was called is in the trust when it returns."""
        await bounded(self._catch_up(), CATCH_UP_SECONDS, "reading the certificates")

    async def follow(self) -> None:
        """Runs until cancelled. A Kafka that is away is waited for: known keys go on being known."""
        while True:
            try:
                await self._take(timeout_ms=1_000)
            except Unavailable as exc:
                log.warning("certificates_unavailable", code=exc.code)
                await asyncio.sleep(RETRY_SECONDS)

    async def _catch_up(self) -> None:
        assert self._consumer is not None
        ends = await self._consumer.end_offsets(self._partitions)
        for partition, end in ends.items():
            while await self._consumer.position(partition) < end:
                await self._take(timeout_ms=200)

    async def _take(self, timeout_ms: int) -> None:
        assert self._consumer is not None
        async with kafka_errors("reading the certificates"):
            polled = await self._consumer.getmany(*self._partitions, timeout_ms=timeout_ms)
        for records in polled.values():
            for record in records:
                if record.value is None:
                    continue
                try:
                    self.trust.add(record.value)
                except DeptbusError as exc:
                    # Anybody may write here. What does not verify has no effect; ops see that it was tried.
                    log.warning("certificate_refused", code=exc.code, detail=exc.detail, offset=record.offset)


async def stop_task(task: asyncio.Task[None] | None) -> None:
    """Cancels a supervised task and waits until it is gone."""
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
