"""`python -m tests.faults.load publisher|adapter|subscriber`: the processes that are killed while they work.

Each ends with 0 when its work is done, 3 when an engine is away (the plant starts it again, as an operator's supervisor
would), and keeps nothing but what its own store holds.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import uvloop

from adapters import config
from adapters.exports import Exports
from adapters.feed import Feed
from adapters.sink import PostgresSink
from bus.identity import Identity
from bus.logs import configure
from bus.outbox import Outbox
from bus.publisher import Publisher
from bus.sealer import Draft
from bus.subscriber import Opened, Subscriber, Wanted
from schemas.catalogue import Catalogue
from schemas.errors import DeptbusError
from schemas.operations import Operation
from tests.faults.firms import firm, numbers
from tests.faults.plant import CONSUMER, DUTY, ITEM, PROVIDER

BATCH = 64


async def publisher(a: argparse.Namespace) -> None:
    """Publishes the firms that its outbox does not know, batch by batch; says how many are acknowledged."""
    identity = Identity.load(a.plant / "orgs" / PROVIDER[0])
    with Outbox(a.store) as outbox:
        async with Publisher(identity, a.kafka, Catalogue.load(), outbox=outbox) as sdk:
            for batch in numbers(a.first, a.count, BATCH):
                values = [firm(number) for number in batch]
                fresh = [v for v in values if outbox.licence(sdk.reference(ITEM, v)) is None]
                if fresh:
                    await sdk.publish([_draft(v) for v in fresh])
                _acknowledge(a.acked, batch[-1] + 1 - a.first)


async def adapter(a: argparse.Namespace) -> None:
    """Feeds an export."""
    catalogue = Catalogue.load()
    department = config.load(a.department, catalogue)
    identity = Identity.load(a.plant / "orgs" / PROVIDER[0])
    with Outbox(a.store) as outbox:
        async with Publisher(identity, a.kafka, catalogue, outbox=outbox) as sdk:
            feed = Feed(
                department,
                catalogue,
                lambda _: (sdk, outbox),
                a.store.parent / "quarantine",
                Exports(a.store.parent / "exports.json"),
                on_batch=lambda result: _acknowledge(a.acked, result.published),
            )
            await feed.run(a.input)


async def subscriber(a: argparse.Namespace) -> None:
    """Opens everything from where the sink stands; ends when the sink holds what was asked for."""
    catalogue = Catalogue.load()
    identity = Identity.load(a.plant / "orgs" / CONSUMER[0])
    columns = {"name": "text", "uscc": "text"}
    async with PostgresSink(a.dsn, a.table, columns) as sink:
        offsets = {tuple(k): v for k, v in (await sink.offsets()).items()}
        sdk = Subscriber(
            identity,
            a.kafka,
            [a.gateway],
            catalogue,
            group=a.table,
            items=[ITEM],
            wanted=Wanted(
                sections=("identity",),
                purpose="tax-registration",
                ground="STATUTORY_DUTY",
                operator="fault-test",
                citation=DUTY,
            ),
            offsets=a.start | offsets,
        )
        done = asyncio.Event()

        async def handle(batch: Sequence[Opened]) -> None:
            await sink.write(batch)
            if await _count(a.dsn, a.table) >= a.count:
                done.set()

        run = asyncio.create_task(sdk.run(handle))
        wait = asyncio.create_task(done.wait())
        if await _count(a.dsn, a.table) >= a.count:
            done.set()
        await asyncio.wait({run, wait}, return_when=asyncio.FIRST_COMPLETED)
        wait.cancel()
        if run.done():
            run.result()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


def _draft(values: dict[str, object]) -> Draft:
    return Draft(
        item=ITEM,
        operation=Operation.ISSUED,
        values=values,
        sequence=1,
        occurred_at=datetime.now(UTC),
        region="330411",
    )


def _acknowledge(path: Path, count: int) -> None:
    """How far the brokers have it, for whoever decides when to kill."""
    temporary = path.with_suffix(".new")
    temporary.write_text(str(count), "ascii")
    temporary.replace(path)


async def _count(dsn: str, table: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(f'SELECT count(*) FROM "{table}"'))
    finally:
        await connection.close()


def _offsets(text: str) -> dict[tuple[str, int], int]:
    """`topic:partition:offset,…`"""
    parts = (entry.rsplit(":", 2) for entry in text.split(",") if entry)
    return {(topic, int(partition)): int(offset) for topic, partition, offset in parts}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("publisher", "adapter", "subscriber"))
    parser.add_argument("--plant", type=Path, required=True)
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--gateway", default="")
    parser.add_argument("--dsn", default="")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--acked", type=Path)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--department", type=Path)
    parser.add_argument("--table", default="")
    parser.add_argument("--start", type=_offsets, default={})
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, required=True)
    arguments = parser.parse_args()
    configure(arguments.what)
    try:
        uvloop.run({"publisher": publisher, "adapter": adapter, "subscriber": subscriber}[arguments.what](arguments))
    except DeptbusError as exc:
        print(exc, file=sys.stderr)
        sys.exit(exc.exit_code)


if __name__ == "__main__":
    main()
