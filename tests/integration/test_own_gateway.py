"""A provider's own gateway: subscribers find it and ask it; the bus's gateways can't open what is sealed to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bus import deadletters, lookup, topics, trustfeed
from bus.client import GatewayClient
from bus.identity import Identity
from bus.kafka import producer, stop
from bus.opening import OpenedRecord
from bus.pki import write_private
from bus.subscriber import Wanted
from bus.topics import group_of
from bus.trust import Trust, revocation_value, topic_key
from bus.trustfeed import TrustFeed
from deploy import bootstrap, certificates
from deploy.bootstrap import Bus
from deploy.certificates import Holder, Kind
from deploy.stack.child import free_ports
from deploy.stack.tls import TransportAuthority
from schemas.errors import Code, Refused
from tests.faults.plant import gateway, until_ready
from tests.integration.bus import DUTY, LICENCE, PURPOSE, World, draft, fresh_firm, reads
from tests.integration.test_subscriber import Handed

WANTED = Wanted(sections=("identity",), purpose=PURPOSE, ground="STATUTORY_DUTY", operator="clerk", citation=DUTY)


async def set_up(world: World, provider: Identity, url: str) -> tuple[Bus, Identity]:
    """The gateway's folder, and the provider as it seals from then on."""
    assert provider.folder is not None
    place = world.place
    own = await bootstrap.add_gateway(place.bus, provider.folder, place.kafka, place.dsn, identity=provider, urls=[url])
    return own, Identity.load(provider.folder)


@asynccontextmanager
async def running(world: World, own: Bus, port: int) -> AsyncIterator[None]:
    """The process that a provider runs on its own host: without a key of the bus's, with its own login at Kafka."""
    place, dsn = world.place, own.folder / "dsn"
    write_private(dsn, place.dsn.encode())
    tls = TransportAuthority(place.bus.folder / "tls").server(f"own-{port}")
    with gateway(own.folder, place.servers, dsn, port, tls, own.folder / "log") as probes:
        await until_ready(probes)
        yield


async def test_subscribers_ask_the_gateway_that_a_providers_certificate_names(world: World) -> None:
    """Also for what was sealed before it had one, by the same drain, by a search and by a single look."""
    parties = await world.parties()
    group = await world.group(parties.consumer)
    (before,), _ = await world.firms(parties.provider)
    port = free_ports(1)[0]
    url = f"https://127.0.0.1:{port}"
    own, provider = await set_up(world, parties.provider, url)
    assert [file.name for file in own.folder.rglob("ca.*")] == ["ca.pem", "ca.pem"]
    async with running(world, own, port):
        values = fresh_firm()
        (sealed,) = await world.publish(provider, draft(values))
        assert await world.codes(parties.consumer, sealed) == [Code.SESSION_ELSEWHERE]
        handed = Handed()
        assert await world.within(world.subscriber(parties.consumer, group).drain(handed)) == 2
        assert sorted(handed.leaves) == sorted([before.leaf_hash, sealed.leaf_hash])
        assert await world.letters(parties.consumer, group) == []
        feed = TrustFeed(Trust(parties.consumer.authority), world.place.kafka, "test")
        await feed.start()
        await feed.stop()
        async with GatewayClient(parties.consumer, world.place.gateways) as client:
            subject = {"kind": "ORGANISATION", "id": values["uscc"]}
            (found,) = await lookup.search(client, feed.trust, world.catalogue, LICENCE, subject, WANTED)
            one = await lookup.open_one(client, feed.trust, world.catalogue, sealed.value, WANTED)
            old = await lookup.open_one(client, feed.trust, world.catalogue, before.value, WANTED)
        opened: list[OpenedRecord] = [found, one]
        assert [each.values["uscc"] for each in opened] == [values["uscc"]] * 2
        assert old.refused == {}
        await world.found(("record", sealed.leaf_hash.hex()), ("kind", "Decision"), count=5)
        # A grant is the word of whoever was asked: the provider's gateway does not speak for the bus's.
        async with GatewayClient(parties.consumer, [url]) as client:
            with pytest.raises(Refused) as caught:
                await client.keys(feed.trust, reads([sealed]), WANTED)
        assert caught.value.code is Code.CERTIFICATE_OWNER


async def test_a_provider_whose_gateway_is_away_holds_up_nobody_else(world: World) -> None:
    """Its records become dead letters that say so; replayed once it is back, under a renewed key, they open."""
    parties = await world.parties()
    other = await world.join(issues=[(LICENCE, "")])
    await world.agree(other, parties.consumer)
    group = await world.group(parties.consumer)
    port = free_ports(1)[0]
    own, provider = await set_up(world, parties.provider, f"https://127.0.0.1:{port}")
    (held,) = await world.publish(provider, draft(fresh_firm()))
    (free,), _ = await world.firms(other)
    handed = Handed()
    await world.within(world.subscriber(parties.consumer, group, patience=0.2).drain(handed))
    assert handed.leaves == [free.leaf_hash]
    (letter,) = await world.letters(parties.consumer, group)
    assert dict(letter.headers)["deptbus-code"] == Code.GATEWAY_UNAVAILABLE.encode()
    assert provider.folder is not None
    holder = Holder.of(Kind.GATEWAY, world.place.bus, provider, provider.folder)
    bus = world.place.bus
    made = await certificates.renew(holder, bus.authority, bus.authority_der, world.place.kafka)
    assert made.urls == (f"https://127.0.0.1:{port}",)
    async with running(world, own, port):
        whole = group_of(parties.consumer.uscc, group)
        letters = await deadletters.read(world.place.kafka, whole)
        assert await deadletters.replay(world.place.kafka, whole, letters) == 1
        await world.within(world.subscriber(parties.consumer, group).drain(handed))
    assert handed.leaves == [free.leaf_hash, held.leaf_hash]


async def test_a_second_address_replaces_the_first(world: World) -> None:
    """Set up again, the gateway has another certificate, and both keys count; who is told an address twice is not."""
    provider = await world.join(issues=[(LICENCE, "")])
    first, second = "https://gateway.example:8443", "https://[2001:db8::1]"
    own, sealing = await set_up(world, provider, first)
    key = own.signer("gateway").id
    assert (await set_up(world, sealing, first))[0].signer("gateway").id == key
    moved, _ = await set_up(world, sealing, second)
    assert moved.signer("gateway").id != key
    async with certificates.knowing(world.place.bus.authority_der, world.place.kafka) as trust:
        assert trust.gateways(provider.uscc, datetime.now(UTC)) == (second, first)
        assert trust.gateway_key(provider.uscc, datetime.now(UTC)).owner == provider.uscc
    assert replace(sealing, own_gateway=False).sealed_to == world.place.bus.operator


async def test_who_may_write_certificates_takes_no_revocation_away(world: World) -> None:
    """A provider's gateway writes its KEM keys beside them: null and other bytes under their keys remove nothing."""
    provider = await world.join(issues=[(LICENCE, "")])
    own, _ = await set_up(world, provider, "https://gateway.example")
    bus, stolen = world.place.bus, provider.department.id
    revocation = revocation_value(stolen, datetime.now(UTC), None, bus.authority.signer)
    await bootstrap.publish_certificates(world.place.kafka, [revocation])
    writer = await producer(own.cluster(world.place.servers, "gateway"), "test")
    try:
        for value in (None, b"", revocation[:-1]):
            await writer.send_and_wait(trustfeed.TOPIC, value, key=topic_key(revocation))
    finally:
        await stop(writer)
    async with certificates.knowing(bus.authority_der, world.place.kafka) as trust:
        assert trust.revoked(stolen) is not None
    # And the broker keeps what stands there: no compaction, no end.
    wrong = await topics.differences(world.place.kafka, world.catalogue)
    assert [one for one in wrong if one["topic"] == trustfeed.TOPIC] == []
    (made,) = [one for one in topics.topics(world.catalogue, single_broker=True) if one.name == trustfeed.TOPIC]
    assert (made.config["cleanup.policy"], made.config["retention.ms"]) == ("delete", "-1")
