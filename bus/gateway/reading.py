"""Reading the licence index: what a record's state is, which licences of a subject are in force."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import asyncpg

from bus import envelope
from bus.db import queries
from consent.model import Status, status_after
from schemas.errors import Code, Refused
from schemas.operations import Operation

MAX_LICENCES = 100  # one subject's licences of one item: a few; a person with more is paged by item

SQL = queries(Path(__file__).with_name("reading.sql"))


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """A licence version as it was admitted."""

    leaf_hash: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A record's place in its licence. `entry` is the leaf hash of the log's entry that admitted it."""

    record: bytes
    licence: bytes
    sequence: int
    operation: str
    item: str
    issuer: str
    entry: bytes
    holders: tuple[bytes, ...]


async def in_force(connection: asyncpg.Connection, pseudonym: bytes, item: str, day: date) -> list[InForce]:
    """The subject's licences of an item that were in force on a day."""
    rows = await connection.fetch(SQL["in_force"], pseudonym, item, day, MAX_LICENCES)
    return [
        InForce(leaf_hash=row["leaf_hash"], value=row["value"])
        for row in rows
        if status_after(Operation(row["operation"])) is Status.VALID
    ]


async def sealed(connection: asyncpg.Connection, caller: str, leaf_hash: bytes) -> bytes:
    """A record's sealed bytes, for those that may read its topic. Raises `Refused` (NOT_FOUND), the same for both."""
    row = await connection.fetchrow(SQL["sealed"], leaf_hash, caller)
    if row is None or not row["may"]:
        raise Refused(Code.NOT_FOUND, "no such record is admitted, or your department has no agreement to read it")
    value: bytes = row["value"]
    return value


async def admitted(connection: asyncpg.Connection, leaf_hash: bytes) -> dict[str, Any]:
    """What the index says of a record: WAITING, ADMITTED, CONFLICT, or REFUSED with its code. `at` is since when."""
    row = await connection.fetchrow(SQL["admitted"], leaf_hash)
    if row is None:
        return {"state": "WAITING"}
    if row["state"] == "REFUSED":
        return {"state": "REFUSED", "code": row["code"], "at": row["admitted_at"].isoformat()}
    return {
        "state": row["state"],
        "entry": row["entry"].hex(),
        "at": row["admitted_at"].isoformat(),
        "superseded": row["superseded"],
        "status": row["status"],
    }


async def version(connection: asyncpg.Connection, leaf_hash: bytes) -> Version | None:
    """An admitted record's place; none if no such record is admitted."""
    row = await connection.fetchrow(SQL["version"], leaf_hash)
    return None if row is None else _version(row)


async def later_versions(connection: asyncpg.Connection, than: Version) -> list[Version]:
    """The versions of the same licence behind this one."""
    return [_version(row) for row in await connection.fetch(SQL["later_versions"], than.licence, than.sequence)]


def _version(row: Any) -> Version:
    fields = dict(row)
    return Version(holders=envelope.parse(fields.pop("value")).claims.holders, **fields)
