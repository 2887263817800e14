"""Opened records into a PostgreSQL table, exactly once: rows and offsets in one transaction.

A row has the fields that opened; what was refused, and why, stands in its column `refused` (`{section: code}`), so that
an empty field is never taken for a missing value.

The subscriber starts from the sink's own offsets, so a crash between the two cannot be; a record that comes again
(another batch's retry) is recognised by its leaf hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import asyncpg

from bus import db
from bus.db import postgres_errors
from bus.subscriber import Opened
from schemas.errors import Code, Malformed, Misuse

TYPES = frozenset({"text", "date", "integer", "bigint", "numeric", "boolean", "timestamptz", "jsonb"})
_MAX_NAME = 63  # PostgreSQL cuts longer identifiers silently


class PostgresSink:
    """One table. `columns` are field names of the opened sections and their PostgreSQL types."""

    def __init__(self, dsn: str, table: str, columns: Mapping[str, str]) -> None:
        unknown = set(columns.values()) - TYPES
        if unknown:
            raise Misuse(Code.CONFIG_INVALID, f"column types are {', '.join(sorted(TYPES))}; not {', '.join(unknown)}")
        self._dsn = dsn
        self._table, self._offset_table = _name(table), _name(f"{table}_offset")
        self._columns = dict(columns)
        self._connection: asyncpg.Connection | None = None

    async def __aenter__(self) -> Self:
        """Connects and makes the tables if they are not there."""
        self._connection = await db.connect(self._dsn)
        columns = "".join(f", {_name(name)} {kind}" for name, kind in self._columns.items())
        async with postgres_errors("making the sink's tables"):
            await self._connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} "
                "(leaf_hash bytea PRIMARY KEY, licence bytea NOT NULL, sequence bigint NOT NULL, "
                f"refused jsonb NOT NULL{columns});"
                f"CREATE TABLE IF NOT EXISTS {self._offset_table} "
                "(topic text, partition integer, next_offset bigint NOT NULL, PRIMARY KEY (topic, partition))"
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.terminate()

    async def offsets(self) -> dict[tuple[str, int], int]:
        """Where to go on: give it to the `Subscriber`."""
        assert self._connection is not None
        async with postgres_errors("reading the sink's offsets"):
            rows = await self._connection.fetch(f"SELECT topic, partition, next_offset FROM {self._offset_table}")  # noqa: S608 - quoted by _name
        return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    async def write(self, batch: Sequence[Opened]) -> None:
        """All of the batch and its offsets, or nothing.

        Raises `Unavailable` (the batch is handed over again) or `Malformed` (a value that the table cannot hold).
        """
        assert self._connection is not None
        names = ["leaf_hash", "licence", "sequence", "refused", *self._columns]
        places = ", ".join(f"${number}" for number in range(1, len(names) + 1))
        quoted = ", ".join(map(_name, names))
        insert = f"INSERT INTO {self._table} ({quoted}) VALUES ({places}) ON CONFLICT (leaf_hash) DO NOTHING"  # noqa: S608 - quoted by _name
        advance = (
            f"INSERT INTO {self._offset_table} VALUES ($1, $2, $3) ON CONFLICT (topic, partition) "  # noqa: S608
            f"DO UPDATE SET next_offset = GREATEST({self._offset_table}.next_offset, EXCLUDED.next_offset)"
        )
        offsets: dict[tuple[str, int], int] = {}
        for one in batch:
            place = (one.topic, one.partition)
            offsets[place] = max(offsets.get(place, 0), one.offset + 1)
        try:
            async with postgres_errors("writing to the sink"), self._connection.transaction():
                await self._connection.executemany(insert, [self._row(one) for one in batch])
                await self._connection.executemany(advance, [(*place, offset) for place, offset in offsets.items()])
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as exc:
            # PostgreSQL's own message would repeat the value.
            raise Malformed(
                Code.VALUE_INVALID, f"the table cannot hold a record of the batch ({type(exc).__name__})"
            ) from exc

    def _row(self, one: Opened) -> tuple[Any, ...]:
        values = one.values
        refused = json.dumps({name: code.value for name, code in one.refused.items()})
        return (one.leaf_hash, one.licence, one.sequence, refused, *(values.get(name) for name in self._columns))


def _name(name: str) -> str:
    """An identifier, quoted."""
    if not name or len(name.encode()) > _MAX_NAME or "\x00" in name:
        raise Misuse(Code.CONFIG_INVALID, f"a table or column name has 1 to {_MAX_NAME} bytes")
    return '"' + name.replace('"', '""') + '"'
