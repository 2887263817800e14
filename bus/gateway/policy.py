"""Why it was refused, what would be decided under other rules, and whether it would be decided so today.

Nothing is opened, no limit is taken, nothing is stored but the trail's word of who asked (`Reading`). A department asks
about itself; about others only a provider, of its own records; auditors and the operator about anybody.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Meta

from bus import envelope
from bus.db import queries
from bus.gateway import control, embargoes, trail
from bus.gateway import facts as fact_store
from bus.gateway.auditing import NOBODY
from bus.gateway.consents import SubjectBody
from bus.gateway.embargoes import Connect, LogReading, ReaderBody
from bus.gateway.facts import About, Found, imagined
from bus.gateway.rulebook import from_row
from bus.gateway.shapes import ActAnswer, After, CheckpointAnswer, Count, CreditCode, Hash, Next, Text, Time, from_hex
from bus.gateway.trail import Filter
from bus.httpsig import Signed
from bus.messages import check_texts
from consent import changes, diff
from consent.cases import parse
from consent.changes import Change, changed
from consent.diff import Diff, Group
from consent.explain import Explanation, Names, explain
from consent.model import (
    Access,
    Basis,
    Facts,
    Mode,
    Power,
    RecordFacts,
    SectionDecision,
)
from consent.replay import AROUND, Again, Logged, Version, again, standing
from consent.ruleset import RuleSet
from schemas.catalogue import Catalogue
from schemas.errors import Code, Malformed, Misuse, Refused
from schemas.operations import Operation

MAX_SECTIONS = 64  # as an item has
MAX_RULES = 20_000  # documents of a comparison: more are compared from files, by the command
MAX_QUESTIONS = 1_000_000  # of a comparison: some seconds of one core, and keys are released beside it
MAX_CASES = 200  # run in some 20 ms, between other requests
VOIDED_WITHIN = timedelta(minutes=1)  # a decision is taken back by the same request, or never

SQL = queries(Path(__file__).with_name("policy.sql"))

Pseudonym = Callable[[str, SubjectBody], bytes]

_FIELDS = sorted({one.name for kind in changes.KINDS.values() for one in fields(kind)} - {"revision"} | {"kind", "end"})
_ANY_VALUE = {"anyOf": [{"type": one} for one in ("string", "integer", "boolean", "null", "array")]}
ChangeBody = Annotated[
    dict[str, Any],
    Meta(
        description="a document to add, to change or to end, as consent/changes.py says",
        extra_json_schema={"propertyNames": {"enum": _FIELDS}, "additionalProperties": _ANY_VALUE},
    ),
]
Changes = Annotated[list[ChangeBody], Meta(max_length=changes.MOST)]


class ExplainBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/policy:explain`: a question. Of a `record` (leaf hash in hex); or of the newest, valid version of a
    licence that nobody need have: its item, provider and region, and whose it is, if consent is asked about.

    `consumer` is who would ask for keys: the caller, if none is named. `checks`: every rule of every candidate, too.
    """

    record: Hash | None = None
    item: str = ""
    provider: str = ""
    region: str = ""
    subject: SubjectBody | None = None
    consumer: CreditCode | None = None
    sections: Annotated[list[str], Meta(min_length=1, max_length=MAX_SECTIONS)]
    purpose: Text
    ground: Text
    operator: Text = ""
    citation: Text = ""
    case: Text = ""
    agent: Text | None = None
    mode: Mode = Mode.QUERY
    onward_to: str = ""
    checks: bool = False


class SimulateBody(ExplainBody, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/policy:simulate`: the same question, before and after some changes of the rules."""

    changes: Changes


class DiffBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/policy:diff`: changes of the rules that the caller is a party to; an auditor's are of all."""

    changes: Changes


class CasesBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/policy:test`: a file of cases (`consent/cases.py`) as the text of a JSON object."""

    file: Annotated[str, Meta(extra_json_schema={"contentMediaType": "application/json"})]


class ReplayBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/policy:replay`: decisions of a period of the log's time. `after` is the `next` of the page before."""

    since: Time
    until: Time
    after: After = -1
    limit: Annotated[int, Meta(ge=1, le=trail.PAGE)] = trail.PAGE
    reader: ReaderBody = NOBODY


class CheckAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A rule that was asked: `basis` is its article, `verified` whether that was read in its text, `of` the words of
    what it was asked of. The sentences say why it is not kept; of a rule that is kept they are empty.
    """

    rule: str
    code: str
    basis: str
    verified: bool
    kept: bool
    of: str
    en: str
    zh: str


class SectionAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A section's answer: what a permit rests on, or the rule that the nearest candidate breaks."""

    section: str
    code: Code
    rests_on: list[str]
    miss: CheckAnswer | None
    candidates: list[list[CheckAnswer]]


class ExplainAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Every section asked for, in order."""

    sections: list[SectionAnswer]


class SimulateAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The answer today, and after the changes."""

    differs: bool
    before: list[SectionAnswer]
    after: list[SectionAnswer]


class GroupAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Questions that changed alike: every combination of these."""

    provider: str
    item: str
    consumers: list[str]
    sections: list[str]
    grounds: list[str]
    purposes: list[str]


class ChangedAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A document that differs: its word before and after (empty: it is not there), and in which fields."""

    before: str
    after: str
    fields: list[str]


class DiffAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Of `space` questions, those that are newly permitted, and those that are no longer."""

    space: Count
    permits: list[GroupAnswer]
    refuses: list[GroupAnswer]
    documents: list[ChangedAnswer]


class UnexpectedAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A section's answer that is another than its case expects, and the rule of the refusal, expected or got."""

    case: str
    because: str
    section: str
    expected: str
    got: str
    rule: str | None
    basis: str | None


class CasesAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How many cases were run, how many came out otherwise, and where."""

    cases: Count
    failed: Count
    differences: list[UnexpectedAnswer]


class AgainAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A section whose answer is another one now: `was` under the words `before`, `now` on `rests_on` or for `miss`."""

    section: str
    was: Code
    before: str
    now: Code
    rests_on: str
    miss: CheckAnswer | None


class RuleActAnswer(ActAnswer, forbid_unknown_fields=True, kw_only=True):
    """An act on a rule (its id) since the decision."""

    rule: UUID


class DifferenceAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A decision that would be another one today, and what was done to its rules since."""

    index: Count
    entry: Hash
    time: Time
    consumer: CreditCode
    provider: str
    item: str
    record: Hash
    purpose: str
    ground: str
    sections: list[AgainAnswer]
    acts: list[RuleActAnswer]


class ReplayAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A page: how many were decided again, how many were taken back at once (and are not), and what differs."""

    checkpoint: CheckpointAnswer
    decided: Count
    voided: Count
    differences: list[DifferenceAnswer]
    next: Next


class Policies:
    """The routes of questions about rules, over a gateway's connections."""

    def __init__(
        self, connect: Connect, log_reading: LogReading, catalogue: Catalogue, pseudonym: Pseudonym, operator: str
    ) -> None:
        self._connect = connect
        self._log_reading = log_reading
        self._catalogue = catalogue
        self._pseudonym = pseudonym
        self._operator = operator

    async def explain(self, signed: Signed, body: ExplainBody) -> Any:
        """Why keys would be given or refused now: what decides, or which rule the nearest candidate breaks."""
        access, now = self._access(signed, body), datetime.now(UTC)
        async with self._connect("explaining") as connection:
            about = await self._about(connection, body)
            found = await _load(connection, [access], [about], now)
            record, facts = found.about(about, access, self._catalogue)
            await self._may(connection, signed, access.consumer, record.issuer)
            names = await _names(connection, access, record, facts)
        made = self._explain(access, body, record, facts, now, names)
        await self._tell(signed, "policy:explain", body, about.holders)
        return {"sections": made.to_json(checks=body.checks)}

    async def simulate(self, signed: Signed, body: SimulateBody) -> Any:
        """The same under the rules as they would be. Nothing is stored."""
        access, now = self._access(signed, body), datetime.now(UTC)
        wanted = changes.parse(body.changes)
        async with self._connect("simulating") as connection:
            about = await self._about(connection, body)
            sees_all = await self._sees_all(connection, signed)
            own = await _named(connection, wanted, signed, sees_all=sees_all)
            holders = {about.claims.item: about.holders}
            powers = [one for one in changed(own, wanted, holders) if isinstance(one, Power)]
            openers = [replace(access, consumer=one.grantor) for one in powers if one.grantee == access.consumer]
            found = await _load(connection, [access, *openers], [about], now)
            record, facts = found.about(about, access, self._catalogue)
            await self._may(connection, signed, access.consumer, record.issuer)
            before = {one.id: one for one in (*_documents(found), *own)}
            after = changed(before.values(), wanted, holders)
            sets = [_under(RuleSet(some), access, record, facts) for some in (changed(before.values(), ()), after)]
            names = await _names(connection, access, record, *sets)
        was, is_ = (self._explain(access, body, record, some, now, names) for some in sets)
        await self._tell(signed, "policy:simulate", body, about.holders)
        differs = [one.code for one in was.sections] != [one.code for one in is_.sections]
        return {
            "differs": differs,
            "before": was.to_json(checks=body.checks),
            "after": is_.to_json(checks=body.checks),
        }

    async def diff(self, signed: Signed, body: DiffBody) -> Any:
        """What the changes newly permit and what they take away, of every question that departments can ask."""
        wanted = changes.parse(body.changes)
        async with self._connect("comparing") as connection:
            sees_all = await self._sees_all(connection, signed)
            rows = await connection.fetch(SQL["standing"], sees_all, signed.caller.uscc, MAX_RULES + 1)
        if len(rows) > MAX_RULES:
            raise Malformed(Code.REQUEST_TOO_LARGE, f"more than {MAX_RULES} rules: compare files with the command")
        before: list[Basis] = [from_row(row) for row in rows]
        sets = RuleSet(before), RuleSet(changed(before, wanted))
        made = await asyncio.to_thread(diff.diff, *sets, self._catalogue.items, datetime.now(UTC), most=MAX_QUESTIONS)
        await self._log_reading(
            signed, signed.digest[:16], "", "policy:diff", [], len(made.permits) + len(made.refuses)
        )
        return diff_json(made)

    async def test(self, signed: Signed, body: CasesBody) -> Any:
        """Cases as a lawyer writes them, run through the rules that decide here. Opens and reads nothing."""
        try:
            document = json.loads(body.file)
            cases = parse(document, "file", self._catalogue)
        except Misuse as exc:
            raise Malformed(Code.REQUEST_MALFORMED, exc.detail) from exc
        except (ValueError, RecursionError) as exc:
            raise Malformed(Code.REQUEST_MALFORMED, "file is no JSON object of cases") from exc
        if not 1 <= len(cases) <= MAX_CASES:
            raise Malformed(Code.REQUEST_TOO_LARGE, f"1 to {MAX_CASES} cases are run at once")
        found = [one.to_json(case) for case in cases for one in case.differences()]
        return {"cases": len(cases), "failed": len({one["case"] for one in found}), "differences": found}

    async def replay(self, signed: Signed, body: ReplayBody) -> Any:
        """The log's decisions again, under the rules of today: those that would be others, for auditors."""
        embargoes.check_reader(signed, body.reader)
        wanted = Filter(groups=(frozenset([("kind", "Decision")]),), since=body.since, until=body.until)
        async with self._connect("replaying") as connection:
            if not await control.is_auditor(connection, signed.caller.uscc):
                raise Refused(Code.REQUEST_FORBIDDEN, "decisions are made again for auditors")
            at = await trail.published(connection)
            found, following = await trail.page(connection, wanted, at, body.after, body.limit)
            voided = await _voided(connection, found, at) if found else set()
            entries = [one for one in found if one.entry.leaf_hash not in voided]
            differences = await self._again(connection, entries)
        await embargoes.tell(
            self._connect,
            self._log_reading,
            signed,
            body.reader,
            "policy:replay",
            [],
            len(differences),
            trail.parties(found),
        )
        return {
            "checkpoint": at.to_json(),
            "decided": len(entries),
            "voided": len(found) - len(entries),
            "differences": differences,
            "next": following,
        }

    def _access(self, signed: Signed, body: ExplainBody) -> Access:
        check_texts(body.purpose, body.ground, body.operator, body.citation, body.case, body.agent)
        check_texts(body.onward_to, body.item, body.provider, body.region, *body.sections)
        return Access(
            consumer=body.consumer or signed.caller.uscc,
            purpose=body.purpose,
            ground=body.ground,
            citation=body.citation,
            case=body.case,
            operator=body.operator,
            agent=body.agent,
            mode=body.mode,
            onward_to=body.onward_to,
        )

    async def _about(self, connection: asyncpg.Connection, body: ExplainBody) -> About:
        if (body.record is None) == (not body.item) or (body.record is not None and body.subject is not None):
            raise Malformed(Code.REQUEST_MALFORMED, "name a record, or an item with provider, region and maybe subject")
        if body.record is None:
            holders = () if body.subject is None else (self._pseudonym(body.item, body.subject),)
            return About(claims=imagined(body.item, body.provider, body.region), holders=holders)
        leaf_hash = from_hex(body.record, 32)
        value = await connection.fetchval(SQL["value"], leaf_hash)
        if value is None:
            raise Refused(Code.NOT_FOUND, "no such record is admitted")
        claims = envelope.parse(value).claims
        return About(claims=claims, leaf_hash=leaf_hash, holders=claims.holders)

    async def _sees_all(self, connection: asyncpg.Connection, signed: Signed) -> bool:
        return await control.sees_all(connection, signed.caller.uscc, self._operator)

    async def _may(self, connection: asyncpg.Connection, signed: Signed, consumer: str, provider: str) -> None:
        if signed.caller.uscc in (consumer, provider) or await self._sees_all(connection, signed):
            return
        raise Refused(
            Code.REQUEST_FORBIDDEN, "a department asks about itself, or about who may open records that it provides"
        )

    def _explain(
        self, access: Access, body: ExplainBody, record: RecordFacts, facts: Facts, now: datetime, names: Names
    ) -> Explanation:
        item = self._catalogue.items.get(record.item)
        return explain(item, access, body.sections, record, facts, now, names=names)

    async def _tell(self, signed: Signed, what: str, body: ExplainBody, holders: Sequence[bytes]) -> None:
        await self._log_reading(signed, signed.digest[:16], body.operator, what, list(holders), len(body.sections))

    async def _again(self, connection: asyncpg.Connection, entries: Sequence[trail.Found]) -> list[dict[str, Any]]:
        """What differs of a page, with a fixed number of queries."""
        logged = [_logged(one.entry.body, one.entry.time) for one in entries]
        about = [
            About(claims=imagined(one.item, one.issuer, one.region), leaf_hash=one.record, holders=one.holders)
            for one in logged
        ]
        found = await _load(connection, [one.access for one in logged], about, datetime.now(UTC))
        documents = _documents(found)
        rows = await connection.fetch(SQL["before_last_day"], [one.id for one in documents])
        ruleset = standing(documents, {row["rule"]: row["state"] for row in rows})
        versions = await _versions(connection, {one.licence for one in logged})
        parties = {party for one in logged for party in (one.access.consumer, one.issuer)}
        parties |= {one.consumer for one in ruleset.agreements()}
        names = Names(departments=await control.names(connection, parties))
        answers: list[dict[str, Any]] = []
        for one, said in zip(entries, logged, strict=True):
            item = self._catalogue.items.get(said.item)
            if sections := again(said, item, ruleset, versions.get(said.licence, ()), names=names):
                answers.append(await _difference(connection, one, said, sections))
        return answers


async def standing_rules(connection: asyncpg.Connection) -> list[Basis]:
    """All rules but subjects' own, in the order of their ids: for the operator's command."""
    return [from_row(row) for row in await connection.fetch(SQL["standing"], True, "", None)]


def diff_json(made: Diff) -> dict[str, Any]:
    """As answers and commands show a comparison."""

    def group(one: Group) -> dict[str, Any]:
        said = {field.name: getattr(one, field.name) for field in fields(one)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}

    return {
        "space": made.space,
        "permits": [group(one) for one in made.permits],
        "refuses": [group(one) for one in made.refuses],
        "documents": [{"before": one.before, "after": one.after, "fields": list(one.fields)} for one in made.documents],
    }


async def _load(
    connection: asyncpg.Connection, accesses: Sequence[Access], about: Sequence[About], now: datetime
) -> Found:
    consumers = sorted({one.consumer for one in accesses})
    agents = sorted({one.agent for one in accesses if one.agent is not None})
    return await fact_store.load(connection, consumers, agents, about, now)


def _documents(found: Found) -> list[Basis]:
    """All that was loaded, each once, in the order of their ids."""
    groups: tuple[Iterable[Basis], ...] = (
        *found.agreements.values(),
        *found.powers.values(),
        *found.scoped.values(),
        found.entries.values(),
    )
    return sorted({one.id: one for group in groups for one in group}.values(), key=lambda one: one.id)


def _under(ruleset: RuleSet, access: Access, record: RecordFacts, facts: Facts) -> Facts:
    """The facts with another set of rules; what the bus itself knows stays."""
    return replace(
        ruleset.facts(access, record, used_up=facts.used_up, known=facts.consumer_known),
        consumer_suspended=facts.consumer_suspended,
        index_fresh=facts.index_fresh,
        audit_current=facts.audit_current,
    )


async def _named(
    connection: asyncpg.Connection, wanted: Sequence[Change], signed: Signed, *, sees_all: bool
) -> list[Basis]:
    """The documents that changes name, as far as the caller may see them."""
    ids = [one.id for one in wanted if one.id is not None]
    rows = await connection.fetch(SQL["named"], ids, list(changes.KINDS), sees_all, signed.caller.uscc)
    return [from_row(row) for row in rows]


async def _names(connection: asyncpg.Connection, access: Access, record: RecordFacts, *facts: Facts) -> Names:
    parties = {access.consumer, access.onward_to, record.issuer}
    for one in facts:
        parties |= {agreement.consumer for agreement in one.agreements} | {power.grantor for power in one.powers}
    return Names(departments=await control.names(connection, parties))


async def _voided(connection: asyncpg.Connection, found: Sequence[trail.Found], at: trail.Published) -> set[bytes]:
    """The entries that were taken back: that stands right behind them in the log."""
    since, until = found[0].stored.logged_at, found[-1].stored.logged_at + VOIDED_WITHIN
    wanted = Filter(groups=(frozenset([("kind", "Voided")]),), since=since, until=until)
    return {one.entry.body["entry"] async for page in trail.pages(connection, wanted, at) for one in page}


async def _versions(connection: asyncpg.Connection, licences: Iterable[bytes]) -> dict[bytes, list[Version]]:
    found: dict[bytes, list[Version]] = {}
    for row in await connection.fetch(SQL["versions"], list(licences)):
        version = Version(
            record=row["leaf_hash"],
            sequence=row["sequence"],
            operation=Operation(row["operation"]),
            valid_from=row["valid_from"],
            valid_until=row["valid_until"],
            admitted_at=row["admitted_at"],
        )
        found.setdefault(row["licence"], []).append(version)
    return found


async def _difference(
    connection: asyncpg.Connection, found: trail.Found, logged: Logged, sections: Sequence[Again]
) -> dict[str, Any]:
    words = " ".join(f"{one.before} {one.rests_on} {'' if one.miss is None else one.miss.of}" for one in sections)
    rules = sorted({_rule(word) for word in words.split()})
    acts = await connection.fetch(SQL["acts_since"], rules, logged.time - AROUND)
    return {
        "index": found.stored.index,
        "entry": found.entry.leaf_hash.hex(),
        "time": logged.time.isoformat(),
        "consumer": logged.access.consumer,
        "provider": logged.issuer,
        "item": logged.item,
        "record": logged.record.hex(),
        "purpose": logged.access.purpose,
        "ground": logged.access.ground,
        "sections": [
            {
                "section": one.section,
                "was": one.was.value,
                "before": one.before,
                "now": one.now.value,
                "rests_on": one.rests_on,
                "miss": None if one.miss is None else one.miss.to_json(),
            }
            for one in sections
        ],
        "acts": [dict(row) | {"rule": str(row["rule"]), "at": row["at"].isoformat()} for row in acts],
    }


def _logged(body: Mapping[str, Any], time: datetime) -> Logged:
    """A `Decision` entry's question and answer."""
    return Logged(
        time=time,
        access=Access(
            consumer=body["consumer"],
            purpose=body["purpose"],
            ground=body["ground"],
            citation=body["citation"],
            case=body["case"],
            operator=body["operator"],
            agent=body["agent"],
            mode=Mode(body["mode"]),
            onward_to=body["onward_to"],
            set_size=body["set_size"],
        ),
        record=body["record"],
        licence=body["licence"],
        item=body["item"],
        region=body["region"],
        issuer=body["provider"],
        holders=tuple(body["subjects"]),
        sections=tuple(SectionDecision(one["name"], Code(one["code"]), one["rule"]) for one in body["sections"]),
        used_up={_rule(one["rule"]): Code(one["code"]) for one in body["used_up"]},
    )


def _rule(word: str) -> UUID:
    return UUID(word.partition(":")[2].partition("@")[0])
