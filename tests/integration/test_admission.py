"""Which records count: the recorder's rulings on what publishers would never send, and who may open it."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

import pytest

from bus import session
from bus.client import GatewayClient
from bus.identity import Identity
from bus.outbox import Sealed
from bus.sealer import Sealer
from bus.trust import Trust
from bus.trustfeed import TrustFeed
from schemas.errors import Code
from tests.integration.bus import LICENCE, TAX, World, draft, fresh_firm, tax_draft

TOPIC = f"licence.{LICENCE}"


async def ruled(world: World, *sealed: Sealed) -> list[str]:
    """What the recorder said of each record, in order: a refusal's code, or where it stands."""
    places = await world.produce(*((s.topic, s.key, s.value) for s in sealed))
    await world.judged(sealed)
    said = await world.refusals(sealed[0].topic, places)
    return [code or await state(world, one) for code, one in zip(said, sealed, strict=True)]


async def state(world: World, sealed: Sealed) -> str:
    row = await world.db.fetchrow("SELECT conflict FROM record WHERE leaf_hash = $1", sealed.leaf_hash)
    if row is not None and not row["conflict"]:
        return "ADMITTED"
    rival = await world.db.fetchval("SELECT rival FROM conflict WHERE leaf_hash = $1", sealed.leaf_hash)
    return "CONFLICT" if row is not None or rival is not None else "ABSENT"


@pytest.mark.parametrize("claim", ["sequence", "leaf"])
async def test_two_records_for_one_place_are_a_conflict_and_neither_opens(world: World, claim: str) -> None:
    """Both are refused with CONFLICT, also the one that was open before, and the log holds both with their proofs."""
    parties = await world.parties()
    sealer = await world.sealer(parties.provider)
    values = fresh_firm()
    (first,) = sealer.seal([draft(values)])
    if claim == "leaf":
        sealer._next_leaf = 0
        (second,) = sealer.seal([draft(fresh_firm())])
    else:
        (second,) = sealer.seal([draft(values | {"name": "另一家测试公司"})])
    assert await ruled(world, first) == ["ADMITTED"]
    assert await world.codes(parties.consumer, first) == [Code.PERMIT]
    assert await ruled(world, second) == ["CONFLICT"]
    assert await world.codes(parties.consumer, first) == [Code.CONFLICT]
    assert await world.codes(parties.consumer, second) == [Code.CONFLICT]
    entries = {e.leaf_hash: e for e in await world.logged("Conflict")}
    entry = await world.db.fetchval("SELECT entry FROM conflict WHERE leaf_hash = $1", second.leaf_hash)
    body = entries[entry].body
    assert (body["first"], body["second"], body["place"]) == (first.leaf_hash, second.leaf_hash, claim)
    await world.found(("entry", entry.hex()), ("kind", "Conflict"))


async def test_the_same_record_again_changes_nothing(world: World) -> None:
    """A record that comes again, beside its first or later, is neither a conflict nor a second row nor an entry."""
    parties = await world.parties()
    sealer = await world.sealer(parties.provider)
    (one,) = sealer.seal([draft(fresh_firm())])
    await ruled(world, one, one)
    before = len(await world.logged("Admitted")), len(await world.logged("Conflict"))
    assert await ruled(world, one) == ["ADMITTED"]
    assert (len(await world.logged("Admitted")), len(await world.logged("Conflict"))) == before
    assert await world.codes(parties.consumer, one) == [Code.PERMIT]


async def test_only_who_may_issue_here_is_admitted(world: World) -> None:
    """Another region, another item, and another department's licence are refused; a gap in the sequence is not."""
    local = await world.join(issues=[(LICENCE, "3304")], receives=[TAX])
    other = await world.join(issues=[(LICENCE, "")])
    values, firm = fresh_firm(), fresh_firm()
    sealer, foreign = await world.sealer(local), await world.sealer(other)
    taxes = await world.sealer(local, TAX)
    records = sealer.seal(
        [
            draft(values),
            draft(fresh_firm(), region="330102"),
            draft(values, 7),
        ]
    )
    assert await ruled(world, *records) == ["ADMITTED", Code.ISSUER_NOT_ENTITLED, "ADMITTED"]
    assert await ruled(world, *taxes.seal([tax_draft(values)])) == [Code.ISSUER_NOT_ENTITLED]
    # Both of one poll, and one that comes when the first is in the index.
    (mine,) = sealer.seal([draft(firm)])
    theirs = foreign.seal([draft(firm, 2), draft(firm, 9), draft(values, 8), draft(values, 3)])
    assert await ruled(world, mine, *theirs) == ["ADMITTED", *[Code.ISSUER_NOT_ENTITLED] * 4]


async def test_a_record_needs_its_session_and_the_first_session_stands(world: World) -> None:
    """No session: SESSION_UNKNOWN. A second, different one under the same id is refused and the first goes on."""
    parties = await world.parties()
    unknown = await world.sealer(parties.provider, announce=False)
    assert await ruled(world, *unknown.seal([draft(fresh_firm())])) == [Code.SESSION_UNKNOWN]

    sealer = await world.sealer(parties.provider)
    (first,) = sealer.seal([draft(fresh_firm())])
    second = await _again(world, parties.provider, sealer)
    (place,) = await world.produce((session.TOPIC, second.key, second.value))
    (later,) = sealer.seal([draft(fresh_firm())])
    assert await ruled(world, first, later) == ["ADMITTED", "ADMITTED"]
    assert await world.refusals(session.TOPIC, [place]) == [Code.SESSION_DUPLICATE]
    assert await world.codes(parties.consumer, first) == [Code.PERMIT]
    assert await world.codes(parties.consumer, later) == [Code.PERMIT]


async def _again(world: World, identity: Identity, sealer: Sealer) -> session.Session:
    """Another session under the id of the sealer's."""
    stands = sealer._session
    assert stands is not None
    feed = TrustFeed(Trust(identity.authority), world.place.kafka, "test")
    await feed.start()
    await feed.stop()
    now = datetime.now(UTC)
    return session.create(
        identity.record,
        session=stands.session,
        secret=secrets.token_bytes(session.SECRET_BYTES),
        item=stands.item,
        schema=stands.schema,
        recipient=feed.trust.gateway_key(identity.gateway_owner, now),
        now=now,
    )


async def test_a_refused_record_does_not_hold_up_who_reads_behind_it(world: World) -> None:
    """What the recorder refused for good goes to the dead letters with its code; the next record is handed over."""
    parties = await world.parties()
    group = await world.group(parties.consumer)
    sealer = await world.sealer(parties.provider)
    values = fresh_firm()
    stranger = await world.sealer(await world.join(receives=[LICENCE]))
    (bad,) = stranger.seal([draft(values)])
    (good,) = sealer.seal([draft(values)])
    assert await ruled(world, bad, good) == [Code.ISSUER_NOT_ENTITLED, "ADMITTED"]
    handed: list[bytes] = []

    async def handle(batch: object) -> None:
        handed.extend(one.leaf_hash for one in batch)  # type: ignore[attr-defined]

    subscriber = world.subscriber(parties.consumer, group)
    await world.within(subscriber.drain(handle), 10)
    assert handed == [good.leaf_hash]
    (letter,) = await world.letters(parties.consumer, group)
    assert letter.value == bad.value
    assert dict(letter.headers)["deptbus-code"] == Code.ISSUER_NOT_ENTITLED.encode()


async def test_anybody_on_the_bus_can_ask_whether_a_record_counts(world: World) -> None:
    """Admitted with its entry in the log, refused with the recorder's code, or not judged yet."""
    provider = await world.join(issues=[(LICENCE, "44")])
    sealer = await world.sealer(provider)
    (good,) = sealer.seal([draft(fresh_firm(), region="440100")])
    (elsewhere,) = sealer.seal([draft(fresh_firm(), region="330411")])
    (kept_back,) = sealer.seal([draft(fresh_firm(), region="440100")])
    await world.send_sealed(good, elsewhere)
    async with GatewayClient(provider, world.place.gateways[:1]) as client:
        states = [await client.get_json(f"/v1/admitted/{s.leaf_hash.hex()}") for s in (good, elsewhere, kept_back)]
    assert [one["state"] for one in states] == ["ADMITTED", "REFUSED", "WAITING"]
    assert states[1]["code"] == Code.ISSUER_NOT_ENTITLED
    await world.found(("entry", states[0]["entry"]))


async def test_a_department_is_known_from_its_first_request(world: World) -> None:
    """Its certificate is on the topic before it asks: the gateway looks there before it says 'unknown'."""
    identity = await world.add(receives=[LICENCE])
    for gateway in world.place.gateways:
        async with GatewayClient(identity, [gateway]) as client:
            assert await client.post_json("/v1/agreements:list", {}) == []
