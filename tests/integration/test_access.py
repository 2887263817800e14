"""Who may do what at Kafka, asked of the brokers as each: what no power or agreement in force gives is refused."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from aiokafka import AIOKafkaProducer

from bus import audit, topics
from bus.access import FETCH, PRODUCE, Binding, Changes
from bus.identity import Identity
from bus.kafka import bounded, consumer, partitions_of, producer, stop
from bus.kafkaadmin import Administrator, administrator
from bus.subscriber import Opened
from bus.topics import dead_letters, group_of, notices_of
from bus.transport import Cluster
from bus.trust import certificate_value, topic_key
from deploy import bootstrap
from deploy.commands.topics import _plan
from deploy.home import Stack
from schemas.errors import Code, Unavailable
from tests.integration.bus import LICENCE, TAX, World

OWN, OTHERS = f"licence.{LICENCE}", f"licence.{TAX}"
SOON = 2.0  # an agreement's change is at the brokers a second after it; this machine's two cores are shared


async def test_a_department_writes_its_items_and_nothing_else(world: World) -> None:
    """Not another's item, not the audit log, no certificate, no copies of rules, nobody's dead letters or notices."""
    provider, other = await asyncio.gather(world.join(issues=[(LICENCE, "")]), world.join(receives=[LICENCE]))
    letters = dead_letters(group_of(other.uscc, "main")).name
    await topics.apply(world.place.kafka, [topics.dead_letters(group_of(other.uscc, "main"))])
    value = certificate_value(provider.record.der)
    async with writing(world, provider) as client:
        await client.send_and_wait(OWN, b"garbage is the recorder's to refuse", key=b"x")
        for topic in (OTHERS, audit.TOPIC, "bus.certificates", "bus.catalogue", topics.RULES, topics.SUPERVISION):
            assert await refused(client.send_and_wait(topic, value, key=topic_key(value))), topic
        for topic in (letters, notices_of(other.uscc).name):
            assert await refused(client.send_and_wait(topic, value)), topic
    async with writing(world, other) as client:
        assert await refused(client.send_and_wait(OWN, value))
        assert await refused(client.send_and_wait("bus.sessions", value))
        await client.send_and_wait(letters, value)


async def test_a_department_reads_what_an_agreement_shares_and_joins_its_own_groups(world: World) -> None:
    """The item's topic from one second after the agreement until one second after its end, also while it is read."""
    parties = await world.parties()
    stranger = await world.join(receives=[LICENCE])
    letters = dead_letters(group_of(parties.consumer.uscc, "main")).name
    await topics.apply(world.place.kafka, [topics.dead_letters(group_of(parties.consumer.uscc, "main"))])
    shut = [
        audit.TOPIC,
        "bus.sessions",
        topics.RULES,
        topics.SUPERVISION,
        OTHERS,
        notices_of(parties.provider.uscc).name,
    ]
    async with reading(world, parties.consumer) as reader:
        for topic in (notices_of(parties.consumer.uscc).name, letters, "bus.certificates", "bus.catalogue"):
            assert await partitions_of(reader, topic)
        for topic in shut:
            assert await refused(partitions_of(reader, topic)), topic
    async with reading(world, stranger) as reader:
        for topic in (OWN, letters):
            assert await refused(partitions_of(reader, topic)), topic
    async with reading(world, parties.provider) as reader:
        reader.assign(await partitions_of(reader, OWN))  # who writes it sees it
        assert await refused(until_refused(reader)), "others' records of the item stand there, too"
    async with reading(world, stranger, group=group_of(parties.consumer.uscc, "main")) as reader:
        reader.subscribe(["bus.certificates"])
        assert await refused(polled(reader))
    async with reading(world, parties.consumer, group=group_of(parties.consumer.uscc, "main")) as reader:
        reader.subscribe([OWN])
        await world.until(lambda: _assigned(reader))
        await world.act(parties.provider, "agreements", parties.agreement, "SUSPEND", "test")
        assert await refused(until_refused(reader), SOON)


async def test_a_subscriber_waits_for_its_agreement_and_goes_on_when_it_is_resumed(world: World) -> None:
    """Without one it says KAFKA_FORBIDDEN; one that comes into force is enough; suspended and resumed loses nothing.

    A department that is suspended as a whole does not end it either.
    """
    provider = await world.join(issues=[(LICENCE, "")])
    reader = await world.join(receives=[LICENCE])
    group = await world.group(reader)
    handed: list[bytes] = []

    async def handle(batch: Sequence[Opened]) -> None:
        handed.extend(one.leaf_hash for one in batch)

    async def there(count: int) -> bool:
        return len(handed) >= count

    subscriber = world.subscriber(reader, group)
    running = asyncio.create_task(subscriber.run(handle))
    try:
        first, _ = await world.firms(provider, 2)
        assert handed == []
        agreement = await world.agree(provider, reader)
        await world.until(lambda: there(2))
        agreement = await world.act(provider, "agreements", agreement, "SUSPEND", "test")
        await world.until(lambda: _may_not(world, reader))
        second, _ = await world.firms(provider, 2)
        await world.act(provider, "agreements", agreement, "RESUME", "test")
        await world.until(lambda: there(4))
        await world.db.execute("UPDATE org SET suspended = true WHERE uscc = $1", reader.uscc)
        await world.until(lambda: _may_not(world, reader))
        # It connects again, and may nothing at all. (Resumed it is handed the rest once its group has given up its
        # former self, which could not take its leave: half a minute.)
        await asyncio.sleep(1)
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sorted(handed) == sorted(one.leaf_hash for one in (*first, *second))


async def test_a_stranger_gets_nothing(world: World) -> None:
    """No login, a wrong password, a login that nobody joined with, a suspended department, an old password.

    Whoever got no further floods nothing: not one record of theirs is taken, and no topic is made.
    """
    identity = await world.join(issues=[(LICENCE, "")])
    login, servers = identity.login, world.place.servers
    assert login is not None
    clusters = {
        "in clear": Cluster(servers=servers),
        "another's password": Cluster(servers=servers, login=replace(login, password="x" * 43)),
        "nobody": Cluster(servers=servers, login=replace(login, user="nobody")),
        "no certificate, where administrators are": Cluster(
            servers=world.place.kafka.servers, login=replace(login, user="", certificate=None)
        ),
    }
    for name, cluster in clusters.items():
        assert not await logs_in(cluster), name
    user = f"stranger-{secrets.token_hex(4)}"
    async with administrator(world.place.kafka) as admin:
        await admin.put_user(user, "p" * 43)
        try:
            made = replace(login, user=user, password="p" * 43)
            async with reading(world, replace(identity, login=made)) as reader:
                for topic in ("bus.certificates", OWN):
                    assert await refused(partitions_of(reader, topic))
            # With the plainest client there is: ours would ask for an id to be idempotent under, and is refused that.
            async with AIOKafkaProducer(**Cluster(servers=servers, login=made).options()) as client:
                for topic in (OWN, audit.TOPIC, "bus.sessions", "bus.certificates", topics.RULES, f"made-by-{user}"):
                    assert await refused(client.send_and_wait(topic, bytes(200_000), key=b"x")), topic
        finally:
            await admin.remove_user(user)
    async with writing(world, identity) as living:
        folder = world.place.folder / "orgs" / identity.name
        await bootstrap.renew_login(folder, world.place.kafka, identity.uscc)
        await living.send_and_wait(OWN, b"x", key=b"x")  # who is connected goes on
        assert not await logs_in(Cluster(servers=servers, login=login))
        await world.db.execute("UPDATE org SET suspended = true WHERE uscc = $1", identity.uscc)
        assert await refused(until_refused_to_write(living), SOON)
    renewed = Identity.load(folder)
    async with reading(world, renewed) as reader:
        assert await refused(partitions_of(reader, "bus.certificates"))


async def test_a_flood_is_throttled_and_neighbours_publish_on(world: World) -> None:
    """A department that writes as fast as it can gets its quota's bytes; another's acknowledgements stay quick."""
    flooder, neighbour = await asyncio.gather(world.join(issues=[(TAX, "")]), world.join(issues=[(LICENCE, "")]))
    rate, seconds = 1024 * 1024, 1.5
    async with administrator(world.place.kafka) as admin:
        await admin.apply(_quota(flooder.uscc, rate))
        try:
            async with writing(world, flooder) as noisy, writing(world, neighbour) as quiet:
                sent = 0

                async def flood() -> None:
                    nonlocal sent
                    while True:
                        await noisy.send_and_wait(OTHERS, bytes(200_000), key=b"k")
                        sent += 200_000

                flooding = asyncio.create_task(flood())
                waits = []
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    begin = time.monotonic()
                    await quiet.send_and_wait(OWN, b"x" * 2_000, key=b"k")
                    waits.append(time.monotonic() - begin)
                flooding.cancel()
                await asyncio.gather(flooding, return_exceptions=True)
        finally:
            await admin.apply(_quota(flooder.uscc, None))
    # Kafka's window of eleven seconds: a burst may take the whole of it, and no more.
    assert sent <= rate * (11 + seconds)
    assert sorted(waits)[int(len(waits) * 0.99)] < 0.25
    assert len(waits) > 50


async def test_drift_is_found_and_taken_back(world: World, stack: Stack) -> None:
    """Somebody's own rule, quota and user are differences; what is applied is not due again."""
    user = f"drift-{secrets.token_hex(4)}"
    extra = Binding(principal=f"User:{user}", kind="topic", name=audit.TOPIC, operation="Write")
    async with administrator(stack.administrator) as admin:
        await admin.apply(_changes(add=frozenset({extra}), quotas={user: {PRODUCE: 1.0, FETCH: 2.0}}))
        await admin.put_user(user, "p" * 43)
        try:
            await admin.settle(user, frozenset({extra}))
            plan = await _plan(stack)
            assert plan.access is not None
            assert extra in plan.access.remove
            assert plan.access.quotas[user] == {PRODUCE: None, FETCH: None}
            assert user in plan.access.extra_users
            json.dumps(plan.to_json())
            await admin.apply(plan.access)
            await world.until(lambda: _clean(admin, user))
            again = await _plan(stack)
            assert again.access is not None
            assert user in again.access.extra_users  # a person's to remove: it may do nothing
            assert [*again.access.add, *again.access.remove, *again.access.quotas, *again.topics] == []
        finally:
            await admin.remove_user(user)


async def logs_in(cluster: Cluster) -> bool:
    try:
        client = await asyncio.wait_for(producer(cluster, "stranger"), 10)
    except (Unavailable, TimeoutError):
        return False
    await client.stop()
    return True


@asynccontextmanager
async def writing(world: World, identity: Identity) -> AsyncIterator[AIOKafkaProducer]:
    client = await producer(identity.cluster(world.place.servers), "test", linger_ms=0)
    try:
        yield client
    finally:
        await stop(client)


@asynccontextmanager
async def reading(world: World, identity: Identity, group: str | None = None) -> AsyncIterator[Any]:
    client = await consumer(identity.cluster(world.place.servers), "test", group=group)
    try:
        yield client
    finally:
        await stop(client)


async def refused(work: Awaitable[Any], seconds: float = 10.0) -> bool:
    """Whether Kafka says that it may not be."""
    try:
        await bounded(work, seconds, "trying")
    except Unavailable as exc:
        return exc.code is Code.KAFKA_FORBIDDEN
    return False


async def polled(reader: Any) -> None:
    for _ in range(50):
        await reader.getmany(timeout_ms=100)


async def until_refused(reader: Any) -> None:
    while True:
        await reader.getmany(timeout_ms=50)


async def until_refused_to_write(client: AIOKafkaProducer) -> None:
    while True:
        await client.send_and_wait(OWN, b"x", key=b"x")
        await asyncio.sleep(0.05)


async def _assigned(reader: Any) -> bool:
    await reader.getmany(timeout_ms=50)
    return bool(reader.assignment())


async def _may_not(world: World, identity: Identity) -> bool:
    async with reading(world, identity) as reader:
        return await refused(partitions_of(reader, OWN))


async def _clean(admin: Administrator, user: str) -> bool:
    found = (await admin.access(user)).of(user)
    return not found.bindings and not found.quotas


def _changes(**made: Any) -> Changes:
    none: frozenset[Any] = frozenset()
    return Changes(**{"add": none, "remove": none, "quotas": {}, "missing_users": none, "extra_users": none, **made})


def _quota(user: str, rate: float | None) -> Changes:
    return _changes(quotas={user: {PRODUCE: rate}})
