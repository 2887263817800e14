"""One part after another is killed and comes back: nothing is released meanwhile, nothing is lost, nobody restarts."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from bus.outbox import Sealed
from bus.publisher import Publisher
from bus.subscriber import Opened
from bus.trustfeed import stop_task
from deploy.stack.child import Child, free_ports, start
from schemas.errors import Code
from tests.faults.plant import Plant, _ready, _until, kill
from tests.integration.bus import LICENCE, Parties, World, draft, fresh_firm, key_request, reads

BOUND_SECONDS = 15.0  # the log's ten, and what a busy machine adds
BACK_SECONDS = 60.0


async def asked(world: World, parties: Parties, sealed: Sealed) -> list[tuple[int, str]]:
    """What a key request, an audit query and a search for nobody's licences are answered, asked at once."""
    request = key_request(parties.consumer, reads([sealed]))
    search = {
        "item": LICENCE,
        "subject": {"kind": "ORGANISATION", "id": fresh_firm()["uscc"]},
        "sections": ["identity"],
        "request": request.request.hex(),
        "recipient": request.recipient.hex(),
        "purpose": request.purpose,
        "ground": request.ground,
        "operator": "test",
    }
    answers = await asyncio.gather(
        world.send(parties.consumer, request.encode()),
        world.send_json(parties.consumer, "/v1/audit/entries:query", {}),
        world.send_json(parties.consumer, "/v1/licences:search", search),
    )
    return [(a.status_code, a.json()["code"] if a.status_code != 200 else "") for a in answers]


async def permits(world: World, parties: Parties, sealed: Sealed) -> bool:
    """Whether the gateway releases again. A 503, or an index that is not fresh yet, is no."""
    with suppress(AssertionError, httpx.TransportError):
        return await world.codes(parties.consumer, sealed) == [Code.PERMIT]
    return False


@pytest.mark.parametrize(("engine", "code"), [("kafka", "KAFKA_UNAVAILABLE"), ("postgres", "POSTGRES_UNAVAILABLE")])
async def test_without_an_engine_nothing_is_answered_and_it_goes_on_by_itself(
    killable: World, plant: Plant, engine: str, code: str
) -> None:
    """503 within the bounds for keys, trail and look-ups; with the engine back the same gateway releases again."""
    parties = await killable.parties()
    (sealed,), _ = await killable.firms(parties.provider)
    gateway, recorder = plant.children["gateway"].pid, plant.children["recorder"].pid
    kill(plant.children[engine])
    begin = time.monotonic()
    try:
        assert await asked(killable, parties, sealed) == [(503, code)] * 3
        assert time.monotonic() - begin < BOUND_SECONDS
    finally:
        await plant.start(engine)
    await killable.reconnect()
    await killable.until(lambda: permits(killable, parties, sealed), BACK_SECONDS)
    (after,), _ = await killable.within(killable.firms(parties.provider), BACK_SECONDS)
    assert await killable.codes(parties.consumer, after) == [Code.PERMIT]
    assert (plant.children["gateway"].pid, plant.children["recorder"].pid) == (gateway, recorder)
    assert plant.children["gateway"].process.poll() is None


async def test_publishing_needs_no_gateway_and_readers_wait_for_it(killable: World, plant: Plant) -> None:
    """Every gateway is down: records are published and admitted, and a subscriber that waits gets them all."""
    parties = await killable.parties()
    group = await killable.group(parties.consumer)
    kill(plant.children["gateway"])
    try:
        sealed, _ = await killable.firms(parties.provider, 3)
        handed, task = await waiting(killable, parties, group)
    finally:
        await plant.start("gateway")
    await received(killable, parties, group, handed, sealed, task)


async def test_the_next_recorder_goes_on_where_the_last_was_killed(killable: World, plant: Plant) -> None:
    """Readers of a record that is not admitted wait; a standby takes over from a killed recorder, and the reverse."""
    parties = await killable.parties()
    group = await killable.group(parties.consumer)
    kill(plant.children["recorder"])
    async with Publisher(parties.provider, plant.kafka, killable.catalogue) as publisher:
        sealed = await publisher.publish([draft(fresh_firm()) for _ in range(3)])
    handed, task = await waiting(killable, parties, group)
    assert await killable.codes(parties.consumer, sealed[0]) == [Code.NOT_ADMITTED]
    with recorder(plant) as (standby, metrics):
        await _until(lambda: _ready(f"{metrics}/readyz"))
        await received(killable, parties, group, handed, sealed, task)
        await plant.start("recorder")  # the second: it stands by
        assert await active(metrics)
        assert not await active(f"http://127.0.0.1:{plant.metrics_ports[1]}")
        kill(standby)
        await killable.within(killable.firms(parties.provider), 10)
        assert await active(f"http://127.0.0.1:{plant.metrics_ports[1]}")
    assert await killable.db.fetchval(
        "SELECT count(*) FROM record WHERE leaf_hash = ANY($1)", [s.leaf_hash for s in sealed]
    ) == len(sealed)


async def waiting(world: World, parties: Parties, group: str) -> tuple[list[bytes], asyncio.Task[None]]:
    """A subscriber that has begun and has nothing yet."""
    handed: list[bytes] = []

    async def handle(batch: Sequence[Opened]) -> None:
        handed.extend(one.leaf_hash for one in batch)

    task = asyncio.create_task(world.subscriber(parties.consumer, group).run(handle))
    await asyncio.sleep(1.5)
    assert not task.done()
    assert handed == []
    return handed, task


async def received(
    world: World, parties: Parties, group: str, handed: list[bytes], sealed: Sequence[Sealed], task: asyncio.Task[None]
) -> None:
    """All of it, each once, and no dead letter."""

    async def all_there() -> bool:
        return len(handed) >= len(sealed) or task.done()

    try:
        await world.until(all_there, BACK_SECONDS)
    finally:
        await stop_task(task)
    assert sorted(handed) == sorted(s.leaf_hash for s in sealed)
    assert await world.letters(parties.consumer, group) == []


@contextmanager
def recorder(plant: Plant) -> Iterator[tuple[Child, str]]:
    """A second recorder process, and where its metrics are."""
    (port,) = free_ports(1)
    arguments: list[str | Path] = [
        *(sys.executable, "-m", "deploy.process", "recorder", "--bus", plant.folder / "bus"),
        *("--kafka", plant.kafka, "--postgres-file", plant.folder / "dsn", "--metrics-port", str(port)),
    ]
    child = start("recorder", arguments, plant.folder / "logs" / "recorder-standby.log")
    try:
        yield child, f"http://127.0.0.1:{port}"
    finally:
        kill(child)


async def active(metrics: str) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        return "\nbus_recorder_active 1.0" in (await client.get(f"{metrics}/metrics")).text
