"""Supervision (大数据监督): rules over the stream of audit entries, and what they find. Pure.

Every rule looks at one operator of one consumer, in the log's order and by the log's time. What is remembered of an
operator is bounded by the rules alone, and can be put away and taken back: a restart neither forgets nor fires twice.
"""

from __future__ import annotations

import tomllib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cached_property
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from bus.audit import Entry
from consent.calendar import Year, Years, is_working_time
from consent.decide import CHINA
from schemas.errors import Code, Malformed

MAX_TIMES = 1_000  # what one rule remembers of one operator: at most so many entries, some 100 KiB
MAX_RULES = 50
MAX_EVIDENCE = 16  # an entry of the log has 65,535 bytes; the trail shows what lies between
LOOK_UP = "licences:search"  # a `Reading` that found nothing; what finds something is a `Decision`

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Severity(StrEnum):
    """How soon a person should look: 提示, 警告, 严重."""

    NOTICE = "NOTICE"
    WARNING = "WARNING"
    SERIOUS = "SERIOUS"


class Operators(StrEnum):
    """Whom a rule is about. Who is a system says the file's `systems`."""

    PEOPLE = "PEOPLE"
    SYSTEMS = "SYSTEMS"
    ALL = "ALL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What of an entry the rules look at. `opened` and `refused` are both false where the answer was 'wait'."""

    at: datetime
    index: int
    entry: bytes
    consumer: str
    operator: str
    purpose: str
    case: str
    subjects: tuple[bytes, ...]
    opened: bool
    refused: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """An entry that counted: the log's time, index and leaf hash, and what it counted as (a pseudonym, or nothing)."""

    at: datetime
    index: int
    entry: bytes
    what: bytes = b""


@dataclass(slots=True)
class Memory:
    """What one rule remembers of one operator; `until` is the end of the last episode as far as it is known."""

    seen: deque[Seen] = field(default_factory=deque)
    until: datetime | None = None

    def to_json(self) -> Any:
        """For `from_json`."""
        seen = [[_micros(one.at), one.index, one.entry.hex(), one.what.hex()] for one in self.seen]
        return [None if self.until is None else _micros(self.until), seen]

    @classmethod
    def from_json(cls, document: Any) -> Memory:
        """Raises `Malformed` (DATA_CORRUPT): only this class writes such documents."""
        try:
            until, seen = document
            return cls(
                deque(Seen(_time(a), i, bytes.fromhex(e), bytes.fromhex(w)) for a, i, e, w in seen),
                None if until is None else _time(until),
            )
        except (TypeError, ValueError, OverflowError) as exc:
            raise Malformed(Code.DATA_CORRUPT, "what supervision remembers of an operator cannot be read") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule held. `entries` are leaf hashes of what it rests on: all, or the first and the last of `count`.

    `id` (16 bytes) follows from the rule and the entry that made it hold: found twice, it is the same finding.
    """

    id: bytes
    rule: Rule
    at: datetime
    consumer: str
    operator: str
    first: int
    last: int
    count: int
    entries: tuple[bytes, ...]
    detail: str


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="RULE"):
    """What every rule has; `zh` and `en` are its names."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
    zh: str
    en: str
    severity: Severity
    operators: Operators

    def judge(self, memory: Memory, act: Act, years: Years) -> Finding | None:
        """Takes an act in; the finding if an episode begins with it. Raises `Unknown`."""
        raise NotImplementedError

    def _found(self, act: Act, seen: Sequence[Seen], detail: str) -> Finding:
        hashes = list(dict.fromkeys(one.entry for one in seen))
        half = MAX_EVIDENCE // 2
        kept = hashes if len(hashes) <= MAX_EVIDENCE else hashes[:half] + hashes[-half:]
        name = "\n".join((self.id, act.consumer, act.operator, act.entry.hex()))
        return Finding(
            id=sha256(name.encode()).digest()[:16],
            rule=self,
            at=act.at,
            consumer=act.consumer,
            operator=act.operator,
            first=seen[0].index,
            last=act.index,
            count=len(hashes),
            entries=tuple(kept),
            detail=detail,
        )


class Unknown(Exception):
    """The calendar does not reach the day: nothing can be said."""


class _Window(Rule, frozen=True, kw_only=True):
    """Holds while the last `times` of what counts lie within `seconds`; an episode ends after as long without."""

    times: Annotated[int, msgspec.Meta(ge=1, le=MAX_TIMES)]
    seconds: Annotated[int, msgspec.Meta(ge=1)]
    one: ClassVar[str]  # what is counted
    many: ClassVar[str]

    def judge(self, memory: Memory, act: Act, years: Years) -> Finding | None:
        """Only the last `times` are remembered: whether they lie within `seconds` is all that is asked."""
        seen, begins = memory.seen, False
        for what in self._counts(memory, act, years):
            seen.append(Seen(act.at, act.index, act.entry, what))
            while len(seen) > self.times:
                seen.popleft()
            within = timedelta(seconds=self.seconds)
            if len(seen) == self.times and act.at - seen[0].at <= within:
                begins = begins or memory.until is None or act.at > memory.until
                memory.until = act.at + within
        return self._found(act, seen, self._detail(seen)) if begins else None

    def _counts(self, memory: Memory, act: Act, years: Years) -> Iterable[bytes]:
        """What the act counts as: nothing, once, or once a name. May forget what no longer counts."""
        raise NotImplementedError

    def _detail(self, seen: Sequence[Seen]) -> str:
        if self.times == 1:
            return self.one
        span = round((seen[-1].at - seen[0].at).total_seconds())
        return f"{len(seen)} {self.many} within {span} s (the rule: {self.times} within {self.seconds} s)"


class Burst(_Window, frozen=True, kw_only=True, tag="BURST"):
    """Many look-ups and decisions."""

    one, many = "a look-up or decision", "look-ups and decisions"

    def _counts(self, memory: Memory, act: Act, years: Years) -> Iterable[bytes]:
        return (b"",)


class Subjects(_Window, frozen=True, kw_only=True, tag="SUBJECTS"):
    """Many different subjects. Each is remembered by its newest entry: a person asked about twice is one person."""

    one, many = "a subject", "different subjects"

    def _counts(self, memory: Memory, act: Act, years: Years) -> Iterable[bytes]:
        for subject in dict.fromkeys(act.subjects):
            for one in memory.seen:
                if one.what == subject:
                    memory.seen.remove(one)
                    break
            yield subject


class Hours(_Window, frozen=True, kw_only=True, tag="HOURS"):
    """Use outside of `opens` to `closes` (civil time of China) on a working day, 调休 counted."""

    opens: time
    closes: time
    one, many = "a use out of working hours", "uses out of working hours"

    def _counts(self, memory: Memory, act: Act, years: Years) -> Iterable[bytes]:
        working = is_working_time(act.at, self.opens, self.closes, years)
        if working is None:
            raise Unknown
        return () if working else (b"",)

    def _detail(self, seen: Sequence[Seen]) -> str:
        return f"{super()._detail(seen)}, at {seen[-1].at.astimezone(CHINA):%Y-%m-%d %H:%M} in China"


class Refusals(_Window, frozen=True, kw_only=True, tag="REFUSALS"):
    """Refusals in a row: what was opened in between ends the run."""

    one, many = "a refusal", "refusals in a row"

    def _counts(self, memory: Memory, act: Act, years: Years) -> Iterable[bytes]:
        if act.opened:
            memory.seen.clear()
        return (b"",) if act.refused else ()


class Case(_Window, frozen=True, kw_only=True, tag="CASE"):
    """What was opened for one of `purposes` without naming a case."""

    purposes: Annotated[frozenset[str], msgspec.Meta(min_length=1)]
    one, many = "an opening without a case", "openings without a case"

    def _counts(self, memory: Memory, act: Act, years: Years) -> Iterable[bytes]:
        return (b"",) if act.opened and not act.case.strip() and act.purpose in self.purposes else ()


class Dormant(Rule, frozen=True, kw_only=True, tag="DORMANT"):
    """The first use after `days` of silence. Who was never seen is new, not dormant."""

    days: Annotated[int, msgspec.Meta(ge=1, le=36_500)]

    def judge(self, memory: Memory, act: Act, years: Years) -> Finding | None:
        """The last entry before the silence is evidence, too."""
        before = memory.seen.pop() if memory.seen else None
        now = Seen(act.at, act.index, act.entry)
        memory.seen.append(now)
        if before is None or act.at - before.at < timedelta(days=self.days):
            return None
        silence = (act.at - before.at).days
        return self._found(act, (before, now), f"the first use after {silence} days (the rule: {self.days} days)")


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    systems: list[tuple[str, str]] = []
    waits: frozenset[Code] = frozenset()
    years: dict[str, Year] = {}
    rules: Annotated[
        list[Burst | Subjects | Hours | Refusals | Case | Dormant], msgspec.Meta(min_length=1, max_length=MAX_RULES)
    ]


@dataclass(frozen=True)
class Rules:
    """A rules file: `systems` are (consumer, operator) shell patterns, `waits` codes that are no refusals."""

    rules: tuple[Rule, ...]
    systems: tuple[tuple[str, str], ...]
    waits: frozenset[str]
    years: Years

    @classmethod
    def load(cls, path: Path | None = None) -> Rules:
        """The file's rules, or those that come with the software. Raises `Malformed` (CONFIG_INVALID)."""
        if path is None:
            return cls.parse((resources.files("bus") / "supervision.toml").read_text("utf-8"))
        return cls.parse(path.read_text("utf-8"))

    @classmethod
    def parse(cls, text: str) -> Rules:
        """The rules of a file's text. Raises `Malformed` (CONFIG_INVALID): where, and what was expected."""
        try:
            read = msgspec.convert(tomllib.loads(text), _File)
            years = {int(year): days for year, days in read.years.items()}
        except (msgspec.ValidationError, ValueError, RecursionError) as exc:
            raise Malformed(Code.CONFIG_INVALID, f"supervision rules: {exc}") from exc
        if len({rule.id for rule in read.rules}) < len(read.rules):
            raise Malformed(Code.CONFIG_INVALID, "supervision rules: two rules have one id")
        waits = frozenset(code.value for code in read.waits)
        return cls(tuple(read.rules), tuple(read.systems), waits, years)

    @cached_property
    def _about(self) -> Mapping[Operators, tuple[Rule, ...]]:
        who = (Operators.PEOPLE, Operators.SYSTEMS)
        return {one: tuple(r for r in self.rules if r.operators in (one, Operators.ALL)) for one in who}

    def about(self, consumer: str, operator: str) -> tuple[Rule, ...]:
        """The rules for that operator."""
        system = any(fnmatchcase(consumer, c) and fnmatchcase(operator, o) for c, o in self.systems)
        return self._about[Operators.SYSTEMS if system else Operators.PEOPLE]


Operator = tuple[str, str]  # a consumer's credit code, and the name of its operator


class Watch:
    """Feeds entries to rules.

    `unknown` counts what a rule could say nothing about. `changed` are the operators to put away (`remembered`) since
    `put_away` was last called; one that is not `knows` must be taken back (`remember`) before its entry is fed.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._memories: dict[Operator, dict[str, Memory]] = {}
        self.changed: set[Operator] = set()
        self.unknown = 0

    def feed(self, index: int, logged_at: datetime, entry: Entry) -> list[Finding]:
        """What the entry, at this index of the log and logged at this time, makes hold. Most kinds are no use of data.

        A finding in the log is not looked at: rules about rules would never rest.
        """
        act = _act(index, logged_at, entry, self._rules.waits)
        if act is None:
            return []
        operator = (act.consumer, act.operator)
        memories = self._memories[operator] = self._memories.pop(operator, {})  # the latest stands last
        self.changed.add(operator)
        return list(self._judge(memories, act))

    def knows(self, operator: Operator) -> bool:
        """Whether it is in memory."""
        return operator in self._memories

    def remembered(self, operator: Operator) -> Any:
        """What is known of an operator, for `remember`: JSON."""
        return {rule: memory.to_json() for rule, memory in self._memories[operator].items()}

    def remember(self, operator: Operator, document: Any) -> None:
        """Takes back what was put away; what other rules than today's remembered is left out. Raises `Malformed`."""
        known = {rule.id for rule in self._rules.rules}
        kept = {rule: Memory.from_json(one) for rule, one in document.items() if rule in known}
        self._memories[operator] = kept

    def put_away(self, most: int) -> None:
        """Nothing is `changed` any more; all but `most` operators, the latest, leave the memory."""
        self.changed.clear()
        for operator in list(self._memories)[: max(0, len(self._memories) - most)]:
            del self._memories[operator]

    def _judge(self, memories: dict[str, Memory], act: Act) -> Iterator[Finding]:
        for rule in self._rules.about(act.consumer, act.operator):
            try:
                found = rule.judge(memories.setdefault(rule.id, Memory()), act, self._rules.years)
            except Unknown:
                self.unknown += 1
                continue
            if found is not None:
                yield found


def operator_of(entry: Entry) -> Operator | None:
    """Whose use of data an entry speaks of, or None if of nobody's."""
    if entry.kind == "Decision":
        return entry.body["consumer"], entry.body["operator"]
    if entry.kind == "Reading" and entry.body["what"] == LOOK_UP:
        return entry.body["reader"], entry.body["operator"]
    return None


def _act(index: int, at: datetime, entry: Entry, waits: frozenset[str]) -> Act | None:
    operator = operator_of(entry)
    if operator is None:
        return None
    body = entry.body
    codes = [section["code"] for section in body.get("sections", ())]
    opened = Code.PERMIT in codes
    return Act(
        at=at,
        index=index,
        entry=entry.leaf_hash,
        consumer=operator[0],
        operator=operator[1],
        purpose=body.get("purpose", ""),
        case=body.get("case", ""),
        subjects=tuple(body["subjects"]),
        opened=opened,
        refused=not opened and any(code not in waits for code in codes),
    )


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
