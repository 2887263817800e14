"""Impact: who relied on a licence that was revoked or corrected is told within seconds, once, and nobody else is."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import pytest

from bus import audit, db, envelope, topics
from bus.identity import Identity
from bus.notices import Notice, Notices
from bus.outbox import Sealed
from bus.sealer import Draft
from bus.trustfeed import stop_task
from deploy.home import Home, Stack
from schemas.errors import Code
from schemas.operations import Operation
from tests.faults.plant import Plant
from tests.integration.bus import LICENCE, PURPOSE, SOON_SECONDS, TAX, World, draft, fresh_firm, tax_draft

IMPACT = "/v1/records:impact"
PROMISED_SECONDS = 5.0


async def told(world: World, identity: Identity) -> list[Notice]:
    """What a department finds on the topic now: verified, its own."""
    found: list[Notice] = []

    async def keep(batch: Sequence[Notice]) -> None:
        found.extend(batch)

    await Notices(identity, world.place.servers).drain(keep)
    return found


async def soon(world: World, identity: Identity, count: int = 1, seconds: float = SOON_SECONDS) -> list[Notice]:
    """What it is told, once there are so many notices."""
    deadline = time.monotonic() + seconds
    while len(found := await told(world, identity)) < count:
        assert time.monotonic() < deadline, f"{len(found)} notices"
        await asyncio.sleep(0.1)
    return found


async def delay(world: World, identity: Identity, record: Sealed) -> float:
    """Seconds from the record's publication to the department's notice, by the broker's clock."""
    (event,) = await world.on_topic(topics.notices_of(identity.uscc).name)
    (published,) = [m for m in await world.on_topic(record.topic, record.key) if m.value == record.value]
    return float(event.timestamp - published.timestamp) / 1000


def end(values: dict[str, Any], sequence: int, operation: Operation = Operation.REVOKED) -> Draft:
    return draft(values, sequence, operation=operation)


async def derive(world: World, identity: Identity, *parents: Sealed) -> Sealed:
    (made,) = await world.publish(identity, tax_draft(fresh_firm(), *(one.leaf_hash for one in parents)))
    return made


async def test_openers_and_issuers_of_what_follows_are_told_in_time_and_nobody_else(world: World) -> None:
    """Of a licence, and of a certificate of a certificate of it; what comes late is told of, and nothing twice."""
    parties = await world.parties()
    registrar, second, late, stranger = [await world.join(issues=[(TAX, "")], receives=[LICENCE]) for _ in range(4)]
    auditor = await world.join(auditor=True)
    (sealed,), (values,) = await world.firms(parties.provider)
    await world.keys(parties.consumer, [sealed], case="case-1")
    await world.keys(parties.consumer, [sealed])
    assert await world.codes(stranger, sealed) != [Code.PERMIT]
    child = await derive(world, registrar, sealed)
    grandchild = await derive(world, second, child)
    for sequence, operation in ((2, Operation.CHANGED), (3, Operation.RENEWED)):
        await world.publish(parties.provider, end(values, sequence, operation))

    (revoked,) = await world.publish(parties.provider, end(values, 4))
    (notice,) = await soon(world, parties.consumer)
    (first,), (far,) = await soon(world, registrar), await soon(world, second)
    for one in (parties.consumer, registrar, second):
        assert 0 <= await delay(world, one, revoked) < PROMISED_SECONDS
    decisions = await world.found(("record", sealed.leaf_hash.hex()), ("decision", "PERMIT"), count=2)
    assert (notice.operation, notice.record, notice.item) == (Operation.REVOKED, revoked.leaf_hash, LICENCE)
    assert (notice.opened, notice.count, notice.derived) == ((sealed.leaf_hash,), 2, ())
    assert notice.entries == tuple(one.entry.leaf_hash for one in decisions)
    assert [(one.record, one.parent) for one in first.derived] == [(child.leaf_hash, sealed.leaf_hash)]
    assert [(one.record, one.parent) for one in far.derived] == [(grandchild.leaf_hash, child.leaf_hash)]
    assert first.opened == far.opened == ()
    # The notice is the log's own entry, and so is what admitted the record that it is about.
    (logged,) = await world.found(("entry", notice.entry.hex()))
    assert logged.stored.value == notice.value
    (admitted,) = await world.found(("entry", notice.admitted.hex()))
    assert (admitted.entry.kind, admitted.entry.body["checkpoint"]) == (
        "Admitted",
        _checkpoint(revoked, parties.provider),
    )

    # The licence is gone, yet somebody issues on the ground of it.
    mistake = await derive(world, late, grandchild)
    (said,) = await soon(world, late)
    assert [(one.record, one.parent) for one in said.derived] == [(mistake.leaf_hash, grandchild.leaf_hash)]
    assert [len(await told(world, one)) for one in (parties.consumer, registrar, second)] == [1, 1, 1]
    assert await told(world, stranger) == await told(world, parties.provider) == []

    answers = {}
    await world.covered()
    for name, who in (("issuer", parties.provider), ("auditor", auditor)):
        answers[name] = await world.post(who, IMPACT, {"record": sealed.leaf_hash.hex()})
    assert answers["issuer"] == answers["auditor"] | {"checkpoint": answers["issuer"]["checkpoint"]}
    whole = answers["issuer"]
    assert (whole["status"], whole["sequence"], whole["complete"]) == ("REVOKED", 4, True)
    (opener,) = whole["openers"]
    assert (opener["consumer"], opener["count"]) == (parties.consumer.uscc, 2)
    assert (opener["purposes"], opener["sections"]) == ([PURPOSE], ["identity"])
    assert (opener["first_entry"], opener["last_entry"]) == tuple(one.hex() for one in notice.entries)
    assert [(one["record"], one["issuer"], one["depth"]) for one in whole["derived"]] == [
        (child.leaf_hash.hex(), registrar.uscc, 1),
        (grandchild.leaf_hash.hex(), second.uscc, 2),
        (mistake.leaf_hash.hex(), late.uscc, 3),
    ]
    assert {one["addressee"] for one in whole["notices"]} == {
        one.uscc for one in (parties.consumer, registrar, second, late)
    }
    own = await world.post(registrar, IMPACT, {"record": sealed.leaf_hash.hex()})
    assert (own["openers"], [one["issuer"] for one in own["derived"]]) == ([], [registrar.uscc])
    assert [one["addressee"] for one in own["notices"]] == [registrar.uscc]
    for unknown in (sealed.leaf_hash.hex(), "00" * 32):
        refused = await world.send_json(stranger, IMPACT, {"record": unknown})
        assert (refused.status_code, refused.json()["code"]) == (404, Code.NOT_FOUND)
    read = (await world.post(auditor, "/v1/audit/readings:list", {}))["readings"]
    assert (read[0]["reader"], read[0]["what"]) == (auditor.uscc, "records:impact")
    (reading,) = await world.found(("kind", "Reading"), ("consumer", registrar.uscc))
    assert (reading.entry.body["what"], reading.entry.body["returned"]) == ("records:impact", 1)
    assert reading.entry.body["subjects"]


def _checkpoint(sealed: Sealed, issuer: Identity) -> bytes:
    """What the issuer signed of a batch of one record."""
    claims = envelope.parse(sealed.value).claims
    origin = envelope.batch_origin(issuer.origin, issuer.uscc, claims.session, claims.leaf)
    return f"{origin}\n1\n{b64encode(sealed.leaf_hash).decode()}\n".encode()


async def test_a_correction_is_told_to_whom_it_concerns_and_a_change_to_nobody(
    world: World, home: Home, stack: Stack
) -> None:
    """Who opens ended licences by agreement, after the end, knew it. A group reads on where it was, past bytes that
    nobody signed and another's notice under its name. The commands show it.
    """
    parties = await world.parties(superseded=True)
    other = await world.join(receives=[LICENCE])
    await world.agree(parties.provider, other, superseded=True)
    handed: list[Notice] = []

    async def keep(batch: Sequence[Notice]) -> None:
        handed.extend(batch)

    group = f"notices-{parties.consumer.uscc}"
    reading = asyncio.create_task(Notices(parties.consumer, world.place.servers, group=group).run(keep))
    (sealed,), (values,) = await world.firms(parties.provider)
    await world.keys(parties.consumer, [sealed])
    (changed,) = await world.publish(parties.provider, end(values, 2, Operation.CHANGED))
    await world.publish(parties.provider, end(values, 3, Operation.RENEWED))
    (corrected,) = await world.publish(parties.provider, end(values, 4, Operation.CORRECTED))
    (notice,) = await soon(world, parties.consumer)
    assert (notice.operation, notice.record) == (Operation.CORRECTED, corrected.leaf_hash)

    await world.keys(other, [changed])
    registrar = await world.join(issues=[(TAX, "")])
    await derive(world, registrar, changed)  # looked at again: who opened since, knew
    (follows,) = await soon(world, registrar)
    assert await told(world, other) == []
    await world.until(lambda: _has(handed, 1))
    await stop_task(reading)
    forged = notice.value[:-1] + bytes([notice.value[-1] ^ 1])
    await world.produce(
        (topics.notices_of(parties.consumer.uscc).name, parties.consumer.uscc.encode(), forged),
        (topics.notices_of(parties.consumer.uscc).name, parties.consumer.uscc.encode(), follows.value),
        (topics.notices_of(other.uscc).name, other.uscc.encode(), notice.value),
    )
    await world.publish(parties.provider, end(values, 5))
    (later,) = await soon(world, other)
    assert (later.operation, later.opened) == (Operation.REVOKED, (changed.leaf_hash,))
    await Notices(parties.consumer, world.place.servers, group=group).drain(keep)
    assert [one.operation for one in handed] == [Operation.CORRECTED, Operation.REVOKED]

    where = Home(world.place.folder)
    where.write_stack(stack)
    shown, listed = await asyncio.gather(
        _run(where, "impact", changed.leaf_hash.hex(), "--as", parties.provider.name),
        _run(where, "notices", "--as", parties.consumer.name, "--json"),
    )
    for text in (parties.consumer.name, other.name, "Told of CORRECTED 更正, REVOKED 撤销", "tax-registration of"):
        assert text in shown
    assert [one["id"] for one in json.loads(listed)] == [one.id.hex() for one in handed]


async def _has(handed: Sequence[Notice], count: int) -> bool:
    return len(handed) >= count


async def test_whoever_got_a_key_while_the_licences_ended_is_told_and_whoever_did_not_is_not(world: World) -> None:
    """Sixty licences are revoked while they are being opened: what the notices name is what was opened, exactly."""
    parties = await world.parties()
    sealed, values = await world.firms(parties.provider, 60)
    opened: set[bytes] = set()

    async def ask(one: Sealed) -> None:
        if await world.codes(parties.consumer, one) == [Code.PERMIT]:
            opened.add(one.leaf_hash)

    async def asking() -> None:
        for at in range(0, len(sealed), 4):
            await asyncio.gather(*map(ask, sealed[at : at + 4]))

    begun = time.monotonic()
    # Some have ended before: however fast keys leave, not everybody gets one.
    await world.publish(parties.provider, *(end(one, 2) for one in values[:5]))
    await asyncio.gather(asking(), world.publish(parties.provider, *(end(one, 2) for one in values[5:])))
    named: set[bytes] = set()
    while named != opened and time.monotonic() - begun < SOON_SECONDS:
        named = {record for notice in await told(world, parties.consumer) for record in notice.opened}
    assert 0 < len(opened) < len(sealed)
    assert named == opened


async def _run(home: Home, *arguments: str) -> str:
    command = [sys.executable, "-m", "deploy.cli", "record", *arguments, "--home", str(home.path)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, wrong = await process.communicate()
    assert process.returncode == 0, wrong.decode()
    return said.decode()


@pytest.mark.slow
async def test_a_recorder_that_is_killed_in_between_tells_everybody_once_it_is_back(
    killable: World, plant: Plant
) -> None:
    """Before it said anything; and when the log has it, but perhaps not the topic: then the same bytes again."""
    parties, registrar = await killable.parties(), await killable.join(issues=[(TAX, "")])
    (sealed,), (values,) = await killable.firms(parties.provider)
    await killable.keys(parties.consumer, [sealed])
    child = await derive(killable, registrar, sealed)
    due = "SELECT count(*) FROM impact WHERE pending"

    watching = await db.connect(killable.place.dsn)  # the world's own connection is busy publishing

    async def pending() -> bool:
        return bool(await watching.fetchval(due))

    async def done() -> bool:
        return not await pending()

    publishing = asyncio.create_task(killable.publish(parties.provider, end(values, 2)))
    await killable.until(pending)
    plant.kill("recorder")
    (revoked,) = await publishing
    assert await killable.logged("Impact") == []
    assert await told(killable, parties.consumer) == []
    # As if the index were from before there was a table of parents, too.
    await killable.db.execute("DELETE FROM parent")
    await killable.db.execute("INSERT INTO parent_scan (id, after) VALUES (1, '')")
    await plant.start("recorder")
    (notice,) = await soon(killable, parties.consumer, seconds=60)
    (follows,) = await soon(killable, registrar, seconds=60)
    assert (notice.record, [one.record for one in follows.derived]) == (revoked.leaf_hash, [child.leaf_hash])
    await killable.until(done)
    assert await killable.db.fetchval("SELECT count(*) FROM parent_scan") == 0

    plant.kill("recorder")
    await killable.db.execute("UPDATE impact SET pending = true, sent = 0")
    await plant.start("recorder")
    again = await soon(killable, parties.consumer, 2, seconds=60)
    assert [one.value for one in again] == [notice.value] * 2
    await killable.until(done)
    assert len(await killable.logged("Impact")) == 2
    assert len(await killable.on_topic(audit.TOPIC)) >= 2
    await watching.close()
