"""Set grants (免申即享, 政策找人, 比对): a duty over many subjects is one decision with one entry, over an exact set.

The entry holds the root over the set's members, each a record with its subjects; the members stand in PostgreSQL. Who
removes or changes one has another root. A subject finds the entry through its members, with the path that proves it.

Commit points, and what a crash at each leaves behind:

1. limits taken      units are gone, no entry: the consumer asks again and takes others;
2. members stored    rows without an entry: nothing opens by them, for the set is not granted;
3. entry durable     an entry of a set whose keys were never delivered can exist, never the reverse;
4. rules re-read     a change means a second entry, `Voided`, and a refusal;
5. set granted       only now keys of its members leave, by `bus.gateway.release` as any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from bus import audit, envelope, merkle
from bus.db import queries
from bus.gateway import control, facts
from bus.gateway.agreements import check_regions
from bus.gateway.facts import Found
from bus.gateway.release import Asked, Releases, parse_read
from bus.gateway.rulebook import Connect
from bus.gateway.shapes import Count, CreditCode, Hash, Name, RequestId, Text, from_hex
from bus.httpsig import Signed
from bus.messages import KeyRequest, Read, check_asked
from bus.pki import Signer
from bus.sets import Member
from bus.terms import Word
from consent.decide import CHINA
from consent.model import Access, Basis, Decision, Mode
from schemas.catalogue import Catalogue
from schemas.errors import Code, Malformed, Refused

MAX_SET = 10_000  # records: a city's firms of one kind; a wider duty is several sets, each with its entry
MAX_REFUSED = 1_000  # each is an entry of its own: who asks for more than this asked for the wrong set
PAGE = 500  # records decided at once: some 15 ms of the loop
MAX_SETS = 1_000  # that one subject is found in

SQL = queries(Path(__file__).with_name("sets.sql"))


class SetBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/sets`: the exact records by leaf hash, all of one item, provider and region (a GB/T 2260 prefix)."""

    request: RequestId
    item: str
    provider: CreditCode
    sections: list[str]
    records: list[Hash]
    purpose: Name
    ground: Name
    operator: Name
    citation: Text
    region: str = ""
    case: Text = ""


class RefusedAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A record that is not in the set, the first refusal's code, and the leaf hash of its own entry."""

    record: Hash
    code: Code
    entry: Hash


class SetAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The set that was granted: its entry and its root over `count` members. No entry if no record is permitted."""

    entry: Hash | None
    root: Hash | None
    count: Count
    refused: list[RefusedAnswer]


class CandidatesBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/sets:candidates`: the newest valid records of an item, a page at a time; `after` is the last one's."""

    item: str
    provider: CreditCode
    region: str = ""
    after: str = ""


class CandidatesAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Leaf hashes in order; `next` is null when there are no more."""

    records: list[Hash]
    next: Hash | None


class MemberBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/sets:prove`: is this record in the set of that entry?"""

    entry: Hash
    record: Hash


class ProofAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A member's place: its leaf is over the record and its subjects, and the path leads to the entry's root."""

    root: Hash
    size: Count
    position: Count
    record: Hash
    subjects: list[Hash]
    path: list[Hash]


class Sets:
    """The routes of set grants."""

    def __init__(
        self, connect: Connect, releases: Callable[[], Releases], signer: Signer, origin: str, catalogue: Catalogue
    ) -> None:
        self._connect = connect
        self._releases = releases
        self._signer = signer
        self._origin = origin
        self._catalogue = catalogue

    async def grant(self, signed: Signed, body: SetBody) -> Any:
        """Decides on every record, and grants the set of those that are permitted; each refusal is an entry."""
        check_asked(body.purpose, body.ground, body.operator, body.citation, body.case)
        group, records = from_hex(body.request, 16), self._records(body)
        sections = tuple(dict.fromkeys(body.sections))
        if not sections:
            raise Malformed(Code.REQUEST_MALFORMED, "a set names the sections that it opens")
        access = Access(
            consumer=signed.caller.uscc,
            purpose=body.purpose,
            ground=body.ground,
            citation=body.citation,
            case=body.case,
            operator=body.operator,
            mode=Mode.STREAM,
            set_size=len(records),
        )
        now = datetime.now(UTC)
        pages = [records[at : at + PAGE] for at in range(0, len(records), PAGE)]
        judged = [one for page in pages for one in await self._judge(access, page, sections, body, now)]
        async with self._connect("taking the limits of a set") as connection:
            asked, decisions = [one.asked for one in judged], [one.decision for one in judged]
            taken = await facts.take(connection, access.consumer, group, asked, decisions, now)
        judged = [one.with_decision(decision) for one, decision in zip(judged, taken, strict=True)]
        members = [one for one in judged if one.decision.permitted == sections]
        refused = [one for one in judged if one.decision.permitted != sections]
        if len(refused) > MAX_REFUSED:
            raise Refused(
                refused[0].code, f"{len(refused)} of {len(judged)} records are refused: ask for a set that is agreed"
            )
        entries = await self._refuse(signed, group, access, refused, now)
        entry, root = (None, None) if not members else await self._log(signed, group, access, body, members, now)
        return {
            "entry": entry,
            "root": root,
            "count": len(members),
            "refused": [
                {"record": one.asked.leaf_hash.hex(), "code": one.code.value, "entry": own.hex()}
                for one, own in zip(refused, entries, strict=True)
            ],
        }

    async def keys(self, signed: Signed, entry: bytes, request: KeyRequest) -> bytes:
        """The encoded grant of some members' keys. The set's entry speaks of them: no other is made, unless refused.

        Raises `Refused` (NOT_FOUND) for a set that is not the caller's, or a record that is not in it.
        """
        async with self._connect("reading a set") as connection:
            row = await connection.fetchrow(SQL["one"], entry)
            if row is None or row["consumer"] != signed.caller.uscc or not row["granted"]:
                raise Refused(Code.NOT_FOUND, "you have no such set grant in force")
            wanted = [merkle.leaf_hash(read.claims) for read in request.reads]
            among = {one["record"] for one in await connection.fetch(SQL["members_among"], entry, wanted)}
        asked = (request.purpose, request.ground, request.citation)
        if asked != (row["purpose"], row["ground"], row["citation"]):
            raise Refused(Code.STATE_INVALID, "the set was granted for another purpose, ground or citation")
        if not among.issuperset(wanted) or not {s for r in request.reads for s in r.sections} <= {*row["sections"]}:
            raise Refused(Code.NOT_FOUND, "a record or a section is not in this set")
        return await self._releases().release(signed, request, of_set=(entry, row["size"]))

    async def candidates(self, signed: Signed, body: CandidatesBody) -> Any:
        """What a set may be made of, for the consumer of an agreement that allows sets."""
        item = self._catalogue.item(body.item)
        after = b"" if not body.after else from_hex(body.after, 32)
        check_regions([body.region] if body.region else [])
        day = datetime.now(CHINA).date()
        async with self._connect("looking up candidates") as connection:
            if not await connection.fetchval(SQL["may_match"], signed.caller.uscc, body.provider, item.name):
                raise Refused(Code.SET_NOT_AGREED, "you have no agreement with this provider that allows a set grant")
            rows = await connection.fetch(SQL["candidates"], item.name, body.provider, body.region, day, after, PAGE)
        records = [row["leaf_hash"].hex() for row in rows]
        return {"records": records, "next": records[-1] if len(records) == PAGE else None}

    async def prove(self, signed: Signed, body: MemberBody) -> Any:
        """A member's path, for the set's consumer, portals and auditors.

        Raises `Refused`: NOT_FOUND to others, LOG_TAMPERED if the members do not give the entry's root any more.
        """
        entry, record = from_hex(body.entry, 32), from_hex(body.record, 32)
        async with self._connect("proving a member") as connection:
            row = await connection.fetchrow(SQL["one"], entry)
            members = await members_of(connection, entry)
            caller = signed.caller.uscc
            may = row is not None and (
                row["consumer"] == caller
                or await control.is_portal(connection, caller)
                or await control.is_auditor(connection, caller)
            )
        place = next((at for at, one in enumerate(members) if one.record == record), None)
        if not may or place is None:
            raise Refused(Code.NOT_FOUND, "no set of this entry has this record")
        tree = merkle.levels([one.leaf for one in members])
        if tree[-1][0] != row["root"] or len(members) != row["size"]:
            raise Refused(Code.LOG_TAMPERED, "the members of the set do not give the root that its entry has")
        return {
            "root": row["root"].hex(),
            "size": len(members),
            "position": place,
            "record": record.hex(),
            "subjects": [one.hex() for one in members[place].subjects],
            "path": [one.hex() for one in merkle.paths(tree)[place]],
        }

    def _records(self, body: SetBody) -> list[bytes]:
        check_regions([body.region] if body.region else [])
        records = [from_hex(one, 32) for one in body.records]
        if not 1 <= len(records) <= MAX_SET:
            raise Malformed(Code.REQUEST_TOO_LARGE, f"a set has 1 to {MAX_SET} records")
        if records != sorted(set(records)):
            raise Malformed(Code.REQUEST_MALFORMED, "a set's records come once each, in the order of their leaf hashes")
        return records

    async def _judge(
        self, access: Access, records: Sequence[bytes], sections: tuple[str, ...], body: SetBody, now: datetime
    ) -> list[_Judged]:
        """A page of records, decided. Raises `Refused` (NOT_FOUND) for one that is not admitted, or of another kind."""
        async with self._connect("reading a set's records") as connection:
            rows = await connection.fetch(SQL["values"], records)
            asked = [parse_read(Read(envelope.parse(row["value"]).claims_bytes, sections)) for row in rows]
            found = await facts.load(connection, [access.consumer], [], asked, now)
        strange = len(asked) != len(records) or any(
            one.claims.item != body.item
            or found.provider(one) != body.provider
            or not one.claims.region.startswith(body.region)
            for one in asked
        )
        if strange:
            raise Refused(Code.NOT_FOUND, "a record is not admitted, or not of this item, provider and region")
        await asyncio.sleep(0)  # other requests' turn
        by_record = {one.leaf_hash: one for one in asked}
        return [
            _Judged(
                asked=by_record[record],
                found=found,
                decision=self._releases().decide(by_record[record], access, found, now),
            )
            for record in records
        ]

    async def _refuse(
        self, signed: Signed, group: bytes, access: Access, judged: Sequence[_Judged], now: datetime
    ) -> list[bytes]:
        """One entry a record that is refused, in their order (否定报备); those decided on the same facts together."""
        entries: list[bytes] = []
        for _, same in groupby(judged, key=lambda one: id(one.found)):
            page = list(same)
            asked, decisions = [one.asked for one in page], [one.refusal for one in page]
            entries += await self._releases().record(signed, group, access, asked, decisions, page[0].found, now)
        return entries

    async def _log(
        self, signed: Signed, group: bytes, access: Access, body: SetBody, judged: Sequence[_Judged], now: datetime
    ) -> tuple[str, str]:
        """Entry and root of a set, once it is granted. Raises `Refused` (FACTS_CHANGED)."""
        members = [Member(record=one.asked.leaf_hash, subjects=one.asked.holders) for one in judged]
        root = merkle.root([one.leaf for one in members])
        rules: dict[str, Basis] = {rule.word: rule for one in judged for rule in one.decision.rests_on}
        sections = list(judged[0].asked.sections)
        fields = {
            "consumer": access.consumer,
            "purpose": access.purpose,
            "ground": access.ground,
            "citation": access.citation,
            "case": access.case,
            "operator": access.operator,
            "item": body.item,
            "region": body.region,
            "provider": body.provider,
            "sections": sections,
            "count": len(members),
            "root": root,
            "rule": " ".join(rules),
            "hashes": [rule.hash for rule in rules.values()],
            **signed.kept,
        }
        (value,) = audit.log_values(self._signer, self._origin, group, [("SetDecision", fields)], now)
        entry = merkle.leaf_hash(value)
        async with self._connect("storing a set") as connection, connection.transaction():
            await _store(connection, entry, root, access, members, sections)
        await self._releases().append([value])
        async with self._connect("granting a set") as connection:
            for _, same in groupby(judged, key=lambda one: id(one.found)):
                page = list(same)
                asked, decisions = [one.asked for one in page], [one.decision for one in page]
                entries = dict.fromkeys(range(len(page)), entry)
                if await self._releases().moved(connection, group, access, asked, decisions, page[0].found, entries):
                    raise Refused(Code.FACTS_CHANGED, "a rule or a record changed meanwhile: ask for the set again")
            await connection.execute(SQL["grant"], entry)
        return entry.hex(), root.hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    asked: Asked
    found: Found
    decision: Decision

    def with_decision(self, decision: Decision) -> _Judged:
        return _Judged(asked=self.asked, found=self.found, decision=decision)

    @property
    def code(self) -> Code:
        """Of the first section that is refused."""
        return next(one.code for one in self.decision.sections if one.code is not Code.PERMIT)

    @property
    def refusal(self) -> Decision:
        """A record is in a set with all the sections or not at all."""
        return self.decision.refused(self.code)


async def members_of(connection: asyncpg.Connection, entry: bytes) -> list[Member]:
    """A set's members in their order, as they stand now."""
    rows = await connection.fetch(SQL["members"], entry)
    return [Member(record=row["record"], subjects=tuple(row["subjects"])) for row in rows]


async def words_of(connection: asyncpg.Connection, subjects: Sequence[bytes]) -> list[Word]:
    """By what the sets are found that these subjects are in: an entry's own word."""
    rows = await connection.fetch(SQL["of_subjects"], subjects, MAX_SETS)
    return [("entry", row["entry"].hex()) for row in rows]


async def words_about(connection: asyncpg.Connection, record: bytes) -> list[Word]:
    """By what the sets are found that a record is in."""
    rows = await connection.fetch(SQL["of_record"], record, MAX_SETS)
    return [("entry", row["entry"].hex()) for row in rows]


async def places(
    connection: asyncpg.Connection, entries: Sequence[bytes], subjects: Sequence[bytes]
) -> dict[bytes, list[bytes]]:
    """Which records of these subjects each of the sets holds: what `/v1/sets:prove` is asked with."""
    found: dict[bytes, list[bytes]] = {}
    for row in await connection.fetch(SQL["places"], entries, subjects):
        found.setdefault(row["entry"], []).append(row["record"])
    return found


async def _store(
    connection: asyncpg.Connection,
    entry: bytes,
    root: bytes,
    access: Access,
    members: Sequence[Member],
    sections: Sequence[str],
) -> None:
    about = (access.consumer, access.purpose, access.ground, access.citation)
    await connection.execute(SQL["put"], entry, root, *about, sections, len(members))
    rows = [(entry, at, one.record, list(one.subjects)) for at, one in enumerate(members)]
    await connection.executemany(SQL["put_member"], rows)
    subjects = [(subject, entry, at) for at, one in enumerate(members) for subject in one.subjects]
    await connection.executemany(SQL["put_subject"], subjects)
