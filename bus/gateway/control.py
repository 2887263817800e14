"""Departments: who joins, what they issue, who reads for others. The operator's commands call these."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asyncpg

from bus.db import queries
from schemas.errors import Code, Refused

SQL = queries(Path(__file__).with_name("control.sql"))


async def add_org(
    connection: asyncpg.Connection,
    uscc: str,
    name: str,
    *,
    auditor: bool = False,
    portal: bool = False,
    operator: bool = False,
) -> None:
    """A department that joins, or joins again. Raises `Refused` (STATE_INVALID) if another has its name."""
    try:
        await connection.execute(SQL["add_org"], uscc, name, auditor, portal, operator)
    except asyncpg.UniqueViolationError as exc:
        raise Refused(Code.STATE_INVALID, f"another department is called {name}") from exc


async def has_own_gateway(connection: asyncpg.Connection, uscc: str) -> None:
    """A department's own gateways open its sessions from now on."""
    await connection.execute(SQL["has_own_gateway"], uscc)


async def orgs(connection: asyncpg.Connection) -> list[dict[str, Any]]:
    """Everyone who has joined: uscc, name, and what it is; `issues` has `item` or `item:division`."""
    return [dict(row) for row in await connection.fetch(SQL["orgs"])]


async def is_auditor(connection: asyncpg.Connection, caller: str) -> bool:
    """Whether a department may read the whole trail."""
    return bool(await connection.fetchval(SQL["is_auditor"], caller))


async def sees_all(connection: asyncpg.Connection, caller: str, operator: str) -> bool:
    """Whether a department asks about anybody: an auditor, or the bus's operator."""
    return caller == operator or await is_auditor(connection, caller)


async def names(connection: asyncpg.Connection, codes: Iterable[str]) -> dict[str, str]:
    """Departments' names by credit code, of those that have joined."""
    rows = await connection.fetch(SQL["names"], sorted(set(codes)))
    return {row["uscc"]: row["name"] for row in rows}


async def is_portal(connection: asyncpg.Connection, caller: str) -> bool:
    """Whether persons and firms ask through a department who has opened their data."""
    return bool(await connection.fetchval(SQL["is_portal"], caller))
