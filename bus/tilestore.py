"""Reading the log out of PostgreSQL: hashes of its tiles, bytes of its entries.

Written by the recorder alone (`bus.recorder.log`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg

from bus.db import queries
from bus.tlog import tiles
from bus.tlog.tiles import WIDTH, Range, Tile

SQL = queries(Path(__file__).with_name("tilestore.sql"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An entry as the log has it: its place, the log's own time, its bytes."""

    index: int
    logged_at: datetime
    value: bytes


async def read_tiles(connection: asyncpg.Connection, wanted: Sequence[Tile]) -> dict[Tile, bytes]:
    """Those of the tiles that there are, as long as they are now."""
    rows = await connection.fetch(SQL["tiles"], [t.level for t in wanted], [t.number for t in wanted])
    return {Tile(row["level"], row["number"]): row["hashes"] for row in rows}


async def hashes(connection: asyncpg.Connection, ranges: Sequence[Range]) -> list[bytes]:
    """The hashes of a proof. Raises `Malformed` (LOG_TAMPERED) if a tile is missing."""
    return tiles.hashes(ranges, await read_tiles(connection, sorted(tiles.tiles_for(ranges))))


async def bundles(connection: asyncpg.Connection, first: int, last: int) -> list[Any]:
    """The rows of these bundles, in order."""
    return list(await connection.fetch(SQL["bundles"], first, last))


async def entries(connection: asyncpg.Connection, indices: Sequence[int]) -> list[Stored]:
    """The entries at these places, in order; one that is not there is left out. Reads their bytes and no others."""
    numbers = sorted({index // WIDTH for index in indices})
    rows = {row["number"]: row for row in await connection.fetch(SQL["places"], numbers)}
    there = [n for n in sorted(set(indices)) if n % WIDTH < len(_starts(rows, n))]
    values = await connection.fetch(
        SQL["values"],
        [n // WIDTH for n in there],
        [rows[n // WIDTH]["opened"] for n in there],
        [n % WIDTH for n in there],
        [rows[n // WIDTH]["starts"][n % WIDTH] for n in there],
    )
    found = {row["number"] * WIDTH + row["place"]: row["value"] for row in values}
    return [Stored(index=n, logged_at=rows[n // WIDTH]["logged_at"][n % WIDTH], value=found[n]) for n in there]


def _starts(rows: Mapping[int, Any], index: int) -> Sequence[int]:
    row = rows.get(index // WIDTH)
    return () if row is None else row["starts"]
