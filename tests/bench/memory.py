"""`python -m tests.bench.memory`: a million records published and indexed, `build/memory.json`, exit 1 if memory grows.

Publisher and recorder are processes of their own over real Kafka and PostgreSQL. Their resident sets are read at every
50,000 indexed records. Flat means: the largest of the last quarter is at most 1.15 times the largest of the second
quarter, and 16 MiB for the allocator's noise. (The first quarter fills caches and is not judged.)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bus.identity import Identity
from bus.publisher import Publisher
from schemas.catalogue import Catalogue
from tests.bench.sample import SEED, drafts
from tests.bench.world import World, process, quiet, world
from tests.report import write_report

RECORDS = 1_000_000
STEP = 50_000
GROWTH = 1.15
NOISE = 16 * 2**20
STALL_SECONDS = 120.0  # nothing indexed for so long: something is broken, not slow
POLL_SECONDS = 0.5
IN_FLIGHT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Resident sets in bytes when `records` were indexed. The publisher's is its last before it ended."""

    records: int
    seconds: float
    publisher: int
    recorder: int


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS, help=f"at least {4 * STEP:,} for a judgement")
    parser.add_argument("--json", action="store_true", help="print the document on stdout")
    arguments = parser.parse_args()
    quiet()
    console = Console(stderr=True, highlight=False)
    with asyncio.Runner() as runner, world(runner, console.print) as there:
        samples = runner.run(_measure(there, arguments.records, console))
    grown = {name: growth([getattr(one, name) for one in samples]) for name in ("publisher", "recorder")}
    flat = all(found["flat"] for found in grown.values())
    document = write_report(
        "memory",
        seconds=samples[-1].seconds,
        seed=SEED,
        records=samples[-1].records,
        records_a_second=round(samples[-1].records / samples[-1].seconds, 1),
        criterion=f"last quarter's maximum <= {GROWTH} x second quarter's + {NOISE} bytes",
        flat=flat,
        growth=grown,
        samples=[
            {
                "records": one.records,
                "seconds": round(one.seconds, 1),
                "publisher_rss": one.publisher,
                "recorder_rss": one.recorder,
            }
            for one in samples
        ],
    )
    for name, found in grown.items():
        colour = "green" if found["flat"] else "red"
        console.print(
            f"[bold]{name:9}[/] second quarter {found['second'] / 2**20:.0f} MiB,"
            f" last [{colour}]{found['last'] / 2**20:.0f} MiB[/]"
        )
    console.print(f"{document['records']:,} records, {document['records_a_second']:,.0f} a second")
    if arguments.json:
        print(json.dumps(document))
    return 0 if flat else 1


async def _measure(there: World, records: int, console: Console) -> list[Sample]:
    """One sample each 50,000 indexed records, until all are."""
    child = multiprocessing.get_context("spawn").Process(
        target=_publish, args=(str(there.folder / "market"), there.servers, records)
    )
    with process(there, "recorder") as (recorder_pid, _, _):
        connection = await asyncpg.connect(there.postgres)
        began = time.monotonic()
        child.start()
        try:
            return await _follow(connection, records, began, child.pid or 0, recorder_pid, console)
        finally:
            child.terminate()
            child.join()
            await connection.close()


async def _follow(
    connection: asyncpg.Connection, records: int, began: float, publisher: int, recorder: int, console: Console
) -> list[Sample]:
    samples: list[Sample] = []
    columns = (TextColumn("indexed"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    last, moved, publishing = 0, time.monotonic(), 0
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("indexed", total=records)
        while last < records:
            await asyncio.sleep(POLL_SECONDS)
            # The recorder's own statistics are late; its offsets are exact, and cheap to read at a million rows.
            indexed = await _indexed(connection)
            publishing = resident(publisher) or publishing
            if indexed > last:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALL_SECONDS:
                raise SystemExit(f"{indexed:,} of {records:,} indexed, and nothing more for {STALL_SECONDS:.0f} s")
            if indexed // STEP > last // STEP or indexed >= records:
                samples.append(
                    Sample(
                        records=indexed,
                        seconds=time.monotonic() - began,
                        publisher=publishing,
                        recorder=resident(recorder),
                    )
                )
            last = indexed
            progress.update(bar, completed=indexed)
        counted = await connection.fetchval("SELECT count(*) FROM record")
    if counted != records:
        raise SystemExit(f"the index holds {counted:,} records, not {records:,}")
    return samples


async def _indexed(connection: asyncpg.Connection) -> int:
    """Licence records that the recorder has passed, by the offsets that it commits with its rows."""
    return int(
        await connection.fetchval(
            "SELECT COALESCE(sum(next_offset), 0)::bigint FROM position WHERE topic LIKE 'licence.%'"
        )
    )


def _publish(folder: str, kafka: str, records: int) -> None:
    """The publisher's process: batches of 64, a few under way."""
    quiet()
    uvloop.run(_publish_all(Identity.load(Path(folder)), kafka, records))


async def _publish_all(identity: Identity, kafka: str, records: int) -> None:
    free = asyncio.Semaphore(IN_FLIGHT)
    async with Publisher(identity, kafka, Catalogue.load()) as publisher, asyncio.TaskGroup() as tasks:
        for batch in drafts(records):
            await free.acquire()
            tasks.create_task(publisher.publish(batch)).add_done_callback(lambda _: free.release())


def resident(pid: int) -> int:
    """A process's resident set in bytes, 0 once it has ended."""
    try:
        process = psutil.Process(pid)
        return 0 if process.status() == psutil.STATUS_ZOMBIE else int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def growth(sizes: Sequence[int]) -> dict[str, float | bool]:
    """The largest of the second and of the last quarter, and whether that is flat."""
    quarter = max(len(sizes) // 4, 1)
    second, last = max(sizes[quarter : 2 * quarter] or sizes), max(sizes[-quarter:])
    return {"second": second, "last": last, "ratio": round(last / second, 3), "flat": last <= GROWTH * second + NOISE}


if __name__ == "__main__":
    sys.exit(main())
