"""Looks through what is stored of the log: does every row say what the entries' bytes say?

The tree proves the bytes; this proves that the tiles, and the index that auditors search, are of these bytes. Whoever
took a row out of the index would otherwise hide an entry from everyone who does not read the whole log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import asyncpg

from bus import audit, merkle, terms, tilestore
from bus.db import queries
from bus.proof import ProofVerifier
from bus.recorder import growth
from bus.tlog import tiles
from bus.tlog.tiles import WIDTH, Edge, Tile
from bus.trust import Trust
from schemas.errors import Code, DeptbusError, Malformed

SQL = queries(Path(__file__).with_name("scrub.sql"))
Bits = dict[tuple[int, date, int], int]  # of a word's number, a day, a bundle

BUNDLES = 2  # at once: some 30 ms of work, then others have their turn


class Scrub:
    """One look from the first entry to the last. Reads in order; memory does not grow with the log."""

    def __init__(self, bus: str, trust: Trust, verifier: ProofVerifier) -> None:
        self._bus = bus
        self._trust = trust
        self._verifier = verifier
        self._listed: set[terms.Word] = set()

    async def run(self, connection: asyncpg.Connection) -> int:
        """How many entries were looked at. Raises `Malformed` (LOG_TAMPERED): the first that is wrong, by its name."""
        state = await connection.fetchrow(SQL["state"])
        edge, size = Edge(), 0 if state is None else state["size"]
        while edge.size < size:
            # All of a piece from one moment, while the log goes on: what is there then is there for a reason.
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                edge = await self._look(connection, edge)
            await asyncio.sleep(0)
        listed = {(row["dimension"], row["value"]) for row in await connection.fetch(SQL["listed"])}
        for dimension, _ in self._listed - listed:
            raise _wrong(f"a word of the dimension {dimension} is missing in the list of words")
        return edge.size

    async def _look(self, connection: asyncpg.Connection, edge: Edge) -> Edge:
        """At the next bundles: the edge behind them."""
        state = await connection.fetchrow(SQL["state"])
        first = edge.size // WIDTH
        last = min(first + BUNDLES, -(-state["size"] // WIDTH)) - 1
        rows = await tilestore.bundles(connection, first, last)
        if [row["number"] for row in rows] != list(range(first, last + 1)):
            raise _wrong(f"a bundle of {first} to {last} is missing, or there twice")
        entries = [_entries(row, state["size"]) for row in rows]
        after, changed = tiles.grow(edge, [merkle.leaf_hash(entry) for bundle in entries for entry in bundle])
        stored = await tilestore.read_tiles(connection, list(changed))
        for tile, hashes in changed.items():
            _compare(tile, hashes, stored.get(tile, b""))
        self._compare_terms(rows, entries, await connection.fetch(SQL["terms"], first, last))
        if after.size == state["size"]:
            if after.root() != state["root"]:
                raise _wrong("the stored root is not that of the stored entries")
            await check_end(connection, after)
        return after

    def _compare_terms(self, rows: Sequence[Any], entries: Sequence[Sequence[bytes]], stored: Sequence[Any]) -> None:
        """Every entry that can be found, by all its words and nothing else."""
        is_: Bits = {}
        for row in stored:
            is_[row["term"], row["day"], row["bundle"]] = int.from_bytes(row["bits"].bytes)
        should: Bits = {}
        for row, bundle in zip(rows, entries, strict=True):
            for place, value in enumerate(bundle):
                where = growth.day_of(row["logged_at"][place]), row["number"]
                bit = terms.bit(place)
                for word in self._words(value, is_, where, bit):
                    if word[0] in terms.LISTED:
                        self._listed.add(word)
                    key = (terms.term(word), *where)
                    should[key] = should.get(key, 0) | bit
        for key in is_.keys() | should.keys():
            if is_.get(key, 0) != should.get(key, 0):
                raise _wrong(f"the search index of bundle {key[2]} does not say what its entries say")

    def _words(self, value: bytes, is_: Bits, where: tuple[date, int], bit: int) -> set[terms.Word]:
        """None for what means nothing. What was found good once stays so: a key may have been revoked since."""
        try:
            entry = audit.parse(value)[0]
        except DeptbusError:
            return set()
        if not is_.get((terms.term(("entry", entry.leaf_hash.hex())), *where), 0) & bit:
            try:
                audit.verify(value, self._bus, self._trust, self._verifier)
            except DeptbusError:
                return set()
        return terms.words(entry)


async def check_end(connection: asyncpg.Connection, edge: Edge) -> None:
    """The open bundle is what the right edge says, and nothing is stored behind it: the next entry would go on there.

    Raises `Malformed` (LOG_TAMPERED).
    """
    beyond = await connection.fetchrow(SQL["beyond"], edge.size)
    if beyond is not None:
        raise _wrong(f"{tiles.path(Tile(*beyond))} goes on behind the log's end, {edge.size} entries")
    number, width = divmod(edge.size, WIDTH)
    if not width:
        return
    rows = await tilestore.bundles(connection, number, number)
    if len(rows) != 1:
        raise _wrong(f"{tiles.path(Tile(tiles.ENTRIES, number))} is missing, or there twice")
    leaves = b"".join([merkle.leaf_hash(entry) for entry in _entries(rows[0], edge.size)])
    _compare(Tile(0, number), leaves, edge.tails[0])


def _entries(row: Any, size: int) -> list[bytes]:
    """The bundle's entries in a log of this size."""
    name = tiles.path(Tile(tiles.ENTRIES, row["number"]))
    try:
        starts = tiles.starts(row["entries"])
    except Malformed as exc:
        raise _wrong(f"{name}: {exc.detail}") from exc
    if starts != row["starts"] or len(starts) != len(row["logged_at"]):
        raise _wrong(f"{name}: the places that are stored of its entries are not theirs")
    entries, due = tiles.split_bundle(row["entries"]), min(WIDTH, size - row["number"] * WIDTH)
    if len(entries) != due:
        raise _wrong(f"{name}: it has {len(entries)} entries, not {due}")
    return entries


def _compare(tile: Tile, hashes: bytes, stored: bytes) -> None:
    if stored.startswith(hashes):
        return
    at = next((n for n in range(0, len(hashes), 32) if stored[n : n + 32] != hashes[n : n + 32]), 0) // 32
    what = f"entry {tile.number * WIDTH + at}" if tile.level == 0 else f"hash {at}"
    raise _wrong(f"{tiles.path(tile)}, {what}: the stored hash is not that of the stored entries")


def _wrong(what: str) -> Malformed:
    return Malformed(Code.LOG_TAMPERED, f"the stored log was changed: {what}")
