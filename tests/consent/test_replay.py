"""Decisions made again: the same under the same rules, whatever engines and counters knew; others where one changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings

from consent.decide import decide
from consent.model import Agreement, AgreementState, Basis, ConsentState, RecordState, SectionDecision, Status
from consent.replay import AROUND, Again, Logged, Version, again, standing
from consent.ruleset import RuleSet
from schemas.errors import Code
from schemas.operations import Operation
from tests.consent.sound import (
    AGREEMENT,
    BY_DUTY,
    CONSENT,
    FACTS,
    ITEM,
    OPEN,
    PLAIN,
    TODAY,
    Case,
    by_duty,
    of_set,
    with_record,
)
from tests.consent.test_laws import CASES

THIS, NEWER = b"\x0a" * 32, b"\x0b" * 32
_OPERATIONS = {
    Status.VALID: Operation.ISSUED,
    Status.SUSPENDED: Operation.SUSPENDED,
    Status.CANCELLED: Operation.CANCELLED,
    Status.REVOKED: Operation.REVOKED,
    Status.PUNISHED: Operation.PUNISHED,
    Status.ERASED: Operation.ERASED,
}


def rules_of(case: Case) -> tuple[Basis, ...]:
    """The documents of a case, each once."""
    facts = case.facts
    found: tuple[Basis, ...] = (*facts.agreements, *facts.consents, *facts.powers, *facts.mandates)
    return found if facts.entry is None else (*found, facts.entry)


def versions_of(case: Case) -> list[Version]:
    """What was admitted an hour before: the newest version says what became of the licence."""
    record = case.record
    first = Version(
        record=THIS,
        sequence=1,
        operation=Operation.ISSUED,
        valid_from=record.valid_from,
        valid_until=record.valid_until,
        admitted_at=case.now - timedelta(hours=1),
    )
    operation = _OPERATIONS[record.status]
    if not record.superseded:
        return [replace(first, operation=operation)]
    return [first, replace(first, record=NEWER, sequence=2, operation=operation)]


def logged_of(case: Case) -> Logged:
    """What the trail has of a case's decision."""
    decision = decide(case.item, case.access, case.sections, case.record, case.facts, case.now)
    return Logged(
        time=case.now,
        access=case.access,
        record=THIS,
        licence=b"\x0c" * 32,
        item=case.record.item,
        region=case.record.region,
        issuer=case.record.issuer,
        holders=case.record.holders,
        sections=decision.sections,
        used_up=case.facts.used_up,
    )


def replayed(
    case: Case, rules: tuple[Basis, ...] | None = None, ended: Mapping[UUID, str] | None = None, **changed: Any
) -> tuple[Again, ...]:
    logged = replace(logged_of(case), **changed)
    ruleset = standing(rules_of(case) if rules is None else rules, ended or {})
    return again(logged, case.item, ruleset, versions_of(case))


@settings(max_examples=100, deadline=None)
@given(CASES)
def test_under_the_same_rules_nothing_differs(case: Case) -> None:
    """Permits and refusals of every code, by the trail's entry alone: no engine and no counter is asked again."""
    unique = {one.id for one in rules_of(case)}
    if len(unique) < len(rules_of(case)) or case.record.status not in _OPERATIONS:
        return
    facts = RuleSet(rules_of(case)).facts(case.access, case.record, used_up=case.facts.used_up)
    engines = ("consumer_known", "consumer_suspended", "index_fresh", "audit_current")
    case = replace(case, facts=replace(facts, **{name: getattr(case.facts, name) for name in engines}))
    assert replayed(case) == ()


def test_what_was_withdrawn_or_ended_since_differs_with_its_rule() -> None:
    case = Case(sections=(PLAIN,))
    withdrawn = (AGREEMENT, replace(CONSENT, state=ConsentState.WITHDRAWN), *rules_of(case)[2:])
    (one,) = replayed(case, withdrawn)
    assert (one.was, one.now) == (Code.PERMIT, Code.CONSENT_WITHDRAWN)
    assert one.before == f"{AGREEMENT.word} {CONSENT.word}"
    assert one.miss is not None
    assert one.miss.rule.name == "consent-not-withdrawn"
    ended = (replace(AGREEMENT, state=AgreementState.TERMINATED), *rules_of(case)[1:])
    (one,) = replayed(case, ended)
    assert one.now is Code.AGREEMENT_ENDED


def test_what_the_clock_ended_since_was_in_force_then() -> None:
    """An agreement that expired tomorrow says nothing against today; one that a party ended does."""
    case = by_duty()
    expired: Agreement = replace(AGREEMENT, state=AgreementState.EXPIRED, valid_until=TODAY)
    rules = (expired, *rules_of(case)[1:])
    assert replayed(case, rules, {AGREEMENT.id: "ACTIVE"}) == ()
    (one,) = replayed(case, rules)
    assert one.now is Code.AGREEMENT_ENDED
    (one,) = replayed(case, rules, {AGREEMENT.id: "SUSPENDED"})
    assert one.now is Code.AGREEMENT_SUSPENDED


@pytest.mark.parametrize("code", [Code.RATE_EXCEEDED, Code.FACTS_CHANGED, Code.SESSION_ERASED])
def test_a_permit_that_was_taken_back_is_no_difference(code: Code) -> None:
    """Limits are taken and keys are looked for after a decision: the entry has the permit's words, and that code."""
    case = by_duty()
    back = tuple(SectionDecision(one.section, code, one.rule) for one in logged_of(case).sections)
    assert replayed(case, sections=back) == ()
    refused = (replace(AGREEMENT, state=AgreementState.SUSPENDED), *rules_of(case)[1:])
    (one,) = replayed(case, refused, sections=back)
    assert (one.was, one.now) == (code, Code.AGREEMENT_SUSPENDED)


def test_a_record_that_a_set_has_not_is_refused_whole() -> None:
    """One section's refusal stands for the others, which were permitted."""
    case = replace(of_set(2), sections=(PLAIN, OPEN, "other"))
    logged = logged_of(case)
    assert [one.code for one in logged.sections] == [Code.PERMIT, Code.PERMIT, Code.SECTION_UNKNOWN]
    whole = tuple(SectionDecision(one.section, Code.SECTION_UNKNOWN, one.rule) for one in logged.sections)
    assert replayed(case, sections=whole) == ()
    alone = replace(logged.access, set_size=0)
    assert [one.now for one in replayed(case, sections=whole, access=alone)] == [Code.PERMIT, Code.PERMIT]


def test_a_limit_that_was_reached_before_is_no_permit_that_was_taken_back() -> None:
    """Another agreement that permits it now is a difference."""
    case = replace(by_duty(), facts=replace(FACTS, consents=(), used_up={AGREEMENT.id: Code.RATE_EXCEEDED}))
    assert replayed(case) == ()
    other = replace(AGREEMENT, id=UUID(int=33))
    (one,) = replayed(case, (other, *rules_of(case)))
    assert (one.was, one.now, one.rests_on) == (Code.RATE_EXCEEDED, Code.PERMIT, other.word)


@pytest.mark.parametrize(
    ("code", "state"),
    [(Code.CONFLICT, RecordState.CONFLICT), (Code.NOT_ADMITTED, RecordState.WAITING)],
)
def test_what_the_index_said_is_taken_from_the_entry(code: Code, state: RecordState) -> None:
    case = with_record(state=state)
    assert {one.code for one in logged_of(case).sections} == {code}
    assert replayed(case) == ()
    refused = with_record(state=RecordState.REFUSED, refusal=Code.SESSION_LATE)
    assert replayed(refused) == ()


def test_later_versions_are_not_yet_there_and_those_just_admitted_may_be() -> None:
    """What came a minute later was not read; what came a second before may not have been."""
    case = Case(access=BY_DUTY, sections=(PLAIN,))
    first = versions_of(case)[0]
    newer = replace(first, record=NEWER, sequence=2, operation=Operation.REVOKED)

    def made(after: timedelta) -> tuple[Again, ...]:
        versions = [first, replace(newer, admitted_at=case.now + after)]
        return again(logged_of(case), ITEM, RuleSet(rules_of(case)), versions)

    assert made(timedelta(minutes=1)) == ()
    assert made(timedelta(seconds=-1)) == ()
    assert [one.now for one in made(-2 * AROUND)] == [Code.SUPERSEDED]
