"""Departments: who joins, what they issue, who reads for others. The operator's commands call these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg

from bus.db import queries
from schemas.errors import Code, Malformed, Refused

SQL = queries(Path(__file__).with_name("control.sql"))


async def add_org(
    connection: asyncpg.Connection, uscc: str, name: str, *, auditor: bool = False, portal: bool = False
) -> None:
    """A department that joins, or joins again. Raises `Refused` (STATE_INVALID) if another has its name."""
    try:
        await connection.execute(SQL["add_org"], uscc, name, auditor, portal)
    except asyncpg.UniqueViolationError as exc:
        raise Refused(Code.STATE_INVALID, f"another department is called {name}") from exc


async def add_issuer(connection: asyncpg.Connection, item: str, uscc: str, region: str) -> None:
    """`region` is a GB/T 2260 prefix of 2, 4 or 6 digits, or empty for the whole country."""
    if region and (not region.isdigit() or len(region) not in (2, 4, 6)):
        raise Malformed(Code.REGION_UNKNOWN, f"{region} is not a division prefix of 2, 4 or 6 digits")
    await connection.execute(SQL["add_issuer"], item, uscc, region)


async def orgs(connection: asyncpg.Connection) -> list[dict[str, Any]]:
    """Everyone who has joined: uscc, name, suspended, auditor, portal, and `issues` as `item` or `item:division`."""
    return [dict(row) for row in await connection.fetch(SQL["orgs"])]


async def is_auditor(connection: asyncpg.Connection, caller: str) -> bool:
    """Whether a department may read the whole trail."""
    return bool(await connection.fetchval(SQL["is_auditor"], caller))


async def is_portal(connection: asyncpg.Connection, caller: str) -> bool:
    """Whether persons and firms ask through a department who has opened their data."""
    return bool(await connection.fetchval(SQL["is_portal"], caller))
