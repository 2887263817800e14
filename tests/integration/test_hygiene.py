"""Every part of the bus can be cancelled in the middle of its work: in seconds, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer

from bus import db
from bus.kafka import partitions_of, stop
from bus.publisher import Publisher
from bus.recorder.service import Recorder
from bus.subscriber import Opened
from tests.integration.bus import LICENCE, World, draft, fresh_firm

RETURN_SECONDS = 5.0
MOMENTS = (0.0, 0.02, 0.1, 0.3, 1.0)  # while it connects, and while it works


def connections() -> set[tuple[int, int]]:
    """This process's established connections, by both ports."""
    return {
        (one.laddr.port, one.raddr.port)
        for one in psutil.Process().net_connections(kind="tcp")
        if one.status == psutil.CONN_ESTABLISHED and one.raddr
    }


@asynccontextmanager
async def leaves_nothing() -> AsyncIterator[None]:
    """Tasks and connections are afterwards what they were before."""
    tasks, open_before = asyncio.all_tasks(), connections()
    yield
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and (asyncio.all_tasks() - tasks or connections() - open_before):
        gc.collect()  # a connection that nobody holds is closed by its finaliser
        await asyncio.sleep(0.05)
    assert asyncio.all_tasks() - tasks == set()
    assert connections() - open_before == set()


async def cancelled(work: Callable[[], Awaitable[object]], after: float) -> None:
    """Begins the work, cancels it, and waits for its end."""
    async with leaves_nothing():
        task = asyncio.ensure_future(work())
        await asyncio.sleep(after)
        task.cancel()
        await asyncio.wait({task}, timeout=RETURN_SECONDS)
        assert task.done(), task.get_stack()
        assert task.cancelled(), task.exception()
        # Its traceback holds what was cancelled in the middle: aiokafka's first connection is closed by its finaliser.
        del task


@pytest.mark.parametrize("group", [None, "hygiene"])
async def test_a_reader_does_not_wait_for_its_last_fetch(world: World, group: str | None) -> None:
    """A broker that has nothing new holds a fetch back, here for 20 s; whoever has read enough goes at once."""
    if group is not None:  # a broker's first group waits for its topic, which would be asked for behind the fetch
        await world.group(await world.operator())
    async with leaves_nothing():
        reader = AIOKafkaConsumer(**world.place.kafka.options(), group_id=group, fetch_max_wait_ms=20_000)
        await reader.start()
        reader.assign(await partitions_of(reader, f"licence.{LICENCE}"))
        await reader.seek_to_end()
        await reader.getmany(timeout_ms=200)
        async with asyncio.timeout(RETURN_SECONDS):
            await stop(reader)


async def test_a_cancelled_publisher_leaves_nothing(world: World) -> None:
    """While it connects, seals, or waits for acknowledgements."""
    identity = await world.join(issues=[(LICENCE, "")])

    async def publish() -> None:
        async with Publisher(identity, world.place.servers, world.catalogue) as publisher:
            while True:
                await publisher.publish([draft(fresh_firm()) for _ in range(20)])

    for moment in MOMENTS:
        await cancelled(publish, moment)


async def test_a_cancelled_subscriber_leaves_nothing(world: World) -> None:
    """While it joins its group, asks for keys, or runs its handler."""
    parties = await world.parties()
    group = await world.group(parties.consumer)
    await world.firms(parties.provider, 5)

    async def handle(_: Sequence[Opened]) -> None:
        await asyncio.sleep(60)

    for moment in MOMENTS:
        await cancelled(lambda: world.subscriber(parties.consumer, group).run(handle), moment)


async def test_a_cancelled_gateway_leaves_nothing(world: World) -> None:
    """While it connects, or follows certificates and sessions."""

    async def serve() -> None:
        async with world.gateway() as gateway:
            await gateway.run()

    for moment in MOMENTS:
        await cancelled(serve, moment)


async def test_a_cancelled_recorder_leaves_nothing(world: World, dsn: str, tmp_path: Path) -> None:
    """While it stands by, and while it reads everything from the beginning into a database of its own."""
    await db.migrate(dsn)
    for database in (world.place.dsn, dsn):

        def recorder(database: str = database) -> Recorder:
            return world.recorder(database, tmp_path)

        for moment in MOMENTS:
            await cancelled(lambda: recorder().run(), moment)
