"""The sink on a real PostgreSQL: rows and offsets together, and a batch that comes again changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from adapters.sink import PostgresSink
from bus import db
from bus.subscriber import Opened
from schemas.errors import Malformed, Misuse

TABLE = 'licence "of" 企业; DROP TABLE x'


def opened(number: int, name: str) -> Opened:
    claims = SimpleNamespace(licence=bytes([number]), sequence=1, item="business-licence")
    return Opened(
        record=cast(Any, SimpleNamespace(claims=claims, leaf_hash=bytes([number]) * 32)),
        sections={"identity": {"name": name}},
        refused={},
        topic="licence.business-licence",
        partition=0,
        offset=number,
        time=datetime.now(UTC),
        salts={},
        plains={},
        entry=b"",
    )


async def names(dsn: str) -> list[str]:
    connection = await db.connect(dsn)
    try:
        quoted = TABLE.replace('"', '""')
        return [row["name"] for row in await connection.fetch(f'SELECT name FROM "{quoted}" ORDER BY leaf_hash')]
    finally:
        await connection.close()


async def test_exactly_once(dsn: str) -> None:
    async with PostgresSink(dsn, TABLE, {"name": "text"}) as sink:
        assert await sink.offsets() == {}
        await sink.write([opened(1, "甲"), opened(2, "乙")])
    async with PostgresSink(dsn, TABLE, {"name": "text"}) as sink:
        assert await sink.offsets() == {("licence.business-licence", 0): 3}
        await sink.write([opened(2, "乙"), opened(3, "丙")])  # the second comes again
        assert await sink.offsets() == {("licence.business-licence", 0): 4}
    assert await names(dsn) == ["甲", "乙", "丙"]


async def test_a_row_that_fails_leaves_nothing_of_its_batch(dsn: str) -> None:
    async with PostgresSink(dsn, TABLE, {"name": "text"}) as sink:
        with pytest.raises(Malformed, match="VALUE_INVALID"):
            await sink.write([opened(1, "甲"), opened(2, "乙\x00")])
        assert await sink.offsets() == {}
    assert await names(dsn) == []


def test_column_types_are_of_a_closed_list() -> None:
    with pytest.raises(Misuse):
        PostgresSink("", "t", {"name": "text); DROP TABLE x; --"})
