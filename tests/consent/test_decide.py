"""The decision table: one row a refusal, permitted but for one fact; and the laws that hold for all facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from itertools import permutations
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.decide import CHINA, decide
from consent.model import (
    Access,
    Agreement,
    AgreementState,
    Consent,
    ConsentState,
    Decision,
    Facts,
    Ground,
    RecordFacts,
    RecordState,
    Status,
    status_after,
)
from schemas.catalogue import Catalogue, Item, Section, ShareClass
from schemas.errors import Code
from schemas.operations import Operation

PROVIDER, CONSUMER, OTHER = "11330411MB2A00011E", "1132080001400001X7", "11430000006122244L"
PURPOSE, DUTY = "credit-assessment", "商业银行法 第三十五条"
HOLDER, CO_HOLDER, STRANGER = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
FIRST, LAST = date(2026, 3, 1), date(2026, 3, 31)
NOON = datetime(2026, 3, 15, 12, tzinfo=CHINA)
PLAIN, SENSITIVE, OPEN, SHUT = "plain", "sensitive", "open", "shut"
SECTIONS = {
    PLAIN: Section(name=PLAIN, share=ShareClass.CONDITIONAL, conditions="c", sensitive=False),
    SENSITIVE: Section(name=SENSITIVE, share=ShareClass.CONDITIONAL, conditions="c", sensitive=True),
    OPEN: Section(name=OPEN, share=ShareClass.UNCONDITIONAL, conditions="", sensitive=False),
    SHUT: Section(name=SHUT, share=ShareClass.NONE, conditions="law", sensitive=False),
}
ITEM: Item = replace(Catalogue.load().item("business-licence"), sections=SECTIONS)
AGREEMENT = Agreement(
    id=UUID(int=1),
    revision=3,
    provider=PROVIDER,
    consumer=CONSUMER,
    item=ITEM.name,
    sections=frozenset({PLAIN, SENSITIVE}),
    purposes=frozenset({PURPOSE}),
    regions=frozenset({"3304", "32"}),
    grounds=frozenset(Ground),
    duties=frozenset({DUTY}),
    valid_from=FIRST,
    valid_until=LAST,
    records_a_day=10,
    max_age=3600,
    statuses=frozenset(),
    superseded=False,
    state=AgreementState.ACTIVE,
)
CONSENT = Consent(
    id=UUID(int=2),
    revision=5,
    subject=HOLDER,
    recipient=CONSUMER,
    item=ITEM.name,
    purposes=frozenset({PURPOSE}),
    sections=frozenset({PLAIN, SENSITIVE}),
    sensitive=frozenset({SENSITIVE}),
    valid_from=FIRST,
    valid_until=LAST,
    max_uses=2,
    recorded_by=PROVIDER,
    evidence="ab" * 32,
    state=ConsentState.ACTIVE,
)
RECORD = RecordFacts(
    state=RecordState.ADMITTED,
    item=ITEM.name,
    issuer=PROVIDER,
    region="330411",
    holders=(HOLDER,),
    known_schema=True,
    status=Status.VALID,
    valid_from=FIRST,
    valid_until=LAST,
    superseded=False,
)
FACTS = Facts(
    consumer_known=True,
    consumer_suspended=False,
    index_fresh=True,
    audit_current=True,
    agreements=(AGREEMENT,),
    consents=(CONSENT,),
    used_up=frozenset(),
)
BY_CONSENT = Access(consumer=CONSUMER, purpose=PURPOSE, ground=Ground.CONSENT.value, citation="", case="c-1")
BY_DUTY = replace(BY_CONSENT, ground=Ground.STATUTORY_DUTY.value, citation=DUTY)

Rule = TypeVar("Rule", Agreement, Consent)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Everything that a decision is made of. As it stands, every section but SHUT is permitted."""

    item: Item | None = ITEM
    access: Access = BY_CONSENT
    sections: Sequence[str] = (SENSITIVE,)
    record: RecordFacts = RECORD
    facts: Facts = FACTS
    now: datetime = NOON

    def decide(self) -> Decision:
        """The decision, checked for what holds of every decision."""
        decision = decide(self.item, self.access, self.sections, self.record, self.facts, self.now)
        assert [s.section for s in decision.sections] == list(dict.fromkeys(self.sections))
        assert all(s.rule for s in decision.sections if s.code is Code.PERMIT)
        return decision

    def code(self) -> Code:
        """The only section's code."""
        (only,) = self.decide().sections
        return only.code


def with_record(**changes: Any) -> Case:
    return Case(record=replace(RECORD, **changes))


def with_facts(**changes: Any) -> Case:
    return Case(facts=replace(FACTS, **changes))


def with_access(**changes: Any) -> Case:
    return Case(access=replace(BY_CONSENT, **changes))


def with_agreement(**changes: Any) -> Case:
    return with_facts(agreements=(replace(AGREEMENT, **changes),))


def with_consent(**changes: Any) -> Case:
    return with_facts(consents=(replace(CONSENT, **changes),))


def by_duty(**changes: Any) -> Case:
    return Case(access=BY_DUTY, facts=replace(FACTS, agreements=(replace(AGREEMENT, **changes),), consents=()))


TABLE: list[tuple[Code, str, Case]] = [
    (Code.CONSUMER_UNKNOWN, "no such department", with_facts(consumer_known=False)),
    (Code.CONSUMER_SUSPENDED, "a suspended department", with_facts(consumer_suspended=True)),
    (Code.AUDIT_STALLED, "no checkpoint comes", with_facts(audit_current=False)),
    (Code.INDEX_STALE, "the recorder stands still", with_facts(index_fresh=False)),
    (Code.NOT_ADMITTED, "not in the index yet", with_record(state=RecordState.WAITING)),
    (Code.CONFLICT, "two records claim one place", with_record(state=RecordState.CONFLICT)),
    (Code.ITEM_UNKNOWN, "no such item", Case(item=None)),
    (Code.ITEM_UNKNOWN, "another item than the record's", with_record(item="tax-registration")),
    (Code.SCHEMA_UNKNOWN, "an unknown schema version", with_record(known_schema=False)),
    (Code.SECTION_UNKNOWN, "no such section", Case(sections=("other",))),
    (Code.SECTION_NOT_SHARED, "a section of class NONE", Case(sections=(SHUT,))),
    (Code.AGREEMENT_NONE, "no agreement", with_facts(agreements=())),
    (Code.AGREEMENT_NONE, "another provider's", with_agreement(provider=OTHER)),
    (Code.AGREEMENT_NONE, "another consumer's", with_agreement(consumer=OTHER)),
    (Code.AGREEMENT_NONE, "of another item", with_agreement(item="tax-registration")),
    (Code.AGREEMENT_ENDED, "terminated", with_agreement(state=AgreementState.TERMINATED)),
    (Code.AGREEMENT_ENDED, "suspended", with_agreement(state=AgreementState.SUSPENDED)),
    (Code.AGREEMENT_ENDED, "over", with_agreement(valid_until=date(2026, 3, 14))),
    (Code.AGREEMENT_ENDED, "not begun", with_agreement(valid_from=date(2026, 3, 16))),
    (Code.AGREEMENT_REGION, "of other regions", with_agreement(regions=frozenset({"330402", "3305", "35"}))),
    (Code.AGREEMENT_REGION, "of a prefix that is none", with_agreement(regions=frozenset({""}))),
    (Code.AGREEMENT_REGION, "a record above the region", with_record(region="330000")),
    (Code.AGREEMENT_PURPOSE, "for other purposes", with_agreement(purposes=frozenset({"statistics"}))),
    (Code.AGREEMENT_PURPOSE, "for nothing", with_agreement(purposes=frozenset())),
    (Code.AGREEMENT_SECTION, "over other sections", with_agreement(sections=frozenset({PLAIN}))),
    (Code.RATE_EXCEEDED, "today's records are used up", with_facts(used_up=frozenset({AGREEMENT.id}))),
    (Code.GROUND_UNKNOWN, "no ground", with_access(ground="")),
    (Code.GROUND_UNKNOWN, "a ground that is not served", with_access(ground="CONTRACT")),
    (Code.GROUND_UNKNOWN, "a ground in other letters", with_access(ground="consent")),
    (Code.GROUND_NOT_AGREED, "consent not agreed", with_agreement(grounds=frozenset({Ground.STATUTORY_DUTY}))),
    (Code.GROUND_NOT_AGREED, "no ground agreed", with_agreement(grounds=frozenset())),
    (Code.GROUND_NOT_AGREED, "duty not agreed", by_duty(grounds=frozenset({Ground.CONSENT}))),
    (Code.DUTY_NOT_NAMED, "another duty", by_duty(duties=frozenset({"税收征收管理法 第八条"}))),
    (Code.DUTY_NOT_NAMED, "no duty", replace(by_duty(duties=frozenset({""})), access=replace(BY_DUTY, citation=""))),
    (Code.CONSENT_NONE, "no consent", with_facts(consents=())),
    (Code.CONSENT_NONE, "nobody whose consent it could be", with_record(holders=())),
    (Code.CONSENT_NONE, "another's consent", with_consent(subject=STRANGER)),
    (Code.CONSENT_NONE, "to another recipient", with_consent(recipient=OTHER)),
    (Code.CONSENT_NONE, "for another item", with_consent(item="tax-registration")),
    (Code.CONSENT_NONE, "one co-owner's only", with_record(holders=(HOLDER, CO_HOLDER))),
    (Code.CONSENT_WITHDRAWN, "withdrawn", with_consent(state=ConsentState.WITHDRAWN)),
    (Code.CONSENT_EXPIRED, "over", with_consent(valid_until=date(2026, 3, 14))),
    (Code.CONSENT_EXPIRED, "not begun", with_consent(valid_from=date(2026, 3, 16))),
    (Code.CONSENT_PURPOSE, "for other purposes", with_consent(purposes=frozenset({"statistics"}))),
    (Code.CONSENT_SECTION, "to other sections", with_consent(sections=frozenset({PLAIN}))),
    (Code.CONSENT_SENSITIVE, "without the separate consent", with_consent(sensitive=frozenset())),
    (Code.CONSENT_USED_UP, "its uses are used up", with_facts(used_up=frozenset({CONSENT.id}))),
    (Code.SUPERSEDED, "an older version", with_record(superseded=True)),
    (Code.STATUS_NOT_ACTIVE, "not in force yet", with_record(valid_from=date(2026, 3, 16))),
    (Code.STATUS_NOT_ACTIVE, "issued, not active", with_record(status=Status.NOT_ACTIVE)),
    (Code.STATUS_SUSPENDED, "暂扣", with_record(status=Status.SUSPENDED)),
    (Code.STATUS_CANCELLED, "注销", with_record(status=Status.CANCELLED)),
    (Code.STATUS_REVOKED, "撤销", with_record(status=Status.REVOKED)),
    (Code.STATUS_PUNISHED, "吊销", with_record(status=Status.PUNISHED)),
    (Code.STATUS_EXPIRED, "over by the clock", with_record(valid_until=date(2026, 3, 14))),
    (Code.STATUS_EXPIRED, "over by an event", with_record(status=Status.EXPIRED)),
    (Code.STATUS_ERASED, "删除", with_record(status=Status.ERASED)),
]
# What a decision alone never answers: units, re-reading and what cannot be decided are the gateway's.
NOT_DECIDED = {Code.FACTS_CHANGED, Code.UNDECIDABLE, Code.PERMIT}


@pytest.mark.parametrize(
    "case",
    [
        Case(),
        by_duty(),
        Case(sections=(PLAIN, SENSITIVE, OPEN)),
        Case(sections=(OPEN,), facts=replace(FACTS, agreements=(), consents=())),
    ],
    ids=["consent", "duty", "all", "unconditional"],
)
def test_what_every_row_of_the_table_starts_from_is_permitted(case: Case) -> None:
    """The facts that the rows change one of, on both grounds."""
    assert case.decide().permitted == tuple(case.sections)


@pytest.mark.parametrize(("code", "why", "case"), TABLE, ids=[f"{code}: {why}" for code, why, _ in TABLE])
def test_one_fact_refuses(code: Code, why: str, case: Case) -> None:
    """Each row is permitted but for one fact, and says so with its own code."""
    assert case.code() is code
    assert not case.decide().agreements
    assert not case.decide().consents


def test_every_code_of_a_decision_has_a_row() -> None:
    """The closed list's decision codes, those before the records' own, are all in the table."""
    names = list(Code)
    decisions = set(names[: names.index(Code.RECORD_TOO_LARGE)]) | {Code.SCHEMA_UNKNOWN}
    assert {code for code, _, _ in TABLE} == decisions - NOT_DECIDED


def test_a_permit_names_what_it_rests_on() -> None:
    """Rules name agreement and consent with their revisions; the decision holds both."""
    decision = Case(sections=(OPEN, PLAIN)).decide()
    assert [s.rule for s in decision.sections] == [
        f"catalogue:{ITEM.name}",
        f"agreement:{AGREEMENT.id}@3 consent:{CONSENT.id}@5",
    ]
    assert (decision.agreements, decision.consents) == ((AGREEMENT,), (CONSENT,))
    assert by_duty().decide().sections[0].rule == f"agreement:{AGREEMENT.id}@3"


def test_sections_under_different_agreements_rest_on_both() -> None:
    """Each agreement's limit is taken and each is read again: none of them may get lost."""
    first = replace(AGREEMENT, sections=frozenset({PLAIN}))
    second = replace(AGREEMENT, id=UUID(int=9), sections=frozenset({SENSITIVE}))
    case = replace(with_facts(agreements=(first, second)), sections=(PLAIN, SENSITIVE))
    assert case.decide().permitted == (PLAIN, SENSITIVE)
    assert case.decide().agreements == (first, second)


def test_a_section_named_twice_is_answered_once() -> None:
    """Also where every section is refused alike."""
    twice = (PLAIN, OPEN, PLAIN)
    assert Case(sections=twice).decide().permitted == (PLAIN, OPEN)
    assert len(replace(with_facts(consumer_known=False), sections=twice).decide().sections) == 2


def test_nothing_asked_is_nothing_answered() -> None:
    """No section, no rule, nothing permitted."""
    assert Case(sections=()).decide() == Decision(sections=())


def test_taking_permits_back_leaves_the_refusals() -> None:
    """A refused decision rests on nothing any more."""
    refused = Case(sections=(PLAIN, SHUT)).decide().refused(Code.FACTS_CHANGED)
    assert [s.code for s in refused.sections] == [Code.FACTS_CHANGED, Code.SECTION_NOT_SHARED]
    assert (refused.agreements, refused.consents) == ((), ())


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.VALID, Status.ERASED}))
def test_an_agreement_may_allow_a_status(status: Status) -> None:
    """For supervision of what ended; naming VALID changes nothing."""
    case = with_agreement(statuses=frozenset({status, Status.VALID}))
    assert replace(case, record=replace(RECORD, status=status)).code() is Code.PERMIT
    assert case.code() is Code.PERMIT
    other = Status.SUSPENDED if status is not Status.SUSPENDED else Status.CANCELLED
    assert replace(case, record=replace(RECORD, status=other)).code() is Code[f"STATUS_{other}"]


@pytest.mark.parametrize("superseded", [False, True])
@pytest.mark.parametrize("section", [PLAIN, OPEN])
@pytest.mark.parametrize("access", [BY_CONSENT, BY_DUTY], ids=["consent", "duty"])
def test_what_was_erased_never_opens(superseded: bool, section: str, access: Access) -> None:
    """Whatever an agreement says: erasure is the subject's right, not the parties' to waive."""
    case = replace(with_agreement(statuses=frozenset(Status), superseded=True), access=access, sections=(section,))
    assert replace(case, record=replace(RECORD, superseded=superseded)).code() is Code.PERMIT or section == OPEN
    erased = replace(RECORD, status=Status.ERASED, superseded=superseded)
    assert replace(case, record=erased).code() is Code.STATUS_ERASED


def test_an_agreement_may_allow_older_versions() -> None:
    """With `superseded`, and then their status counts as ever."""
    old = replace(with_agreement(superseded=True), record=replace(RECORD, superseded=True))
    assert old.code() is Code.PERMIT
    assert replace(old, record=replace(old.record, status=Status.REVOKED)).code() is Code.STATUS_REVOKED


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"superseded": True}, Code.SUPERSEDED),
        ({"status": Status.CANCELLED}, Code.STATUS_CANCELLED),
        ({"valid_until": date(2026, 3, 14)}, Code.STATUS_EXPIRED),
        ({"valid_from": date(2026, 3, 16)}, Code.STATUS_NOT_ACTIVE),
    ],
)
def test_an_unconditional_section_is_of_the_newest_valid_version(change: dict[str, Any], code: Code) -> None:
    """No agreement says otherwise for it: not even one that could."""
    allowing = with_agreement(sections=frozenset(SECTIONS), statuses=frozenset(Status), superseded=True)
    assert replace(allowing, sections=(OPEN,), record=replace(RECORD, **change)).code() is code


@pytest.mark.parametrize("access", [BY_CONSENT, BY_DUTY, replace(BY_CONSENT, ground="")])
def test_a_section_of_class_none_never_opens(access: Access) -> None:
    """Not under an agreement, a duty or a consent that names it."""
    agreement = replace(AGREEMENT, sections=frozenset(SECTIONS), statuses=frozenset(Status), superseded=True)
    consent = replace(CONSENT, sections=frozenset(SECTIONS), sensitive=frozenset(SECTIONS))
    facts = replace(FACTS, agreements=(agreement,), consents=(consent,))
    assert Case(access=access, sections=(SHUT,), facts=facts).code() is Code.SECTION_NOT_SHARED


def test_a_duty_needs_no_consent() -> None:
    """PIPL art. 13: also not the separate one for a sensitive section."""
    assert by_duty().code() is Code.PERMIT


def test_a_plain_section_needs_no_separate_consent() -> None:
    """Only sensitive sections do."""
    assert replace(with_consent(sensitive=frozenset()), sections=(PLAIN,)).code() is Code.PERMIT


@pytest.mark.parametrize("region", ["330411", "330400", "320000", "320800"])
def test_regions_are_prefixes(region: str) -> None:
    """A city covers its counties, a province its cities."""
    assert with_record(region=region).code() is Code.PERMIT
    assert replace(with_agreement(regions=frozenset()), record=replace(RECORD, region="650000")).code() is Code.PERMIT


# Dates


EVER: dict[str, date | None] = {"valid_from": date(1, 1, 1), "valid_until": None}
TERMS = pytest.mark.parametrize("which", ["agreement", "consent", "record"])


def _at(now: datetime, which: str, first: date, last: date | None) -> Code:
    """The code at a moment when one of the three has this term, and the others are without end."""
    terms: dict[str, Any] = dict.fromkeys(("agreement", "consent", "record"), EVER)
    terms[which] = {"valid_from": first, "valid_until": last}
    changed: dict[str, Any] = {
        "agreements": (replace(AGREEMENT, **terms["agreement"]),),
        "consents": (replace(CONSENT, **terms["consent"]),),
    }
    return Case(now=now, facts=replace(FACTS, **changed), record=replace(RECORD, **terms["record"])).code()


@TERMS
def test_days_are_inclusive_and_beijings(which: str) -> None:
    """From 00:00 of the first day to 23:59:59 of the last, in UTC+8, however the moment is written."""
    begin = datetime(2026, 3, 1, 0, 0, tzinfo=CHINA)
    end = datetime(2026, 3, 31, 23, 59, 59, 999999, tzinfo=CHINA)
    moment = timedelta(microseconds=1)
    for zone in (CHINA, UTC):
        assert _at(begin.astimezone(zone), which, FIRST, LAST) is Code.PERMIT
        assert _at(end.astimezone(zone), which, FIRST, LAST) is Code.PERMIT
        assert _at((begin - moment).astimezone(zone), which, FIRST, LAST) is not Code.PERMIT
        assert _at((end + moment).astimezone(zone), which, FIRST, LAST) is not Code.PERMIT
    assert begin.astimezone(UTC).date() == date(2026, 2, 28)  # what a count in UTC would get wrong
    assert (end + moment).astimezone(UTC).date() == LAST


@TERMS
def test_a_term_of_one_day_has_one_day(which: str) -> None:
    """First and last may be the same."""
    assert _at(datetime(2026, 3, 1, 23, 59, tzinfo=CHINA), which, FIRST, FIRST) is Code.PERMIT
    assert _at(datetime(2026, 3, 2, 0, 0, tzinfo=CHINA), which, FIRST, FIRST) is not Code.PERMIT


@TERMS
def test_no_last_day_is_no_end(which: str) -> None:
    """Long-term licences, agreements and consents."""
    assert _at(datetime(9999, 12, 31, 12, tzinfo=CHINA), which, FIRST, None) is Code.PERMIT


def test_what_ended_otherwise_does_not_expire() -> None:
    """Expiry comes by the clock to what is valid: a revoked licence stays revoked."""
    assert with_record(status=Status.REVOKED, valid_until=FIRST).code() is Code.STATUS_REVOKED


# Several agreements and consents

SECOND = UUID(int=8)
WORSE_AGREEMENTS = [
    replace(AGREEMENT, id=UUID(int=100), item="tax-registration"),
    replace(AGREEMENT, id=UUID(int=101), state=AgreementState.TERMINATED),
    replace(AGREEMENT, id=UUID(int=102), regions=frozenset({"11"})),
    replace(AGREEMENT, id=UUID(int=103), purposes=frozenset()),
    replace(AGREEMENT, id=UUID(int=104), sections=frozenset()),
    replace(AGREEMENT, id=UUID(int=105), grounds=frozenset({Ground.STATUTORY_DUTY})),
]
WORSE_CONSENTS = [
    replace(CONSENT, id=UUID(int=200), state=ConsentState.WITHDRAWN),
    replace(CONSENT, id=UUID(int=201), valid_until=date(2026, 3, 14)),
    replace(CONSENT, id=UUID(int=202), purposes=frozenset()),
    replace(CONSENT, id=UUID(int=203), sections=frozenset()),
    replace(CONSENT, id=UUID(int=204), sensitive=frozenset()),
]


@pytest.mark.parametrize("order", [1, -1])
def test_one_agreement_that_permits_is_enough(order: int) -> None:
    """In whatever order the others come."""
    agreements = tuple([*WORSE_AGREEMENTS, AGREEMENT][::order])
    assert with_facts(agreements=agreements).decide().agreements == (AGREEMENT,)


@pytest.mark.parametrize("order", [1, -1])
def test_one_consent_that_permits_is_enough(order: int) -> None:
    """A new consent counts beside withdrawn and expired ones."""
    assert with_facts(consents=tuple([*WORSE_CONSENTS, CONSENT][::order])).decide().consents == (CONSENT,)


def test_of_two_agreements_the_one_that_failed_last_is_reported() -> None:
    """The nearest miss, its rule too, whichever comes first."""
    codes = [
        Code.AGREEMENT_NONE,
        Code.AGREEMENT_ENDED,
        Code.AGREEMENT_REGION,
        Code.AGREEMENT_PURPOSE,
        Code.AGREEMENT_SECTION,
        Code.GROUND_NOT_AGREED,
    ]
    for (far, _), (near, code) in permutations(zip(WORSE_AGREEMENTS, codes, strict=True), 2):
        if codes.index(code) > WORSE_AGREEMENTS.index(far):
            for agreements in ((far, near), (near, far)):
                (only,) = with_facts(agreements=agreements).decide().sections
                assert (only.code, only.rule) == (code, f"agreement:{near.id}@3")


@pytest.mark.parametrize("order", [1, -1])
def test_an_unknown_ground_is_a_nearer_miss_than_an_ended_agreement(order: int) -> None:
    """The caller learns what to mend: its ground, not an agreement of former times."""
    agreements = (WORSE_AGREEMENTS[1], AGREEMENT)[::order]
    assert replace(with_facts(agreements=agreements), access=replace(BY_CONSENT, ground="?")).code() is (
        Code.GROUND_UNKNOWN
    )


def test_of_two_consents_the_one_that_failed_last_is_reported() -> None:
    """Each pair, in both orders."""
    codes = [
        Code.CONSENT_WITHDRAWN,
        Code.CONSENT_EXPIRED,
        Code.CONSENT_PURPOSE,
        Code.CONSENT_SECTION,
        Code.CONSENT_SENSITIVE,
    ]
    for pair in permutations(WORSE_CONSENTS, 2):
        assert with_facts(consents=pair).code() is codes[max(map(WORSE_CONSENTS.index, pair))]


@pytest.mark.parametrize("missing", range(3))
def test_every_holder_consents_or_nobody_did(missing: int) -> None:
    """A co-owned record needs each one's consent; the others' do not make up for it."""
    holders = (HOLDER, CO_HOLDER, STRANGER)
    consents = [replace(CONSENT, id=UUID(int=300 + at), subject=one) for at, one in enumerate(holders)]
    record = replace(RECORD, holders=holders)
    whole = replace(with_facts(consents=tuple(consents)), record=record)
    assert whole.decide().consents == tuple(consents)
    withdrawn = [replace(c, state=ConsentState.WITHDRAWN) if at == missing else c for at, c in enumerate(consents)]
    assert replace(with_facts(consents=tuple(withdrawn)), record=record).code() is Code.CONSENT_WITHDRAWN
    del consents[missing]
    assert replace(with_facts(consents=tuple(consents) * 2), record=record).code() is Code.CONSENT_NONE


def test_operations_lead_to_their_states() -> None:
    """What is given back, changed or renewed is valid; what ended is what it ended by."""
    ends = {"SUSPENDED", "CANCELLED", "REVOKED", "PUNISHED", "ERASED"}
    for operation in Operation:
        assert status_after(operation) is Status(operation.value if operation.value in ends else "VALID")


# Laws over random facts


def _changed(sound: Any, most: int, **others: Sequence[Any]) -> st.SearchStrategy[Any]:
    """A sound value with at most so many of its facts changed: all facts at random would hardly ever permit."""
    changes = [(name, value) for name, values in others.items() for value in values]
    return st.lists(st.sampled_from(changes), max_size=most).map(lambda chosen: replace(sound, **dict(chosen)))


def _lists(values: st.SearchStrategy[Any], least: int, most: int) -> st.SearchStrategy[Any]:
    return st.lists(values, min_size=least, max_size=most).map(tuple)


EVERYTHING, NOTHING = frozenset(SECTIONS), frozenset[str]()
LATER, EARLIER = [date(2026, 3, 15), date(2026, 3, 16)], [date(2026, 3, 14), date(2026, 3, 15), None]
SCOPE: dict[str, Sequence[Any]] = {
    "id": [UUID(int=number) for number in range(4, 7)],
    "revision": [1, 2],
    "item": ["tax-registration"],
    "sections": [EVERYTHING, NOTHING, frozenset({PLAIN})],
    "purposes": [NOTHING, frozenset({"statistics"})],
    "valid_from": LATER,
    "valid_until": EARLIER,
}
AGREEMENTS = _changed(
    AGREEMENT,
    4,
    **SCOPE,
    provider=[OTHER],
    consumer=[OTHER],
    regions=[frozenset(), frozenset({"33"}), frozenset({"330402", "32"})],
    grounds=[frozenset(), frozenset({Ground.CONSENT}), frozenset({Ground.STATUTORY_DUTY})],
    duties=[frozenset(), frozenset({""}), frozenset({DUTY, ""})],
    statuses=[frozenset(Status), frozenset({Status.EXPIRED}), frozenset({Status.ERASED, Status.VALID})],
    superseded=[True],
    state=list(AgreementState),
)
CONSENTS = _changed(
    CONSENT,
    3,
    **SCOPE,
    subject=[CO_HOLDER, CO_HOLDER, CO_HOLDER],
    recipient=[OTHER],
    sensitive=[NOTHING, EVERYTHING],
    state=list(ConsentState),
)
RECORDS = _changed(
    RECORD,
    1,
    state=list(RecordState),
    item=["tax-registration"],
    issuer=[OTHER],
    region=["320800", "330000"],
    holders=[(HOLDER, CO_HOLDER), (HOLDER, CO_HOLDER), ()],
    known_schema=[False],
    status=list(Status),
    valid_from=LATER,
    valid_until=EARLIER,
    superseded=[True, True],
)
PARTIES = _changed(
    FACTS,
    1,
    consumer_known=[True, True, False],
    consumer_suspended=[True],
    index_fresh=[False],
    audit_current=[False],
    used_up=[frozenset(UUID(int=number) for number in numbers) for numbers in ((1, 2), (1, 4), (2, 5))],
)
CASES = st.builds(
    lambda facts, agreements, consents, **others: Case(
        facts=replace(facts, agreements=agreements, consents=consents), **others
    ),
    facts=PARTIES,
    agreements=_lists(AGREEMENTS, 1, 3),
    consents=_lists(CONSENTS, 1, 4),
    item=st.sampled_from([ITEM] * 9 + [None]),
    access=st.one_of(
        *(
            _changed(a, 1, consumer=[OTHER], purpose=["statistics"], ground=["CONTRACT"], citation=[""])
            for a in (BY_CONSENT, BY_DUTY)
        )
    ),
    sections=_lists(st.sampled_from([PLAIN, SENSITIVE, *SECTIONS, "other"]), 1, 5),
    record=RECORDS,
    now=st.sampled_from([NOON, NOON.astimezone(UTC)]),
)


@dataclass
class Naive:
    """The rules once more, as a lawyer would read them out: all of these are so, or it stays shut."""

    case: Case
    today: date = field(init=False)

    def __post_init__(self) -> None:
        self.today = (self.case.now.astimezone(UTC) + timedelta(hours=8)).date()

    def opens(self, section: str) -> bool:
        """Whether the section may be opened at all."""
        case, facts, record = self.case, self.case.facts, self.case.record
        known = facts.consumer_known and not facts.consumer_suspended and facts.index_fresh and facts.audit_current
        sound = record.state == "ADMITTED" and record.known_schema and record.status != "ERASED"
        if not (known and sound and case.item and case.item.name == record.item and section in SECTIONS):
            return False
        share = SECTIONS[section].share
        if share == "UNCONDITIONAL":
            return self._state() == "VALID" and not record.superseded
        return share == "CONDITIONAL" and any(self._agrees(one, section) for one in facts.agreements)

    def _state(self) -> str:
        record = self.case.record
        if record.status == "VALID" and record.valid_from and self.today < record.valid_from:
            return "NOT_ACTIVE"
        if record.status == "VALID" and record.valid_until and self.today > record.valid_until:
            return "EXPIRED"
        return record.status.value

    def _in(self, term: Agreement | Consent) -> bool:
        return term.valid_from <= self.today <= (term.valid_until or date.max)

    def _agrees(self, one: Agreement, section: str) -> bool:
        access, record = self.case.access, self.case.record
        parties = one.provider == record.issuer and one.consumer == access.consumer and one.item == record.item
        region = not one.regions or any(record.region[:digits] in one.regions for digits in (2, 4, 6))
        scope = access.purpose in one.purposes and section in one.sections and region
        force = one.state == "ACTIVE" and self._in(one) and one.id not in self.case.facts.used_up
        state = self._state() == "VALID" or self._state() in one.statuses
        version = one.superseded or not record.superseded
        return parties and scope and force and state and version and self._grounded(one, section)

    def _grounded(self, one: Agreement, section: str) -> bool:
        access, holders = self.case.access, self.case.record.holders
        if access.ground not in one.grounds:
            return False
        if access.ground == "STATUTORY_DUTY":
            return access.citation != "" and access.citation in one.duties
        return bool(holders) and all(
            any(self._consents(given, holder, section) for given in self.case.facts.consents) for holder in holders
        )

    def _consents(self, given: Consent, holder: bytes, section: str) -> bool:
        access = self.case.access
        named = given.subject == holder and given.recipient == access.consumer and given.item == self.case.record.item
        separate = not SECTIONS[section].sensitive or section in given.sensitive
        scope = access.purpose in given.purposes and section in given.sections and separate
        return named and scope and given.state == "ACTIVE" and self._in(given) and given.id not in self._used_up()

    def _used_up(self) -> frozenset[UUID]:
        return self.case.facts.used_up


@given(CASES)
@settings(max_examples=1000, deadline=None)
def test_a_section_opens_exactly_when_the_rules_say_so(case: Case) -> None:
    """An independent reading of the rules permits the same sections of random facts, and no other."""
    naive = Naive(case)
    assert case.decide().permitted == tuple(name for name in dict.fromkeys(case.sections) if naive.opens(name))


def test_random_facts_are_permitted_often_enough() -> None:
    """Else the law above would say nothing of permits."""
    counts: list[int] = []

    @given(CASES)
    @settings(max_examples=150, deadline=None, database=None, derandomize=True)
    def count(case: Case) -> None:
        counts.append(len(case.decide().permitted))

    count()
    assert sum(map(bool, counts)) > len(counts) / 8


def _without(rule: Rule, name: str) -> Rule:
    """The rule with one of its sets emptied."""
    changed: Any = {name: frozenset()}
    return replace(rule, **changed)


def _with_less(case: Case) -> Iterator[Case]:
    """The same case with one fact that speaks for it taken away."""
    facts = case.facts
    for at in range(len(facts.agreements)):
        yield replace(case, facts=replace(facts, agreements=facts.agreements[:at] + facts.agreements[at + 1 :]))
    for at in range(len(facts.consents)):
        yield replace(case, facts=replace(facts, consents=facts.consents[:at] + facts.consents[at + 1 :]))
    for at, one in enumerate(facts.agreements):
        for name in ("sections", "purposes", "grounds", "duties", "statuses"):
            less = _without(one, name)
            yield replace(
                case, facts=replace(facts, agreements=(*facts.agreements[:at], less, *facts.agreements[at + 1 :]))
            )
    for at, given_consent in enumerate(facts.consents):
        for name in ("sections", "purposes", "sensitive"):
            fewer = _without(given_consent, name)
            yield replace(case, facts=replace(facts, consents=(*facts.consents[:at], fewer, *facts.consents[at + 1 :])))
    yield replace(case, facts=replace(facts, consumer_known=False))
    yield replace(case, facts=replace(facts, index_fresh=False))
    yield replace(case, facts=replace(facts, audit_current=False))
    yield replace(case, access=replace(case.access, citation=""))
    yield replace(case, record=replace(case.record, holders=()), access=replace(case.access, ground="CONSENT"))
    yield replace(case, record=replace(case.record, known_schema=False))
    yield replace(case, item=None)


@given(CASES)
@settings(max_examples=400, deadline=None)
def test_taking_a_fact_away_never_permits(case: Case) -> None:
    """What was refused stays refused with one agreement, consent, section, purpose, ... less."""
    permitted = set(case.decide().permitted)
    for less in _with_less(case):
        if less.access.ground == case.access.ground:
            assert set(less.decide().permitted) <= permitted


@given(CASES)
@settings(max_examples=200, deadline=None)
def test_the_order_of_facts_and_sections_does_not_matter_to_what_opens(case: Case) -> None:
    """The database may give its rows in any order."""
    facts = replace(case.facts, agreements=case.facts.agreements[::-1], consents=case.facts.consents[::-1])
    turned = replace(case, facts=facts, sections=tuple(case.sections)[::-1])
    assert set(turned.decide().permitted) == set(case.decide().permitted)


@given(CASES)
@settings(max_examples=400, deadline=None)
def test_a_decision_holds_exactly_the_rules_of_its_permits(case: Case) -> None:
    """Every rule named in a permit is there to be limited and read again, and no other."""
    decision = case.decide()
    named = {part for s in decision.sections if s.code is Code.PERMIT for part in s.rule.split()}
    held = {f"agreement:{a.id}@{a.revision}" for a in decision.agreements}
    held |= {f"consent:{c.id}@{c.revision}" for c in decision.consents}
    assert held <= named
    ids = {part.partition("@")[0] for part in named if not part.startswith("catalogue:")}
    assert {rule.partition("@")[0] for rule in held} == ids
