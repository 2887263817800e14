"""The decision: which sections of a record one consumer may open, for what, on which ground.

Denial is the default and every answer names its code. The rules and their order stand in `consent.rules`; here they are
asked of one candidate after the other: each agreement, each consent of each holder, each mandate of the agent. Pure:
facts and the time come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from typing import NamedTuple

from consent.model import (
    Access,
    Agreement,
    Basis,
    Consent,
    Decision,
    Facts,
    Ground,
    Mandate,
    Power,
    RecordFacts,
    Scope,
    SectionDecision,
    Status,
)
from consent.rules import NO_STATUS, RULES, Question, Rule, Rules, broken
from schemas.catalogue import Item, ShareClass
from schemas.errors import Code

CHINA = timezone(timedelta(hours=8))  # civil dates of licences, agreements and consents
# Looked up once, as in `consent.rules`.
_PERMIT, _UNCONDITIONAL, _CONSENT, _VALID = Code.PERMIT, ShareClass.UNCONDITIONAL, Ground.CONSENT, Status.VALID

# How far each rule is from the start, for 'the nearest miss': of several candidates the one that failed last is told.
_REACHED = {rule.name: step for step, rule in enumerate(RULES)}


class Miss(NamedTuple):
    """A rule that was not kept, and the words of the candidate that it was asked of."""

    rule: Rule
    words: str

    def nearer(self, than: Miss) -> bool:
        """Whether this candidate got further than another."""
        return _REACHED[self.rule.name] > _REACHED[than.rule.name]


def decide(
    item: Item | None,
    access: Access,
    sections: Sequence[str],
    record: RecordFacts,
    facts: Facts,
    now: datetime,
    rules: Rules = RULES,
) -> Decision:
    """One code for each section asked for, however often it is named. `now` is aware; civil days are in UTC+8."""
    if len(sections) > 1:
        sections = tuple(dict.fromkeys(sections))
    question = Question(item, access, record, facts, _day(now))
    miss = broken(rules.whole, question)
    if miss is not None:
        code = record.refusal if miss.code is None else miss.code
        return Decision(sections=tuple(SectionDecision(name, code, "") for name in sections))
    assert item is not None
    mandate: Mandate | None = None
    if access.agent is not None:
        found = choose_mandate(question, rules)
        if isinstance(found, Miss):
            code = found.rule.code or Code.UNDECIDABLE
            return Decision(sections=tuple(SectionDecision(name, code, found.words) for name in sections))
        mandate = found
    decided: list[SectionDecision] = []
    rests_on: dict[int, Basis] = {}  # by identity: the facts have each document once
    for name in sections:
        question.name = name
        answer = choose(question, rules)
        if isinstance(answer, Miss):
            decided.append(SectionDecision(name, answer.rule.code or Code.UNDECIDABLE, answer.words))
            continue
        basis = answer if mandate is None else (*answer, mandate)
        decided.append(SectionDecision(name, _PERMIT, _words(basis)))
        for one in basis:
            rests_on[id(one)] = one
    return Decision(tuple(decided), tuple(rests_on.values()))


@lru_cache(maxsize=64)  # of many questions at one moment it is worked out once
def _day(now: datetime) -> date:
    return now.astimezone(CHINA).date()


def choose_mandate(question: Question, rules: Rules = RULES) -> Mandate | Miss:
    """The agent's first mandate that is kept, else the nearest miss."""
    nearest: Miss | None = None
    for mandate in question.facts.mandates:
        question.mandate = mandate
        rule = broken(rules.mandate, question)
        if rule is None:
            return mandate
        miss = Miss(rule, mandate.word)
        if nearest is None or miss.nearer(nearest):
            nearest = miss
    return nearest or Miss(NO_MANDATE, "")


def choose(question: Question, rules: Rules = RULES) -> tuple[Basis, ...] | Miss:
    """What a section's permit rests on, else the nearest miss. The question names the section."""
    item, entry = question.item, question.facts.entry
    assert item is not None
    assert entry is not None
    question.section = item.sections.get(question.name)  # type: ignore[assignment]  # the first rule is about it
    question.statuses, question.older = NO_STATUS, False
    rule = broken(rules.section, question)
    if rule is not None:
        return Miss(rule, entry.word)
    if question.section.share is _UNCONDITIONAL:
        rule = _state(question, rules)
        return (entry,) if rule is None else Miss(rule, entry.word)
    nearest: Miss | None = None
    for agreement, power in candidates(question.facts, question.access.consumer):
        answer = _under(agreement, power, question, rules)
        if not isinstance(answer, Miss):
            return answer
        if nearest is None or answer.nearer(nearest):
            nearest = answer
    return nearest or Miss(NO_AGREEMENT, "")


def candidates(facts: Facts, consumer: str) -> list[tuple[Agreement, Power | None]]:
    """Agreements that may serve: the consumer's own, and those of departments that gave it a power to open."""
    found: list[tuple[Agreement, Power | None]] = []
    for agreement in facts.agreements:
        if agreement.consumer == consumer:
            found.append((agreement, None))
        else:
            found.extend((agreement, power) for power in facts.powers if power.grantor == agreement.consumer)
    return found


def _under(agreement: Agreement, power: Power | None, question: Question, rules: Rules) -> tuple[Basis, ...] | Miss:
    question.agreement, question.power = agreement, power
    question.statuses, question.older = agreement.statuses, agreement.superseded
    basis: tuple[Basis, ...] = (agreement,) if power is None else (agreement, power)
    rule = broken(rules.agreement, question)
    if rule is not None:
        return Miss(rule, _words(basis))
    if question.access.ground == _CONSENT:
        consents = _consents(question, rules)
        if isinstance(consents, Miss):
            return Miss(consents.rule, _words(basis) + (f" {consents.words}" if consents.words else ""))
        basis += consents
    rule = _state(question, rules)
    return basis if rule is None else Miss(rule, _words(basis))


def _state(question: Question, rules: Rules) -> Rule | None:
    """These rules speak of what is erased, or not the newest, valid version: of any other there is nothing to ask."""
    if question.status is _VALID and not (question.record.superseded or question.record.erased):
        return None
    return broken(rules.state, question)


def _consents(question: Question, rules: Rules) -> tuple[Consent, ...] | Miss:
    """A consent of every holder: a co-owner's is not another's to give."""
    found: list[Consent] = []
    for holder in question.record.holders:
        answer = _consent_of(holder, question, rules)
        if isinstance(answer, Miss):
            return answer
        found.append(answer)
    return tuple(found) if found else Miss(NO_CONSENT, "")


def _consent_of(holder: bytes, question: Question, rules: Rules) -> Consent | Miss:
    nearest: Miss | None = None
    for consent in question.facts.consents:
        scope = scope_of(consent, question.record.item, holder)
        if scope is None:
            continue
        question.consent, question.scope = consent, scope
        rule = broken(rules.consent, question)
        if rule is None:
            return consent
        miss = Miss(rule, consent.word)
        if nearest is None or miss.nearer(nearest):
            nearest = miss
    return nearest or Miss(NO_CONSENT, "")


def scope_of(consent: Consent, item: str, holder: bytes) -> Scope | None:
    """What a consent allows of this holder's records of an item; none if it does not speak of them."""
    for scope in consent.scopes:
        if scope.item == item and scope.subject == holder:
            return scope
    return None


def _words(basis: Sequence[Basis]) -> str:
    return basis[0].word if len(basis) == 1 else " ".join([one.word for one in basis])


NO_MANDATE = next(rule for rule in RULES.mandate if rule.code is Code.MANDATE_NONE)
NO_AGREEMENT = next(rule for rule in RULES.agreement if rule.code is Code.AGREEMENT_NONE)
NO_CONSENT = next(rule for rule in RULES.consent if rule.code is Code.CONSENT_NONE)
