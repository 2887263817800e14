"""What a change of rules newly permits, and what it no longer permits: over every question that parties can ask.

A question is (consumer, provider, item, section, purpose, ground). It is permitted if it is for some region and some
citation that an agreement names, of a licence's newest and valid version, looked up at the counter, every holder
consenting where the ground is consent. What lies outside (modes, limits, periods to come) is told as the fields of the
documents that differ.

Exact, without asking each question: only departments whose candidates differ are asked for; of purposes that nothing at
hand tells apart, one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from itertools import product
from typing import Any

from consent.decide import CHINA, candidates
from consent.model import (
    Access,
    Agreement,
    Basis,
    Facts,
    Ground,
    Power,
    PowerKind,
    RecordFacts,
    RecordState,
    Status,
)
from consent.purposes import TREE, ancestors
from consent.rules import RULES, Question, Rules, broken
from consent.ruleset import RuleSet
from schemas.catalogue import Item, ShareClass
from schemas.errors import Code, Malformed

MOST = 10_000_000  # questions: about a minute where every single one differs
GROUNDS = tuple(ground.value for ground in Ground)
PURPOSES = tuple(TREE)
_ALL = (1 << len(PURPOSES)) - 1

Asked = tuple[str, str, str, str, str, str]  # consumer, provider, item, section, purpose, ground
Candidates = tuple[tuple[Agreement, Power | None], ...]
Permits = dict[tuple[str, str], int]  # by section and ground, the purposes as bits


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Group:
    """Questions that changed alike: every combination of these."""

    provider: str
    item: str
    consumers: tuple[str, ...]
    sections: tuple[str, ...]
    grounds: tuple[str, ...]
    purposes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.consumers) * len(self.sections) * len(self.grounds) * len(self.purposes)

    def __iter__(self) -> Iterator[Asked]:
        for consumer, section, purpose, ground in product(self.consumers, self.sections, self.purposes, self.grounds):
            yield consumer, self.provider, self.item, section, purpose, ground


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A document that differs: its word before or after, and which fields; all of one that is new or gone."""

    before: str
    after: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """`space` is how many questions there are; no question is in two groups."""

    space: int
    permits: tuple[Group, ...]
    refuses: tuple[Group, ...]
    documents: tuple[Changed, ...]

    @property
    def differs(self) -> bool:
        """Whether any question is answered otherwise."""
        return bool(self.permits or self.refuses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Who asks, and who provides which item: the departments that either set of rules names."""

    parties: tuple[str, ...]
    providers: Mapping[str, tuple[str, ...]]
    items: Mapping[str, Item]

    @property
    def size(self) -> int:
        """How many questions there are."""
        places = sum(len(some) * len(self.items[item].sections) for item, some in self.providers.items())
        return places * len(self.parties) * len(PURPOSES) * len(GROUNDS)


def space(rules: Iterable[RuleSet], items: Mapping[str, Item]) -> Space:
    """The questions that these sets of rules speak of."""
    parties: set[str] = set()
    providers: dict[str, set[str]] = {name: set() for name in items}
    for document in (one for some in rules for one in some.documents.values()):
        match document:
            case Agreement():
                parties |= {document.provider, document.consumer}
                providers.setdefault(document.item, set()).add(document.provider)
            case Power():
                parties |= {document.grantor, document.grantee}
                if document.right is PowerKind.ISSUE:
                    for item in document.items:
                        providers.setdefault(item, set()).add(document.grantee)
    return Space(
        parties=tuple(sorted(parties)),
        providers={item: tuple(sorted(some)) for item, some in sorted(providers.items()) if item in items},
        items=items,
    )


def diff(
    before: RuleSet,
    after: RuleSet,
    items: Mapping[str, Item],
    now: datetime,
    rules: Rules = RULES,
    *,
    most: int = MOST,
) -> Diff:
    """Every question that one set answers otherwise than the other, now.

    Raises `Malformed` (REQUEST_TOO_LARGE), saying how many questions there are, if they are more than `most`.
    """
    asked = space((before, after), items)
    if asked.size > most:
        raise Malformed(
            Code.REQUEST_TOO_LARGE,
            f"{asked.size:,} questions of {len(asked.parties)} departments: at most {most:,}; leave some out",
        )
    old, new = _Side(before, asked, now, rules), _Side(after, asked, now, rules)
    permits: dict[Group, list[str]] = {}
    refuses: dict[Group, list[str]] = {}
    for item, providers in asked.providers.items():
        for provider in providers:
            for consumers, was, is_ in _differing(old, new, provider, item):
                for found, a, b in ((permits, is_, was), (refuses, was, is_)):
                    for box in _boxes(provider, item, {key: mask & ~b.get(key, 0) for key, mask in a.items()}):
                        found.setdefault(box, []).extend(consumers)
    return Diff(
        space=asked.size,
        permits=_merged(permits),
        refuses=_merged(refuses),
        documents=tuple(_documents(before.documents, after.documents)),
    )


def _differing(old: _Side, new: _Side, provider: str, item: str) -> Iterator[tuple[tuple[str, ...], Permits, Permits]]:
    """Consumers for whom something may have changed, with what either side permits them."""
    was, is_ = old.to_anybody(provider, item), new.to_anybody(provider, item)
    if was != is_:
        yield old.space.parties, was, is_
    opens = old.opens(provider, item), new.opens(provider, item)
    for consumer in sorted(old.concerned(provider, item) | new.concerned(provider, item)):
        before, after = old.candidates(consumer, provider, item), new.candidates(consumer, provider, item)
        if before != after or opens[0] != opens[1]:
            named = frozenset().union(*(_purposes(one) for one in (*before, *after)))
            alike = _alike(named)
            some = old.permitted(provider, item, before, alike) if opens[0] else {}
            others = new.permitted(provider, item, after, alike) if opens[1] else {}
            if some != others:
                yield (consumer,), some, others


class _Side:
    """One of the two sets."""

    def __init__(self, ruleset: RuleSet, asked: Space, now: datetime, rules: Rules) -> None:
        self.space = asked
        self._ruleset = ruleset
        self._today = now.astimezone(CHINA).date()
        self._rules = rules
        self._openers: dict[str, list[str]] = {}
        self._consumers: dict[tuple[str, str], set[str]] = {}
        for document in ruleset.documents.values():
            if isinstance(document, Power):
                self._openers.setdefault(document.grantor, []).append(document.grantee)
            elif isinstance(document, Agreement):
                self._consumers.setdefault((document.provider, document.item), set()).add(document.consumer)

    def concerned(self, provider: str, item: str) -> set[str]:
        """Departments that have a candidate."""
        own = self._consumers.get((provider, item), set())
        return own | {grantee for one in own for grantee in self._openers.get(one, ())}

    def candidates(self, consumer: str, provider: str, item: str) -> Candidates:
        """The agreements that may serve a consumer, with the powers that it would use them by."""
        return tuple(candidates(self._facts(consumer, provider, item), consumer))

    def opens(self, provider: str, item: str) -> bool:
        """Whether the item is in the catalogue, so that anything of it opens."""
        return broken(self._rules.whole, self._question("", provider, item)) is None

    def to_anybody(self, provider: str, item: str) -> Permits:
        """What opens without any agreement: whoever asks, for whatever, on whatever ground."""
        question = self._question("", provider, item)
        if broken(self._rules.whole, question) is not None:
            return {}
        return {
            (name, ground): _ALL
            for name, section in self.space.items[item].sections.items()
            if self._asks(question, name) and section.share is ShareClass.UNCONDITIONAL
            if broken(self._rules.state, question) is None
            for ground in GROUNDS
        }

    def permitted(self, provider: str, item: str, some: Candidates, alike: Mapping[str, int]) -> Permits:
        """What these candidates permit of sections that need one. `alike` has a purpose for each kind, and its bits."""
        found: Permits = {}
        for agreement, power in some:
            question = self._question(agreement.consumer if power is None else power.grantee, provider, item)
            question.agreement, question.power = agreement, power
            question.statuses, question.older = agreement.statuses, agreement.superseded
            records = [replace(question.record, region=region) for region in _regions(agreement, power)]
            citation = max(agreement.duties, default="")  # any: the rules ask only whether it is named
            sections = [
                name
                for name, section in self.space.items[item].sections.items()
                if self._asks(question, name) and section.share is not ShareClass.UNCONDITIONAL
            ]
            for ground, (purpose, bits) in product(GROUNDS, alike.items()):
                question.access = replace(question.access, purpose=purpose, ground=ground, citation=citation)
                for name in sections:
                    before = found.get((name, ground), 0)
                    if before & bits != bits and self._kept(question, name, records):
                        found[name, ground] = before | bits
        return found

    def _asks(self, question: Question, name: str) -> bool:
        question.name, question.section = name, self.space.items[question.record.item].sections[name]
        return broken(self._rules.section, question) is None

    def _kept(self, question: Question, name: str, records: Iterable[RecordFacts]) -> bool:
        question.name, question.section = name, self.space.items[question.record.item].sections[name]
        for record in records:
            question.record = record
            if broken(self._rules.agreement, question) is None and broken(self._rules.state, question) is None:
                return True
        return False

    def _facts(self, consumer: str, provider: str, item: str) -> Facts:
        return self._ruleset.facts(_access(consumer), _record(provider, item))

    def _question(self, consumer: str, provider: str, item: str) -> Question:
        facts = self._facts(consumer, provider, item)
        return Question(self.space.items[item], _access(consumer), _record(provider, item), facts, self._today)


def _access(consumer: str) -> Access:
    return Access(consumer=consumer, purpose="", ground="", citation="", case="")


def _record(provider: str, item: str) -> RecordFacts:
    """The newest and valid version of a licence."""
    return RecordFacts(
        state=RecordState.ADMITTED,
        item=item,
        issuer=provider,
        region="000000",
        holders=(),
        known_schema=True,
        status=Status.VALID,
        valid_from=None,
        valid_until=None,
        superseded=False,
    )


def _regions(agreement: Agreement, power: Power | None) -> list[str]:
    """Divisions of which one lies in whatever these two have in common: their own, since prefixes nest or are apart."""
    named = agreement.regions | (frozenset() if power is None else power.regions)
    return sorted({prefix.ljust(6, "0") for prefix in named}) or ["000000"]


def _purposes(candidate: tuple[Agreement, Power | None]) -> frozenset[str]:
    agreement, power = candidate
    return agreement.purposes if power is None else agreement.purposes | power.purposes


def _alike(named: frozenset[str]) -> dict[str, int]:
    """A purpose of each kind that documents which name these can tell apart, with the bits of all of its kind."""
    kinds: dict[frozenset[str], tuple[str, int]] = {}
    for place, purpose in enumerate(PURPOSES):
        kind = named.intersection(ancestors(purpose))
        first, bits = kinds.get(kind, (purpose, 0))
        kinds[kind] = first, bits | 1 << place
    return dict(kinds.values())


def _boxes(provider: str, item: str, changed: Permits) -> Iterator[Group]:
    """Groups (as yet of no consumer) that hold each of these questions once."""
    by_purposes: dict[int, dict[str, list[str]]] = {}
    for (section, ground), mask in changed.items():
        if mask:
            by_purposes.setdefault(mask, {}).setdefault(section, []).append(ground)
    for mask, sections in by_purposes.items():
        by_grounds: dict[tuple[str, ...], list[str]] = {}
        for section, grounds in sections.items():
            by_grounds.setdefault(tuple(sorted(grounds)), []).append(section)
        for grounds_, some in by_grounds.items():
            purposes = tuple(purpose for place, purpose in enumerate(PURPOSES) if mask >> place & 1)
            yield Group(
                provider=provider,
                item=item,
                consumers=(),
                sections=tuple(sorted(some)),
                grounds=grounds_,
                purposes=purposes,
            )


def _merged(found: Mapping[Group, list[str]]) -> tuple[Group, ...]:
    return tuple(sorted(replace(box, consumers=tuple(sorted(consumers))) for box, consumers in found.items()))


def _documents(before: Mapping[Any, Basis], after: Mapping[Any, Basis]) -> Iterator[Changed]:
    for identifier in sorted(before.keys() | after.keys()):
        was, is_ = before.get(identifier), after.get(identifier)
        if was is None or is_ is None:
            yield Changed(before="" if was is None else was.word, after="" if is_ is None else is_.word, fields=())
        elif was != is_:
            names = [one.name for one in fields(was) if one.name != "revision"]
            differing = tuple(name for name in names if getattr(was, name) != getattr(is_, name))
            yield Changed(before=was.word, after=is_.word, fields=differing)
