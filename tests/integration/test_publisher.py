"""The writing half: sessions end in time, bad values send nothing, a crash sends the same bytes again."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from structlog.testing import CapturingLogger

from bus import envelope, sealing
from bus.outbox import Outbox
from bus.publisher import Publisher
from bus.sealer import Draft, Sealer
from bus.trust import Trust
from bus.trustfeed import TrustFeed
from schemas.errors import Code, Malformed, Refused, Unavailable
from tests.disks import filled, small_disk
from tests.integration.bus import LICENCE, World, citizen_number, draft, fresh_firm

__all__ = ["small_disk"]

TOPIC = f"licence.{LICENCE}"


def fresh(count: int) -> list[Draft]:
    return [draft(fresh_firm()) for _ in range(count)]


async def test_a_session_ends_before_its_leaves_do(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that no longer fits begins a new session; every record is admitted and opens."""
    monkeypatch.setattr(sealing, "MAX_LEAVES", 4)
    parties = await world.parties()
    async with Publisher(parties.provider, world.place.servers, world.catalogue) as publisher:
        sealed = [one for size in (3, 1, 2, 3) for one in await publisher.publish(fresh(size))]
    await world.judged(sealed)
    places = [(c.session, c.leaf) for c in (envelope.parse(s.value).claims for s in sealed)]
    assert [leaf for _, leaf in places] == [0, 1, 2, 3, 0, 1, 0, 1, 2]
    assert len({at for at, _ in places}) == 3
    for one in (sealed[3], sealed[4], sealed[6]):
        assert await world.codes(parties.consumer, one) == [Code.PERMIT]


async def test_two_processes_never_share_a_session_and_none_outlives_its_key(world: World) -> None:
    """After a fork the child begins its own session, and a session ends with the KEM key that it is sealed to."""
    identity = await world.join(issues=[(LICENCE, "")])
    feed = TrustFeed(Trust(identity.authority), world.place.kafka, "test")
    await feed.start()
    await feed.stop()
    now = datetime.now(UTC)
    key = feed.trust.gateway_key(identity.gateway_owner, now)
    sealer = Sealer(identity, world.catalogue.item(LICENCE))
    short = sealer.open_session(replace(key, not_after=now + timedelta(minutes=20)), now)
    assert short.not_after == now + timedelta(minutes=20)
    assert not sealer.needs_session(1, now + timedelta(minutes=14))
    assert sealer.needs_session(1, now + timedelta(minutes=16))
    assert not sealer.needs_session(1, now - timedelta(minutes=4))
    assert sealer.needs_session(1, now - timedelta(minutes=6)), "by a clock that was turned back it would not end"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        os._exit(0 if sealer.needs_session(1, now) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not sealer.needs_session(1, now)


class Off(Publisher):
    """One whose clock is wrong by `off`."""

    off = timedelta()

    def _now(self) -> datetime:
        return super()._now() + self.off


class Late(Off):
    off = timedelta(hours=25)


@pytest.mark.parametrize(
    ("minutes", "said"),
    # A bus as young as a test's has no gateway key yet of six minutes ago.
    [
        pytest.param(6, r"SESSION_INVALID: .*36\d s ahead", id="ahead"),
        pytest.param(-6, r"SESSION_INVALID: .*36\d s behind|RECIPIENT_INVALID: .*this clock", id="behind"),
    ],
)
async def test_a_wrong_clock_is_said_before_anything_is_sealed(
    world: World, tmp_path: Path, minutes: int, said: str
) -> None:
    """By how much it is wrong; nothing is staged or sent. Nearly right, it publishes, and the records open."""
    parties = await world.parties()
    values = fresh_firm()
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        async with Off(parties.provider, world.place.servers, world.catalogue, outbox=outbox) as publisher:
            publisher.off = timedelta(minutes=minutes)
            for _ in range(2):
                with pytest.raises(Refused, match=said):
                    await publisher.publish([draft(values)])
            assert outbox.pending() == []
            assert await world.on_topic(TOPIC, publisher.reference(LICENCE, values)) == []
            publisher.off = timedelta(minutes=4)
            (sealed,) = await publisher.publish([draft(values)])
    await world.judged([sealed])
    assert await world.codes(parties.consumer, sealed) == [Code.PERMIT]


async def test_nothing_is_sealed_in_a_session_that_did_not_arrive(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka was away when it was sent: the next batch begins another one."""
    parties = await world.parties()

    async def lost(*_: Any, **__: Any) -> None:
        raise KafkaError("lost")

    async with Publisher(parties.provider, world.place.servers, world.catalogue) as publisher:
        with monkeypatch.context() as fault:
            fault.setattr(publisher._producer, "send_and_wait", lost)
            with pytest.raises(Unavailable):
                await publisher.publish(fresh(1))
        (sealed,) = await publisher.publish(fresh(1))
    await world.judged([sealed])
    assert await world.codes(parties.consumer, sealed) == [Code.PERMIT]


async def test_a_publisher_on_a_full_disk_sends_nothing_and_goes_on_with_room(world: World, small_disk: Path) -> None:
    """What cannot be kept until the brokers have it is not sent: a crash could seal it a second time."""
    parties = await world.parties()
    batch = fresh(32)
    with Outbox(small_disk / "outbox.sqlite") as outbox:
        async with Publisher(parties.provider, world.place.servers, world.catalogue, outbox=outbox) as publisher:
            with filled(small_disk):
                for _ in range(2):
                    with pytest.raises(Unavailable) as refused:
                        await publisher.publish(batch)
                    assert refused.value.code is Code.DISK_FULL
            assert outbox.pending() == []
            assert not await _there(world, publisher, batch)
            sealed = await publisher.publish(batch)
            assert await _there(world, publisher, batch) == {one.key for one in sealed}
    await world.judged(sealed)
    assert await world.codes(parties.consumer, sealed[-1]) == [Code.PERMIT]


async def _there(world: World, publisher: Publisher, drafts: list[Draft]) -> set[bytes]:
    """The drafts' licences that Kafka has anything of."""
    ours = {publisher.reference(LICENCE, one.values) for one in drafts}
    return ours & {message.key for message in await world.on_topic(TOPIC)}


async def test_a_value_that_breaks_the_catalogue_sends_nothing_and_is_not_repeated(world: World) -> None:
    """The refusal names the field, never the value; nothing of the batch is sent and no leaf is spent."""
    identity = await world.join(issues=[(LICENCE, "")])
    good, number = fresh_firm(), citizen_number()
    wrong_check = number[:-1] + ("0" if number[-1] != "0" else "1")
    cases = {
        "representative_id": wrong_check,
        "uscc": good["uscc"][:-1] + ("0" if good["uscc"][-1] != "0" else "1"),
        "established_on": "SECRET-2019",
        "region": "999999",
        "name": "\ud800SECRET",
    }
    async with Publisher(identity, world.place.servers, world.catalogue) as publisher:
        key = publisher.reference(LICENCE, good)
        (before,) = await publisher.seal([draft(fresh_firm())])
        for field, value in cases.items():
            with pytest.raises(Malformed) as refused:
                await publisher.publish([draft(good), draft(fresh_firm() | {field: value})])
            assert field in refused.value.detail
            assert value not in str(refused.value)
            assert "SECRET" not in str(refused.value)
        assert await world.on_topic(TOPIC, key) == []
        (after,) = await publisher.publish([draft(good)])
    leaves = [envelope.parse(s.value).claims for s in (before, after)]
    assert (leaves[0].session, leaves[0].leaf + 1) == (leaves[1].session, leaves[1].leaf)


@pytest.mark.parametrize("arrived", [False, True])
async def test_a_crash_between_stage_and_acknowledgement_sends_the_same_bytes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    """Whether or not the broker had them: the next run sends what was staged, and the index holds each once.

    A run that comes a day later says that what is new to the broker by then is not admitted.
    """
    parties = await world.parties()
    values = fresh_firm()
    said = CapturingLogger()
    monkeypatch.setattr("bus.publisher.log", said)

    def lost(*_: Any, **__: Any) -> None:
        raise KafkaError("lost")

    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        async with Publisher(parties.provider, world.place.servers, world.catalogue, outbox=outbox) as publisher:
            await publisher.seal(fresh(1))  # the session is on its topic
            with monkeypatch.context() as fault:
                if arrived:
                    fault.setattr(outbox, "done", lost)
                else:
                    fault.setattr(publisher._producer, "send", lost)
                with pytest.raises((Unavailable, KafkaError)):
                    await publisher.publish([draft(values)])
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        (staged,) = outbox.pending()
        assert len(await world.on_topic(TOPIC, staged.key)) == int(arrived)
        again = Late if arrived else Publisher
        async with again(parties.provider, world.place.servers, world.catalogue, outbox=outbox) as publisher:
            state = outbox.licence(publisher.reference(LICENCE, values))
        assert outbox.pending() == []
    assert [call.kwargs["code"] for call in said.calls if call.method_name == "error"] == [Code.SESSION_LATE] * arrived
    assert state is not None
    assert (state.sequence, state.leaf_hash) == (1, staged.leaf_hash)
    messages = await world.on_topic(TOPIC, staged.key)
    assert [(m.value, tuple(m.headers)) for m in messages] == [(staged.value, staged.headers)] * (1 + arrived)
    await world.judged([staged])
    assert (
        await world.db.fetchval("SELECT count(*) FROM record WHERE licence = $1 AND NOT conflict", staged.licence) == 1
    )
    assert await world.codes(parties.consumer, staged) == [Code.PERMIT]
