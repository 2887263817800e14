"""What the bus adds to aiokafka."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from bus.kafka import stop


class _Farewell:
    """As `aiokafka.consumer.fetcher` ends: it cancels a task that has not begun, and awaits it."""

    async def stop(self) -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task


async def test_a_clients_own_cancelled_task_does_not_cancel_whoever_stops_it() -> None:
    """A recorder would take it for the wish to end, and end, in the middle of a broker's absence."""
    await stop(cast(Any, _Farewell()))
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
