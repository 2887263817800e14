"""Reading the licence index: what a record's state is, which licences of a subject are in force."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import msgspec
from msgspec import UNSET, UnsetType

from bus import envelope
from bus.db import queries
from bus.gateway.shapes import Base64, Hash, Time
from bus.trust import Trust
from consent.model import RecordState, Status, status_after
from schemas.errors import Code, Refused
from schemas.operations import Operation

MAX_LICENCES = 100  # one subject's licences of one item: a few; a person with more is paged by item

SQL = queries(Path(__file__).with_name("reading.sql"))


StatusOrNone = Annotated[str, msgspec.Meta(extra_json_schema={"enum": [*Status, ""]})]


class AdmittedAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What the index says of a record, and `at` since when: of a WAITING one nothing, of a REFUSED one its `code`.

    `status` is the licence's now, empty where two records claim one place.
    """

    state: RecordState
    at: Time | UnsetType = UNSET
    code: Code | UnsetType = UNSET
    entry: Hash | UnsetType = UNSET
    superseded: bool | UnsetType = UNSET
    doubted: bool | UnsetType = UNSET
    status: StatusOrNone | UnsetType = UNSET


class RecordAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A sealed record as it was received."""

    value: Base64


class RecordsAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Sealed records and the grant for them (Avro `Grant`); null if there are none."""

    records: list[Base64]
    grant: Base64 | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """A licence version as it was admitted."""

    leaf_hash: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A record's place in its licence. `provider` is in whose power it was issued: the issuer, or who delegated it.
    `entry` is the leaf hash of the log's entry that admitted it.
    """

    record: bytes
    licence: bytes
    sequence: int
    operation: str
    item: str
    issuer: str
    provider: str
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


async def admitted(connection: asyncpg.Connection, leaf_hash: bytes, trust: Trust) -> dict[str, Any]:
    """What the index says of a record: WAITING, ADMITTED, CONFLICT, or REFUSED with its code. `at` is since when.

    `doubted`: it was admitted after its issuer's key may have been in other hands.
    """
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
        "doubted": trust.doubted(envelope.parse(row["value"]).proof.signer, row["admitted_at"]),
    }


async def doubted(connection: asyncpg.Connection, issuer: str, since: datetime, trust: Trust) -> list[bytes]:
    """The records (leaf hashes) of an issuer that were admitted since then under a key that was compromised."""
    rows = await connection.fetch(SQL["admitted_since"], issuer, since)
    signers = ((row, envelope.parse(row["value"]).proof.signer) for row in rows)
    return [row["leaf_hash"] for row, signer in signers if trust.doubted(signer, row["admitted_at"])]


async def value_of(connection: asyncpg.Connection, leaf_hash: bytes) -> bytes | None:
    """An admitted record's sealed bytes, for the gateway's own use; none if no such record is admitted."""
    row = await connection.fetchrow(SQL["version"], leaf_hash)
    return None if row is None else row["value"]


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
