"""`python -m tests.bench.large`: a log of ten million entries, and what its readers wait for; `build/bench-large.json`.

A year's entries of a province (`tests.bench.entries`) are filled in by the recorder's own code; then a recorder signs
the log, and the gateway's own functions answer, in this process, over one connection:

- the first page (100 entries) of every filter, 200 times each for words of entries that were drawn: p95 under 100 ms;
- a year's counts a day for every filter: under a second, and on a drawn day equal to what a scan of its entries says;
- a proof of inclusion with its entry, by the entry's hash: p95 under 20 ms.

Then a million entries wait in Kafka while no recorder runs. One starts and works them off in flat memory: the largest
resident set of the last quarter is at most 1.15 times that of the second, and 16 MiB for the allocator's noise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from random import Random
from typing import Any

import asyncpg
import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bus import audit, tilestore
from bus.gateway import logfiles, trail
from bus.gateway.trail import Filter, Published
from bus.kafka import producer, stop
from bus.terms import Word, words
from bus.tlog.tiles import WIDTH, Edge
from consent.decide import CHINA
from tests.bench import bulk
from tests.bench.entries import groups
from tests.bench.memory import growth, resident
from tests.bench.sample import SEED
from tests.bench.world import World, process, quiet, world
from tests.report import write_report

ENTRIES = 10_000_000
BACKLOG = 1_000_000
QUERIES = 200
PAGE = 100
DRAWN = 5_000  # entries whose words are looked for
COUNTED = 5  # words of each dimension, the most frequent drawn one among them
PAGE_FLOOR = 0.1  # seconds; p95
COUNTS_FLOOR = 1.0
PROOF_FLOOR = 0.02
STEP = 50_000
STALL_SECONDS = 300.0
POLL_SECONDS = 0.5


@dataclass(slots=True)
class Times:
    """Seconds that calls took."""

    seconds: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """In milliseconds."""
        return {"calls": len(self.seconds)} | {
            name: round(self.percentile(percent) * 1000, 2)
            for name, percent in (("p50", 50), ("p95", 95), ("max", 100))
        }

    def percentile(self, percent: int) -> float:
        """What `percent` of the calls did not exceed; 0 without calls."""
        ordered = sorted(self.seconds) or [0.0]
        return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.large", description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--backlog", type=int, default=BACKLOG, help=f"at least {8 * STEP:,} for a judgement, or 0")
    parser.add_argument("--json", action="store_true", help="print the document on stdout")
    arguments = parser.parse_args()
    quiet()
    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    with asyncio.Runner() as runner, world(runner, console.print) as there:
        figures = {"filled": runner.run(_fill(there, arguments.entries, console))}
        runner.run(_signed(there, arguments.entries))
        figures |= runner.run(_read(there, console))
        if arguments.backlog:
            figures["backlog"] = runner.run(_work_off(there, arguments.entries, arguments.backlog, console))
    missed = _missed(figures)
    document = write_report(
        "bench-large",
        seconds=time.monotonic() - began,
        seed=SEED,
        entries=arguments.entries,
        missed=missed,
        **figures,
    )
    for sentence in missed:
        console.print(f"[red]{sentence}[/]")
    console.print(f"{arguments.entries:,} entries, {document['seconds']:,.0f} s; see build/bench-large.json")
    if arguments.json:
        print(json.dumps(document))
    return 1 if missed else 0


def _missed(figures: dict[str, Any]) -> list[str]:
    """Each floor that was not reached."""
    missed = [
        f"first page by {name}: p95 {times['p95']} ms"
        for name, times in figures["pages"].items()
        if times["p95"] >= PAGE_FLOOR * 1000
    ]
    missed += [
        f"a year's counts by {name}: {times['max']} ms"
        for name, times in figures["counts"].items()
        if times["max"] >= COUNTS_FLOOR * 1000
    ]
    missed += [f"counts of {word} are not those of a scan" for word in figures["scan"]["different"]]
    if figures["proofs"]["p95"] >= PROOF_FLOOR * 1000:
        missed.append(f"a proof: p95 {figures['proofs']['p95']} ms")
    if not figures.get("backlog", {"flat": True})["flat"]:
        missed.append("the recorder's memory grows while it works a backlog off")
    return missed


# Filling


async def _fill(there: World, entries: int, console: Console) -> dict[str, Any]:
    began = time.monotonic()
    edge, value_bytes = Edge(), 0
    columns = (TextColumn("filled"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    connection = await asyncpg.connect(there.postgres)
    signer = there.bus.folder / "gateway"
    try:
        with (
            Progress(*columns, console=console) as progress,
            bulk.parts(there.postgres, signer, there.bus.origin, entries) as parts,
        ):
            bar = progress.add_task("filled", total=entries)
            while edge.size < entries:
                made = await asyncio.to_thread(next, parts)
                edge = await bulk.add_tiles(connection, edge, made)
                value_bytes += made.value_bytes
                progress.update(bar, completed=edge.size)
        await connection.execute("VACUUM (ANALYZE) log_tile, log_bundle, log_term")  # as the server does by itself
        sizes = await connection.fetch(
            "SELECT split_part(relname, '_', 2) AS part,"
            "       sum(pg_table_size(oid) + pg_indexes_size(oid))::bigint AS bytes"
            "  FROM pg_class WHERE relkind = 'r' AND relname ~ '^log_(tile|bundle|term|word)' GROUP BY 1"
        )
    finally:
        await connection.close()
    seconds = time.monotonic() - began
    return {
        "seconds": round(seconds, 1),
        "entries_a_second": round(entries / seconds, 1),
        "value_bytes_an_entry": round(value_bytes / entries, 1),
        "bytes": {row["part"]: row["bytes"] for row in sizes},
    }


async def _signed(there: World, size: int) -> None:
    """Once a recorder has signed a log of that size."""
    with process(there, "recorder"):
        connection = await asyncpg.connect(there.postgres)
        try:
            async with asyncio.timeout(STALL_SECONDS):
                while (await connection.fetchval("SELECT size FROM log_checkpoint") or 0) < size:
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            await connection.close()


# Reading


async def _read(there: World, console: Console) -> dict[str, Any]:
    connection = await asyncpg.connect(there.postgres)
    try:
        at = await trail.published(connection)
        random = Random(SEED)
        drawn = await _drawn(connection, at, random)
        console.print(f"{sum(map(len, drawn.values())):,} words of {len(drawn)} dimensions drawn")
        pages = {name: await _pages(connection, at, drawn[name], random) for name in drawn}
        counts = {name: await _counts(connection, at, drawn[name]) for name in drawn}
        return {
            "pages": {name: times.to_json() for name, times in pages.items()},
            "counts": {name: times.to_json() for name, times in counts.items()},
            "scan": await _scan(connection, at, random),
            "proofs": (await _proofs(connection, at, random)).to_json(),
        }
    finally:
        await connection.close()


async def _drawn(connection: asyncpg.Connection, at: Published, random: Random) -> dict[str, list[Word]]:
    """By dimension, words of drawn entries: what many entries say is drawn often."""
    found: dict[str, list[Word]] = defaultdict(list)
    indices = sorted(random.sample(range(at.size), min(DRAWN, at.size)))
    for begin in range(0, len(indices), PAGE):
        for stored in await tilestore.entries(connection, indices[begin : begin + PAGE]):
            for word in sorted(words(audit.parse(stored.value)[0])):
                found[word[0]].append(word)
    return dict(sorted(found.items()))


async def _pages(connection: asyncpg.Connection, at: Published, of: Sequence[Word], random: Random) -> Times:
    times = Times()
    for word in random.choices(of, k=QUERIES):
        wanted = Filter(groups=(frozenset([word]),))
        began = time.perf_counter()
        found, _ = await trail.page(connection, wanted, at, -1, PAGE)
        times.seconds.append(time.perf_counter() - began)
        if not found:
            raise SystemExit(f"nothing is found by {word}, which an entry says")
    return times


async def _counts(connection: asyncpg.Connection, at: Published, of: Sequence[Word]) -> Times:
    times = Times()
    for word, _ in Counter(of).most_common(COUNTED):
        began = time.perf_counter()
        await trail.counts(connection, Filter(groups=(frozenset([word]),)), at)
        times.seconds.append(time.perf_counter() - began)
    return times


async def _scan(connection: asyncpg.Connection, at: Published, random: Random) -> dict[str, Any]:
    """A drawn day's entries, read one and all, beside the counts of that day for each word that they say."""
    last = (await tilestore.bundles(connection, (at.size - 1) // WIDTH, (at.size - 1) // WIDTH))[0]
    first = (await tilestore.bundles(connection, 0, 0))[0]
    day = first["opened"] + timedelta(days=random.randint(1, max((last["opened"] - first["opened"]).days - 1, 1)))
    said: Counter[Word] = Counter()
    entries = 0
    numbers = await connection.fetchrow(
        "SELECT min(number) AS first, max(number) AS last FROM log_bundle WHERE opened BETWEEN $1 AND $2",
        day - timedelta(days=1),
        day,
    )
    for number in range(numbers["first"], numbers["last"] + 1):
        for row in await tilestore.bundles(connection, number, number):
            for start, logged_at in zip(row["starts"], row["logged_at"], strict=True):
                if logged_at.astimezone(CHINA).date() != day:
                    continue
                length = int.from_bytes(row["entries"][start - 2 : start])
                said.update(words(audit.parse(row["entries"][start : start + length])[0]))
                entries += 1
    by_dimension: dict[str, list[Word]] = defaultdict(list)
    for word in sorted(said):
        by_dimension[word[0]].append(word)
    different = []
    compared = [word for of in by_dimension.values() for word in random.sample(of, min(len(of), 20))]
    for word in compared:
        counted = await trail.counts(connection, _on(day, word), at)
        if counted != [(day, said[word])]:
            different.append(" ".join(word))
    return {"day": day.isoformat(), "entries": entries, "words": len(compared), "different": different}


def _on(day: date, word: Word) -> Filter:
    since = datetime.combine(day, datetime.min.time(), CHINA)
    return Filter(groups=(frozenset([word]),), since=since, until=since + timedelta(days=1))


async def _proofs(connection: asyncpg.Connection, at: Published, random: Random) -> Times:
    """As a gateway makes them: the entry's place by its hash, its bytes, its path."""
    indices = random.sample(range(at.size), QUERIES)
    hashes = [audit.parse(stored.value)[0].leaf_hash for stored in await tilestore.entries(connection, sorted(indices))]
    times = Times()
    for entry in hashes:
        began = time.perf_counter()
        places = await logfiles._places(connection, [entry], at)
        await logfiles._paths(connection, {places[entry][0]}, at.size)
        times.seconds.append(time.perf_counter() - began)
    return times


# The backlog


async def _work_off(there: World, size: int, backlog: int, console: Console) -> dict[str, Any]:
    await _wait_in_kafka(there, backlog)
    samples: list[tuple[int, float, int]] = []  # entries, seconds, resident bytes
    columns = (TextColumn("backlog"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    connection = await asyncpg.connect(there.postgres)
    try:
        with process(there, "recorder") as (pid, _, _), Progress(*columns, console=console) as progress:
            bar = progress.add_task("backlog", total=backlog)
            began = moved = time.monotonic()
            done = 0
            while done < backlog:
                await asyncio.sleep(POLL_SECONDS)
                now = await connection.fetchval("SELECT size FROM log_state") - size
                if now // STEP > done // STEP or now >= backlog:
                    samples.append((now, time.monotonic() - began, resident(pid)))
                if now > done:
                    moved = time.monotonic()
                elif time.monotonic() - moved > STALL_SECONDS:
                    raise SystemExit(f"the log stays at {now:,} of {backlog:,} entries")
                done = now
                progress.update(bar, completed=done)
            busy = psutil.Process(pid).cpu_times()
    finally:
        await connection.close()
    return {
        "entries": done,
        "seconds": round(samples[-1][1], 1),
        "entries_a_second": round(done / samples[-1][1], 1),
        "recorder_cpu_us_an_entry": round((busy.user + busy.system) / done * 1e6, 1),
        **growth([memory for _, _, memory in samples]),
        "samples": [{"entries": n, "seconds": round(s, 1), "recorder_rss": m} for n, s, m in samples],
    }


async def _wait_in_kafka(there: World, backlog: int) -> None:
    signer = there.bus.signer("gateway")
    kafka = await producer(there.kafka, "bench", linger_ms=0)
    try:
        sending: list[asyncio.Future[Any]] = []
        for group in groups(signer, 0, backlog, backlog, whole=True, bus=there.bus.origin):
            batch = kafka.create_batch()
            for value in group.values:
                batch.append(key=None, value=value, timestamp=None)
            sending.append(await kafka.send_batch(batch, audit.TOPIC, partition=0))
            if len(sending) == QUERIES:
                await asyncio.gather(*sending)
                sending.clear()
        await asyncio.gather(*sending)
    finally:
        await stop(kafka)


if __name__ == "__main__":
    sys.exit(main())
