"""The SDK's writing half: validate, seal, sign, produce.

Durability: `send` returns when every in-sync replica has the records. Idempotence: a retry sends the same bytes, so the
recorder sees the same leaf hash and does nothing. With an `Outbox`, sealed bytes are on disk before they are produced:
a crash at any point resends exactly them. Needs Kafka only: gateways may all be down.

What would not be admitted, because its item is not published or its department has no power to issue it there today, is
refused before anything is sealed, as far as the news of it has come on `bus.catalogue`; the recorder has the last word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import structlog
from aiokafka import AIOKafkaProducer

from bus import metrics, session
from bus.cataloguefeed import CatalogueFeed
from bus.identity import Identity
from bus.kafka import kafka_errors, producer
from bus.outbox import Outbox, Sealed
from bus.sealer import Draft, Sealer
from bus.trust import Trust
from bus.trustfeed import TrustFeed
from schemas.catalogue import Catalogue
from schemas.errors import Code, Misuse

MAX_DRAFTS = 1_024  # a call's memory: 1,024 records of at most 1 MiB sealed at once is the bound, 64 the usual batch
SEND_SECONDS = 60.0  # longer than one request timeout with its retries


log = structlog.get_logger()


class Publisher:
    """Publishes one department's records. An async context manager; calls are serialised, so order is the caller's."""

    def __init__(self, identity: Identity, servers: str, catalogue: Catalogue, *, outbox: Outbox | None = None) -> None:
        self.identity = identity
        self._cluster = cluster = identity.cluster(servers)
        self._catalogue = catalogue
        self._outbox = outbox
        self._trust = TrustFeed(Trust(identity.authority), cluster, f"publisher-{identity.uscc}")
        self._standing = CatalogueFeed(self._trust, identity.gateway_owner, cluster, f"publisher-{identity.uscc}")
        self._sealers: dict[str, Sealer] = {}
        self._producer: AIOKafkaProducer | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Connects, reads certificates and catalogue, sends what an earlier run staged but did not see acknowledged."""
        try:
            await self._trust.start()
            await self._standing.start()
            self._producer = await producer(self._cluster, f"publisher-{self.identity.uscc}")
            await self.resend()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    def reference(self, item: str, values: Mapping[str, Any]) -> bytes:
        """The licence reference of these values."""
        return self._sealer(item).reference(values)

    async def publish(self, drafts: Sequence[Draft]) -> list[Sealed]:
        """Seals, stages (if there is an outbox) and sends one batch; returns when the brokers hold it."""
        sealed = await self.seal(drafts)
        if self._outbox is not None:
            await asyncio.to_thread(self._outbox.stage, sealed)
        await self.send(sealed)
        return sealed

    async def seal(self, drafts: Sequence[Draft]) -> list[Sealed]:
        """One signed batch of one item, its session published first.

        Raises `Malformed`, `Misuse`, `Unavailable`, `Refused` (ITEM_NOT_PUBLISHED, ITEM_RETIRED, ISSUER_NOT_ENTITLED;
        SESSION_INVALID: the clock here is wrong; CERTIFICATE_*: the record key counts no more).
        """
        if not 1 <= len(drafts) <= MAX_DRAFTS:
            raise Misuse(Code.VALUE_INVALID, f"a batch holds 1 to {MAX_DRAFTS} records, not {len(drafts)}")
        if len({draft.item for draft in drafts}) != 1:
            raise Misuse(Code.ITEM_UNKNOWN, "a batch holds records of one item")
        sealer = self._sealer(drafts[0].item)
        async with self._turn:
            await self._check_powers(drafts)
            self.identity.refresh()
            if sealer.needs_session(len(drafts), self._now()):
                await self._begin_session(sealer)
            return sealer.seal(drafts)

    async def send(self, sealed: Sequence[Sealed]) -> None:
        """Produces these bytes. On `Unavailable` some may have arrived: sending them again is safe."""
        assert self._producer is not None
        if not sealed:
            return
        with metrics.PUBLISH_SECONDS.time(), metrics.outcome(metrics.PUBLISHED, len(sealed)):
            async with kafka_errors("publishing"), asyncio.timeout(SEND_SECONDS):
                # One after the other: `send` waits while a partition's batch is full, which is the back-pressure.
                waiting = [
                    await self._producer.send(s.topic, s.value, key=s.key, headers=list(s.headers)) for s in sealed
                ]
                await asyncio.gather(*waiting)
        log.info("published", topic=sealed[0].topic, traces=[s.record.hex for s in sealed])
        if self._outbox is not None:
            await asyncio.to_thread(self._outbox.done, [s.leaf_hash for s in sealed])

    async def resend(self) -> int:
        """Sends what is staged, byte for byte; returns how many records that were.

        What was sealed too long ago is sent, too, *because* the brokers may have it from then; a log line says so.
        """
        if self._outbox is None:
            return 0
        pending = await asyncio.to_thread(self._outbox.pending)
        since = (self._now() - session.LATE_ADMISSION).timestamp() * 1000
        late = sum(one.record.int >> 80 < since for one in pending)  # a UUID's first 48 bits: milliseconds
        if late:
            detail = (
                f"{late} staged records were sealed more than a day ago: if they are new to Kafka, none is admitted"
            )
            log.error("resent_late", code=Code.SESSION_LATE, detail=detail)
        for start in range(0, len(pending), MAX_DRAFTS):
            await self.send(pending[start : start + MAX_DRAFTS])
        return len(pending)

    async def _check_powers(self, drafts: Sequence[Draft]) -> None:
        await self._standing.glance()
        now = self._now()
        for region in {draft.region for draft in drafts}:
            self._standing.issuing.authority(drafts[0].item, self.identity.uscc, region, now)

    def _sealer(self, item: str) -> Sealer:
        if item not in self._sealers:
            self._sealers[item] = Sealer(self.identity, self._catalogue.item(item))
        return self._sealers[item]

    async def _begin_session(self, sealer: Sealer) -> None:
        """The session is on the topic before any of its records: a crash between leaves an unused session.

        It is judged as the recorder will judge it, at the broker's time, *because* records of a session that does not
        stand are lost to the index, and a publisher that reads no log would not learn that.
        """
        assert self._producer is not None
        await self._trust.catch_up()
        now, trust = self._now(), self._trust.trust
        opened = sealer.open_session(trust.gateway_key(self.identity.sealed_to, now), now)
        try:
            async with kafka_errors("publishing a session"), asyncio.timeout(SEND_SECONDS):
                sent = await self._producer.send_and_wait(session.TOPIC, opened.value, key=opened.key)
            session.verify(opened, trust, datetime.fromtimestamp(sent.timestamp / 1000, UTC), opened.key)
        except BaseException:
            sealer.drop_session()
            raise

    def _now(self) -> datetime:
        return datetime.now(UTC)

    async def _close(self) -> None:
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None
        await self._standing.stop()
        await self._trust.stop()
