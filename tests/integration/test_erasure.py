"""Erasure on a running bus: refused at once everywhere, its keys gone, its neighbour's still there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from bus import envelope
from bus.gateway.app import create_app
from bus.gateway.keyring import Lives, open_keyring
from bus.gateway.service import Gateway
from bus.gateway.sessions import SessionKeys
from bus.httpsig import sign
from bus.identity import Identity
from bus.messages import open_grant
from bus.outbox import Sealed
from bus.pki import Role
from bus.sealing import LEAF_BITS, LeafKeys, section_secret
from bus.trust import certificate_value
from deploy import bootstrap
from schemas.errors import Code, Refused
from schemas.operations import Operation
from tests.integration.bus import DUTY, PURPOSE, World, draft, fresh_firm, key_request, reads


async def test_an_erased_record_is_refused_by_every_gateway_from_the_answer_on(world: World) -> None:
    """And only that one: a record of the same session opens as before. The log has said so, and who did it."""
    parties = await world.parties()
    (erased, neighbour), _ = await world.firms(parties.provider, 2)
    _, warm = await world.keys(parties.consumer, [erased, neighbour], gateway=1)
    assert len(warm) == 2  # both gateways have its session in memory
    body = {"records": [erased.leaf_hash.hex()], "basis": "个人信息保护法 第四十七条", "operator": "clerk"}
    with pytest.raises(Refused) as caught:
        await world.post(parties.consumer, "/v1/erasures", body)
    assert caught.value.code is Code.NOT_FOUND
    answer = await world.post(parties.provider, "/v1/erasures", body)
    assert answer["erasures"][0]["entry"]
    assert "can't be called back" in answer["note"]
    for gateway in (1, 0):
        assert await world.codes(parties.consumer, erased, gateway) == [Code.RECORD_ERASED]
        assert await world.codes(parties.consumer, neighbour, gateway) == [Code.PERMIT]
    asked = {"sections": ["identity"], "purpose": PURPOSE, "ground": "STATUTORY_DUTY", "citation": DUTY}
    for record, code in ((erased, Code.RECORD_ERASED), (neighbour, Code.PERMIT)):
        question = asked | {"record": record.leaf_hash.hex()}
        (said,) = (await world.post(parties.consumer, "/v1/policy:explain", question))["sections"]
        assert said["code"] == code
    (started,) = await world.found(("record", erased.leaf_hash.hex()), ("kind", "ErasureStarted"))
    assert (started.entry.body["by"], started.entry.body["basis"]) == (parties.provider.uscc, body["basis"])

    async def punctured() -> bool:
        shown = await world.post(parties.provider, "/v1/erasures:show", {"records": body["records"]})
        return bool(shown["erasures"][0]["state"] == "PUNCTURED")

    await world.until(punctured)
    for gateway in (1, 0):
        assert await world.codes(parties.consumer, neighbour, gateway) == [Code.PERMIT]


LIVES = Lives(kem=timedelta(seconds=9), renew_before=timedelta(seconds=2), destroy_after=timedelta(seconds=1))


@asynccontextmanager
async def own_gateway(world: World, provider: Identity, folder: Path) -> AsyncIterator[Gateway]:
    """A gateway of the provider's own, with keys that live for seconds."""
    place = world.place
    signer = place.bus.authority.issue(Role.GATEWAY, provider.uscc, "own gateway")
    folder.mkdir(parents=True)
    await bootstrap.publish_certificates(place.kafka, [certificate_value(signer.der)])
    bootstrap.keep_keys(folder, signer)
    async with Gateway(
        keyring=open_keyring(folder, signer, LIVES),
        origin=place.bus.origin,
        authority=place.bus.authority.signer.der,
        catalogue=world.catalogue,
        cluster=place.kafka,
        dsn=place.dsn,
        operator=place.bus.operator,
    ) as gateway:
        running = asyncio.create_task(gateway.run())
        try:
            yield gateway
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


async def ask(world: World, gateway: Gateway, consumer: Identity, sealed: Sequence[Sealed]) -> Any:
    """Keys from a gateway in this process: the code of each record, and the secrets."""
    request = key_request(consumer, reads(sealed))
    transport = httpx.ASGITransport(create_app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        body = request.encode()
        headers = sign(consumer.department, "POST", "http://gateway/v1/keys", body)
        answer = await client.post("/v1/keys", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    grant, secrets = open_grant(answer.content, request.request, consumer.kem, gateway.trust, datetime.now(UTC))
    return [result.sections[0][1] for result in grant.results], secrets


async def everything_stored(world: World) -> bytes:
    """Every row of every table, as text; byte strings in hex."""
    tables = await world.db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    rows = [row[0] for t in tables for row in await world.db.fetch(f'SELECT x::text FROM "{t[0]}" x')]
    return "\n".join(rows).encode()


async def test_a_providers_own_gateway_and_an_erasure_to_its_end(world: World, tmp_path: Path) -> None:
    """The shared gateway can't open what is sealed to a provider's own.

    When both epochs have passed, an erased record's keys are in no row, now or in a copy of before, and follow from
    nothing that is left; its neighbour's do.
    """
    parties = await world.parties()
    provider = replace(parties.provider, own_gateway=True)
    async with own_gateway(world, provider, tmp_path / "bus" / "keys") as gateway:
        sealed = await world.publish(provider, *(draft(fresh_firm()) for _ in range(2)))
        erased, neighbour = sealed
        assert await world.codes(parties.consumer, erased) == [Code.SESSION_ELSEWHERE]
        codes, opened = await ask(world, gateway, parties.consumer, sealed)
        assert codes == [Code.PERMIT, Code.PERMIT]
        claims = envelope.parse(erased.value).claims
        of_session = "SELECT * FROM session WHERE session = $1 AND issuer = $2"
        before = dict(await world.db.fetchrow(of_session, claims.session, claims.issuer))
        assert before["owner"] == provider.uscc
        roots = open_keyring(tmp_path / "bus" / "keys", gateway._keyring.signer).unwrap(
            before["wrap_key"], before["roots"], claims.session, claims.issuer
        )
        node = LeafKeys(roots["identity"]).node(claims.leaf)
        assert section_secret(node, envelope.parse(erased.value).prefix) == opened[erased.leaf_hash, "identity"]
        body = {"records": [erased.leaf_hash.hex()], "basis": "test", "operator": "clerk"}
        await world.post(provider, "/v1/erasures", body)
        codes, _ = await ask(world, gateway, parties.consumer, sealed)
        assert codes == [Code.RECORD_ERASED, Code.PERMIT]

        async def complete() -> bool:
            shown = await world.post(provider, "/v1/erasures:show", {"records": body["records"]})
            return bool(shown["erasures"][0]["state"] == "COMPLETE")

        await world.until(complete, 60)
    await world.found(("record", erased.leaf_hash.hex()), ("kind", "ErasureComplete"))
    fresh = open_keyring(tmp_path / "bus" / "keys", gateway._keyring.signer)
    assert fresh.kem(before["recipient"]) is None
    keys = SessionKeys(fresh, world.catalogue)
    for row in (before, dict(await world.db.fetchrow(of_session, claims.session, claims.issuer))):
        with pytest.raises(Refused) as caught:
            fresh.unwrap(row["wrap_key"], row["roots"], claims.session, claims.issuer)
        assert caught.value.code is Code.SESSION_ERASED
        trees = await keys.trees(world.db, row)
        assert trees is not None
        with pytest.raises(Refused):
            trees["identity"].node(claims.leaf)
        beside = envelope.parse(neighbour.value)
        found = section_secret(trees["identity"].node(beside.claims.leaf), beside.prefix)
        assert found == opened[neighbour.leaf_hash, "identity"]
        lost = {(depth, claims.leaf >> LEAF_BITS - depth) for depth in range(LEAF_BITS + 1)}
        assert not lost & trees["identity"].nodes.keys()
    rows = await everything_stored(world)
    for secret in (node, roots["identity"], opened[erased.leaf_hash, "identity"]):
        assert secret.hex().encode() not in rows


async def test_an_erased_licence_erases_every_version_before_it(world: World) -> None:
    """Also one that arrives after it; an item that the law keeps has no such record."""
    parties = await world.parties()
    values = fresh_firm()
    (first,) = await world.publish(parties.provider, draft(values))
    await world.publish(parties.provider, draft(values, 3, operation=Operation.ERASED))
    (late,) = await world.publish(parties.provider, draft(values, 2))
    for one in (first, late):
        await world.found(("record", one.leaf_hash.hex()), ("kind", "ErasureStarted"))
        assert await world.codes(parties.consumer, one) == [Code.STATUS_ERASED]
