"""Why a decision is as it is: which documents decided, or which rule the nearest candidate broke, in two languages.

The same rules over the same candidates as `consent.decide`, but asked to the end: a candidate is told with every rule
that was asked of it. What is explained is what is decided, for every question; the tests hold that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from string import Formatter
from types import MappingProxyType
from typing import Any
from uuid import UUID

from consent.decide import CHINA, NO_AGREEMENT, NO_CONSENT, NO_MANDATE, Miss, candidates, scope_of
from consent.law import GROUNDS
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
    SectionDecision,
)
from consent.purposes import PURPOSES
from consent.rules import RULES, Question, Rule, Rules
from schemas.catalogue import Catalogue, Item, ShareClass
from schemas.divisions import Divisions
from schemas.errors import Code

STATES: Mapping[str, str] = MappingProxyType(
    {
        "SUBMITTED": "申请",
        "RETURNED": "退回补正",
        "ACCEPTED": "受理",
        "REFUSED": "不予共享",
        "APPROVED": "同意共享",
        "PROVISIONED": "提供",
        "ACTIVE": "有效",
        "SUSPENDED": "暂停",
        "EXPIRED": "到期",
        "TERMINATED": "终止",
        "ENDED": "收回",
    }
)
_NONE: Mapping[str, tuple[str, str]] = MappingProxyType(  # what a value that is not there says; else 'none'
    {
        "regions": ("everywhere", "全国"),
        "valid_until": ("no end", "无期限"),
        "purpose_until": ("no end", "无期限"),
        "set_until": ("no end", "无期限"),
    }
)
_DEPARTMENTS = frozenset(("consumer", "provider", "issuer", "onward_to", "grantor", "grantee", "recipient"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What departments are called, by credit code. Purposes, items, divisions and grounds have their own."""

    departments: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, what: str, value: str) -> str:
        """The Chinese name of one value of a field; empty if it has none."""
        match what.removesuffix("s"):
            case "purpose":
                return PURPOSES.get(value, "")
            case "ground":
                return GROUNDS.get(value, "")
            case "item":
                item = Catalogue.load().items.get(value)
                return "" if item is None else item.zh
            case "region":
                division = Divisions.load().by_code(value.ljust(6, "0"))
                return "" if division is None else division.name
            case "state":
                return STATES.get(value, "")
        return self.departments.get(value, "") if what in _DEPARTMENTS else ""


NO_NAMES = Names()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A rule that was asked of a candidate. `of` are the candidate's words; the sentences say why it is not kept."""

    rule: Rule
    of: str
    kept: bool
    en: str = ""
    zh: str = ""

    def to_json(self) -> dict[str, Any]:
        """As answers show it."""
        rule = self.rule
        code = "" if rule.code is None else rule.code.value
        return {
            "rule": rule.name,
            "code": code,
            "basis": rule.basis,
            "verified": rule.verified,
            "kept": self.kept,
            "of": self.of,
            "en": self.en,
            "zh": self.zh,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Documents that could have decided together, and every rule that was asked of them, in order."""

    basis: tuple[Basis, ...]
    checks: tuple[Check, ...]

    @property
    def broken(self) -> Check | None:
        """The first rule that it does not keep."""
        return next((check for check in self.checks if not check.kept), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionExplanation:
    """One section's answer: `decided` is the candidate that permits, or came nearest; `others` are those beside it.

    `code` is the record's own where that refuses it (`record-not-refused`).
    """

    section: str
    code: Code
    decided: Candidate
    others: tuple[Candidate, ...] = ()

    @property
    def miss(self) -> Check | None:
        """The rule that refuses; none of a permit."""
        return self.decided.broken

    def to_json(self, *, checks: bool) -> dict[str, Any]:
        """As answers show it; with every rule only if asked."""
        miss = self.miss
        return {
            "section": self.section,
            "code": self.code.value,
            "rests_on": [one.word for one in self.decided.basis] if miss is None else [],
            "miss": None if miss is None else miss.to_json(),
            "candidates": [
                [check.to_json() for check in one.checks] for one in ((self.decided, *self.others) if checks else ())
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Of every section asked for, in the order asked."""

    sections: tuple[SectionExplanation, ...]

    @property
    def decision(self) -> Decision:
        """What `decide` says."""
        sections: list[SectionDecision] = []
        rests_on: dict[UUID, Basis] = {}
        for one in self.sections:
            miss = one.miss
            if miss is None:
                sections.append(SectionDecision(one.section, one.code, _words(one.decided.basis)))
                rests_on |= {basis.id: basis for basis in one.decided.basis}
            else:
                sections.append(SectionDecision(one.section, one.code, miss.of))
        return Decision(sections=tuple(sections), rests_on=tuple(rests_on.values()))

    def to_json(self, *, checks: bool = False) -> list[dict[str, Any]]:
        """As answers show it."""
        return [one.to_json(checks=checks) for one in self.sections]


def explain(
    item: Item | None,
    access: Access,
    sections: Sequence[str],
    record: RecordFacts,
    facts: Facts,
    now: datetime,
    *,
    names: Names = NO_NAMES,
    rules: Rules = RULES,
) -> Explanation:
    """Why `decide` answers as it does to the same question."""
    sections = tuple(dict.fromkeys(sections))
    asking = _Asking(Question(item, access, record, facts, now.astimezone(CHINA).date()), names, rules)
    whole = asking.until_broken(rules.whole, "")
    if whole.broken is not None:
        code = whole.broken.rule.code or record.refusal
        return Explanation(
            sections=tuple(SectionExplanation(section=name, code=code, decided=whole) for name in sections)
        )
    mandate: Mandate | None = None
    if access.agent is not None:
        found, others = asking.mandates()
        if found.broken is not None:
            code = found.broken.rule.code or Code.UNDECIDABLE
            return Explanation(
                sections=tuple(
                    SectionExplanation(section=name, code=code, decided=found, others=others) for name in sections
                )
            )
        (mandate,) = found.basis  # type: ignore[assignment]  # of a mandate's candidate, the mandate
    return Explanation(sections=tuple(asking.section(name, mandate) for name in sections))


class _Asking:
    """One question, asked of every candidate."""

    def __init__(self, question: Question, names: Names, rules: Rules) -> None:
        self._question = question
        self._names = names
        self._rules = rules

    def until_broken(self, rules: Sequence[Rule], of: str, *basis: Basis) -> Candidate:
        """Rules that each presuppose those before them."""
        checks: list[Check] = []
        for rule in rules:
            checks.append(self._check(rule, of))
            if not checks[-1].kept:
                break
        return Candidate(basis=basis, checks=tuple(checks))

    def mandates(self) -> tuple[Candidate, tuple[Candidate, ...]]:
        """The agent's first mandate that is kept, else the nearest miss; and the others."""
        found: list[Candidate] = []
        for mandate in self._question.facts.mandates:
            self._question.mandate = mandate
            found.append(Candidate(basis=(mandate,), checks=tuple(self._all(self._rules.mandate, mandate.word))))
        return self._nearest(found, NO_MANDATE)

    def section(self, name: str, mandate: Mandate | None) -> SectionExplanation:
        """A section's answer. A permit rests on the agent's mandate, too."""
        decided, others = self._decided(name)
        code = Code.PERMIT if decided.broken is None else decided.broken.rule.code or Code.UNDECIDABLE
        if mandate is not None and decided.broken is None:
            decided = Candidate(basis=(*decided.basis, mandate), checks=decided.checks)
        return SectionExplanation(section=name, code=code, decided=decided, others=others)

    def _decided(self, name: str) -> tuple[Candidate, tuple[Candidate, ...]]:
        question, rules = self._question, self._rules
        item, entry = question.item, question.facts.entry
        assert item is not None
        assert entry is not None
        question.name = name
        question.section = item.sections.get(name)  # type: ignore[assignment]  # the first rule is about it
        question.statuses, question.older = frozenset(), False
        alone = self.until_broken(rules.section, entry.word, entry)
        if alone.broken is not None:
            return alone, ()
        if question.section.share is ShareClass.UNCONDITIONAL:
            return Candidate(basis=(entry,), checks=(*alone.checks, *self._all(rules.state, entry.word))), ()
        found = [self._under(*one) for one in candidates(question.facts, question.access.consumer)]
        return self._nearest(found, NO_AGREEMENT)

    def _under(self, agreement: Agreement, power: Power | None) -> Candidate:
        question, rules = self._question, self._rules
        question.agreement, question.power = agreement, power
        question.statuses, question.older = agreement.statuses, agreement.superseded
        basis: tuple[Basis, ...] = (agreement,) if power is None else (agreement, power)
        words = _words(basis)
        checks = list(self._all(rules.agreement, words))
        if question.access.ground == Ground.CONSENT:
            for consent, asked in self._consents(words):
                checks += asked
                basis += () if consent is None else (consent,)
        checks += self._all(rules.state, _words(basis))
        return Candidate(basis=basis, checks=tuple(checks))

    def _consents(self, words: str) -> Iterator[tuple[Consent | None, tuple[Check, ...]]]:
        """Each holder's consent, or nearest miss; of nobody there is none."""
        holders = self._question.record.holders
        if not holders:
            yield None, (self._not(NO_CONSENT, words),)
        for holder in holders:
            found: list[Candidate] = []
            for consent in self._question.facts.consents:
                scope = scope_of(consent, self._question.record.item, holder)
                if scope is None:
                    continue
                self._question.consent, self._question.scope = consent, scope
                checks = tuple(self._all(self._rules.consent, f"{words} {consent.word}"))
                found.append(Candidate(basis=(consent,), checks=checks))
            nearest, _ = self._nearest(found, NO_CONSENT, words)
            kept = nearest.broken is None
            yield nearest.basis[0] if kept else None, nearest.checks  # type: ignore[misc]  # a consent's candidate

    def _nearest(
        self, found: Sequence[Candidate], none: Rule, words: str = ""
    ) -> tuple[Candidate, tuple[Candidate, ...]]:
        """The first that is kept; else the first of those that came furthest, as `decide` has it; and the others."""
        nearest: tuple[Miss, Candidate] | None = None
        for one in found:
            broken = one.broken
            if broken is None:
                return one, tuple(other for other in found if other is not one)
            miss = Miss(broken.rule, broken.of)
            if nearest is None or miss.nearer(nearest[0]):
                nearest = miss, one
        if nearest is None:
            return Candidate(basis=(), checks=(self._not(none, words),)), ()
        return nearest[1], tuple(other for other in found if other is not nearest[1])

    def _all(self, rules: Sequence[Rule], of: str) -> Iterator[Check]:
        return (self._check(rule, of) for rule in rules)

    def _check(self, rule: Rule, of: str) -> Check:
        return Check(rule=rule, of=of, kept=True) if rule.kept(self._question) else self._not(rule, of)

    def _not(self, rule: Rule, of: str) -> Check:
        said = (filled(text, self._question, self._names, zh=zh) for text, zh in ((rule.en, False), (rule.zh, True)))
        return Check(rule=rule, of=of, kept=False, en=next(said), zh=next(said))


def filled(template: str, question: Question, names: Names = NO_NAMES, *, zh: bool) -> str:
    """A rule's sentence. A field is a value of the question, or one field of a document in it: nothing else is read."""
    parts: list[str] = []
    for text, name, _, _ in Formatter().parse(template):
        parts.append(text)
        if name is not None:
            of, _, what = name.partition(".")
            value = getattr(question, of)
            parts.append(said(what or "section", getattr(value, what) if what else value, names, zh=zh))
    return "".join(parts)


def said(what: str, value: Any, names: Names = NO_NAMES, *, zh: bool) -> str:
    """A field's value in a sentence: names beside ids, sets joined, days as they are."""
    if value is None or value == "" or value == frozenset():
        return _NONE.get(what, ("none", "无"))[zh]
    if isinstance(value, frozenset):
        return ("、" if zh else ", ").join(said(what, one, names, zh=zh) for one in sorted(value))
    if isinstance(value, (date, int)):
        return str(value)
    text = value.value if isinstance(value, StrEnum) else str(value)
    name = names.of(what, text)
    if not name:
        return text
    return f"{name}（{text}）" if zh else f"{text} ({name})"


def _words(basis: Sequence[Basis]) -> str:
    return " ".join([one.word for one in basis])
