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

    async def run(self, connection: asyncpg.Connection) -> int:
        """How many entries were looked at. Raises `Malformed` (LOG_TAMPERED): the first that is wrong, by its name."""
        state = await connection.fetchrow(SQL["state"])
        if state is None:
            return 0
        size, edge = state["size"], Edge()
        while edge.size < size:
            first = edge.size // WIDTH
            last = min(first + BUNDLES, -(-size // WIDTH)) - 1
            rows = await tilestore.bundles(connection, first, last)
            if [row["number"] for row in rows] != list(range(first, last + 1)):
                raise _wrong(f"a bundle of {first} to {last} is missing, or there twice")
            entries = [entry for row in rows for entry in _entries(row, size)]
            edge, changed = tiles.grow(edge, [merkle.leaf_hash(entry) for entry in entries])
            stored = await tilestore.read_tiles(connection, list(changed))
            for tile, hashes in changed.items():
                _compare(tile, hashes, stored.get(tile, b""))
            self._compare_terms(rows, size, await connection.fetch(SQL["terms"], first, last))
            await asyncio.sleep(0)
        if edge.root() != state["root"]:
            raise _wrong("the stored root is not that of the stored entries")
        return edge.size

    def _compare_terms(self, rows: Sequence[Any], size: int, stored: Sequence[Any]) -> None:
        """Every entry that can be found, by all its words and nothing else."""
        is_: Bits = {}
        for row in stored:
            is_[row["term"], row["day"], row["bundle"]] = int.from_bytes(row["bits"].bytes)
        should: Bits = {}
        for row in rows:
            for place, value in enumerate(_entries(row, size)):
                where = growth.day_of(row["logged_at"][place]), row["number"]
                bit = terms.bit(place)
                for word in self._words(value, is_, where, bit):
                    key = (terms.term(word), *where)
                    should[key] = should.get(key, 0) | bit
        for key in is_.keys() | should.keys():
            # Entries that came after `size` was read may be in the index already.
            beyond = size - key[2] * WIDTH
            mask = (1 << WIDTH) - (1 << max(WIDTH - beyond, 0))
            if (is_.get(key, 0) ^ should.get(key, 0)) & mask:
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


def _entries(row: Any, size: int) -> list[bytes]:
    """The bundle's entries below `size`; what was added since belongs to the next look."""
    name = tiles.path(Tile(tiles.ENTRIES, row["number"]))
    try:
        starts = tiles.starts(row["entries"])
    except Malformed as exc:
        raise _wrong(f"{name}: {exc.detail}") from exc
    if starts != row["starts"] or len(starts) != len(row["logged_at"]):
        raise _wrong(f"{name}: the places that are stored of its entries are not theirs")
    entries = tiles.split_bundle(row["entries"])[: size - row["number"] * WIDTH]
    if len(entries) != min(WIDTH, size - row["number"] * WIDTH):
        raise _wrong(f"{name}: an entry is missing")
    return entries


def _compare(tile: Tile, hashes: bytes, stored: bytes) -> None:
    if stored.startswith(hashes):
        return
    at = next((n for n in range(0, len(hashes), 32) if stored[n : n + 32] != hashes[n : n + 32]), 0) // 32
    what = f"entry {tile.number * WIDTH + at}" if tile.level == 0 else f"hash {at}"
    raise _wrong(f"{tiles.path(tile)}, {what}: the stored hash is not that of the stored entries")


def _wrong(what: str) -> Malformed:
    return Malformed(Code.LOG_TAMPERED, f"the stored log was changed: {what}")
