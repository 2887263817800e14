"""Decisions of the trail, made again: the facts as they were then, the rules as they are now.

What the entry says was so, was so: what only counters and engines knew (limits, an index that stood still, a conflict)
is taken from it. What a record was, follows from the versions that had been admitted by then. A rule that has had its
last day since is in force as it was before that day; whatever else was done to rules since counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from uuid import UUID

from consent.explain import NO_NAMES, Check, Explanation, Names, explain
from consent.model import (
    Access,
    Basis,
    Facts,
    RecordFacts,
    RecordState,
    SectionDecision,
    Status,
    status_after,
)
from consent.rules import RULES, Rules
from consent.ruleset import RuleSet
from schemas.catalogue import Item
from schemas.errors import Code
from schemas.operations import Operation

# A version is admitted when the recorder says so, and read once its transaction is through; two clocks say when.
AROUND = timedelta(seconds=10)

_OF_RULES = frozenset(rule.code for rule in RULES if rule.code is not None)
# What a permit becomes after it was decided: its limit is taken, its rules change, its keys cannot be had.
_LIMITS = frozenset(
    {Code.RATE_EXCEEDED, Code.VOLUME_EXCEEDED, Code.CONSENT_USED_UP, Code.CONSENT_FREQUENCY, Code.FACTS_CHANGED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A decision as the trail has it: who asked for which record when, and every section's answer."""

    time: datetime
    access: Access
    record: bytes
    licence: bytes
    item: str
    region: str
    issuer: str
    holders: tuple[bytes, ...]
    sections: tuple[SectionDecision, ...]
    used_up: Mapping[UUID, Code]

    @property
    def codes(self) -> frozenset[Code]:
        """Every code of the answer."""
        return frozenset(one.code for one in self.sections)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A record of a licence, as it was admitted."""

    record: bytes
    sequence: int
    operation: Operation
    valid_from: date | None
    valid_until: date | None
    admitted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A section whose answer is another one now. `before` are the words of what decided; `miss` is what refuses now."""

    section: str
    was: Code
    before: str
    now: Code
    rests_on: str
    miss: Check | None


def standing(documents: Iterable[Basis], before_last_day: Mapping[UUID, str]) -> RuleSet:
    """The rules of today; those that the clock has ended since, in the state before (`before_last_day`)."""
    return RuleSet(
        replace(one, state=type(one.state)(before_last_day[one.id]))  # type: ignore[arg-type]  # of its own kind
        if one.id in before_last_day
        else one
        for one in documents
    )


def again(
    logged: Logged,
    item: Item | None,
    ruleset: RuleSet,
    versions: Sequence[Version],
    *,
    names: Names = NO_NAMES,
    rules: Rules = RULES,
) -> tuple[Again, ...]:
    """The sections that are answered otherwise now: none, if no rule has changed.

    Of the moments around the decision, the one that explains it counts: what was just being admitted may or may not
    have been read.
    """
    differences: tuple[Again, ...] = ()
    for record in _records(logged, versions):
        facts = _facts(logged, record, ruleset)
        names_ = tuple(one.section for one in logged.sections)
        made = explain(item, logged.access, names_, record, facts, logged.time, names=names, rules=rules)
        found = tuple(_differing(logged, made))
        if not found:
            return ()
        differences = differences or found
    return differences


def _differing(logged: Logged, made: Explanation) -> Iterator[Again]:
    decided = made.decision.sections
    refused = frozenset(one.code for one in decided) - {Code.PERMIT}
    for was, is_, why in zip(logged.sections, decided, made.sections, strict=True):
        if is_.code is Code.PERMIT and _taken_back(was, logged.used_up):
            continue
        if is_.code is Code.PERMIT and logged.access.set_size and was.code in refused:
            continue  # a set has a record with all the sections or not at all: one refusal was the others' answer
        if was.code is not is_.code:
            yield Again(
                section=was.section,
                was=was.code,
                before=was.rule,
                now=is_.code,
                rests_on=is_.rule if why.miss is None else "",
                miss=why.miss,
            )


def _taken_back(section: SectionDecision, used_up: Mapping[UUID, Code]) -> bool:
    """Whether it was a permit until something happened that is no rule's: its words stand, with another code.

    A limit that was reached before, too, was never permitted.
    """
    if section.code in _LIMITS:
        return bool(section.rule) and not any(str(rule) in section.rule for rule in used_up)
    return bool(section.rule) and section.code not in _OF_RULES | {Code.PERMIT}


def _facts(logged: Logged, record: RecordFacts, ruleset: RuleSet) -> Facts:
    codes = logged.codes
    known = Code.CONSUMER_UNKNOWN not in codes
    return replace(
        ruleset.facts(logged.access, record, used_up=logged.used_up, known=known),
        consumer_suspended=Code.CONSUMER_SUSPENDED in codes,
        index_fresh=Code.INDEX_STALE not in codes,
        audit_current=Code.AUDIT_STALLED not in codes,
    )


def _records(logged: Logged, versions: Sequence[Version]) -> Iterator[RecordFacts]:
    """The record as it was at the decision, then as it was at each moment around it."""
    near = [one.admitted_at for one in versions if abs(one.admitted_at - logged.time) <= AROUND]
    for moment in (logged.time, *sorted(near), *(when - timedelta(microseconds=1) for when in sorted(near))):
        yield _record(logged, [one for one in versions if one.admitted_at <= moment])


def _record(logged: Logged, admitted: Sequence[Version]) -> RecordFacts:
    newest = max(admitted, key=lambda one: one.sequence, default=None)
    own = next((one for one in admitted if one.record == logged.record), None)
    state, refusal = _state(logged)
    return RecordFacts(
        state=state,
        item=logged.item,
        issuer=logged.issuer,
        region=logged.region,
        holders=logged.holders,
        known_schema=Code.SCHEMA_UNKNOWN not in logged.codes,
        status=Status.VALID if newest is None else status_after(newest.operation),
        valid_from=None if newest is None else newest.valid_from,
        valid_until=None if newest is None else newest.valid_until,
        superseded=newest is not None and own is not None and newest.sequence > own.sequence,
        erased=Code.RECORD_ERASED in logged.codes,
        refusal=refusal,
    )


def _state(logged: Logged) -> tuple[RecordState, Code]:
    """What the index said of the record, by the answer: a refused record's own code stands in every section."""
    codes = logged.codes
    if Code.NOT_ADMITTED in codes:
        return RecordState.WAITING, Code.NOT_ADMITTED
    if Code.CONFLICT in codes:
        return RecordState.CONFLICT, Code.NOT_ADMITTED
    own = [one.code for one in logged.sections if not one.rule and one.code not in _OF_RULES | {Code.PERMIT}]
    return (RecordState.REFUSED, own[0]) if own else (RecordState.ADMITTED, Code.NOT_ADMITTED)
