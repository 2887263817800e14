"""The question of `casbin`, `cedarpy` and `agreements`: may this department open that section, for what, of where?

An agreement permits a consumer sections of a provider's item, for purposes and what lies inside of them, in regions by
prefix. Half of the questions are permitted; the other half are near misses, one part of each replaced. Every fifth
agreement is a second one between the same two over the same item. Everything follows from the seed; what is true of a
question is worked out here once more, with nothing of `consent` but its tree of purposes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from consent.purposes import TREE, ancestors
from tests.bench.sample import SEED, credit_code

QUESTIONS = 10_000
ITEMS = tuple(f"licence-kind-{number:02d}" for number in range(50))
SECTIONS = ("identity", "business", "representative", "capital", "scope", "history")
PURPOSES = tuple(TREE)
# Provinces and cities (GB/T 2260), by prefix.
REGIONS = tuple(f"{province}" for province in range(31, 38)) + tuple(f"33{city:02d}" for city in range(1, 12))
INSIDE = {one: tuple(other for other in PURPOSES if one in ancestors(other)) for one in PURPOSES}
_TRIES = 100


class Question(NamedTuple):
    """Each part as text: what all three systems are asked."""

    consumer: str
    provider: str
    item: str
    section: str
    purpose: str
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """What an agreement permits."""

    consumer: str
    provider: str
    item: str
    sections: frozenset[str]
    purposes: frozenset[str]
    regions: frozenset[str]

    def allows(self, asked: Question) -> bool:
        return (
            (self.consumer, self.provider, self.item) == asked[:3]
            and asked.section in self.sections
            and any(asked.purpose in INSIDE[one] for one in self.purposes)
            and asked.region.startswith(tuple(self.regions))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Permits:
    """Permits, questions about them, and the answers."""

    permits: tuple[Permit, ...]
    questions: tuple[Question, ...]
    answers: tuple[bool, ...] = field(repr=False)


def permits(count: int) -> Permits:
    """`count` permits and 10,000 questions."""
    random = Random(f"{SEED}/{count}")
    made: list[Permit] = []
    for number in range(count):
        if number % 5 == 4:
            parties = (made[-1].consumer, made[-1].provider, made[-1].item)
        else:
            parties = (credit_code("330400", number // 4), credit_code("330500", number // 3), ITEMS[number % 50])
        made.append(_permit(random, parties))
    between: dict[tuple[str, str, str], list[Permit]] = {}
    for one in made:
        between.setdefault((one.consumer, one.provider, one.item), []).append(one)

    def allowed(asked: Question) -> bool:
        return any(one.allows(asked) for one in between.get(asked[:3], ()))

    questions = [_asked(random, random.choice(made)) for _ in range(QUESTIONS)]
    for at in range(0, QUESTIONS, 2):
        questions[at] = _miss(random, questions[at], made, at // 2 % len(Question._fields), allowed)
    random.shuffle(questions)
    return Permits(
        permits=tuple(made), questions=tuple(questions), answers=tuple(allowed(asked) for asked in questions)
    )


def _permit(random: Random, parties: tuple[str, str, str]) -> Permit:
    consumer, provider, item = parties
    return Permit(
        consumer=consumer,
        provider=provider,
        item=item,
        sections=frozenset(random.sample(SECTIONS, 3)),
        purposes=frozenset(random.sample(PURPOSES, 2)),
        regions=frozenset(random.sample(REGIONS, random.randint(1, 2))),
    )


def _asked(random: Random, permit: Permit) -> Question:
    """A question that the permit allows."""
    prefix = random.choice(sorted(permit.regions))
    return Question(
        permit.consumer,
        permit.provider,
        permit.item,
        random.choice(sorted(permit.sections)),
        random.choice(INSIDE[random.choice(sorted(permit.purposes))]),
        prefix + "".join(random.choices("0123456789", k=6 - len(prefix))),
    )


def _miss(
    random: Random, asked: Question, made: Sequence[Permit], part: int, allowed: Callable[[Question], bool]
) -> Question:
    """The question with one part replaced by another's, so that nothing allows it."""
    name = Question._fields[part]
    for _ in range(_TRIES):
        other = asked._replace(**{name: getattr(_asked(random, random.choice(made)), name)})
        if not allowed(other):
            return other
    raise SystemExit(f"no near miss was found by {name}")
