"""Filling a log in bulk: the recorder's own growth of bundles, tiles and terms, by processes side by side.

Parts of 65,536 entries begin and end with a bundle and a tile, so each can be grown by itself; the tree above them is
grown from their leaf hashes, in order. What is left out is what bulk does not need: Kafka, and the check of proofs that
this process's own key has just made.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import asyncpg

from bus import audit
from bus.pki import Signer
from bus.recorder import growth
from bus.recorder.growth import Growth, Message, State
from bus.recorder.log import SQL
from bus.tlog import tiles
from bus.tlog.tiles import HASH_BYTES, WIDTH, Edge, Tile
from tests.bench.entries import groups

PART = WIDTH * WIDTH
PROCESSES = 2
_known: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a process is to make: `count` entries from `start` on, of `total`."""

    dsn: str
    signer: Path
    bus: str
    start: int
    count: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What came of it: the level-0 tiles, one after the other; the log's time at its end; bytes of values."""

    leaves: bytes
    logged_at: datetime
    value_bytes: int


@contextmanager
def parts(dsn: str, signer: Path, bus: str, entries: int) -> Iterator[Iterator[Made]]:
    """The parts of a log of so many entries, in order, as they are done."""
    wanted = [
        Part(dsn=dsn, signer=signer, bus=bus, start=at, count=min(PART, entries - at), total=entries)
        for at in range(0, entries, PART)
    ]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        yield pool.imap(_make, wanted)


async def add_tiles(connection: asyncpg.Connection, edge: Edge, made: Made) -> Edge:
    """The tree after a part; its tiles are in the database."""
    leaves = [made.leaves[at : at + HASH_BYTES] for at in range(0, len(made.leaves), HASH_BYTES)]
    edge, changed = tiles.grow(edge, leaves)
    await _write_tiles(connection, changed)
    await connection.execute(SQL["set_state"], edge.size, edge.root(), made.logged_at)
    return edge


def _make(part: Part) -> Made:
    made = groups(Signer.load(part.signer, "gateway"), part.start, part.count, part.total, bus=part.bus)
    messages = [Message(0, group.time, value) for group in made for value in group.values]
    # Of the tree only the lowest level is kept: a part's own edge knows nothing of what stands before it.
    state = State(edge=Edge(part.start))
    grown = growth.grow(state, messages, lambda value: audit.parse(value)[0])
    asyncio.run(_write(part.dsn, grown))
    return Made(
        leaves=b"".join(hashes for tile, hashes in sorted(grown.tiles.items()) if tile.level == 0),
        logged_at=grown.state.logged_at,
        value_bytes=sum(len(message.value or b"") for message in messages),
    )


async def _write(dsn: str, grown: Growth) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            for month in sorted(growth.months(grown)):
                await connection.execute("SELECT pg_advisory_xact_lock(1)")  # two processes may need the same month
                await connection.execute(SQL["partitions"], month)
        # Apart, and in one order: two processes that meet at a word wait a moment, not for each other's parts.
        fresh = sorted(grown.words - _known)
        await connection.execute(SQL["add_words"], [d for d, _ in fresh], [v for _, v in fresh])
        _known.update(fresh)
        async with connection.transaction():
            await connection.executemany(
                SQL["add_bundle"],
                [(b.number, b.opened, b.starts, b.logged_at, bytes(b.entries)) for b in grown.bundles],
            )
            await connection.copy_to_table(
                "log_term",
                source=memoryview(growth.copied(grown.terms)),
                columns=["term", "day", "bundle", "bits"],
                format="binary",
            )
    finally:
        await connection.close()


async def _write_tiles(connection: asyncpg.Connection, by_tile: Mapping[Tile, bytes]) -> None:
    await connection.execute(
        SQL["add_tiles"], [t.level for t in by_tile], [t.number for t in by_tile], list(by_tile.values())
    )
