"""Who relied on a record's licence: its openers, what was derived from it, and the notices that were sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from bus import impact
from bus.db import queries
from bus.gateway import control, embargoes, trail
from bus.gateway.embargoes import Connect, LogReading, ReaderBody
from bus.gateway.logfiles import leaf_hash
from bus.gateway.shapes import CheckpointAnswer, Count, CreditCode, Hash, Id, Time
from bus.gateway.trail import Found, Published
from bus.httpsig import Signed
from bus.impact import Derived, Opening, Root
from consent.model import Status
from schemas.errors import Code, Refused
from schemas.operations import Operation

SQL = queries(Path(__file__).with_name("impacts.sql"))


class ImpactBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/records:impact`: a record by its leaf hash, in hex; `reader` as of any question of an auditor's."""

    record: Hash
    reader: ReaderBody = ReaderBody()


class OpenerAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A department that opened the licence."""

    consumer: CreditCode
    count: Count
    first: Time
    first_entry: Hash
    last: Time
    last_entry: Hash
    purposes: list[str]
    sections: list[str]
    records: list[Hash]


class DerivedAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A certificate that follows from the licence, `depth` steps away."""

    record: Hash
    licence: Hash
    item: str
    issuer: CreditCode
    operation: Operation
    status: Status
    admitted_at: Time
    parent: Hash
    parent_licence: Hash
    depth: Count


class NoticeAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A notice that was sent; `opened` and `derived` are how many it names."""

    id: Id
    entry: Hash
    logged_at: Time
    record: Hash
    operation: Operation
    addressee: CreditCode
    opened: Count
    derived: Count


class ImpactAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Who relied on a record's licence; `complete` is false if more follows from it than was looked at."""

    checkpoint: CheckpointAnswer
    record: Hash
    licence: Hash
    item: str
    issuer: CreditCode
    status: Status
    sequence: int
    openers: list[OpenerAnswer]
    derived: list[DerivedAnswer]
    complete: bool
    notices: list[NoticeAnswer]


class Impacts:
    """Answers for a record's issuer and auditors; anybody else sees what is its own."""

    def __init__(self, connect: Connect, log_reading: LogReading) -> None:
        self._connect = connect
        self._log_reading = log_reading

    async def show(self, signed: Signed, body: ImpactBody) -> Any:
        """By department who opened the licence, what follows from it, what was said: true at the named checkpoint.

        Whoever neither issued, opened nor derived from it is refused (NOT_FOUND), as if there were no such record.
        """
        embargoes.check_reader(signed, body.reader)
        record = leaf_hash(body.record)
        caller = signed.caller.uscc
        async with self._connect("looking for who relied on a record") as connection:
            row = await connection.fetchrow(SQL["record"], record)
            if row is None:
                raise _unknown()
            auditor = await control.is_auditor(connection, caller)
            everything = auditor or caller in (row["issuer"], row["licence_issuer"])
            at = await trail.published(connection)
            openings = (await impact.openings(connection, [row["licence"]], at)).get(row["licence"], [])
            (derived,), whole = await impact.derived(connection, [Root(row["licence"])])
            notices = await _notices(connection, row["licence"], at)
        if not everything:
            openings = [one for one in openings if one.consumer == caller]
            derived = [one for one in derived if one.issuer == caller]
            notices = [one for one in notices if one.entry.body["addressee"] == caller]
            if not openings and not derived:
                raise _unknown()
        openers = _openers(openings)
        concerned: set[str] = set()
        if auditor:  # whom her reading concerns will be shown it
            concerned = {row["licence_issuer"], *(one["consumer"] for one in openers), *(one.issuer for one in derived)}
        subjects, returned = list(row["subjects"]), len(openers) + len(derived)
        await embargoes.tell(
            self._connect, self._log_reading, signed, body.reader, "records:impact", subjects, returned, concerned
        )
        return {
            "checkpoint": at.to_json(),
            "record": record.hex(),
            "licence": row["licence"].hex(),
            "item": row["item"],
            "issuer": row["licence_issuer"],
            "status": row["status"],
            "sequence": row["sequence"],
            "openers": openers,
            "derived": [_certificate(one) for one in derived],
            "complete": whole,
            "notices": [_notice(one) for one in notices],
        }


async def _notices(connection: asyncpg.Connection, licence: bytes, at: Published) -> list[Found]:
    wanted = trail.Filter(groups=(frozenset([("licence", licence.hex())]), frozenset([("kind", "Impact")])))
    found = [one async for page in trail.pages(connection, wanted, at) for one in page]
    # It is also found by the licences that follow from it: those are other licences' notices.
    return [one for one in found if one.entry.body["licence"] == licence]


def _openers(openings: Sequence[Opening]) -> list[dict[str, Any]]:
    """By department, whoever opened first comes first."""
    by: dict[str, list[Opening]] = {}
    for one in openings:
        by.setdefault(one.consumer, []).append(one)
    return [
        {
            "consumer": consumer,
            "count": len(of),
            "first": of[0].at.isoformat(),
            "first_entry": of[0].entry.hex(),
            "last": of[-1].at.isoformat(),
            "last_entry": of[-1].entry.hex(),
            "purposes": sorted({one.purpose for one in of}),
            "sections": sorted({section for one in of for section in one.sections}),
            "records": [record.hex() for record in dict.fromkeys(one.record for one in of)],
        }
        for consumer, of in by.items()
    ]


def _certificate(one: Derived) -> dict[str, Any]:
    return {
        "record": one.record.hex(),
        "licence": one.licence.hex(),
        "item": one.item,
        "issuer": one.issuer,
        "operation": one.operation,
        "status": one.status,
        "admitted_at": one.admitted_at.isoformat(),
        "parent": one.parent.hex(),
        "parent_licence": one.parent_licence.hex(),
        "depth": one.depth,
    }


def _notice(one: Found) -> dict[str, Any]:
    body = one.entry.body
    return {
        "id": body["id"].hex(),
        "entry": one.entry.leaf_hash.hex(),
        "logged_at": one.stored.logged_at.isoformat(),
        "record": body["record"].hex(),
        "operation": body["operation"],
        "addressee": body["addressee"],
        "opened": len(body["opened"]),
        "derived": len(body["derived"]),
    }


def _unknown() -> Refused:
    return Refused(
        Code.NOT_FOUND,
        "no such record is admitted, or your department neither issued nor opened it, nor derived from it",
    )
