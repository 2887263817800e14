"""What auditors and departments ask of the trail. An auditor reads everything, a department its own.

Every reading is in the log before its answer leaves, and every answer names the checkpoint that it is true at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Annotated, Any

import asyncpg
import msgspec
from msgspec import UNSET, Meta, UnsetType

from bus.gateway import control, embargoes, reading, sets, trail
from bus.gateway import story as stories
from bus.gateway.consents import SubjectBody
from bus.gateway.embargoes import Connect, LogReading, ReaderBody
from bus.gateway.reading import AdmittedAnswer
from bus.gateway.shapes import (
    After,
    CheckpointAnswer,
    Count,
    CreditCode,
    EntryAnswer,
    Hash,
    Limit,
    Next,
    Region,
    RequestId,
    Time,
)
from bus.gateway.trail import Filter, Group
from bus.httpsig import Signed
from bus.messages import MAX_TEXT
from bus.terms import CHOICES, LISTED, asked
from bus.trust import Trust
from consent.decide import CHINA
from schemas.errors import Code, Refused
from schemas.operations import Operation

Everywhere = Callable[[SubjectBody], list[bytes]]

NOBODY = ReaderBody()

Dimension = Annotated[str, Meta(extra_json_schema={"enum": sorted(LISTED)})]
Kind = Annotated[str, Meta(extra_json_schema={"enum": CHOICES["kind"]})]
Ground = Annotated[str, Meta(extra_json_schema={"enum": CHOICES["ground"]})]
Decided = Annotated[str, Meta(extra_json_schema={"enum": CHOICES["decision"]})]
EntryCode = Annotated[str, Meta(extra_json_schema={"enum": CHOICES["code"]})]
AnyWord = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_TEXT})]


class FilterBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What entries are looked for. Each is exact; together they narrow. Times are the log's own.

    `reader` says who of an auditor's reads, and for what investigation.
    """

    subject: SubjectBody | None = None
    kind: Kind | None = None
    consumer: CreditCode | None = None
    provider: CreditCode | None = None
    party: CreditCode | None = None
    item: AnyWord | None = None
    section: AnyWord | None = None
    purpose: AnyWord | None = None
    ground: Ground | None = None
    operator: AnyWord | None = None
    agent: AnyWord | None = None
    case: AnyWord | None = None
    decision: Decided | None = None
    code: EntryCode | None = None
    rule: AnyWord | None = None
    region: Region | None = None
    record: Hash | None = None
    licence: Hash | None = None
    request: RequestId | None = None
    entry: Hash | None = None
    about: Hash | None = None
    since: Time | None = None
    until: Time | None = None
    reader: ReaderBody = NOBODY


class EntriesBody(FilterBody, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/audit/entries:query`. `after` is the `next` of the page before."""

    after: After = -1
    limit: Limit = 100


class CountsBody(FilterBody, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/audit/counts:query`: entries a civil day (UTC+8), or a day and a value of the dimension `by`."""

    by: Dimension | None = None


class StoryBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/audit/stories:show`: one record, by its leaf hash in hex."""

    record: Hash
    reader: ReaderBody = NOBODY


class EntriesAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A page of entries."""

    checkpoint: CheckpointAnswer
    entries: list[EntryAnswer]
    next: Next


class DayAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A civil day's entries; with `by` those of one value of it."""

    day: date
    count: Count
    value: str | UnsetType = UNSET


class CountsAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Entries a day, and all of them."""

    checkpoint: CheckpointAnswer
    days: list[DayAnswer]
    total: Count


class ToldRecord(AdmittedAnswer, forbid_unknown_fields=True, kw_only=True):
    """The record that a story is of, and its place if it is admitted."""

    record: Hash
    item: str | UnsetType = UNSET
    issuer: CreditCode | UnsetType = UNSET
    sequence: int | UnsetType = UNSET


class EventAnswer(EntryAnswer, forbid_unknown_fields=True, kw_only=True):
    """An entry, and what it is in the story; of a later version also which one."""

    what: str
    record: Hash | UnsetType = UNSET
    sequence: int | UnsetType = UNSET
    operation: Operation | UnsetType = UNSET


class StoryAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What became of a record, in the log's order."""

    checkpoint: CheckpointAnswer
    record: ToldRecord
    events: list[EventAnswer]


_WORDS = tuple(name for name in FilterBody.__struct_fields__ if name not in ("subject", "since", "until", "reader"))


class Auditing:
    """The trail's questions, over a gateway's connections and its pseudonyms."""

    def __init__(self, connect: Connect, everywhere: Everywhere, log_reading: LogReading, trust: Trust) -> None:
        self._connect = connect
        self._trust = trust
        self._everywhere = everywhere
        self._log_reading = log_reading

    async def query(self, signed: Signed, body: EntriesBody) -> Any:
        """A page of entries, and the checkpoint that it is true at."""
        subjects = self._subjects(signed, body)
        async with self._connect("reading the trail") as connection:
            wanted, auditor = await self._wanted(connection, signed, body, subjects)
            at = await trail.published(connection)
            found, following = await trail.page(connection, wanted, at, body.after, body.limit)
        parties = trail.parties(found) if auditor else ()
        await embargoes.tell(
            self._connect, self._log_reading, signed, body.reader, "audit/entries:query", subjects, len(found), parties
        )
        return {
            "checkpoint": at.to_json(),
            "entries": [one.to_json() for one in found],
            "next": following,
        }

    async def counts(self, signed: Signed, body: CountsBody) -> Any:
        """How many entries a day. With `by`, an entry counts for each value that it has, and once in `total`.

        A reading of numbers concerns the departments that the filter names.
        """
        subjects = self._subjects(signed, body)
        async with self._connect("counting the trail") as connection:
            wanted, auditor = await self._wanted(connection, signed, body, subjects)
            at = await trail.published(connection)
            a_day = await trail.counts(connection, wanted, at)
            days: list[dict[str, Any]] = [{"day": day.isoformat(), "count": count} for day, count in a_day]
            if body.by is not None:
                today = datetime.now(CHINA).date()
                found = await trail.counts_by(connection, wanted, at, body.by, today)
                days = [{"day": day.isoformat(), "value": value, "count": count} for day, value, count in found]
        named = {name for name in (body.consumer, body.provider, body.party) if name} if auditor else ()
        await embargoes.tell(
            self._connect, self._log_reading, signed, body.reader, "audit/counts:query", subjects, len(days), named
        )
        return {"checkpoint": at.to_json(), "days": days, "total": sum(count for _, count in a_day)}

    async def story(self, signed: Signed, body: StoryBody) -> Any:
        """What became of one record. Raises `Refused` (NOT_FOUND), the same for no record and for none of one's own."""
        embargoes.check_reader(signed, body.reader)
        record = bytes.fromhex(asked("record", body.record)[1])
        caller = signed.caller.uscc
        async with self._connect("reading a story") as connection:
            auditor = await control.is_auditor(connection, caller)
            at = await trail.published(connection)
            version = await reading.version(connection, record)
            events = await stories.story(connection, record, version, at, caller, auditor=auditor)
            state = await reading.admitted(connection, record, self._trust)
        parties = trail.parties(one.found for one in events) if auditor else ()
        holders = list(version.holders) if version is not None and events else []
        await embargoes.tell(
            self._connect, self._log_reading, signed, body.reader, "audit/stories:show", holders, len(events), parties
        )
        if not events:
            raise Refused(Code.NOT_FOUND, "the log has nothing about this record that your department may read")
        about = (
            {} if version is None else {"item": version.item, "issuer": version.issuer, "sequence": version.sequence}
        )
        return {
            "checkpoint": at.to_json(),
            "record": {"record": record.hex(), **about, **state},
            "events": [one.to_json() for one in events],
        }

    def _subjects(self, signed: Signed, body: FilterBody) -> list[bytes]:
        """A person's or a firm's pseudonyms, computed for who asks. Checks what the log will say of the reader, too."""
        embargoes.check_reader(signed, body.reader)
        return [] if body.subject is None else self._everywhere(body.subject)

    async def _wanted(
        self, connection: asyncpg.Connection, signed: Signed, body: FilterBody, subjects: Sequence[bytes]
    ) -> tuple[Filter, bool]:
        """The filter as the index knows it, and whether an auditor asks. Others find what they are a party to."""
        groups: list[Group] = [
            frozenset([asked(name, value)]) for name in _WORDS if (value := getattr(body, name)) is not None
        ]
        if subjects:
            own = [("subject", pseudonym.hex()) for pseudonym in subjects]
            groups.append(frozenset((*own, *await sets.words_of(connection, subjects))))
        auditor = await control.is_auditor(connection, signed.caller.uscc)
        if not auditor:
            groups.append(frozenset([("party", signed.caller.uscc)]))
        return Filter(groups=tuple(groups), since=body.since, until=body.until), auditor
