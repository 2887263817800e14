"""Decisions that open nothing: may this department open that, asked in AuthZEN's words (`bus.authzen`).

Facts and rules are those of a key release: PostgreSQL's primary, the same loader, the same `decide`. Limits are looked
at and not taken: who asks a hundred times has used nothing. What was answered is one entry of the log a call, which
every in-sync replica has before the answer leaves; a log that is away answers nothing. A crash between leaves an entry
of answers that nobody got.

`bus/gateway/README.md` has the words: what a subject, an action, a resource and a context say here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import msgspec
from msgspec import UNSET, UnsetType

from bus import audit, envelope, merkle, metrics
from bus.authzen import Answer, Evaluation, Found, Kind, Obligation, Search, Semantic, answer_context, up_to
from bus.db import queries
from bus.envelope import MAX_HEAD_BYTES, MAX_LIST
from bus.gateway import control
from bus.gateway import facts as fact_store
from bus.gateway.embargoes import Connect
from bus.gateway.facts import About
from bus.gateway.revisions import Append
from bus.gateway.shapes import Count, Hash
from bus.httpsig import Signed
from bus.messages import MAX_READS, check_texts
from bus.pki import Signer
from consent.decide import decide
from consent.explain import Check, explain
from consent.model import Access, Agreement, Consent, Decision, Mode, Notice, RecordFacts
from consent.purposes import PURPOSES
from schemas.catalogue import Catalogue
from schemas.errors import Code, DeptbusError, Malformed, Refused
from schemas.identifiers import parse_uscc

MAX_CANDIDATES = MAX_READS  # looked at for one page: a search may not hold the loop longer than a key request
# Of an answer's rules in the entry, which has at most 65,535 bytes for `MAX_EVALUATIONS` answers: there is room for an
# agreement, a power, two consents and a mandate.
MAX_RULE_BYTES = 320
NOW = timedelta(minutes=5)  # how far a clock may be off that says `time`
OBLIGATION = "custom"  # of the profile's types the only one that can say what an agreement asks for

_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_REGION = re.compile(r"[0-9]{6}")
_LEAF_HASH = re.compile(r"[0-9a-f]{64}")
_ZH = {
    Code.REQUEST_FORBIDDEN: "只能询问本部门的权限，或他部门对本部门数据的权限。",
    Code.REQUEST_MALFORMED: "询问的内容不符合接口要求。",
    Code.PERSONAL_ID: "留痕文本中不得出现公民身份号码。",
    Code.OBLIGATION_UNSUPPORTED: "调用方声明无法履行共享协议规定的义务。",
}

SQL = queries(Path(__file__).with_name("evaluating.sql"))


class ReasonsAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One reason in two languages."""

    en: str
    zh: str


class ObligedAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is to be done (`action`), as the rule asks it: an agreement or a consent, `<kind>:<id>@<revision>`."""

    action: str
    rule: str
    after_seconds: int | UnsetType = UNSET
    after_days: int | UnsetType = UNSET
    but_for: list[str] | UnsetType = UNSET
    once: str | UnsetType = UNSET


class ObligationAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An obligation of AuthZEN's profile; `type` is `custom`."""

    id: str
    type: str
    properties: ObligedAnswer


class FaultAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Why one of a batch is no evaluation of AuthZEN's at all."""

    status: int
    message: str


class ContextAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """With a decision: its code and that of each section, what decided, the hashes of what a permit rests on, and the
    log's entry of this call.
    """

    code: Code | UnsetType = UNSET
    entry: Hash | UnsetType = UNSET
    sections: (
        Annotated[dict[str, Code], msgspec.Meta(extra_json_schema={"propertyNames": {"type": "string"}})] | UnsetType
    ) = UNSET
    rule: str | UnsetType = UNSET
    hashes: list[Hash] | UnsetType = UNSET
    reason_admin: ReasonsAnswer | UnsetType = UNSET
    reason_user: ReasonsAnswer | UnsetType = UNSET
    obligations_profile: str | UnsetType = UNSET
    obligations: list[ObligationAnswer] | UnsetType = UNSET
    error: FaultAnswer | UnsetType = UNSET


class DecisionAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """May the subject do that? A denial is an answer."""

    decision: bool
    context: ContextAnswer


class DecisionsAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Of a batch, in its order, as far as its semantic goes."""

    evaluations: list[DecisionAnswer]


class PageAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`next_token` is empty on the last page; a page may be short, or empty, and not be the last."""

    next_token: str
    count: Count


class EntryContext(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The log's entry of this call."""

    entry: Hash


class EntityAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A subject or a resource."""

    type: str
    id: str


class ActionAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An action: a purpose."""

    name: str


class EntitiesAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A page of subjects or resources."""

    page: PageAnswer
    context: EntryContext
    results: list[EntityAnswer]


class ActionsAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A page of actions."""

    page: PageAnswer
    context: EntryContext
    results: list[ActionAnswer]


class ConfigurationAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """AuthZEN's metadata of this decision point."""

    policy_decision_point: str
    access_evaluation_endpoint: str
    access_evaluations_endpoint: str
    search_subject_endpoint: str
    search_resource_endpoint: str
    search_action_endpoint: str
    supported_obligations: list[str]
    obligations_profile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """An evaluation in the bus's words. `record` is a leaf hash; without one it is about any valid record of `place`:
    item, provider, division. Of a record, `place` is what the caller says of it, as far as it says so. `obliged` are
    the types of obligations that the caller can comply with, if it says which.
    """

    access: Access
    sections: tuple[str, ...]
    record: bytes = b""
    place: tuple[str, str, str] = ("", "", "")
    obliged: frozenset[str] | None = None

    @property
    def resource(self) -> str:
        """As the entry names it."""
        return self.record.hex() if self.record else f"{self.place[0]}/{self.sections[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is answered to one evaluation; without a question it could not be read. `miss` is the rule that refuses,
    `detail` why where it is none of the rules.
    """

    code: Code
    question: Question | None = None
    decision: Decision | None = None
    obligations: tuple[Obligation, ...] = ()
    miss: Check | None = None
    detail: str = ""

    @property
    def permitted(self) -> bool:
        """Whether the subject may open all that was asked for."""
        return self.code is Code.PERMIT

    @property
    def rule(self) -> str:
        """What decided, each word once."""
        if self.decision is None:
            return ""
        said = [s.rule for s in self.decision.sections if s.code is self.code]
        return " ".join(dict.fromkeys(word for words in said for word in words.split()))

    def answer(self, entry: bytes) -> Answer:
        """For the caller; `entry` is the leaf hash of the log's entry."""
        context: dict[str, Any] = {"code": self.code.value, "entry": entry.hex()}
        if self.decision is not None:
            context["sections"] = {s.section: s.code.value for s in self.decision.sections}
            context["rule"] = self.rule
            context["hashes"] = [rule.hash.hex() for rule in self.decision.rests_on]
        if self.permitted:
            return Answer(decision=True, context=context | answer_context(obligations=self.obligations))
        told = {"en": f"This may not be opened ({self.code}).", "zh": f"不予开放（{self.code}）。"}
        return Answer(decision=False, context=context | answer_context(reason_admin=self._reasons(), reason_user=told))

    def written(self) -> dict[str, str]:
        """For the entry: what could not be read is left out of it."""
        question = self.question
        return {
            "consumer": "" if question is None else question.access.consumer,
            "purpose": "" if question is None else question.access.purpose,
            "resource": "" if question is None else question.resource,
            "code": self.code.value,
            "rule": _fitting(self.rule),
        }

    def _reasons(self) -> dict[str, str]:
        """Which rule was not kept, with its article, and whether that was read in its text."""
        if self.miss is None:
            return {"en": self.detail or f"{self.code}.", "zh": _ZH.get(self.code, f"{self.code}。")}
        rule = self.miss.rule
        read = ("", "") if rule.verified else (", its text not verified", "，条文未核对")
        return {
            "en": f"{self.miss.en} (rule {rule.name}: {rule.basis}{read[0]})",
            "zh": f"{self.miss.zh}（规则 {rule.name}：{rule.basis}{read[1]}）",
        }


class DecisionPoint:
    """A gateway's decisions for whoever may ask. Holds no state of its own."""

    def __init__(
        self, connect: Connect, append: Append, catalogue: Catalogue, signer: Signer, origin: str, operator: str
    ) -> None:
        self._connect = connect
        self._append = append
        self._catalogue = catalogue
        self._signer = signer
        self._operator = operator
        self._origin = origin

    def asked_by(self, signed: Signed, api: str) -> Caller:
        """The evaluator of one request. `api` is what the entry calls the endpoint: `evaluation`, `search/subject`."""
        return Caller(self, signed, api)

    async def decide(
        self,
        connection: asyncpg.Connection,
        caller: str,
        evaluations: Sequence[Evaluation],
        now: datetime,
        *,
        told: bool,
    ) -> list[Verdict]:
        """One verdict each, in order, by a number of queries that does not depend on how many are asked.

        `told`: with the reasons of denials, which take longer to find than that there is one.
        """
        read = _one_operator([_read(one) for one in evaluations])
        questions = {at: one for at, one in enumerate(read) if isinstance(one, Question)}
        asked = await self._asked(connection, questions)
        found = await fact_store.load(
            connection,
            list({one.access.consumer for one in questions.values()}),
            list({one.access.agent for one in questions.values() if one.access.agent is not None}),
            list(asked.values()),
            now,
        )
        anybody = await control.sees_all(connection, caller, self._operator)
        verdicts: list[Verdict] = []
        for at, one in enumerate(read):
            if isinstance(one, DeptbusError):
                verdicts.append(Verdict(code=one.code, detail=one.detail))
            elif anybody or caller in (one.access.consumer, found.provider(asked[at])):
                verdicts.append(self._verdict(one, asked[at], found, now, told=told))
            else:
                verdicts.append(Verdict(code=Code.REQUEST_FORBIDDEN, question=one, detail=_FORBIDDEN))
        return verdicts

    async def candidates(self, connection: asyncpg.Connection, search: Search) -> tuple[list[str], bool]:
        """At most `MAX_CANDIDATES` names behind the page before, ascending, and whether more come after them."""
        asked, after = search.evaluation, search.after
        match search.kind, asked.resource.type:
            case Kind.SUBJECT, _ if asked.subject.type == "department":
                if after and not after.isalnum():
                    raise Malformed(Code.REQUEST_MALFORMED, "page.token is not from here: ask again without it")
                rows = await connection.fetch(SQL["departments"], after, MAX_CANDIDATES + 1)
                return _page([row["uscc"] for row in rows])
            case Kind.RESOURCE, "record":
                return await self._records(connection, asked.resource.properties, after)
            case Kind.RESOURCE, "section":
                names = [f"{item}/{name}" for item, one in self._catalogue.items.items() for name in one.sections]
                return _page(sorted(name for name in names if name > after))
            case Kind.ACTION, _:
                return _page(sorted(name for name in PURPOSES if name > after))
        return [], False

    async def record(self, signed: Signed, api: str, verdicts: Sequence[Verdict], returned: int) -> bytes:
        """The leaf hash of the call's entry, which is in the log when this returns. Raises `Unavailable`."""
        operators = (one.question.access.operator for one in verdicts if one.question is not None)
        body = {
            "caller": signed.caller.uscc,
            "api": api,
            "operator": next(operators, ""),
            "answers": [one.written() for one in verdicts],
            "returned": returned,
            **signed.kept,
        }
        bodies = [("Evaluation", body)]
        (value,) = audit.log_values(self._signer, self._origin, signed.digest[:16], bodies, datetime.now(UTC))
        await self._append([value])
        for outcome, count in Counter(one.code.value for one in verdicts).items():
            metrics.EVALUATED.labels(outcome=outcome).inc(count)
        return merkle.leaf_hash(value)

    @asynccontextmanager
    async def deciding(self, signed: Signed, api: str) -> AsyncIterator[asyncpg.Connection]:
        """A connection to decide with. That it could not be decided is an entry, too, as far as the log is there."""
        try:
            async with self._connect("deciding") as connection:
                yield connection
        except Exception as exc:
            code = exc.code if isinstance(exc, DeptbusError) else Code.UNDECIDABLE
            await self.record(signed, api, [Verdict(code=code)], 0)
            raise

    async def _asked(self, connection: asyncpg.Connection, questions: Mapping[int, Question]) -> dict[int, About]:
        """What each question is about: a record as it claims, or one that would be newest and valid."""
        wanted = list({one.record for one in questions.values() if one.record})
        rows = await connection.fetch(SQL["heads"], wanted, MAX_HEAD_BYTES) if wanted else []
        heads = {row["leaf_hash"]: envelope.claims_at_head(row["head"]) for row in rows}
        asked: dict[int, About] = {}
        for at, one in questions.items():
            place = ("", "", "") if one.record else one.place
            claims = heads.get(one.record) or fact_store.imagined(*place)
            asked[at] = About(claims=claims, holders=claims.holders, leaf_hash=one.record)
        return asked

    async def _records(
        self, connection: asyncpg.Connection, properties: Mapping[str, Any], after: str
    ) -> tuple[list[str], bool]:
        """Leaf hashes of a provider's records of an item: without both, nothing is found."""
        item, provider = properties.get("item"), properties.get("provider")
        if item not in list(self._catalogue.items) or not _is_uscc(provider):
            return [], False
        if after and not _LEAF_HASH.fullmatch(after):
            raise Malformed(Code.REQUEST_MALFORMED, "page.token is not from here: ask again without it")
        rows = await connection.fetch(SQL["records"], item, provider, bytes.fromhex(after), MAX_CANDIDATES + 1)
        return _page([row["leaf_hash"].hex() for row in rows])

    def _verdict(self, one: Question, asked: About, found: fact_store.Found, now: datetime, *, told: bool) -> Verdict:
        record, facts = found.about(asked, one.access, self._catalogue)
        if one.record and record.item and not _as_said(one.place, record):
            detail = "resource.properties say another item, provider or division than the record"
            return Verdict(code=Code.NOT_FOUND, question=one, detail=detail)
        item = self._catalogue.items.get(asked.claims.item)
        decision = decide(item, one.access, one.sections, record, facts, now)
        code = next((s.code for s in decision.sections if s.code is not Code.PERMIT), Code.PERMIT)
        obligations = tuple(_obligations(decision)) if code is Code.PERMIT else ()
        if obligations and one.obliged is not None and OBLIGATION not in one.obliged:
            detail = f"what the permit rests on obliges, and context.supported_obligations lacks {OBLIGATION}"
            return Verdict(code=Code.OBLIGATION_UNSUPPORTED, question=one, detail=detail)
        miss = None
        if told and code is not Code.PERMIT:
            asked_of = explain(item, one.access, one.sections, record, facts, now)
            miss = next(s.miss for s in asked_of.sections if s.code is code)
        return Verdict(code=code, question=one, decision=decision, obligations=obligations, miss=miss)


class Caller:
    """The decision point as one request's `bus.authzen.Evaluator`."""

    def __init__(self, point: DecisionPoint, signed: Signed, api: str) -> None:
        self._point = point
        self._signed = signed
        self._api = api

    async def evaluate(self, evaluations: Sequence[Evaluation], semantic: Semantic) -> Sequence[Answer]:
        """The answers as far as `semantic` goes; only those are in the entry.

        Raises `Malformed` (REQUEST_MALFORMED: asked of another time) and `Unavailable`.
        """
        now = datetime.now(UTC)
        _of_now(evaluations, now)
        with metrics.EVALUATION_SECONDS.time():
            async with self._point.deciding(self._signed, self._api) as connection:
                verdicts = await self._point.decide(connection, self._signed.caller.uscc, evaluations, now, told=True)
            count = len(up_to((Answer(decision=one.permitted) for one in verdicts), semantic))
            entry = await self._point.record(self._signed, self._api, verdicts[:count], count)
        return [one.answer(entry) for one in verdicts[:count]]

    async def search(self, search: Search) -> Found:
        """A page: its candidates are decided on as if each were asked alone. Raises as `evaluate`."""
        now = datetime.now(UTC)
        _of_now([search.evaluation], now)
        with metrics.EVALUATION_SECONDS.time():
            async with self._point.deciding(self._signed, self._api) as connection:
                names, more = await self._point.candidates(connection, search)
                asked = [search.candidate(name) for name in names]
                verdicts = await self._point.decide(connection, self._signed.caller.uscc, asked, now, told=False)
            page: list[str] = []
            permits: list[Verdict] = []
            after = search.after
            for name, verdict in zip(names, verdicts, strict=True):
                if verdict.permitted:
                    if len(page) == search.limit:
                        more = True
                        break
                    page.append(name)
                    permits.append(verdict)
                after = name
            told = permits or verdicts[:1] or [Verdict(code=Code.NOT_FOUND, detail="there are no candidates")]
            entry = await self._point.record(self._signed, self._api, told, len(page))
        return Found(names=tuple(page), more=more, after=after, context={"entry": entry.hex()})


_FORBIDDEN = "a department asks about itself, or about its own records; auditors and the operator about anybody"


def _read(asked: Evaluation) -> Question | DeptbusError:
    """The question, or why it is none: then it is denied, and nothing else in its call is."""
    try:
        return _question(asked)
    except DeptbusError as exc:
        return exc


def _question(asked: Evaluation) -> Question:
    if asked.subject.type != "department":
        raise _malformed("subject.type is department")
    if not _is_uscc(asked.subject.id):
        raise Refused(Code.CONSUMER_UNKNOWN, "subject.id is the credit code of a department")
    if not _NAME.fullmatch(asked.action.name):
        raise _malformed("action.name is a purpose of the purpose tree")
    access = _access(asked.subject.id, asked.action.name, asked.context)
    obliged = asked.context.get("supported_obligations")
    if obliged is not None and not _are_texts(obliged):
        raise _malformed("context.supported_obligations is an array of strings")
    supported = None if obliged is None else frozenset(obliged)
    resource = asked.resource
    match resource.type:
        case "record":
            if not _LEAF_HASH.fullmatch(resource.id):
                raise Refused(Code.NOT_ADMITTED, "resource.id is a record's leaf hash in lower-case hex")
            sections, said = _sections(resource.properties), _place(resource.properties)
            record = bytes.fromhex(resource.id)
            return Question(access=access, sections=sections, record=record, place=said, obliged=supported)
        case "section":
            item, _, section = resource.id.partition("/")
            _, provider, region = _place(resource.properties)
            if not _NAME.fullmatch(item):
                raise Refused(Code.ITEM_UNKNOWN, "resource.id is <item>/<section> of the catalogue")
            if not _NAME.fullmatch(section):
                raise Refused(Code.SECTION_UNKNOWN, "resource.id is <item>/<section> of the catalogue")
            if not _is_uscc(provider) or not _REGION.fullmatch(region):
                raise _malformed("resource.properties: provider is a credit code, region six digits (GB/T 2260)")
            return Question(access=access, sections=(section,), place=(item, provider, region), obliged=supported)
    raise _malformed("resource.type is record or section")


def _access(consumer: str, purpose: str, context: Mapping[str, Any]) -> Access:
    """Raises `Malformed`, or `Refused` (PERSONAL_ID): a text may not be kept in the trail."""
    said = {name: context.get(name, "") for name in ("ground", "citation", "case", "operator", "agent", "onward_to")}
    mode = context.get("mode", Mode.STREAM.value)
    if not _are_texts(list(said.values())) or mode not in list(Mode):
        raise _malformed(f"context: {', '.join(said)} are strings, mode is {' or '.join(Mode)}")
    check_texts(*said.values())
    if not said["operator"]:
        raise _malformed("context.operator is missing: who asks, as your department knows them")
    agent = said.pop("agent") or None
    return Access(consumer=consumer, purpose=purpose, agent=agent, mode=Mode(mode), **said)


def _sections(properties: Mapping[str, Any]) -> tuple[str, ...]:
    sections = properties.get("sections", [properties.get("section")])
    if not _are_texts(sections) or not 1 <= len(sections) <= MAX_LIST:
        raise _malformed(f"resource.properties: section, or sections, 1 to {MAX_LIST} of them")
    return tuple(dict.fromkeys(sections))


def _place(properties: Mapping[str, Any]) -> tuple[str, str, str]:
    """Item, provider and division as the caller says them, each empty if it does not."""
    item, provider, region = said = [properties.get(name, "") for name in ("item", "provider", "region")]
    if not _are_texts(said):
        raise _malformed("resource.properties: item, provider and region are strings")
    return item, provider, region


def _as_said(place: tuple[str, str, str], record: RecordFacts) -> bool:
    """A caller that takes the record for another one decides about that one."""
    item, provider, region = place
    return item in ("", record.item) and provider in ("", record.issuer) and record.region.startswith(region)


def _one_operator(read: Sequence[Question | DeptbusError]) -> list[Question | DeptbusError]:
    """The entry says who asked: one person a call. Questions of others than the first are denied."""
    first = next((one.access.operator for one in read if isinstance(one, Question)), "")
    other = _malformed("one call is of one context.operator: this evaluation names another one than the first")
    return [one if isinstance(one, DeptbusError) or one.access.operator == first else other for one in read]


def _of_now(evaluations: Iterable[Evaluation], now: datetime) -> None:
    """A time may be said, and it is now: what stood then, or will, is nothing that can be decided here."""
    for said in {one.context["time"] for one in evaluations if isinstance(one.context.get("time"), str)}:
        try:
            off = abs(datetime.fromisoformat(said) - now)
        except (ValueError, TypeError) as exc:  # no time, or without an offset
            raise _malformed("context.time is a time of RFC 3339") from exc
        if off > NOW:
            raise _malformed(f"context.time is not within {NOW.seconds // 60} minutes of now: set your clock")
    if any(not isinstance(one.context.get("time", ""), str) for one in evaluations):
        raise _malformed("context.time is a time of RFC 3339")


def _obligations(decision: Decision) -> Iterator[Obligation]:
    """What agreements and consents ask of who opens under them, each with the number or the list that they name."""
    for rule in decision.rests_on:
        if isinstance(rule, Agreement):
            yield _oblige(rule, "discard-keys", after_seconds=rule.max_age)
            yield _oblige(rule, "keep-from-others", but_for=sorted(rule.onward))
            if rule.notice is Notice.LATER_EMERGENCY:
                yield _oblige(rule, "tell-the-subject", once="the emergency is over")
        if isinstance(rule, Agreement | Consent) and rule.data_life is not None:
            yield _oblige(rule, "delete-data", after_days=rule.data_life)


def _oblige(rule: Agreement | Consent, action: str, **properties: Any) -> Obligation:
    said = {"action": action, "rule": rule.word, **properties}
    return Obligation(id=f"{action}:{rule.id}", type=OBLIGATION, properties=said)


def _fitting(words: str) -> str:
    """As many of the words as an answer has room for in the entry."""
    if len(words) <= MAX_RULE_BYTES:  # kinds, ids and numbers: ASCII
        return words
    return words[: MAX_RULE_BYTES + 1].rpartition(" ")[0]


def _page(names: list[str]) -> tuple[list[str], bool]:
    return names[:MAX_CANDIDATES], len(names) > MAX_CANDIDATES


def _is_uscc(value: Any) -> bool:
    try:
        parse_uscc(value if isinstance(value, str) else "")
    except Malformed:
        return False
    return True


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _malformed(detail: str) -> Malformed:
    return Malformed(Code.REQUEST_MALFORMED, detail)
