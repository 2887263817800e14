"""Keeps a `Trust` in step with `bus.certificates`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime

from bus.feed import Feed
from bus.transport import Cluster
from bus.trust import Trust

TOPIC = "bus.certificates"


class TrustFeed(Feed):
    """Reads the topic from its beginning."""

    def __init__(self, trust: Trust, cluster: Cluster, client_id: str) -> None:
        super().__init__(TOPIC, cluster, f"{client_id}-certificates")
        self.trust = trust

    async def accept(self, key: bytes | None, value: bytes, at: datetime) -> None:
        """A certificate, a KEM key or a revocation."""
        self.trust.add(value)


async def stop_task(task: asyncio.Task[None] | None) -> None:
    """Cancels a supervised task and waits until it is gone."""
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
