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
from adapters.feed import Feed, Result
from adapters.mapping import Row
from adapters.sink import PostgresSink
from bus.db import postgres_errors
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
from tests.faults.plant import CONSUMER, DUTY, ITEM, PROVIDER, PURPOSE, SECTION

BATCH = 64
FOLLOW_SECONDS = 0.05


async def publisher(a: argparse.Namespace) -> None:
    """Publishes the firms that its outbox does not know, batch by batch; says how many are acknowledged."""
    identity = Identity.load(a.plant / "orgs" / PROVIDER[0])
    with Outbox(a.store) as outbox:
        async with Publisher(identity, a.kafka, Catalogue.load(), outbox=outbox) as sdk:
            for batch in numbers(a.first, a.count, BATCH):
                await _abreast(a, batch[0] - a.first)
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
            fed = Result()  # the published of an earlier run come again as duplicates

            async def pace(row: Row) -> None:
                if row.line % BATCH == 0:
                    await _abreast(a, row.line)

            def acknowledge(result: Result) -> None:
                nonlocal fed
                fed = result
                _acknowledge(a.acked, result.published + result.duplicates)

            feed = Feed(
                department,
                catalogue,
                lambda _: (sdk, outbox),
                a.store.parent / "quarantine",
                Exports(a.store.parent / "exports.json"),
                before_row=pace,
                on_batch=acknowledge,
            )
            fed = await feed.run(a.input)
            _acknowledge(a.acked, fed.published + fed.duplicates)


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
                sections=(SECTION,),
                purpose=PURPOSE,
                ground="STATUTORY_DUTY",
                operator="fault-test",
                citation=DUTY,
            ),
            offsets=a.start | offsets,
        )
        stored = await _stored(a.dsn, a.table)
        done = asyncio.Event()
        if len(stored) >= a.count:
            return

        async def handle(batch: Sequence[Opened]) -> None:
            # What a grant opened is on file before the sink has it: a crash here leaves a release without a row.
            _note(a.released, batch)
            await sink.write(batch)
            stored.update(one.leaf_hash for one in batch)
            if len(stored) >= a.count:
                done.set()

        run = asyncio.create_task(sdk.run(handle))
        wait = asyncio.create_task(done.wait())
        await asyncio.wait({run, wait}, return_when=asyncio.FIRST_COMPLETED)
        wait.cancel()
        if run.done():
            run.result()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def _abreast(a: argparse.Namespace, sent: int) -> None:
    """The feeder stays within sight of the sink: so every part is at work whenever one is killed."""
    while sent - _number(a.follow) > a.ahead:
        await asyncio.sleep(FOLLOW_SECONDS)


def _number(path: Path) -> int:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return 0


def _note(path: Path, batch: Sequence[Opened]) -> None:
    """A line a record that a key opened: its leaf hash, and the audit entry that the grant named for it."""
    lines = [f"{one.leaf_hash.hex()} {one.entry.hex()} {','.join(one.sections)}\n" for one in batch if one.sections]
    with path.open("a", encoding="ascii") as file:
        file.writelines(lines)


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


async def _stored(dsn: str, table: str) -> set[bytes]:
    async with postgres_errors("reading the sink"):
        connection = await asyncpg.connect(dsn)
        try:
            return {row["leaf_hash"] for row in await connection.fetch(f'SELECT leaf_hash FROM "{table}"')}
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
    parser.add_argument("--released", type=Path)
    parser.add_argument("--follow", type=Path, help="a file that says how far the sink is")
    parser.add_argument("--ahead", type=int, default=0, help="how far before the sink the feeder may be")
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
