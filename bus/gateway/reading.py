"""Reading the trail and the index: by auditors, by departments (their own), by clerks (licences in force)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from bus.db import queries
from bus.gateway.control import SubjectBody
from consent.model import Status, status_after
from schemas.errors import Code, Refused
from schemas.operations import Operation

PAGE = 1_000
MAX_LICENCES = 100  # one subject's licences of one item: a few; a person with more is paged by item

SQL = queries(Path(__file__).with_name("reading.sql"))


class EntriesBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/audit/entries:query`. `after` is the `next` of the page before."""

    subject: SubjectBody | None = None
    consumer: str | None = None
    provider: str | None = None
    item: str | None = None
    purpose: str | None = None
    kind: str | None = None
    case: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: int = -1
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """A licence version as it was admitted."""

    leaf_hash: bytes
    value: bytes


async def entries(
    connection: asyncpg.Connection, body: EntriesBody, subjects: Sequence[bytes] | None, own: str | None
) -> list[dict[str, Any]]:
    """A page in the log's order.

    `own` limits it to one department's entries; `subjects` are pseudonyms of one person.
    """
    rows = await connection.fetch(
        SQL["entries"],
        body.after,
        own,
        subjects,
        body.consumer,
        body.provider,
        body.item,
        body.purpose,
        body.since,
        body.until,
        body.kind,
        body.case,
        min(max(body.limit, 1), PAGE),
    )
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


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


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, datetime) else value
