"""A database moves forward only, step by step, and keeps its rows."""

from __future__ import annotations

import pytest

from bus import db
from schemas.errors import Code, Malformed


async def test_steps_apply_once_and_what_does_not_fit_is_refused(dsn: str) -> None:
    """Twice is once; a newer database and an edited step are refused with DATA_VERSION; rows survive all of it."""
    newest = await db.migrate(dsn)
    connection = await db.connect(dsn)
    try:
        await connection.execute("INSERT INTO org (uscc, name) VALUES ('a', 'b')")
        applied = await connection.fetch("SELECT * FROM schema_version ORDER BY version")
        assert await db.migrate(dsn) == newest == len(applied)
        assert await connection.fetch("SELECT * FROM schema_version ORDER BY version") == applied

        await connection.execute("INSERT INTO schema_version (version, digest) VALUES ($1, 'x')", newest + 1)
        assert await refusal(dsn) is Code.DATA_VERSION
        await connection.execute("DELETE FROM schema_version WHERE version = $1", newest + 1)
        await connection.execute("UPDATE schema_version SET digest = 'edited' WHERE version = 1")
        assert await refusal(dsn) is Code.DATA_VERSION
        await connection.execute("UPDATE schema_version SET digest = $1 WHERE version = 1", applied[0]["digest"])
        assert await db.migrate(dsn) == newest
        assert await connection.fetchval("SELECT name FROM org WHERE uscc = 'a'") == "b"
    finally:
        await connection.close()


async def refusal(dsn: str) -> Code:
    with pytest.raises(Malformed) as refused:
        await db.migrate(dsn)
    return refused.value.code
