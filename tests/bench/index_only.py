"""`python -m tests.bench.index_only recorder ...`: the recorder without supervision, for `make bench` alone.

Supervision reads every published entry again, in the recorder's own process: it is no part of the index.
"""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaProducer

from bus.recorder.oversight import Oversight
from deploy.process import main


async def _rest(self: Oversight, producer: AIOKafkaProducer) -> None:
    await asyncio.Event().wait()


if __name__ == "__main__":
    Oversight.run = _rest  # type: ignore[method-assign]
    main()
