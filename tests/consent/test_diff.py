"""What a change permits and takes away: exactly what asking every question says, in groups that hold each one once."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.changes import changed, parse, published
from consent.decide import decide
from consent.diff import Asked, diff, space
from consent.model import (
    Access,
    AgreementState,
    Basis,
    EntryState,
    Ground,
    Mode,
    Notice,
    PowerKind,
    PowerState,
)
from consent.ruleset import RuleSet
from schemas.catalogue import Catalogue
from schemas.errors import Code, Malformed
from tests.consent.sound import (
    AGREEMENT,
    BROADER,
    CONSENT,
    CONSUMER,
    DUTY,
    ENTRY,
    HOLDER,
    ITEM,
    NOON,
    OPEN,
    OTHER,
    PLAIN,
    POWER,
    PROVIDER,
    PURPOSE,
    RECORD,
    SCOPE,
    SEALS,
    SECTIONS,
    SENSITIVE,
    STATISTICS,
    TODAY,
    WINDOW,
    YESTERDAY,
)

ITEMS = {ITEM.name: ITEM}
SOME_PURPOSES = (PURPOSE, BROADER, SEALS, STATISTICS)
SOME_GROUNDS = (Ground.CONSENT, Ground.STATUTORY_DUTY, Ground.NEWS)
REGIONS = ("330411", "350000", "000000")


def _changes(of: Any, **values: Any) -> st.SearchStrategy[Any]:
    one = st.sampled_from([(name, value) for name, some in values.items() for value in some])
    return st.lists(one, max_size=2).map(lambda chosen: replace(of, **dict(chosen)))


AGREEMENTS = _changes(
    AGREEMENT,
    id=[UUID(int=11)],
    consumer=[OTHER],
    provider=[OTHER],
    sections=[frozenset({PLAIN}), frozenset(SECTIONS)],
    purposes=[frozenset({BROADER}), frozenset({SEALS, STATISTICS}), frozenset()],
    regions=[frozenset(), frozenset({"35"}), frozenset({"330411"}), frozenset({""})],
    grounds=[frozenset({Ground.CONSENT}), frozenset({Ground.NEWS}), frozenset()],
    duties=[frozenset(), frozenset({""}), frozenset({"", "另一条"})],
    notice=[Notice.MISSING],
    mode=[Mode.QUERY],
    valid_until=[YESTERDAY],
    state=[AgreementState.SUSPENDED, AgreementState.TERMINATED],
)
POWERS = _changes(
    POWER,
    grantor=[OTHER],
    grantee=[OTHER],
    purposes=[frozenset({STATISTICS}), frozenset({BROADER})],
    regions=[frozenset(), frozenset({"35"})],
    right=[PowerKind.ISSUE],
    state=[PowerState.ENDED],
)
ENTRIES = _changes(ENTRY, state=[EntryState.RETIRED, EntryState.DRAFT], valid_until=[YESTERDAY])
RULES = st.builds(
    lambda agreements, powers, entry: RuleSet([*agreements, *powers, entry]),
    st.lists(AGREEMENTS, max_size=2, unique_by=lambda one: one.id),
    st.lists(POWERS, max_size=1),
    ENTRIES,
)


def permitted(rules: RuleSet, asked: Asked) -> bool:
    """Whether `decide` permits it for any region and citation, every holder having consented to whoever may get it."""
    consumer, provider, item, section, purpose, ground = asked
    scope = replace(SCOPE, sections=frozenset({section}), sensitive=frozenset({section}))
    sound = replace(CONSENT, scopes=(scope,), purposes=frozenset({purpose}), agreements=frozenset())
    consents = tuple(replace(sound, recipient=one) for one in (PROVIDER, CONSUMER, OTHER, WINDOW))
    for region, citation in product(REGIONS, (DUTY, "另一条", "")):
        access = Access(consumer=consumer, purpose=purpose, ground=ground, citation=citation, case="")
        record = replace(RECORD, issuer=provider, item=item, region=region, holders=(HOLDER,))
        facts = replace(rules.facts(access, record), consents=consents)
        if decide(ITEMS[item], access, [section], record, facts, NOON).permitted:
            return True
    return False


@settings(max_examples=40, deadline=None)
@given(RULES, RULES)
def test_groups_hold_exactly_what_differs(before: RuleSet, after: RuleSet) -> None:
    """Against every single question, and no question in two groups."""
    found = diff(before, after, ITEMS, NOON)
    asked = space((before, after), ITEMS)
    questions = [
        one
        for item, providers in asked.providers.items()
        for one in product(asked.parties, providers, (item,), SECTIONS, SOME_PURPOSES, SOME_GROUNDS)
    ]
    was = {one for one in questions if permitted(before, one)}
    is_ = {one for one in questions if permitted(after, one)}
    for groups, wanted in ((found.permits, is_ - was), (found.refuses, was - is_)):
        told = [one for group in groups for one in group]
        assert len(told) == len(set(told)) == sum(map(len, groups))
        assert {one for one in told if one[4] in SOME_PURPOSES and one[5] in SOME_GROUNDS} == wanted
    assert found.space >= len(questions)


def test_a_wider_purpose_permits_what_lies_inside_of_it() -> None:
    """One group: both grounds' sections together, and every narrower purpose by name."""
    wider = replace(AGREEMENT, purposes=frozenset({BROADER}), revision=4)
    found = diff(RuleSet([ENTRY, AGREEMENT]), RuleSet([ENTRY, wider]), ITEMS, NOON)
    assert found.refuses == ()
    (group,) = found.permits
    assert (group.consumers, group.provider, group.sections) == ((CONSUMER,), PROVIDER, (PLAIN, SENSITIVE))
    assert {BROADER, SEALS} <= set(group.purposes)
    assert PURPOSE not in group.purposes
    assert set(group.grounds) == {ground.value for ground in Ground}
    (document,) = found.documents
    assert (document.before, document.after, document.fields) == (AGREEMENT.word, wider.word, ("purposes",))


def test_what_is_retired_is_taken_from_everybody() -> None:
    gone = replace(ENTRY, state=EntryState.RETIRED)
    found = diff(RuleSet([ENTRY, AGREEMENT]), RuleSet([gone, AGREEMENT]), ITEMS, NOON)
    by_section = {group.sections: group for group in found.refuses}
    assert by_section[OPEN,].consumers == tuple(sorted((PROVIDER, CONSUMER)))
    assert by_section[PLAIN, SENSITIVE].consumers == (CONSUMER,)
    assert found.permits == ()


def test_what_lies_outside_of_the_questions_is_told_by_field() -> None:
    stream = replace(AGREEMENT, mode=Mode.QUERY, records_a_day=None, revision=4)
    found = diff(RuleSet([ENTRY, AGREEMENT]), RuleSet([ENTRY, stream]), ITEMS, NOON)
    assert not found.differs
    assert found.documents[0].fields == ("mode", "records_a_day")


def test_too_many_questions_are_refused_with_their_count() -> None:
    with pytest.raises(Malformed, match=r"[0-9,]+ questions of 2 departments") as refused:
        diff(RuleSet([ENTRY, AGREEMENT]), RuleSet([ENTRY]), ITEMS, NOON, most=10)
    assert refused.value.code is Code.REQUEST_TOO_LARGE


def test_a_space_of_millions_takes_seconds() -> None:
    """Hundreds of departments, each with an agreement that another set does not have."""
    catalogue = Catalogue.load().items
    item = catalogue["business-licence"]
    made = [
        replace(
            AGREEMENT,
            id=UUID(int=number + 100),
            consumer=f"C{number}",
            purposes=frozenset({SOME_PURPOSES[number % 4]}),
            sections=frozenset(item.sections),
        )
        for number in range(2_000)
    ]
    items = {item.name: item}
    entry = replace(ENTRY, item=item.name)
    began = time.monotonic()
    found = diff(RuleSet([entry, *made[:1000]]), RuleSet([entry, *made[1000:]]), items, NOON)
    assert found.space > 500_000
    assert {name for group in found.permits for name in group.consumers} == {one.consumer for one in made[1000:]}
    assert time.monotonic() - began < 10


# The file of changes


def test_a_document_is_changed_in_the_fields_given_alone() -> None:
    """Whatever else it says stays; and what ends has ended."""
    changes = parse([{"kind": "agreement", "id": str(AGREEMENT.id), "valid_until": TODAY, "regions": ["33"]}])
    (one,) = changed([AGREEMENT], changes)
    assert one == replace(AGREEMENT, valid_until=TODAY, regions=frozenset({"33"}), revision=4)
    (ended,) = changed([POWER], parse([{"kind": "power", "id": str(POWER.id), "end": True}]))
    assert ended == replace(POWER, state=PowerState.ENDED, revision=3)


def test_a_whole_set_is_written_as_changes_of_nothing() -> None:
    """What an application may leave out may be left out; a consent without a subject is the holder's at hand."""
    agreement = {
        "kind": "agreement",
        "provider": PROVIDER,
        "consumer": CONSUMER,
        "item": ITEM.name,
        "sections": [PLAIN],
        "purposes": [PURPOSE],
        "grounds": ["CONSENT"],
        "valid_from": TODAY - timedelta(days=1),
    }
    consent = {
        "kind": "consent",
        "recipient": CONSUMER,
        "purposes": [PURPOSE],
        "scopes": [{"item": ITEM.name, "sections": [PLAIN]}],
        "valid_from": "2026-01-01",
    }
    documents: list[Basis] = published([ITEM], changed([], parse([agreement, consent]), {ITEM.name: [HOLDER]}))
    assert {one.kind for one in documents} == {"agreement", "consent", "item"}
    rules = RuleSet(documents)
    access = Access(consumer=CONSUMER, purpose=PURPOSE, ground="CONSENT", citation="", case="")
    assert decide(ITEM, access, [PLAIN], RECORD, rules.facts(access, RECORD), NOON).permitted == (PLAIN,)
    assert changed([], parse([agreement])) == changed([], parse([agreement]))  # the same id each time


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("agreement", "list of objects"),
        ({"kind": "dispute"}, "change 1: kind is one of"),
        ({"kind": "agreement", "colour": "red"}, "it has no 'colour'"),
        ({"kind": "agreement", "id": "7"}, "no UUID"),
        ({"kind": "agreement", "provider": PROVIDER}, "a new one says its consumer"),
        ({"kind": "agreement", "end": True}, "beside the id"),
        ({"kind": "agreement", "id": str(AGREEMENT.id), "end": True, "state": "ACTIVE"}, "nothing else"),
        ({"kind": "power", "id": str(UUID(int=99)), "end": True}, "nothing that you may see"),
        ({"kind": "power", "id": str(AGREEMENT.id), "end": True}, "another kind, agreement"),
        ({"kind": "agreement", "id": str(AGREEMENT.id), "max_age": "long"}, "max_age cannot be 'long'"),
        ({"kind": "consent", "scopes": ["x"]}, "each with its item"),
    ],
)
def test_a_change_that_says_nothing_clear_is_refused(change: Any, why: str) -> None:
    with pytest.raises(Malformed, match=why) as refused:
        changed([AGREEMENT], parse([change]))
    assert refused.value.code is Code.REQUEST_MALFORMED


def test_changes_are_at_most_a_hundred() -> None:
    with pytest.raises(Malformed) as refused:
        parse([{"kind": "agreement"}] * 101)
    assert refused.value.code is Code.REQUEST_TOO_LARGE
