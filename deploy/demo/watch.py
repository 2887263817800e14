"""What an onlooker sees of the demo on the topics: claims in clear, times of the broker, nothing opened."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer

from bus import envelope
from bus.kafka import consumer, partitions_of
from bus.transport import Cluster
from deploy.demo.departments import LICENCE
from schemas.catalogue import Catalogue
from schemas.errors import DeptbusError

POLL_MS = 200
P99 = 0.99


class Watch:
    """Follows every licence topic while it is open."""

    def __init__(self, kafka: Cluster, catalogue: Catalogue) -> None:
        self._kafka = kafka
        self._topics = [item.topic for item in catalogue.items.values()]
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._licence_of: dict[bytes, bytes] = {}  # leaf hash of a business licence -> its reference
        self._produced: dict[bytes, float] = {}  # reference -> when its first version was produced
        self._certified: dict[bytes, dict[str, float]] = {}  # reference -> issuer -> when its certificate was produced
        self._orphans: list[tuple[bytes, str, float]] = []
        self._issued: Counter[str] = Counter()
        self._last = monotonic()
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._consumer = await consumer(self._kafka, "watch", max_poll_records=1_000)
        partitions = [tp for topic in self._topics for tp in await partitions_of(self._consumer, topic)]
        self._consumer.assign(partitions)
        await self._consumer.seek_to_beginning(*partitions)
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        assert self._consumer is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._consumer.stop()

    async def certificate(self, licence: bytes, issuer: str) -> None:
        """Returns once this issuer's certificate from this licence is on its topic."""
        async with self._news:
            await self._news.wait_for(lambda: issuer in self._certified.get(licence, {}))

    async def quiet(self, seconds: float) -> None:
        """Returns once no certificate has come for so long."""
        while (left := self._last + seconds - monotonic()) > 0:  # noqa: ASYNC110 - what is waited for is silence
            await asyncio.sleep(left)

    def issued(self) -> Mapping[str, int]:
        """Certificates by issuer."""
        return self._issued

    def latencies(self, paced_from: float) -> dict[str, Any]:
        """Milliseconds from a licence to the last certificate of its firm, before and after the pace began."""
        full: list[float] = []
        paced: list[float] = []
        for licence, certificates in self._certified.items():
            produced = self._produced[licence]
            (paced if paced_from and produced >= paced_from else full).append(max(certificates.values()) - produced)
        return {"latency_ms": _quantiles(full), "latency_ms_paced": _quantiles(paced)}

    async def _follow(self) -> None:
        assert self._consumer is not None
        while True:
            polled = await self._consumer.getmany(timeout_ms=POLL_MS)
            async with self._news:
                for messages in polled.values():
                    for message in messages:
                        self._see(message)
                self._news.notify_all()

    def _see(self, message: Any) -> None:
        try:
            record = envelope.parse(message.value)
        except DeptbusError:
            return
        claims, at = record.claims, message.timestamp / 1000
        if claims.item == LICENCE:
            self._licence_of[record.leaf_hash] = claims.licence
            self._produced.setdefault(claims.licence, at)
            orphans, self._orphans = self._orphans, []
            for orphan in orphans:
                self._certify(*orphan)
            return
        self._issued[claims.issuer] += 1
        self._last = monotonic()
        for parent in claims.parents:
            self._certify(parent, claims.issuer, at)

    def _certify(self, parent: bytes, issuer: str, at: float) -> None:
        """Topics are read side by side: a certificate may be seen before its licence."""
        licence = self._licence_of.get(parent)
        if licence is None:
            self._orphans.append((parent, issuer, at))
        else:
            self._certified.setdefault(licence, {})[issuer] = at


def _quantiles(seconds: list[float]) -> dict[str, float | None]:
    if not seconds:
        return {"p50": None, "p99": None}
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * P99))]
    return {"p50": round(statistics.median(ordered) * 1000, 1), "p99": round(p99 * 1000, 1)}
