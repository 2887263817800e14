"""The SDK's notices: what a department opened, or derived certificates from, and what became of it.

Promises: a notice is handed over at least once and committed only after the handler is done; its `id` is the same each
time. It is an entry of the audit log, signed by the recorder: `value` is the log's leaf, and its proof of inclusion is
to be had under `entry`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer

from bus import audit, metrics
from bus.audit import Entry
from bus.identity import Identity
from bus.kafka import bounded, consumer, kafka_errors, partitions_of, stop
from bus.pki import Role
from bus.proof import ProofVerifier
from bus.topics import group_of, notices_of
from bus.trust import Trust
from bus.trustfeed import TrustFeed
from schemas.errors import Code, DeptbusError, Malformed, Refused
from schemas.operations import Operation

POLL_MS = 200
BATCH = 500
ASK_SECONDS = 20.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DerivedRecord:
    """A record of one's own that follows from the licence. `parent` is the record that it names."""

    record: bytes
    licence: bytes
    item: str
    parent: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """That a licence which one relied on is not what it was. Field by field as `Impact` in `bus/FORMATS.md`.

    `entry` is the leaf hash of `value` in the audit log.
    """

    id: bytes
    record: bytes
    licence: bytes
    item: str
    issuer: str
    operation: Operation
    occurred_at: datetime
    admitted: bytes
    addressee: str
    opened: tuple[bytes, ...]
    count: int
    entries: tuple[bytes, ...]
    derived: tuple[DerivedRecord, ...]
    time: datetime
    entry: bytes
    value: bytes

    def to_json(self) -> dict[str, Any]:
        """Bytes in hex, times RFC 3339; without `value`."""
        return {
            "id": self.id.hex(),
            "operation": self.operation.value,
            "item": self.item,
            "licence": self.licence.hex(),
            "record": self.record.hex(),
            "issuer": self.issuer,
            "occurred_at": self.occurred_at.isoformat(),
            "admitted": self.admitted.hex(),
            "addressee": self.addressee,
            "opened": [one.hex() for one in self.opened],
            "count": self.count,
            "entries": [one.hex() for one in self.entries],
            "derived": [
                {
                    "record": one.record.hex(),
                    "licence": one.licence.hex(),
                    "item": one.item,
                    "parent": one.parent.hex(),
                }
                for one in self.derived
            ],
            "time": self.time.isoformat(),
            "entry": self.entry.hex(),
        }


# Takes a batch of notices; done when it returns. What it raises ends the reading, with nothing of the batch committed.
Handler = Callable[[Sequence[Notice]], Awaitable[None]]


def verify(value: bytes, bus: str, trust: Trust, verifier: ProofVerifier) -> Notice:
    """A notice that a recorder of this bus has signed.

    Raises `Malformed` (RECORD_MALFORMED for an entry of another kind) or `Refused`.
    """
    entry = audit.verify(value, bus, trust, verifier)
    trust.key(entry.signer, Role.RECORDER, entry.time)  # a gateway signs entries, too, but tells nobody
    if entry.kind != "Impact":
        raise Malformed(Code.RECORD_MALFORMED, f"a notice is an entry of kind Impact, not {entry.kind}")
    return _notice(entry)


class Notices:
    """One department's notices, in order. `run` until cancelled, or `drain` to the present end.

    Without a `group` they begin with the first one ever, and nothing is committed.
    """

    def __init__(self, identity: Identity, servers: str, *, group: str | None = None) -> None:
        self._identity = identity
        self._cluster = cluster = identity.cluster(servers)
        self._topic = notices_of(identity.uscc).name
        self._group = None if group is None else group_of(identity.uscc, group)
        self._trust = TrustFeed(Trust(identity.authority), cluster, "notices")
        self._verifier = ProofVerifier()

    async def run(self, handler: Handler) -> None:
        """Hands over batches until cancelled. Raises what the handler raises, and `Unavailable`."""
        async with self._connected() as reader:
            while True:
                await self._step(reader, handler)

    async def drain(self, handler: Handler) -> None:
        """Hands over what is there now."""
        async with self._connected() as reader:
            partitions = await partitions_of(reader, self._topic)
            ends = await bounded(reader.end_offsets(partitions), ASK_SECONDS, "reading the notices")
            while not (ends.keys() <= reader.assignment()) or any(
                [await reader.position(tp) < end for tp, end in ends.items()]
            ):
                await self._step(reader, handler)

    async def _step(self, reader: AIOKafkaConsumer, handler: Handler) -> None:
        async with kafka_errors("reading the notices"):
            polled = await reader.getmany(timeout_ms=POLL_MS, max_records=BATCH)
        found = [
            notice
            for messages in polled.values()
            for message in messages
            if message.key == self._identity.uscc.encode() and (notice := await self._read(message)) is not None
        ]
        if found:
            await handler(found)
            metrics.CONSUMED.labels(outcome="ok").inc(len(found))
        if polled and self._group is not None:
            async with kafka_errors("committing"):
                await reader.commit({tp: messages[-1].offset + 1 for tp, messages in polled.items()})

    async def _read(self, message: Any) -> Notice | None:
        """Anybody may write to a topic: what is not signed by the bus, or is another's, is passed over and told ops."""
        try:
            try:
                notice = self._verify(message)
            except Refused as exc:
                if exc.code is not Code.CERTIFICATE_UNKNOWN:
                    raise
                await self._trust.catch_up()  # a recorder that started a moment ago
                notice = self._verify(message)
        except (Malformed, Refused) as exc:
            _refuse(exc, message)
            return None
        return notice

    def _verify(self, message: Any) -> Notice:
        notice = verify(message.value or b"", self._identity.origin, self._trust.trust, self._verifier)
        if notice.addressee != self._identity.uscc:
            raise Malformed(Code.KEY_MISMATCH, "the Kafka key is not the addressee")
        return notice

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AIOKafkaConsumer]:
        reader: AIOKafkaConsumer | None = None
        try:
            await self._trust.start()
            if self._group is None:
                reader = await consumer(self._cluster, "notices", max_poll_records=BATCH)
                partitions = await partitions_of(reader, self._topic)
                reader.assign(partitions)
                async with kafka_errors("reading the notices"):
                    await reader.seek_to_beginning(*partitions)
            else:
                reader = await consumer(
                    self._cluster, "notices", self._topic, group=self._group, max_poll_records=BATCH
                )
            yield reader
        finally:
            if reader is not None:
                await stop(reader)
            await self._trust.stop()


def _refuse(error: DeptbusError, message: Any) -> None:
    metrics.CONSUMED.labels(outcome=error.code.value).inc()
    log.warning("notice_refused", code=error.code, detail=error.detail, offset=message.offset)


def _notice(entry: Entry) -> Notice:
    body = entry.body
    return Notice(
        **{name: body[name] for name in ("id", "record", "licence", "item", "issuer", "occurred_at", "admitted")},
        operation=Operation(body["operation"]),
        addressee=body["addressee"],
        opened=tuple(body["opened"]),
        count=body["count"],
        entries=tuple(body["entries"]),
        derived=tuple(DerivedRecord(**one) for one in body["derived"]),
        time=entry.time,
        entry=entry.leaf_hash,
        value=entry.value,
    )
