"""The SDK's reading half: consume, verify, ask for keys, open, hand over, commit.

Promises: a record is handed over at least once and committed only after the handler is done. A record that cannot be
verified or opened goes to the consumer's dead-letter topic with its code and never blocks its partition. While the
bus's gateways are away or a record is not admitted yet, the partition waits with back-off and loses nothing. A
provider's own gateway is waited for half a minute: then its records become dead letters, to be replayed, so that no
provider holds up the others' records.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from math import inf
from time import monotonic
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

from bus import deadletters, envelope, metrics
from bus.client import GatewayClient
from bus.client import Wanted as Wanted  # a subscription is made of one
from bus.envelope import Record
from bus.identity import Identity
from bus.kafka import consumer, kafka_errors, partitions_of, producer, stop
from bus.messages import Grant, Read, Result
from bus.opening import OpenedRecord, Secrets, elsewhere, open_record, schema_of
from bus.proof import ProofVerifier
from bus.topics import apply, dead_letters, group_of, retries
from bus.trust import Trust
from bus.trustfeed import TrustFeed, stop_task
from schemas.catalogue import Catalogue
from schemas.errors import Code, DeptbusError, Malformed, Refused, Unavailable

BATCH = 100  # records a key request; also what a crash may hand over a second time
POLL_MS = 500
FIRST_WAIT = 0.05
ALLOWED_SECONDS = 5.0  # an agreement that came into force is known to Kafka within a second
LONGEST_WAIT = 5.0  # a gateway that came back is found within this
SEND_SECONDS = 30.0
OWN_SECONDS = 30.0  # a provider's own gateway restarts in five
_RETRIED = frozenset({Code.NOT_ADMITTED, Code.INDEX_STALE, Code.AUDIT_STALLED, Code.FACTS_CHANGED})

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(OpenedRecord):
    """A record as a handler gets it: also where it was read (a sink's offset), and when the broker first had it.

    `doubted`: the CA says that by that time the issuer's key may have been in other hands.
    """

    topic: str
    partition: int
    offset: int
    time: datetime
    doubted: bool = False


# Takes a batch; done when it returns. `Malformed` or `Refused` says that a record itself is at fault: it becomes a dead
# letter. Anything else ends the subscription with nothing of the batch committed.
Handler = Callable[[Sequence[Opened]], Awaitable[None]]
_Connected = tuple[AIOKafkaConsumer, AIOKafkaProducer, GatewayClient]


@dataclass(slots=True)
class _Held:
    """A record between its topic and the handler."""

    message: Any
    record: Record
    elsewhere: set[str] = field(default_factory=set)  # whose gateways do not open it
    result: Result | None = None


class Subscriber:
    """One department's subscription to items' topics. `run` until cancelled, or `drain` to the present end."""

    def __init__(
        self,
        identity: Identity,
        servers: str,
        gateways: Sequence[str],
        catalogue: Catalogue,
        *,
        group: str,
        items: Sequence[str],
        wanted: Wanted,
        offsets: Mapping[tuple[str, int], int] | None = None,
        patience: float = OWN_SECONDS,
    ) -> None:
        """`offsets` given: the handler's sink keeps them with its data, and Kafka's own group offsets are not used.

        `patience`: how many seconds a provider's own gateway is waited for.
        """
        self.identity = identity
        self._cluster = cluster = identity.cluster(servers)
        self._gateways = gateways
        self._catalogue = catalogue
        self._group = group_of(identity.uscc, group)
        self._name = group
        self._topics = [*(catalogue.item(item).topic for item in items), retries(self._group).name]
        self._wanted = wanted
        self._offsets = offsets
        self._trust = TrustFeed(Trust(identity.authority), cluster, f"subscriber-{group}")
        self._verifier = ProofVerifier()
        self._patience = patience
        self._away: dict[str, float] = {}  # since when a provider's own gateway did not answer

    async def run(self, handler: Handler) -> None:
        """Hands over batches until cancelled. Raises what the handler raises, with nothing of that batch committed."""
        wait = FIRST_WAIT
        while True:
            async with AsyncExitStack() as stack:
                connected = await self._once_admitted(stack)
                while connected is not None and (polled := await self._poll(connected[0])) is not None:
                    wait = FIRST_WAIT
                    if polled:
                        await self._batch(*connected, polled, handler)
                    else:
                        self._measure_lag({})
            await asyncio.sleep(wait)  # an issuer of the item sees its topic, and may still not read it
            wait = min(wait * 2, LONGEST_WAIT)

    async def _once_admitted(self, stack: AsyncExitStack) -> _Connected | None:
        """None while Kafka lets the department do nothing at all: it is suspended."""
        try:
            return await stack.enter_async_context(self._connected(inf))
        except Unavailable as exc:
            if exc.code is not Code.KAFKA_FORBIDDEN:
                raise
            log.warning("not_allowed_to_read", code=exc.code, detail=exc.detail)
            return None

    async def drain(self, handler: Handler) -> int:
        """Hands over what is on the topics now; returns how many records that were.

        Raises `Unavailable` (KAFKA_FORBIDDEN) if no agreement in force shares an item, or none does any more.
        """
        count = 0
        async with self._connected(ALLOWED_SECONDS) as (reader, buried, client):
            partitions = [tp for topic in self._topics for tp in await partitions_of(reader, topic)]
            async with kafka_errors("reading ends"):
                ends = await reader.end_offsets(partitions)
            while not await _reached(reader, ends):
                polled = await self._poll(reader)
                if polled is None:
                    raise Unavailable(Code.KAFKA_FORBIDDEN, "the agreement ended while its records were read")
                count += sum(map(len, polled.values()))
                if polled:
                    await self._batch(reader, buried, client, polled, handler)
        return count

    async def open(
        self, client: GatewayClient, messages: Sequence[Any]
    ) -> tuple[list[Opened], list[tuple[Any, DeptbusError]]]:
        """Verified and opened records, and (message, error) of those that are not. Waits while it can't know."""
        await self._learn_signers(messages)
        held: list[_Held] = []
        failed: list[tuple[Any, DeptbusError]] = []
        for message in messages:
            try:
                held.append(_Held(message, self._verify(message)))
            except DeptbusError as exc:
                failed.append((message, exc))
        opened: list[Opened] = []
        answered, unanswered = await self._ask(client, held)
        failed += [(one.message, error) for one, error in unanswered]
        for one, secrets in answered:
            try:
                opened.append(self._open(one, secrets))
            except DeptbusError as exc:
                failed.append((one.message, exc))
        return opened, failed

    async def _batch(
        self,
        reader: AIOKafkaConsumer,
        buried: AIOKafkaProducer,
        client: GatewayClient,
        polled: Mapping[TopicPartition, Any],
        handler: Handler,
    ) -> None:
        messages = [m for records in polled.values() for m in records if m.value is not None]
        self._measure_lag(polled)
        opened, failed = await self.open(client, messages)
        rejected = await _hand_over(handler, opened)
        places = {(m.topic, m.partition, m.offset): m for m in messages}
        failed += [(places[one.topic, one.partition, one.offset], error) for one, error in rejected]
        await self._bury(buried, failed)
        metrics.CONSUMED.labels(outcome="ok").inc(len(opened) - len(rejected))
        log.info("handed_over", group=self._group, traces=[one.claims.record.hex for one in opened])
        if self._offsets is None:
            await _commit(reader, {tp: records[-1].offset + 1 for tp, records in polled.items()})

    def _measure_lag(self, polled: Mapping[TopicPartition, Any]) -> None:
        """The age of what is being read, a topic; nothing new means none."""
        now, oldest = datetime.now(UTC).timestamp(), dict.fromkeys(self._topics, 0.0)
        for tp, records in polled.items():
            oldest[tp.topic] = max(oldest[tp.topic], now - records[0].timestamp / 1000)
        for topic, age in oldest.items():
            label = "retry" if topic.startswith("retry.") else topic
            metrics.LAG_SECONDS.labels(topic=label, consumergroup=self._name).set(age)

    def _verify(self, message: Any) -> Record:
        origin = deadletters.origin_of(message)
        record = envelope.parse(message.value)
        envelope.check_place(record, origin.topic, message.key)
        envelope.verify(record, self.identity.origin, self._trust.trust, self._verifier, origin.time)
        schema_of(self._catalogue, record)
        return record

    async def _learn_signers(self, messages: Sequence[Any]) -> None:
        """A certificate is on its topic before its first record: one look is enough."""
        for message in messages:
            try:
                self._verify(message)
            except Refused as exc:
                if exc.code is Code.CERTIFICATE_UNKNOWN:
                    await self._trust.catch_up()
                    return
            except DeptbusError:
                continue

    async def _ask(
        self, client: GatewayClient, held: Sequence[_Held]
    ) -> tuple[list[tuple[_Held, Secrets]], list[tuple[_Held, DeptbusError]]]:
        """Keys for all of them. What is not admitted yet, or cannot be decided now, is asked again with back-off.

        Also (record, error) of those whose provider's own gateway stays away.
        """
        done: list[tuple[_Held, Secrets]] = []
        failed: list[tuple[_Held, DeptbusError]] = []
        waiting, wait = list(held), FIRST_WAIT
        while waiting:
            again: list[_Held] = []
            for owner, asked in self._by_owner(client, waiting).items():
                try:
                    grant, secrets = await self._keys(client, asked, owner)
                except Unavailable as exc:
                    log.warning("gateway_unavailable", code=exc.code, owner=owner, waiting=len(asked))
                    if self._given_up(owner):
                        failed += [(one, exc) for one in asked]
                    else:
                        again += asked
                else:
                    self._away.pop(owner, None)
                    results = {r.leaf_hash: r for r in grant.results}
                    for one in asked:
                        one.result = results[one.record.leaf_hash]
                        if await self._settled(client, one, owner):
                            done.append((one, secrets))
                        else:
                            again.append(one)
            if len(again) < len(waiting):
                wait = FIRST_WAIT
            waiting = again
            if waiting:
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT)
        return done, failed

    def _by_owner(self, client: GatewayClient, waiting: Sequence[_Held]) -> dict[str, list[_Held]]:
        """Whose gateway to ask for which: one question for most batches."""
        asked: dict[str, list[_Held]] = {}
        for one in waiting:
            owners = client.owners(self._trust.trust, one.record.claims.issuer)
            owner = next((name for name in owners if name not in one.elsewhere), owners[-1])
            asked.setdefault(owner, []).append(one)
        return asked

    def _given_up(self, owner: str) -> bool:
        """Whether a provider's own gateway was away for so long that nobody waits for it. The bus's are waited for."""
        if owner == self.identity.gateway_owner:
            return False
        return monotonic() - self._away.setdefault(owner, monotonic()) > self._patience

    async def _settled(self, client: GatewayClient, one: _Held, owner: str) -> bool:
        """Whether the answer stands, or another gateway is to be asked, or this one again."""
        assert one.result is not None
        if not elsewhere(one.result):
            return not _is_open(one.result)
        one.elsewhere.add(owner)
        if one.elsewhere.issuperset(client.owners(self._trust.trust, one.record.claims.issuer)):
            await self._trust.catch_up()  # of a provider whose own gateway is new
        return one.elsewhere.issuperset(client.owners(self._trust.trust, one.record.claims.issuer))

    async def _keys(self, client: GatewayClient, waiting: Sequence[_Held], owner: str) -> tuple[Grant, Secrets]:
        reads = [Read(one.record.claims_bytes, self._sections(one.record)) for one in waiting]
        return await client.keys(self._trust.trust, reads, self._wanted, learn=self._trust.catch_up, owner=owner)

    def _sections(self, record: Record) -> tuple[str, ...]:
        """An erased licence has no sections: only its state is asked for."""
        there = {name for name, _ in record.claims.sections}
        return tuple(name for name in self._wanted.sections if name in there)

    def _open(self, one: _Held, secrets: Secrets) -> Opened:
        assert one.result is not None
        message = one.message
        opened = open_record(one.record, schema_of(self._catalogue, one.record), one.result, secrets)
        time = deadletters.origin_of(message).time
        return Opened(
            **{each.name: getattr(opened, each.name) for each in fields(opened)},
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            time=time,
            doubted=self._trust.trust.doubted(one.record.proof.signer, time),
        )

    async def _bury(self, buried: AIOKafkaProducer, failed: Sequence[tuple[Any, DeptbusError]]) -> None:
        """The bytes as received and a code: durable before the offset moves on."""
        if not failed:
            return
        async with kafka_errors("writing dead letters"), asyncio.timeout(SEND_SECONDS):
            waiting = [
                await buried.send(
                    dead_letters(self._group).name,
                    message.value,
                    key=message.key,
                    headers=deadletters.headers_of(message, error),
                )
                for message, error in failed
            ]
            await asyncio.gather(*waiting)
        for message, error in failed:
            metrics.DEAD_LETTERS.labels(reason=error.code.value).inc()
            metrics.CONSUMED.labels(outcome=error.code.value).inc()
            log.warning("dead_letter", code=error.code, detail=error.detail, topic=message.topic, offset=message.offset)

    @asynccontextmanager
    async def _connected(self, patience: float) -> AsyncIterator[_Connected]:
        """`patience`: how many seconds an agreement may take to come into force at Kafka."""
        follow: asyncio.Task[None] | None = None
        reader: AIOKafkaConsumer | None = None
        buried: AIOKafkaProducer | None = None
        try:
            await self._trust.start()
            follow = asyncio.create_task(self._trust.follow())
            # The group's own two topics, made when it first starts: nobody else reads or writes them.
            await apply(self._cluster, [dead_letters(self._group), retries(self._group)])
            buried = await producer(self._cluster, f"subscriber-{self._group}")
            reader = await self._reader(patience)
            log.info("subscribed", group=self._group, topics=self._topics)
            async with GatewayClient(self.identity, self._gateways) as client:
                yield reader, buried, client
        finally:
            await stop_task(follow)
            for client_ in (reader, buried):
                if client_ is not None:
                    await stop(client_)
            await self._trust.stop()

    async def _reader(self, patience: float) -> AIOKafkaConsumer:
        group = self._group if self._offsets is None else None
        reader = await consumer(self._cluster, self._name, group=group, max_poll_records=BATCH)
        try:
            partitions = await self._allowed(reader, patience)
            if self._offsets is None:
                reader.subscribe(self._topics)
            else:
                reader.assign(partitions)
                for tp in partitions:
                    reader.seek(tp, self._offsets.get((tp.topic, tp.partition), 0))
        except BaseException:
            await stop(reader)
            raise
        return reader

    async def _allowed(self, reader: AIOKafkaConsumer, patience: float) -> list[TopicPartition]:
        """The topics' partitions, once Kafka lets the department read them all."""
        wait, deadline = FIRST_WAIT, monotonic() + patience
        while True:
            try:
                return [tp for topic in self._topics for tp in await partitions_of(reader, topic)]
            except Unavailable as exc:
                if exc.code is not Code.KAFKA_FORBIDDEN or monotonic() > deadline:
                    raise
                log.warning("not_allowed_to_read", code=exc.code, detail=exc.detail)
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    async def _poll(self, reader: AIOKafkaConsumer) -> Mapping[TopicPartition, Any] | None:
        """What has come; None if Kafka does not let the department read any more: an agreement ended."""
        try:
            async with kafka_errors("polling"):
                return dict(await reader.getmany(timeout_ms=POLL_MS, max_records=BATCH))
        except Unavailable as exc:
            if exc.code is not Code.KAFKA_FORBIDDEN:
                raise
            log.warning("not_allowed_to_read", code=exc.code, detail=exc.detail)
            return None


def _is_open(result: Result) -> bool:
    """Whether a later answer may be another. A read without sections has no code: its state says it."""
    if result.state in ("WAITING", "REFUSED"):
        return result.state == "WAITING"
    return not _RETRIED.isdisjoint(code for _, code in result.sections)


async def _hand_over(handler: Handler, opened: Sequence[Opened]) -> list[tuple[Opened, DeptbusError]]:
    """Gives the handler its batch; returns the records that it rejects.

    A batch that is rejected is handed over again one record at a time, so that one bad record costs no other.
    """
    if not opened:
        return []
    try:
        with metrics.PROCESS_SECONDS.time():
            await handler(opened)
    except (Malformed, Refused) as exc:
        if len(opened) == 1:
            return [(opened[0], exc)]
        log.warning("batch_rejected", code=exc.code, detail=exc.detail, records=len(opened))
        return [rejected for one in opened for rejected in await _hand_over(handler, [one])]
    return []


async def _commit(reader: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]) -> None:
    """What a rebalance or an agreement's end took away meanwhile is not committed: it is handed over again."""
    ours = {tp: offset for tp, offset in offsets.items() if tp in reader.assignment()}
    try:
        async with kafka_errors("committing"):
            if ours:
                await reader.commit(ours)
    except Unavailable as exc:
        if exc.code is not Code.KAFKA_FORBIDDEN and not isinstance(
            exc.__cause__, CommitFailedError | IllegalStateError
        ):
            raise
        log.info("not_committed", code=exc.code)


async def _reached(reader: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> bool:
    assigned = reader.assignment()
    if not ends.keys() <= assigned:
        return not any(ends.values())
    return all([await reader.position(tp) >= end for tp, end in ends.items()])
