"""`python -m deploy.demo.department NAME --home H --kafka K --gateway URL`.

One department of the demo, as its own process.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import suppress
from pathlib import Path

import uvloop

from adapters.issuing import Issuing
from bus.identity import Identity
from bus.logs import configure
from bus.outbox import Outbox
from bus.publisher import Publisher
from bus.subscriber import Subscriber
from deploy.demo.departments import DEPARTMENTS, LICENCE, Department
from schemas.catalogue import Catalogue


async def run(department: Department, home: Path, kafka: str, gateways: list[str]) -> None:
    """Opens what it may of each licence and issues its certificate, until stopped."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    catalogue = Catalogue.load()
    identity = Identity.load(home / "orgs" / department.name)
    with Outbox(home / "outbox" / f"{department.name}.sqlite") as outbox:
        async with Publisher(identity, kafka, catalogue, outbox=outbox) as publisher:
            issuing = Issuing(publisher, outbox, department.item, department.make)
            subscriber = Subscriber(
                identity,
                kafka,
                gateways,
                catalogue,
                group=f"demo-{department.name}",
                items=[LICENCE],
                wanted=department.wanted,
            )
            with suppress(asyncio.CancelledError):
                await subscriber.run(issuing)


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[d.name for d in DEPARTMENTS])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--gateway", action="append", required=True)
    arguments = parser.parse_args()
    configure(arguments.name)
    department = next(d for d in DEPARTMENTS if d.name == arguments.name)
    uvloop.run(run(department, arguments.home, arguments.kafka, arguments.gateway))


if __name__ == "__main__":
    main()
