"""The decision: one row a refusal, permitted but for one fact; then what single facts mean."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest

from consent.decide import CHINA
from consent.model import (
    Access,
    AgreementState,
    ConsentState,
    Decision,
    EntryState,
    Facts,
    Giver,
    Ground,
    Holder,
    Mode,
    Notice,
    PowerKind,
    PowerState,
    RecordState,
    Status,
    status_after,
)
from consent.rules import RULES, Question
from schemas.errors import Code
from schemas.operations import Operation
from tests.consent.sound import (
    AGENT,
    AGREEMENT,
    ANOTHER,
    BROADER,
    BY_CONSENT,
    BY_DUTY,
    CO_HOLDER,
    CONSENT,
    ENTRY,
    FACTS,
    FIRST,
    HOLDER,
    ITEM,
    LAST,
    MANDATE,
    OPEN,
    OTHER,
    PLAIN,
    POWER,
    PURPOSE,
    RECORD,
    SCOPE,
    SEALS,
    SECTIONS,
    SENSITIVE,
    SHUT,
    STATISTICS,
    STRANGER,
    TODAY,
    TOMORROW,
    WINDOW,
    YESTERDAY,
    Case,
    by_agent,
    by_duty,
    by_window,
    of_set,
    with_access,
    with_agreement,
    with_consent,
    with_entry,
    with_facts,
    with_record,
    with_scope,
)

TABLE: list[tuple[Code, str, Case]] = [
    (Code.CONSUMER_UNKNOWN, "no such department", with_facts(consumer_known=False)),
    (Code.CONSUMER_SUSPENDED, "a suspended department", with_facts(consumer_suspended=True)),
    (Code.AUDIT_STALLED, "no checkpoint comes", with_facts(audit_current=False)),
    (Code.INDEX_STALE, "the recorder stands still", with_facts(index_fresh=False)),
    (Code.NOT_ADMITTED, "not in the index yet", with_record(state=RecordState.WAITING)),
    (Code.NOT_ADMITTED, "refused without a reason", with_record(state=RecordState.REFUSED)),
    (
        Code.ISSUER_NOT_ENTITLED,
        "refused for a reason",
        with_record(state=RecordState.REFUSED, refusal=Code.ISSUER_NOT_ENTITLED),
    ),
    (Code.CONFLICT, "two records claim one place", with_record(state=RecordState.CONFLICT)),
    (Code.ITEM_UNKNOWN, "no such item", Case(item=None)),
    (Code.ITEM_UNKNOWN, "another item than the record's", with_record(item=ANOTHER)),
    (Code.ITEM_UNKNOWN, "no entry of the catalogue", with_facts(entry=None)),
    (Code.ITEM_NOT_PUBLISHED, "a draft", with_entry(state=EntryState.DRAFT)),
    (Code.ITEM_NOT_PUBLISHED, "reviewed only", with_entry(state=EntryState.REVIEWED)),
    (Code.ITEM_NOT_PUBLISHED, "published from tomorrow", with_entry(valid_from=TOMORROW)),
    (Code.ITEM_RETIRED, "retired", with_entry(state=EntryState.RETIRED)),
    (Code.ITEM_RETIRED, "past its last day", with_entry(valid_until=YESTERDAY)),
    (Code.SCHEMA_UNKNOWN, "an unknown schema version", with_record(known_schema=False)),
    (Code.MANDATE_NONE, "no mandate", Case(access=replace(BY_CONSENT, agent="agent-8"))),
    (Code.MANDATE_NONE, "another agent's", by_agent(agent="agent-8")),
    (Code.MANDATE_NONE, "another subject's", by_agent(subjects=(Holder(item=ITEM.name, subject=STRANGER),))),
    (Code.MANDATE_ENDED, "taken back", by_agent(state=PowerState.ENDED)),
    (Code.MANDATE_ENDED, "over", by_agent(valid_until=YESTERDAY)),
    (Code.MANDATE_ENDED, "not begun", by_agent(valid_from=TOMORROW)),
    (Code.MANDATE_SCOPE, "for something else", by_agent(purposes=frozenset({SEALS}))),
    (Code.MANDATE_SCOPE, "for another item", by_agent(subjects=(Holder(item=ANOTHER, subject=HOLDER),))),
    (Code.SECTION_UNKNOWN, "no such section", Case(sections=("other",))),
    (Code.SECTION_NOT_SHARED, "a section of class NONE", Case(sections=(SHUT,))),
    (Code.AGREEMENT_NONE, "no agreement", with_facts(agreements=())),
    (Code.AGREEMENT_NONE, "another provider's", with_agreement(provider=OTHER)),
    (Code.AGREEMENT_NONE, "another consumer's", with_agreement(consumer=OTHER)),
    (Code.AGREEMENT_NONE, "of another item", with_agreement(item=ANOTHER)),
    (Code.AGREEMENT_NONE, "a power to somebody else", by_window(grantee=OTHER)),
    (Code.AGREEMENT_NONE, "a power from somebody else", by_window(grantor=OTHER)),
    (Code.POWER_ENDED, "taken back", by_window(state=PowerState.ENDED)),
    (Code.POWER_ENDED, "over", by_window(valid_until=YESTERDAY)),
    (Code.POWER_ENDED, "not begun", by_window(valid_from=TOMORROW)),
    (Code.POWER_SCOPE, "a power to issue", by_window(right=PowerKind.ISSUE)),
    (Code.POWER_SCOPE, "over another item", by_window(items=frozenset({ANOTHER}))),
    (Code.POWER_SCOPE, "for something else", by_window(purposes=frozenset({STATISTICS}))),
    (Code.POWER_SCOPE, "for another region", by_window(regions=frozenset({"3305"}))),
    (Code.AGREEMENT_PENDING, "applied for", with_agreement(state=AgreementState.SUBMITTED)),
    (Code.AGREEMENT_PENDING, "provisioned", with_agreement(state=AgreementState.PROVISIONED)),
    (Code.AGREEMENT_PENDING, "not begun", with_agreement(valid_from=TOMORROW)),
    (Code.AGREEMENT_SUSPENDED, "suspended", with_agreement(state=AgreementState.SUSPENDED)),
    (Code.AGREEMENT_ENDED, "terminated", with_agreement(state=AgreementState.TERMINATED)),
    (Code.AGREEMENT_ENDED, "refused", with_agreement(state=AgreementState.REFUSED)),
    (Code.AGREEMENT_ENDED, "expired", with_agreement(state=AgreementState.EXPIRED)),
    (Code.AGREEMENT_ENDED, "over", with_agreement(valid_until=YESTERDAY)),
    (Code.AGREEMENT_REGION, "of other regions", with_agreement(regions=frozenset({"330402", "3305", "35"}))),
    (Code.AGREEMENT_REGION, "of a prefix that is none", with_agreement(regions=frozenset({""}))),
    (Code.AGREEMENT_REGION, "a record above the region", with_record(region="330000")),
    (Code.AGREEMENT_PURPOSE, "for other purposes", with_agreement(purposes=frozenset({STATISTICS, SEALS}))),
    (Code.AGREEMENT_PURPOSE, "a broader one than agreed", with_access(purpose=BROADER)),
    (Code.AGREEMENT_PURPOSE, "for nothing", with_agreement(purposes=frozenset())),
    (Code.PURPOSE_ENDED, "its purpose is reached", with_agreement(purpose_until=YESTERDAY)),
    (Code.AGREEMENT_SECTION, "over other sections", with_agreement(sections=frozenset({PLAIN}))),
    (
        Code.AGREEMENT_MODE,
        "a stream of queries",
        replace(by_duty(mode=Mode.QUERY), access=replace(BY_DUTY, mode=Mode.STREAM)),
    ),
    (Code.ONWARD_NOT_AGREED, "passed on to whom nobody named", with_access(onward_to=WINDOW)),
    (Code.SET_NOT_AGREED, "no sets agreed", of_set(1, set_limit=None)),
    (Code.SET_NOT_AGREED, "a set on consent", with_access(set_size=1)),
    (Code.SET_TOO_LARGE, "one record too many", of_set(101)),
    (Code.SET_ENDED, "sets are over", of_set(1, set_until=YESTERDAY)),
    (Code.RATE_EXCEEDED, "today's requests are used up", with_facts(used_up={AGREEMENT.id: Code.RATE_EXCEEDED})),
    (Code.VOLUME_EXCEEDED, "today's records are used up", with_facts(used_up={AGREEMENT.id: Code.VOLUME_EXCEEDED})),
    (Code.GROUND_UNKNOWN, "no ground", with_access(ground="")),
    (Code.GROUND_UNKNOWN, "a ground that no law knows", with_access(ground="CONTRACT")),
    (Code.GROUND_UNKNOWN, "a ground in other letters", with_access(ground="consent")),
    (Code.GROUND_NOT_AGREED, "consent not agreed", with_agreement(grounds=frozenset({Ground.STATUTORY_DUTY}))),
    (Code.GROUND_NOT_AGREED, "no ground agreed", with_agreement(grounds=frozenset())),
    (Code.GROUND_NOT_AGREED, "duty not agreed", by_duty(grounds=frozenset({Ground.CONSENT}))),
    (Code.DUTY_NOT_NAMED, "another duty", by_duty(duties=frozenset({"税收征收管理法 第八条"}))),
    (Code.DUTY_NOT_NAMED, "no duty", replace(by_duty(duties=frozenset({""})), access=replace(BY_DUTY, citation=""))),
    (Code.NOTICE_MISSING, "nobody says how subjects are told", with_agreement(notice=Notice.MISSING)),
    (Code.CONSENT_NONE, "no consent", with_facts(consents=())),
    (Code.CONSENT_NONE, "nobody whose consent it could be", with_record(holders=())),
    (Code.CONSENT_NONE, "another's consent", with_scope(subject=STRANGER)),
    (Code.CONSENT_NONE, "to another recipient", with_consent(recipient=OTHER)),
    (Code.CONSENT_NONE, "for another item", with_scope(item=ANOTHER)),
    (Code.CONSENT_NONE, "one co-owner's only", with_record(holders=(HOLDER, CO_HOLDER))),
    (Code.CONSENT_PENDING, "not answered", with_consent(state=ConsentState.REQUESTED)),
    (Code.CONSENT_DECLINED, "declined", with_consent(state=ConsentState.DECLINED)),
    (Code.CONSENT_WITHDRAWN, "withdrawn", with_consent(state=ConsentState.WITHDRAWN)),
    (Code.CONSENT_PAUSED, "paused", with_consent(state=ConsentState.PAUSED)),
    (Code.CONSENT_EXPIRED, "expired", with_consent(state=ConsentState.EXPIRED)),
    (Code.CONSENT_EXPIRED, "over", with_consent(valid_until=YESTERDAY)),
    (Code.CONSENT_EXPIRED, "not begun", with_consent(valid_from=TOMORROW)),
    (Code.CONSENT_AGREEMENT, "to another agreement", with_consent(agreements=frozenset({"00" * 32}))),
    (Code.CONSENT_PURPOSE, "for other purposes", with_consent(purposes=frozenset({STATISTICS}))),
    (Code.CONSENT_SECTION, "to other sections", with_scope(sections=frozenset({PLAIN}))),
    (Code.CONSENT_GUARDIAN, "a child's own", with_consent(minor_until=TOMORROW)),
    (Code.CONSENT_SENSITIVE, "without the separate consent", with_scope(sensitive=frozenset())),
    (
        Code.CONSENT_MODE,
        "to queries only",
        replace(with_consent(mode=Mode.QUERY), access=replace(BY_CONSENT, mode=Mode.STREAM)),
    ),
    (Code.CONSENT_NOTICE, "nobody told the subject", with_consent(notice=Notice.EXEMPT_DUTY)),
    (Code.CONSENT_USED_UP, "its uses are used up", with_facts(used_up={CONSENT.id: Code.CONSENT_USED_UP})),
    (Code.CONSENT_FREQUENCY, "this month's are used up", with_facts(used_up={CONSENT.id: Code.CONSENT_FREQUENCY})),
    (Code.SUPERSEDED, "an older version", with_record(superseded=True)),
    (Code.STATUS_NOT_ACTIVE, "not in force yet", with_record(valid_from=TOMORROW)),
    (Code.STATUS_NOT_ACTIVE, "issued, not active", with_record(status=Status.NOT_ACTIVE)),
    (Code.STATUS_SUSPENDED, "暂扣", with_record(status=Status.SUSPENDED)),
    (Code.STATUS_CANCELLED, "注销", with_record(status=Status.CANCELLED)),
    (Code.STATUS_REVOKED, "撤销", with_record(status=Status.REVOKED)),
    (Code.STATUS_PUNISHED, "吊销", with_record(status=Status.PUNISHED)),
    (Code.STATUS_EXPIRED, "over by the clock", with_record(valid_until=YESTERDAY)),
    (Code.STATUS_EXPIRED, "over by an event", with_record(status=Status.EXPIRED)),
    (Code.STATUS_ERASED, "删除", with_record(status=Status.ERASED)),
    (Code.RECORD_ERASED, "its keys destroyed", with_record(erased=True)),
]
# What a decision alone never answers: re-reading and what cannot be decided are the gateway's.
NOT_DECIDED = {Code.FACTS_CHANGED, Code.UNDECIDABLE, Code.PERMIT}


@pytest.mark.parametrize(
    ("case", "rests_on"),
    [
        (Case(), (AGREEMENT, CONSENT)),
        (by_duty(), (AGREEMENT,)),
        (by_window(), (AGREEMENT, POWER, CONSENT)),
        (by_agent(), (AGREEMENT, CONSENT, MANDATE)),
        (of_set(100), (AGREEMENT,)),
        (with_access(onward_to=OTHER), (AGREEMENT, CONSENT)),
        (with_access(mode=Mode.STREAM), (AGREEMENT, CONSENT)),
        (Case(sections=(PLAIN, SENSITIVE, OPEN)), (AGREEMENT, CONSENT, ENTRY)),
        (Case(sections=(OPEN,), facts=replace(FACTS, agreements=(), consents=())), (ENTRY,)),
    ],
    ids=["consent", "duty", "window", "agent", "set", "onward", "stream", "all", "unconditional"],
)
def test_what_the_rows_start_from_is_permitted(case: Case, rests_on: tuple[Any, ...]) -> None:
    """The decision holds exactly what its permits rest on, and each section names its own."""
    decision = case.decide()
    assert decision.permitted == tuple(case.sections)
    assert decision.rests_on == rests_on
    named = " ".join(s.rule for s in decision.sections).split()
    assert set(named) == {one.word for one in rests_on}


@pytest.mark.parametrize(("code", "why", "case"), TABLE, ids=[f"{code}: {why}" for code, why, _ in TABLE])
def test_one_fact_refuses(code: Code, why: str, case: Case) -> None:
    """Each row is permitted but for one fact, and says so with its own code."""
    assert case.code() is code
    assert case.decide().rests_on == ()


def test_every_code_of_a_decision_has_a_row() -> None:
    """The closed list's decision codes, those before the records' own, are all in the table: and every rule's code."""
    names = list(Code)
    decisions = set(names[: names.index(Code.RECORD_TOO_LARGE)]) - NOT_DECIDED
    asked = {code for code, _, _ in TABLE}
    assert asked == decisions | {Code.SCHEMA_UNKNOWN, Code.ISSUER_NOT_ENTITLED}
    assert {rule.code for rule in RULES} - {None} <= asked


def test_a_permit_names_what_it_rests_on() -> None:
    """By kind, id and revision: the trail's word for it."""
    assert [s.rule for s in by_window().decide().sections] == [
        f"agreement:{AGREEMENT.id}@3 power:{POWER.id}@2 consent:{CONSENT.id}@5"
    ]
    assert (
        replace(by_agent(), sections=(OPEN,)).decide().sections[0].rule == f"item:{ENTRY.id}@3 mandate:{MANDATE.id}@1"
    )


def test_sections_under_different_agreements_rest_on_both() -> None:
    """Each agreement's limit is taken and each is read again: none of them may get lost."""
    first = replace(AGREEMENT, sections=frozenset({PLAIN}))
    second = replace(AGREEMENT, id=UUID(int=9), sections=frozenset({SENSITIVE}))
    case = replace(by_duty(), facts=replace(FACTS, agreements=(first, second)), sections=(PLAIN, SENSITIVE))
    assert case.decide().permitted == (PLAIN, SENSITIVE)
    assert case.decide().rests_on == (first, second)


def test_a_section_named_twice_is_answered_once() -> None:
    """Also where every section is refused alike; and nothing asked is nothing answered."""
    twice = (PLAIN, OPEN, PLAIN)
    assert Case(sections=twice).decide().permitted == (PLAIN, OPEN)
    assert len(replace(with_facts(consumer_known=False), sections=twice).decide().sections) == 2
    assert Case(sections=()).decide() == Decision(sections=())


def test_taking_permits_back_leaves_the_refusals() -> None:
    """A refused decision rests on nothing any more."""
    refused = Case(sections=(PLAIN, SHUT)).decide().refused(Code.FACTS_CHANGED)
    assert [s.code for s in refused.sections] == [Code.FACTS_CHANGED, Code.SECTION_NOT_SHARED]
    assert refused.rests_on == ()


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
    destroyed = replace(RECORD, erased=True, superseded=superseded)
    older = superseded and section == OPEN  # which rests on no agreement that allows it
    assert replace(case, record=destroyed).code() is (Code.SUPERSEDED if older else Code.RECORD_ERASED)


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
        ({"valid_until": YESTERDAY}, Code.STATUS_EXPIRED),
        ({"valid_from": TOMORROW}, Code.STATUS_NOT_ACTIVE),
    ],
)
def test_an_unconditional_section_is_of_the_newest_valid_version(change: dict[str, Any], code: Code) -> None:
    """No agreement says otherwise for it: not even one that could, and that another section was opened under."""
    allowing = with_agreement(statuses=frozenset(Status), superseded=True)
    case = replace(allowing, sections=(PLAIN, OPEN), record=replace(RECORD, **change))
    assert [s.code for s in case.decide().sections] == [Code.PERMIT, code]


@pytest.mark.parametrize("access", [BY_CONSENT, BY_DUTY, replace(BY_CONSENT, ground="")])
def test_a_section_of_class_none_never_opens(access: Access) -> None:
    """Not under an agreement, a duty or a consent that names it."""
    agreement = replace(AGREEMENT, sections=frozenset(SECTIONS), statuses=frozenset(Status), superseded=True)
    scope = replace(SCOPE, sections=frozenset(SECTIONS), sensitive=frozenset(SECTIONS))
    facts = replace(FACTS, agreements=(agreement,), consents=(replace(CONSENT, scopes=(scope,)),))
    assert Case(access=access, sections=(SHUT,), facts=facts).code() is Code.SECTION_NOT_SHARED


@pytest.mark.parametrize("ground", sorted(set(Ground) - {Ground.CONSENT}))
def test_a_ground_without_consent_needs_what_it_stands_on(ground: Ground) -> None:
    """PIPL art. 13 (2): no consent, also not the separate one; but the agreement names the citation."""
    case = replace(by_duty(), access=replace(BY_DUTY, ground=ground.value))
    assert case.code() is Code.PERMIT
    assert replace(case, access=replace(case.access, citation="")).code() is Code.DUTY_NOT_NAMED


def test_a_plain_section_needs_no_separate_consent_but_a_childs_does() -> None:
    """PIPL art. 28: all data of a person under 14 is sensitive."""
    plain = replace(with_scope(sensitive=frozenset()), sections=(PLAIN,))
    assert plain.code() is Code.PERMIT
    scope = replace(SCOPE, sensitive=frozenset())
    child = replace(CONSENT, scopes=(scope,), minor_until=TOMORROW, given_by=Giver.GUARDIAN)
    assert replace(plain, facts=replace(FACTS, consents=(child,))).code() is Code.CONSENT_SENSITIVE
    assert with_consent(minor_until=TOMORROW, given_by=Giver.GUARDIAN).code() is Code.PERMIT
    grown = replace(CONSENT, scopes=(scope,), minor_until=TODAY)
    assert replace(plain, facts=replace(FACTS, consents=(grown,))).code() is Code.PERMIT


@pytest.mark.parametrize("allowed", [PURPOSE, BROADER, "government-service"])
def test_a_purpose_holds_for_those_inside_of_it(allowed: str) -> None:
    """In agreements, consents, powers and mandates alike."""
    purposes = frozenset({allowed})
    agreement = replace(AGREEMENT, purposes=purposes)
    facts = Facts(
        consumer_known=True,
        consumer_suspended=False,
        index_fresh=True,
        audit_current=True,
        entry=ENTRY,
        agreements=(agreement,),
        consents=(replace(CONSENT, purposes=purposes, agreements=frozenset({agreement.hash.hex()})),),
        powers=(replace(POWER, purposes=purposes),),
        mandates=(replace(MANDATE, purposes=purposes),),
    )
    access = replace(BY_CONSENT, consumer=WINDOW, agent=AGENT)
    assert Case(facts=facts, access=access).code() is Code.PERMIT


def test_a_delegated_opening_needs_the_consent_to_the_department_not_to_its_window() -> None:
    """A window opens what its department may: the subject's consent names the department."""
    assert by_window().code() is Code.PERMIT
    to_window = replace(CONSENT, recipient=WINDOW)
    assert replace(by_window(), facts=replace(FACTS, consents=(to_window,))).code() is Code.CONSENT_NONE


@pytest.mark.parametrize("region", ["330411", "330400", "320000", "320800"])
def test_regions_are_prefixes(region: str) -> None:
    """A city covers its counties, a province its cities."""
    assert with_record(region=region).code() is Code.PERMIT
    assert replace(with_agreement(regions=frozenset()), record=replace(RECORD, region="650000")).code() is Code.PERMIT


# Dates


EVER: dict[str, date | None] = {"valid_from": date(1, 1, 1), "valid_until": None}
TERMS = pytest.mark.parametrize("which", ["agreement", "consent", "power", "entry", "record"])


def _at(now: datetime, which: str, first: date, last: date | None) -> Code:
    """A window's code at a moment when one of the documents has this term, and the others are without end."""
    term = {"valid_from": first, "valid_until": last}
    terms: dict[str, Any] = dict.fromkeys(("agreement", "consent", "power", "entry", "record"), EVER) | {which: term}
    agreement = replace(AGREEMENT, **terms["agreement"])
    facts = replace(
        FACTS,
        agreements=(agreement,),
        consents=(replace(CONSENT, **terms["consent"], agreements=frozenset()),),
        powers=(replace(POWER, **terms["power"]),),
        entry=replace(ENTRY, **terms["entry"]),
    )
    access = replace(BY_CONSENT, consumer=WINDOW)
    return Case(now=now, access=access, facts=facts, record=replace(RECORD, **terms["record"])).code()


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
def test_a_term_may_have_one_day_or_no_end(which: str) -> None:
    """First and last may be the same; long-term licences, agreements and consents have no last day."""
    assert _at(datetime(2026, 3, 1, 23, 59, tzinfo=CHINA), which, FIRST, FIRST) is Code.PERMIT
    assert _at(datetime(2026, 3, 2, 0, 0, tzinfo=CHINA), which, FIRST, FIRST) is not Code.PERMIT
    assert _at(datetime(9999, 12, 31, 12, tzinfo=CHINA), which, FIRST, None) is Code.PERMIT


def test_a_purpose_is_reached_and_sets_end_after_their_last_day() -> None:
    """Inclusive, as every term."""
    assert with_agreement(purpose_until=TODAY).code() is Code.PERMIT
    assert of_set(1, set_until=TODAY).code() is Code.PERMIT
    assert of_set(1, set_until=None).code() is Code.PERMIT


def test_what_ended_otherwise_does_not_expire() -> None:
    """Expiry comes by the clock to what is valid: a revoked licence stays revoked."""
    assert with_record(status=Status.REVOKED, valid_until=FIRST).code() is Code.STATUS_REVOKED


# Several of a kind: each fails later than the one before


def _numbered(kind: Any, start: int, *changes: tuple[Code, dict[str, Any]]) -> list[tuple[Code, Any]]:
    return [(code, replace(kind, id=UUID(int=start + at), **change)) for at, (code, change) in enumerate(changes)]


WORSE_AGREEMENTS = _numbered(
    AGREEMENT,
    100,
    (Code.AGREEMENT_NONE, {"item": ANOTHER}),
    (Code.AGREEMENT_PENDING, {"state": AgreementState.APPROVED}),
    (Code.AGREEMENT_ENDED, {"state": AgreementState.TERMINATED}),
    (Code.AGREEMENT_REGION, {"regions": frozenset({"11"})}),
    (Code.AGREEMENT_PURPOSE, {"purposes": frozenset()}),
    (Code.AGREEMENT_SECTION, {"sections": frozenset()}),
    (Code.GROUND_NOT_AGREED, {"grounds": frozenset({Ground.CONSENT})}),
)
WORSE_CONSENTS = _numbered(
    CONSENT,
    200,
    (Code.CONSENT_WITHDRAWN, {"state": ConsentState.WITHDRAWN}),
    (Code.CONSENT_EXPIRED, {"valid_until": YESTERDAY}),
    (Code.CONSENT_AGREEMENT, {"agreements": frozenset({"00" * 32})}),
    (Code.CONSENT_PURPOSE, {"purposes": frozenset()}),
    (Code.CONSENT_SECTION, {"scopes": (replace(SCOPE, sections=frozenset()),)}),
    (Code.CONSENT_SENSITIVE, {"scopes": (replace(SCOPE, sensitive=frozenset()),)}),
)
WORSE_MANDATES = _numbered(
    MANDATE,
    300,
    (Code.MANDATE_NONE, {"agent": "agent-8"}),
    (Code.MANDATE_ENDED, {"state": PowerState.ENDED}),
    (Code.MANDATE_SCOPE, {"purposes": frozenset()}),
)
WORSE_POWERS = _numbered(
    POWER,
    400,
    (Code.AGREEMENT_NONE, {"grantee": OTHER}),
    (Code.POWER_ENDED, {"state": PowerState.ENDED}),
    (Code.POWER_SCOPE, {"items": frozenset()}),
)
SEVERAL = pytest.mark.parametrize(
    ("case", "name", "worse", "good"),
    [
        (Case(access=BY_DUTY), "agreements", WORSE_AGREEMENTS, AGREEMENT),
        (Case(), "consents", WORSE_CONSENTS, CONSENT),
        (Case(access=replace(BY_CONSENT, agent=AGENT)), "mandates", WORSE_MANDATES, MANDATE),
        (Case(access=replace(BY_CONSENT, consumer=WINDOW)), "powers", WORSE_POWERS, POWER),
    ],
    ids=["agreements", "consents", "mandates", "powers"],
)


@SEVERAL
def test_one_that_permits_is_enough(case: Case, name: str, worse: list[tuple[Code, Any]], good: Any) -> None:
    """In whatever order the others come."""
    every = [*(one for _, one in worse), good]
    for order in (1, -1):
        changed: Any = {name: tuple(every[::order])}
        asked = replace(case, facts=replace(case.facts, **changed))
        assert good in asked.decide().rests_on
        assert not {one.id for _, one in worse} & {one.id for one in asked.decide().rests_on}


@SEVERAL
def test_of_several_the_one_that_failed_last_is_reported(
    case: Case, name: str, worse: list[tuple[Code, Any]], good: Any
) -> None:
    """The nearest miss, with its word, whichever comes first."""
    for pair in permutations(worse, 2):
        code, nearest = max(pair, key=worse.index)
        changed: Any = {name: tuple(one for _, one in pair)}
        asked = replace(case, facts=replace(case.facts, **changed))
        (only,) = asked.decide().sections
        assert only.code is code
        assert nearest.word in only.rule.split()


@pytest.mark.parametrize("missing", range(3))
def test_every_holder_consents_or_nobody_did(missing: int) -> None:
    """A co-owned record needs each one's consent; the others' do not make up for it."""
    holders = (HOLDER, CO_HOLDER, STRANGER)
    consents = [
        replace(CONSENT, id=UUID(int=300 + at), scopes=(replace(SCOPE, subject=one),)) for at, one in enumerate(holders)
    ]
    record = replace(RECORD, holders=holders)
    whole = replace(with_facts(consents=tuple(consents)), record=record)
    assert whole.decide().rests_on == (AGREEMENT, *consents)
    withdrawn = [replace(c, state=ConsentState.WITHDRAWN) if at == missing else c for at, c in enumerate(consents)]
    assert replace(with_facts(consents=tuple(withdrawn)), record=record).code() is Code.CONSENT_WITHDRAWN
    del consents[missing]
    assert replace(with_facts(consents=tuple(consents) * 2), record=record).code() is Code.CONSENT_NONE


def test_one_consent_may_speak_of_several_items_and_subjects() -> None:
    """Each scope for itself: what one allows does not leak into another."""
    elsewhere = replace(SCOPE, item=ANOTHER, sections=frozenset(SECTIONS), sensitive=frozenset(SECTIONS))
    narrow = replace(SCOPE, sections=frozenset({PLAIN}))
    case = with_consent(scopes=(elsewhere, narrow, replace(SCOPE, subject=CO_HOLDER)))
    assert case.code() is Code.CONSENT_SECTION
    assert replace(case, sections=(PLAIN,)).code() is Code.PERMIT


def test_of_the_newest_valid_version_no_rule_about_a_state_is_asked() -> None:
    """Which is why a decision does not ask them: none of them could be broken."""
    question = Question(ITEM, BY_CONSENT, RECORD, FACTS, TODAY)
    assert question.status is Status.VALID
    assert not RECORD.superseded
    assert all(rule.kept(question) for rule in RULES.state)


def test_operations_lead_to_their_states() -> None:
    """What is given back, changed or renewed is valid; what ended is what it ended by."""
    ends = {"SUSPENDED", "CANCELLED", "REVOKED", "PUNISHED", "ERASED"}
    for operation in Operation:
        assert status_after(operation) is Status(operation.value if operation.value in ends else "VALID")
