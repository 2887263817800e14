"""Who of the auditors read entries about us: shown to departments, after an embargo that a second person sets.

An auditor's reading is an entry of the log before she is answered. A department is not shown it while an investigation
would suffer from that: until the end of its embargo. One auditor proposes the embargo, another confirms it, who has
neither proposed it nor read for that investigation. Both acts are entries of the log.

Without one a reading is shown after 30 days: time for a second person to say something else, and nobody hides a reading
by saying nothing. Whatever was set, it is shown 180 days after it happened. Who an operator is, is the auditor's word
where her department's key signs; in a session (`bus.people`) it is the person herself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec

from bus import audit
from bus.db import queries
from bus.gateway import control, trail
from bus.gateway.shapes import After, CheckpointAnswer, CreditCode, Hash, Limit, Name, Next, Text, Time
from bus.httpsig import Signed
from bus.messages import check_texts
from schemas.errors import Code, Malformed, Refused

UNLESS_SET = timedelta(days=30)
LONGEST = timedelta(days=180)
PAGE = 1_000
NEWEST = 2**63 - 1

Connect = Callable[[str], AbstractAsyncContextManager[asyncpg.Connection]]
LogReading = Callable[[Signed, bytes, str, str, list[bytes], int], Awaitable[bytes]]

SQL = queries(Path(__file__).with_name("embargoes.sql"))


class ReaderBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Who reads, in the auditor's own words: `operator` is the person, `investigation` what she reads for."""

    operator: Text = ""
    investigation: Text = ""


class ReadingsBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/audit/readings:list`. `before` is the `next` of the page before."""

    before: After = NEWEST
    limit: Limit = 100


class EmbargoBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/audit/embargoes`: proposed by `operator` of the auditor that signs; in a session by her."""

    investigation: Name
    until: Time
    operator: Text = ""


class ConfirmBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/audit/embargoes:confirm`."""

    id: UUID
    operator: Text = ""


class EmbargoesBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/audit/embargoes:list`: nothing to say."""


class ReadingAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An auditor's reading, its `entry` in the log, and since when the departments that it concerns are shown it."""

    entry: Hash
    at: Time
    reader: CreditCode
    operator: str
    what: str
    investigation: str
    shown_from: Time


class ReadingsAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A page of readings, newest first."""

    checkpoint: CheckpointAnswer
    readings: list[ReadingAnswer]
    next: Next


class EmbargoAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An embargo: counts once it is confirmed."""

    id: UUID
    investigation: str
    until: Time
    proposed_by: CreditCode
    proposed_operator: str
    proposed_at: Time
    confirmed_by: CreditCode | None
    confirmed_operator: str | None
    confirmed_at: Time | None


def check_reader(signed: Signed, reader: ReaderBody) -> None:
    """Raises `Malformed` or `Refused` (PERSONAL_ID) for texts that the log does not take, and as `Signed.operator`."""
    check_texts(reader.operator, reader.investigation)
    if not signed.operator(reader.operator) and reader.investigation:
        raise Malformed(Code.REQUEST_MALFORMED, "who reads for an investigation says who she is: reader.operator")


def _described(what: str, reader: ReaderBody) -> str:
    """What a `Reading` says of a question: its path, and behind a `#` the investigation."""
    return f"{what}#{reader.investigation}" if reader.investigation else what


async def _keep(
    connection: asyncpg.Connection, signed: Signed, entry: bytes, what: str, reader: ReaderBody, parties: Iterable[str]
) -> None:
    """An auditor's reading that the log has as `entry`, for the departments that were a party to what she read."""
    about = sorted(set(parties) - {signed.caller.uscc})
    if about:
        now = datetime.now(UTC)
        fields = (signed.caller.uscc, signed.operator(reader.operator), what, reader.investigation)
        await connection.execute(SQL["keep"], entry, now, *fields, about)


async def tell(
    connect: Connect,
    log_reading: LogReading,
    signed: Signed,
    reader: ReaderBody,
    what: str,
    subjects: list[bytes],
    returned: int,
    parties: Iterable[str] = (),
) -> None:
    """A reading in the log first, and then where the `parties` that an auditor's concerns will find it."""
    described = _described(what, reader)
    entry = await log_reading(signed, signed.digest[:16], reader.operator, described, subjects, returned)
    if parties:
        async with connect("keeping a reading") as connection:
            await _keep(connection, signed, entry, what, reader, parties)


class Embargoes:
    """What departments and auditors ask about readings, over a gateway's connections."""

    def __init__(self, connect: Connect, log_reading: LogReading) -> None:
        self._connect = connect
        self._log_reading = log_reading

    async def readings(self, signed: Signed, body: ReadingsBody) -> Any:
        """Newest first: for a department those that it is shown by now, for an auditor all. In the log, too.

        What is shown later has its place by when it was read: a list begins anew from the newest.
        """
        caller, limit = signed.caller.uscc, body.limit
        async with self._connect("reading who read") as connection:
            if await control.is_auditor(connection, caller):
                rows = await connection.fetch(SQL["all_readings"], body.before, limit, UNLESS_SET, LONGEST)
            else:
                rows = await connection.fetch(SQL["shown_to"], caller, body.before, limit, UNLESS_SET, LONGEST)
            at = await trail.published(connection)
        await self._log_reading(signed, signed.digest[:16], "", "audit/readings:list", [], len(rows))
        return {
            "checkpoint": at.to_json(),
            "readings": [{k: audit.plain(v) for k, v in row.items() if k != "number"} for row in rows],
            "next": rows[-1]["number"] if len(rows) == limit else None,
        }

    async def propose(self, signed: Signed, body: EmbargoBody) -> Any:
        """An embargo that counts when another has confirmed it. Raises `Malformed`, `Refused` (REQUEST_FORBIDDEN)."""
        check_texts(body.operator, body.investigation)
        operator = signed.operator(body.operator)
        _need(operator, body.investigation)
        if body.until > datetime.now(UTC) + LONGEST:
            raise Malformed(Code.REQUEST_MALFORMED, f"until is at most {LONGEST.days} days from now")
        number = uuid4()
        async with self._connect("proposing an embargo") as connection:
            await _check_auditor(connection, signed)
            await self._log(signed, operator, "proposed", body.investigation, body.until)
            fields = (body.investigation, body.until, signed.caller.uscc, operator)
            await connection.execute(SQL["propose"], number, *fields)
            row = await connection.fetchrow(SQL["lock"], number)
        return _embargo(row)

    async def confirm(self, signed: Signed, body: ConfirmBody) -> Any:
        """From now on it counts, in place of an older one.

        Raises `Refused`: NOT_FOUND, STATE_INVALID (confirmed already), REQUEST_FORBIDDEN (no auditor, or no second
        person: who proposed it, or has read for the investigation).
        """
        check_texts(body.operator)
        operator = signed.operator(body.operator)
        _need(operator)
        person = (signed.caller.uscc, operator)
        async with self._connect("confirming an embargo") as connection, connection.transaction():
            await _check_auditor(connection, signed)
            row = await connection.fetchrow(SQL["lock"], body.id)
            if row is None:
                raise Refused(Code.NOT_FOUND, "no embargo of this id was proposed")
            if row["confirmed_at"] is not None:
                raise Refused(Code.STATE_INVALID, "the embargo is confirmed already: propose another to change it")
            if person == (row["proposed_by"], row["proposed_operator"]):
                raise Refused(
                    Code.REQUEST_FORBIDDEN, "who proposed an embargo does not confirm it: ask a second person"
                )
            if await connection.fetchval(SQL["has_read"], row["investigation"], *person):
                raise Refused(
                    Code.REQUEST_FORBIDDEN,
                    "who has read for an investigation does not confirm its embargo: ask another",
                )
            await self._log(signed, operator, "confirmed", row["investigation"], row["until"])
            await connection.execute(SQL["confirm"], body.id, *person)
            row = await connection.fetchrow(SQL["lock"], body.id)
        return _embargo(row)

    async def list(self, signed: Signed, body: EmbargoesBody) -> Any:
        """The newest 1,000, for auditors."""
        async with self._connect("reading embargoes") as connection:
            await _check_auditor(connection, signed)
            return [_embargo(row) for row in await connection.fetch(SQL["embargoes"], PAGE)]

    async def _log(self, signed: Signed, operator: str, did: str, investigation: str, until: datetime) -> None:
        what = f"embargo:{did} until {until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}#{investigation}"
        await self._log_reading(signed, signed.digest[:16], operator, what, [], 0)


async def _check_auditor(connection: asyncpg.Connection, signed: Signed) -> None:
    if not await control.is_auditor(connection, signed.caller.uscc):
        raise Refused(Code.REQUEST_FORBIDDEN, "embargoes are for auditors")


def _need(*texts: str) -> None:
    if not all(texts):
        raise Malformed(Code.REQUEST_MALFORMED, "an embargo is of an investigation, and a person says who she is")


def _embargo(row: Any) -> dict[str, Any]:
    return {name: audit.plain(value) for name, value in row.items()}
