"""`casbin`, `cedarpy`, `agreements`: decisions a second over a set of rules, beside two policy engines and at 3 sizes.

The same 10,000 questions (`tests.bench.permits`) are put to all; before anything is measured every answer is compared.
Ours runs all rules of `consent.rules` and names the code and the document; the others answer yes or no. Both are set up
as their documents say for speed:

- casbin: `FastEnforcer`, keyed by every part that is matched exactly (casbin.org/docs/enforcers; its matcher stays
  whole, as in fastbin's README), purposes as roles, regions as `keyMatch` patterns: few rows of texts.
- cedarpy: policies with principal and resource in their scope (Cedar's best practices), purposes as entities, and what
  its README says for speed: a parsed `PolicySet`, parsed `Entities`, one batch.

What a user could do beyond that is measured, too, and stands in `more`: `casbin_flat` has the tree of purposes written
out in its rows and keyed; `cedarpy_sliced` has an index like ours in front and asks only the policies between two
departments over an item.

Requests are made before the clock, in the form that each takes. Time is the processor's: nothing waits here, and a busy
machine disturbs it less.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache
from statistics import median
from typing import Any
from uuid import UUID

import casbin
import cedarpy
from casbin.model.model_fast import FastModel
from casbin.persist.adapters.string_adapter import StringAdapter

from consent.decide import decide
from consent.documents import to_json
from consent.model import (
    Access,
    Agreement,
    AgreementState,
    CatalogueEntry,
    DataClass,
    EntryState,
    Ground,
    Mode,
    Notice,
    RecordFacts,
    RecordState,
    Status,
)
from consent.purposes import TREE
from consent.ruleset import RuleSet
from schemas.catalogue import Item, Section, ShareClass
from schemas.errors import Code
from tests.bench import sample
from tests.bench.measure import ROUNDS, Outcome, Said, compare
from tests.bench.permits import INSIDE, ITEMS, QUESTIONS, SECTIONS, Permit, Permits, Question, permits

FEW, SOME, MANY = 10, 1_000, 100_000
CASBIN_FLOOR = 10.0
CEDARPY_FLOOR = 5.0
GROWTH_FLOOR = 1 / 1.3  # at 100,000 agreements a decision takes at most 1.3 times as long as at 10
# Of the 10,000, in a round: 0.1 to 2 seconds of each.
CASBIN_QUESTIONS = 5_000
CEDARPY_QUESTIONS = 500
BLOCK, TIMES = 500, 10
DUTY = "税收征收管理法 第十五条"
NOW = datetime(2026, 3, 15, 4, tzinfo=UTC)
UNIT = "decisions/s"

Ask = Callable[[int, int], list[bool]]  # the questions from here to there
Row = tuple[str, ...]


def beside_casbin(said: Said) -> Outcome:
    """At 1,000 agreements."""
    said("setting up")
    ours, peer, flat = _ours(SOME), _casbin(SOME), _casbin_flat(SOME)
    _same(SOME, ours, peer, flat)
    outcome = compare(
        _side(ours), _side(peer, CASBIN_QUESTIONS), floor=CASBIN_FLOOR, said=said, rounds=ROUNDS, unit=UNIT
    )
    few, many = _casbin(FEW), _casbin(MANY)
    _same(FEW, few)
    _same(MANY, many)
    more = {
        "casbin_us": _microseconds(_side(peer, CASBIN_QUESTIONS)),
        "casbin_us_at_10": _microseconds(_side(few, CASBIN_QUESTIONS)),
        "casbin_us_at_100000": _microseconds(_side(many, CASBIN_QUESTIONS)),
        "casbin_flat_us": _microseconds(_side(flat, CASBIN_QUESTIONS)),
        "ours_us": _microseconds(_side(ours)),
    }
    return replace(outcome, more=more)


def beside_cedarpy(said: Said) -> Outcome:
    """At 1,000 agreements."""
    said("setting up")
    ours, peer, sliced = _ours(SOME), _cedarpy(SOME), _cedarpy_sliced(SOME)
    said("comparing 10,000 answers")
    _same(SOME, ours, peer, sliced)
    outcome = compare(
        _side(ours), _side(peer, CEDARPY_QUESTIONS), floor=CEDARPY_FLOOR, said=said, rounds=ROUNDS, unit=UNIT
    )
    few = _cedarpy(FEW)
    _same(FEW, few)
    more = {
        "cedarpy_us": _microseconds(_side(peer, CEDARPY_QUESTIONS)),
        "cedarpy_us_at_10": _microseconds(_side(few)),
        "cedarpy_sliced_us": _microseconds(_side(sliced)),
        "ours_us": _microseconds(_side(ours)),
        "left_out": "cedarpy at 100,000 agreements: a question takes more than a tenth of a second",
    }
    return replace(outcome, more=more)


def growth(said: Said) -> Outcome:
    """Ours at 100,000 agreements; its peer is ours at 10.

    Does a question take longer because there are more agreements? So that what the processor's caches hold is the same
    at every size, a few hundred questions are asked several times before the next. `us_each_once_at_*` is what it takes
    when all 10,000 are of different agreements, and memory is waited for.
    """
    said("setting up")
    few, some, many = _ours(FEW), _ours(SOME), _ours(MANY)
    for count, one in ((FEW, few), (SOME, some), (MANY, many)):
        _same(count, one)
    outcome = compare(_repeated(many), _repeated(few), floor=GROWTH_FLOOR, said=said, rounds=ROUNDS, unit=UNIT)
    return replace(
        outcome,
        more={
            f"us_{name}at_{count}": _microseconds(side(one))
            for name, side in (("", _repeated), ("each_once_", _side))
            for count, one in ((FEW, few), (SOME, some), (MANY, many))
        },
    )


def _side(ask: Ask, count: int = QUESTIONS) -> Callable[[int], float]:
    """Decisions a second of the processor, over the first `count` questions."""

    def side(_round: int) -> float:
        began = time.process_time()
        ask(0, count)
        return count / (time.process_time() - began)

    return side


def _repeated(ask: Ask) -> Callable[[int], float]:
    """The same over all questions, but each few hundred of them several times before the next."""

    def side(_round: int) -> float:
        began = time.process_time()
        for begin in range(0, QUESTIONS, BLOCK):
            for _ in range(TIMES):
                ask(begin, begin + BLOCK)
        return TIMES * QUESTIONS / (time.process_time() - began)

    return side


def _microseconds(side: Callable[[int], float]) -> float:
    """Of one decision: the median of three."""
    gc.collect()
    return round(1e6 / median(side(number) for number in range(3)), 2)


def _same(count: int, *systems: Ask) -> None:
    """Every answer of every system is right."""
    there = _permits(count)
    for number, ask in enumerate(systems):
        answers = ask(0, QUESTIONS)
        wrong = [at for at, (one, right) in enumerate(zip(answers, there.answers, strict=True)) if one is not right]
        if wrong:
            raise SystemExit(
                f"system {number} answers {len(wrong)} of {len(answers)} questions at {count:,} agreements wrongly: "
                f"{there.questions[wrong[0]]}"
            )


@cache
def _permits(count: int) -> Permits:
    return permits(count)


# Ours


def _ours(count: int) -> Ask:
    there = _permits(count)
    items = {name: _item(name) for name in ITEMS}
    rules = RuleSet([*map(_entry, ITEMS), *(_agreement(number, one) for number, one in enumerate(there.permits))])
    permit = Code.PERMIT
    asked = [(items[one.item], _access(one), (one.section,), _record(one)) for one in there.questions]

    def ask(begin: int, end: int) -> list[bool]:
        return [
            decide(item, access, sections, record, rules.facts(access, record), NOW).sections[0].code is permit
            for item, access, sections, record in asked[begin:end]
        ]

    return ask


def _item(name: str) -> Item:
    sections = {
        one: Section(name=one, share=ShareClass.CONDITIONAL, conditions="依申请", sensitive=False) for one in SECTIONS
    }
    return replace(sample.item(), name=name, sections=sections)


def _entry(name: str) -> CatalogueEntry:
    return CatalogueEntry(
        id=UUID(int=ITEMS.index(name)),
        revision=3,
        item=name,
        definition=bytes(32),
        format="avro",
        update="实时",
        data_class=DataClass.GENERAL,
        drafted_by="",
        valid_from=date(2026, 1, 1),
        valid_until=None,
        state=EntryState.PUBLISHED,
    )


def _agreement(number: int, permit: Permit) -> Agreement:
    """Read as the gateway reads it: what agreements share in memory there, they share here."""
    body = {
        "id": str(UUID(int=sample.SEED << 64 | number)),
        "provider": permit.provider,
        "consumer": permit.consumer,
        "item": permit.item,
        "basis": DUTY,
        "scenario": "企业开办",
        "mode": Mode.STREAM.value,
        "sections": to_json(permit.sections),
        "purposes": to_json(permit.purposes),
        "regions": to_json(permit.regions),
        "grounds": [Ground.STATUTORY_DUTY.value],
        "duties": [DUTY],
        "notice": Notice.GIVEN.value,
        "valid_from": "2026-01-01",
        "valid_until": "2026-12-31",
        "purpose_until": None,
        "requests_a_day": None,
        "records_a_day": None,
        "max_age": 86_400,
        "data_life": 30,
        "statuses": [],
        "superseded": False,
        "onward": [],
        "set_limit": None,
        "set_until": None,
    }
    return Agreement.stored(body, 5, AgreementState.ACTIVE.value)


def _access(asked: Question) -> Access:
    return Access(
        consumer=asked.consumer,
        purpose=asked.purpose,
        ground=Ground.STATUTORY_DUTY.value,
        citation=DUTY,
        case="2026-0000001",
        operator="bench",
    )


def _record(asked: Question) -> RecordFacts:
    return RecordFacts(
        state=RecordState.ADMITTED,
        item=asked.item,
        issuer=asked.provider,
        region=asked.region,
        holders=(bytes(32),),
        known_schema=True,
        status=Status.VALID,
        valid_from=None,
        valid_until=None,
        superseded=False,
    )


# casbin

_CASBIN = """
[request_definition]
r = consumer, provider, item, section, purpose, region

[policy_definition]
p = consumer, provider, item, section, purpose, region

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow))

[matchers]
m = r.consumer == p.consumer && r.provider == p.provider && r.item == p.item && r.section == p.section && {} && \
keyMatch(r.region, p.region)
"""


def _casbin(count: int) -> Ask:
    """Purposes are roles: what a purpose may be used for, those inside of it may."""
    rows = [
        (one.consumer, one.provider, one.item, section, purpose, f"{region}*")
        for one in _permits(count).permits
        for section in sorted(one.sections)
        for purpose in sorted(one.purposes)
        for region in sorted(one.regions)
    ]
    roles = [(one.id, one.broader) for one in TREE.values() if one.broader is not None]
    return _enforced(count, _enforcer("g(r.purpose, p.purpose)", (0, 1, 2, 3), rows, roles))


def _casbin_flat(count: int) -> Ask:
    rows = [
        (one.consumer, one.provider, one.item, section, purpose, f"{region}*")
        for one in _permits(count).permits
        for section in sorted(one.sections)
        for purpose in sorted({inside for purpose in one.purposes for inside in INSIDE[purpose]})
        for region in sorted(one.regions)
    ]
    return _enforced(count, _enforcer("r.purpose == p.purpose", (0, 1, 2, 3, 4), rows, ()))


def _enforcer(purpose: str, keys: tuple[int, ...], rows: Sequence[Row], roles: Sequence[Row]) -> Any:
    """Loaded by its adapter, in seconds at 100,000 agreements; `add_policies` had not ended after three minutes."""
    model = FastModel(keys)
    model.load_model_from_text(_CASBIN.format(purpose))
    lines = [*(", ".join(("p", *row)) for row in rows), *(", ".join(("g", *row)) for row in roles)]
    return casbin.FastEnforcer(model, StringAdapter("\n".join(lines)), cache_key_order=keys)


def _enforced(count: int, enforcer: Any) -> Ask:
    questions = _permits(count).questions

    def ask(begin: int, end: int) -> list[bool]:
        answers: list[bool] = enforcer.batch_enforce(questions[begin:end])
        return answers

    return ask


# Cedar


def _cedarpy(count: int) -> Ask:
    there = _permits(count)
    policies = cedarpy.PolicySet.from_str("\n".join(map(_policy, there.permits)))
    entities, requests = _entities(), [_request(one) for one in there.questions]

    def ask(begin: int, end: int) -> list[bool]:
        return [one.allowed for one in cedarpy.is_authorized_batch(requests[begin:end], policies, entities)]

    return ask


def _cedarpy_sliced(count: int) -> Ask:
    there = _permits(count)
    texts: dict[tuple[str, str, str], list[str]] = {}
    for one in there.permits:
        texts.setdefault((one.consumer, one.provider, one.item), []).append(_policy(one))
    slices = {parties: cedarpy.PolicySet.from_str("\n".join(found)) for parties, found in texts.items()}
    nothing, entities = cedarpy.PolicySet.from_str(""), _entities()
    requests = [(one[:3], _request(one)) for one in there.questions]

    def ask(begin: int, end: int) -> list[bool]:
        return [
            cedarpy.is_authorized(request, slices.get(parties, nothing), entities).allowed
            for parties, request in requests[begin:end]
        ]

    return ask


def _policy(permit: Permit) -> str:
    sections = ", ".join(f'"{one}"' for one in sorted(permit.sections))
    purposes = ", ".join(f'Purpose::"{one}"' for one in sorted(permit.purposes))
    regions = " || ".join(f'context.region like "{one}*"' for one in sorted(permit.regions))
    return (
        f'permit (principal == Department::"{permit.consumer}", action == Action::"open",'
        f' resource == Data::"{permit.provider}/{permit.item}")'
        f" when {{ [{sections}].contains(context.section) && context.purpose in [{purposes}] && ({regions}) }};"
    )


def _entities() -> cedarpy.Entities:
    """The tree of purposes."""
    return cedarpy.Entities.from_json_str(
        json.dumps(
            [
                {
                    "uid": {"type": "Purpose", "id": one.id},
                    "attrs": {},
                    "parents": [] if one.broader is None else [{"type": "Purpose", "id": one.broader}],
                }
                for one in TREE.values()
            ]
        )
    )


def _request(asked: Question) -> dict[str, Any]:
    purpose = {"__entity": {"type": "Purpose", "id": asked.purpose}}
    return {
        "principal": {"type": "Department", "id": asked.consumer},
        "action": {"type": "Action", "id": "open"},
        "resource": {"type": "Data", "id": f"{asked.provider}/{asked.item}"},
        "context": json.dumps({"section": asked.section, "purpose": purpose, "region": asked.region}),
    }
