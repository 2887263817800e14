"""The reading half: nothing blocks a partition, nothing is lost, nothing counts as done before it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from bus import envelope
from bus.outbox import Sealed
from bus.sealer import Sealer
from bus.subscriber import Opened
from bus.trustfeed import stop_task
from schemas.errors import Code
from schemas.item import ItemSchema
from schemas.operations import Operation
from tests.integration.bus import LICENCE, World, draft, fresh_firm

TOPIC = f"licence.{LICENCE}"


class Handed:
    """A handler that remembers; it fails as often as it is told to."""

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails
        self.leaves: list[bytes] = []
        self.batches = 0

    async def __call__(self, batch: Sequence[Opened]) -> None:
        self.batches += 1
        if self.batches <= self.fails:
            raise RuntimeError("the handler's own")
        self.leaves.extend(one.leaf_hash for one in batch)


def flipped(value: bytes, at: int) -> bytes:
    """The value with one bit changed."""
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


def of_another_schema(sealer: Sealer) -> Sealer:
    """The sealer with a schema that no catalogue has: one field more than the item's."""
    item = sealer._item
    document = json.loads(item.schema.document)
    document["doc"] += "，别处的版本"
    schema = ItemSchema.parse(json.dumps(document, ensure_ascii=False).encode())
    made = Sealer(sealer._identity, replace(item, schema=schema))
    return made


async def test_what_cannot_be_verified_or_opened_is_a_dead_letter_and_blocks_nothing(world: World) -> None:
    """Garbage, flipped bits and unknown schemas are kept byte for byte with their code; the record behind is read."""
    parties = await world.parties()
    group = await world.group(parties.consumer)
    sealer = await world.sealer(parties.provider)
    torn, good = sealer.seal([draft(fresh_firm()), draft(fresh_firm())])
    record = envelope.parse(torn.value)
    in_claims = torn.value.index(record.claims.record.bytes) + 15
    in_body = torn.value.index(record.bodies[0]) + 5
    unknown = of_another_schema(sealer)
    unknown._session, unknown._leaves = sealer._session, sealer._leaves
    unknown._owner, unknown._next_leaf = sealer._owner, 2
    (other,) = unknown.seal([draft(fresh_firm())])
    bad = {
        "garbage": (b"k", b"\x00\xff not a record", Code.RECORD_MALFORMED),
        "empty": (b"k", b"", Code.RECORD_MALFORMED),
        "claims": (torn.key, flipped(torn.value, in_claims), Code.SIGNATURE_INVALID),
        "key": (b"another", torn.value, Code.KEY_MISMATCH),
        "schema": (other.key, other.value, Code.SCHEMA_UNKNOWN),
        "body": (torn.key, flipped(torn.value, in_body), Code.BODY_UNOPENABLE),
    }
    # All on one partition, in this order; the record that admits the flipped body's claims stands on another.
    await world.produce((TOPIC, torn.key, torn.value), partition=1)
    await world.judged([torn])
    places = await world.produce(*((TOPIC, key, value) for key, value, _ in bad.values()), partition=0)
    await world.produce((TOPIC, good.key, good.value), partition=0)
    await world.judged([good])

    handed = Handed()
    await world.within(world.subscriber(parties.consumer, group).drain(handed))
    assert sorted(handed.leaves) == sorted([torn.leaf_hash, good.leaf_hash])
    letters = await world.letters(parties.consumer, group)
    by_origin = {json.loads(dict(m.headers)["deptbus-origin"])["offset"]: m for m in letters}
    assert len(letters) == len(bad)
    for place, (key, value, code) in zip(places, bad.values(), strict=True):
        letter = by_origin[place.offset]
        assert (letter.key, letter.value) == (key, value)
        assert dict(letter.headers)["deptbus-code"] == code.encode()
    assert await world.within(world.subscriber(parties.consumer, group).drain(handed)) == 0


async def test_a_batch_is_committed_only_after_its_handler_is_done(world: World) -> None:
    """A handler that fails ends the run; the next run hands the same records over again, then never again."""
    parties = await world.parties()
    group = await world.group(parties.consumer)
    sealed, _ = await world.firms(parties.provider, 5)
    handed = Handed(fails=1)
    with pytest.raises(RuntimeError):
        await world.subscriber(parties.consumer, group).drain(handed)
    await world.subscriber(parties.consumer, group).drain(handed)
    assert sorted(handed.leaves) == sorted(s.leaf_hash for s in sealed)
    assert await world.subscriber(parties.consumer, group).drain(handed) == 0
    assert await world.letters(parties.consumer, group) == []


async def test_an_erased_licence_is_handed_over_only_when_it_is_admitted(world: World) -> None:
    """ERASED has no sections to be refused: it still counts only if its issuer may say so."""
    parties = await world.parties()
    group = await world.group(parties.consumer)
    sealer = await world.sealer(parties.provider)
    forger = await world.sealer(await world.join(receives=[LICENCE]))
    values = fresh_firm()
    first, erased = sealer.seal([draft(values), draft(values, 2, operation=Operation.ERASED)])
    (forged,) = forger.seal([draft(values, 3, operation=Operation.ERASED)])
    await world.send_sealed(first, forged, erased)
    handed = Handed()
    await world.within(world.subscriber(parties.consumer, group).drain(handed))
    assert erased.leaf_hash in handed.leaves
    assert forged.leaf_hash not in handed.leaves


async def test_members_of_a_group_share_partitions_and_one_may_leave(world: World) -> None:
    """Two subscribers of a group both get records; when one leaves, the other gets the rest: nothing is lost."""
    parties = await world.parties()
    group = await world.group(parties.consumer)
    first, second = Handed(), Handed()
    tasks = [asyncio.create_task(world.subscriber(parties.consumer, group).run(handed)) for handed in (first, second)]
    published: list[Sealed] = []

    async def shared() -> bool:
        published.extend((await world.firms(parties.provider, 8))[0])
        return bool(first.leaves) and bool(second.leaves)

    def all_handed() -> bool:
        return {s.leaf_hash for s in published} <= {*first.leaves, *second.leaves}

    try:
        await world.until(shared, 30)
        await stop_task(tasks.pop())
        published.extend((await world.firms(parties.provider, 8))[0])
        await world.until(lambda: _now(all_handed()), 30)
    finally:
        for task in tasks:
            await stop_task(task)


async def _now(answer: Any) -> bool:
    return bool(answer)
