"""Laws of the decision over random facts, and an independent reading of the rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, timedelta
from typing import Any, Protocol
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from consent.model import (
    Agreement,
    AgreementState,
    Basis,
    Consent,
    ConsentState,
    EntryState,
    Giver,
    Ground,
    Holder,
    Mode,
    Notice,
    PowerKind,
    PowerState,
    RecordState,
    Status,
)
from consent.ruleset import RuleSet
from schemas.errors import Code
from tests.consent.sound import (
    AGENT,
    AGREEMENT,
    ANOTHER,
    BROADER,
    BY_CONSENT,
    BY_DUTY,
    CO_HOLDER,
    CONSENT,
    DUTY,
    ENTRY,
    FACTS,
    HOLDER,
    ITEM,
    MANDATE,
    NOON,
    OTHER,
    PLAIN,
    POWER,
    PURPOSE,
    RECORD,
    SCOPE,
    SEALS,
    SECTIONS,
    SENSITIVE,
    STATISTICS,
    TODAY,
    TOMORROW,
    WINDOW,
    YESTERDAY,
    Case,
)


def _changed(sound: Any, most: int, **others: Sequence[Any]) -> st.SearchStrategy[Any]:
    """A sound value with at most so many of its facts changed: all facts at random would hardly ever permit."""
    changes = [(name, value) for name, values in others.items() for value in values]
    return st.lists(st.sampled_from(changes), max_size=most).map(lambda chosen: replace(sound, **dict(chosen)))


def _lists(values: st.SearchStrategy[Any], least: int, most: int) -> st.SearchStrategy[Any]:
    return st.lists(values, min_size=least, max_size=most).map(tuple)


def _documents(values: st.SearchStrategy[Any], start: int, least: int, most: int) -> st.SearchStrategy[Any]:
    """Several documents, each with an id of its own."""
    return _lists(values, least, most).map(
        lambda found: tuple(replace(one, id=UUID(int=start + at)) for at, one in enumerate(found))
    )


EVERYTHING, NOTHING = frozenset(SECTIONS), frozenset[str]()
PURPOSES = [NOTHING, frozenset({STATISTICS, SEALS}), frozenset({BROADER}), frozenset({"government-service"})]
TERM: dict[str, Sequence[Any]] = {
    "valid_from": [TODAY, TOMORROW],
    "valid_until": [YESTERDAY, TODAY],
    "purposes": PURPOSES,
}
AGREEMENTS = _changed(
    AGREEMENT,
    4,
    **TERM,
    provider=[OTHER],
    consumer=[OTHER],
    item=[ANOTHER],
    mode=[Mode.QUERY],
    sections=[EVERYTHING, NOTHING, frozenset({PLAIN})],
    regions=[frozenset(), frozenset({"33"}), frozenset({"330402", "32"})],
    grounds=[frozenset(), frozenset({Ground.CONSENT}), frozenset({Ground.STATUTORY_DUTY})],
    duties=[frozenset(), frozenset({""}), frozenset({DUTY, ""})],
    notice=[Notice.MISSING, Notice.EXEMPT_DUTY],
    purpose_until=[YESTERDAY, TODAY],
    statuses=[frozenset(Status), frozenset({Status.EXPIRED}), frozenset({Status.ERASED, Status.VALID})],
    superseded=[True],
    onward=[frozenset()],
    set_limit=[None, 3],
    set_until=[None, YESTERDAY],
    state=list(AgreementState),
)
CONSENTS = _changed(
    replace(CONSENT, agreements=frozenset()),
    3,
    **TERM,
    recipient=[OTHER],
    scopes=[
        (replace(SCOPE, subject=CO_HOLDER),),
        (SCOPE, replace(SCOPE, subject=CO_HOLDER)),
        (replace(SCOPE, item=ANOTHER, sections=EVERYTHING),),
        (replace(SCOPE, sections=frozenset({PLAIN})),),
        (replace(SCOPE, sensitive=NOTHING), replace(SCOPE, item=ANOTHER)),
    ],
    agreements=[frozenset({AGREEMENT.hash.hex()}), frozenset({"00" * 32})],
    mode=[Mode.QUERY],
    notice=[Notice.MISSING, Notice.EXEMPT_SECRECY],
    given_by=[Giver.GUARDIAN],
    minor_until=[TODAY, TOMORROW],
    state=list(ConsentState),
)
POWERS = _changed(
    POWER,
    2,
    **TERM,
    right=[PowerKind.ISSUE],
    grantor=[OTHER],
    grantee=[OTHER],
    items=[frozenset({ANOTHER})],
    regions=[frozenset(), frozenset({"3305"})],
    state=list(PowerState),
)
MANDATES = _changed(
    MANDATE,
    2,
    **TERM,
    agent=["agent-8"],
    subjects=[(Holder(item=ITEM.name, subject=CO_HOLDER),), (Holder(item=ANOTHER, subject=HOLDER),), ()],
    state=list(PowerState),
)
RECORDS = _changed(
    RECORD,
    1,
    state=list(RecordState),
    item=[ANOTHER],
    issuer=[OTHER],
    region=["320800", "330000"],
    holders=[(HOLDER, CO_HOLDER), (HOLDER, CO_HOLDER), ()],
    known_schema=[False],
    status=list(Status),
    valid_from=[TODAY, TOMORROW],
    valid_until=[YESTERDAY, TODAY, None],
    superseded=[True, True],
)
LIMITS = (Code.RATE_EXCEEDED, Code.VOLUME_EXCEEDED, Code.CONSENT_USED_UP, Code.CONSENT_FREQUENCY)
PARTIES = _changed(
    FACTS,
    1,
    consumer_known=[True, True, False],
    consumer_suspended=[True],
    index_fresh=[False],
    audit_current=[False],
    entry=[
        None,
        *(replace(ENTRY, state=state) for state in EntryState),
        replace(ENTRY, valid_from=TOMORROW),
        replace(ENTRY, valid_until=YESTERDAY),
    ],
    used_up=[
        {},
        *({UUID(int=100): code} for code in LIMITS[:2]),
        *({UUID(int=200): code, UUID(int=201): code} for code in LIMITS[2:]),
    ],
)
ASKED: dict[str, Sequence[Any]] = {
    "consumer": [OTHER, WINDOW, WINDOW, WINDOW],
    "purpose": [STATISTICS, BROADER],
    "ground": ["CONTRACT", "OTHER_LAW"],
    "citation": [""],
    "agent": [AGENT, AGENT],
    "mode": [Mode.STREAM],
    "onward_to": [OTHER, WINDOW],
    "set_size": [3, 4],
}
CASES = st.builds(
    lambda facts, agreements, consents, powers, mandates, **others: Case(
        facts=replace(facts, agreements=agreements, consents=consents, powers=powers, mandates=mandates), **others
    ),
    facts=PARTIES,
    agreements=_documents(AGREEMENTS, 100, 1, 3),
    consents=_documents(CONSENTS, 200, 1, 4),
    powers=_documents(POWERS, 300, 0, 2),
    mandates=_documents(MANDATES, 400, 0, 2),
    item=st.sampled_from([ITEM] * 9 + [None]),
    access=st.one_of(_changed(BY_CONSENT, 2, **ASKED), _changed(BY_DUTY, 2, **ASKED)),
    sections=_lists(st.sampled_from([PLAIN, SENSITIVE, *SECTIONS, "other"]), 1, 5),
    record=RECORDS,
    now=st.sampled_from([NOON, NOON.astimezone(UTC)]),
)


class Term(Protocol):
    """What begins and may end."""

    @property
    def valid_from(self) -> date:
        """First day."""

    @property
    def valid_until(self) -> date | None:
        """Last day."""


# Each purpose asked for, and all that allow it.
ALLOWED_BY = {
    PURPOSE: {PURPOSE, BROADER, "government-service"},
    BROADER: {BROADER, "government-service"},
    STATISTICS: {STATISTICS},
}


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
        listed = facts.entry is not None and facts.entry.state == "PUBLISHED" and self._in(facts.entry)
        if not (known and sound and listed and case.item and case.item.name == record.item and section in SECTIONS):
            return False
        if case.access.agent and not self._mandated():
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

    def _in(self, term: Term) -> bool:
        return term.valid_from <= self.today <= (term.valid_until or date.max)

    def _for(self, purposes: Iterable[str]) -> bool:
        return bool(ALLOWED_BY[self.case.access.purpose] & set(purposes))

    def _there(self, regions: frozenset[str]) -> bool:
        return not regions or any(self.case.record.region[:digits] in regions for digits in (2, 4, 6))

    def _mandated(self) -> bool:
        record = self.case.record
        return any(
            one.agent == self.case.access.agent
            and any(s.item == record.item and s.subject in record.holders for s in one.subjects)
            and one.state == "ACTIVE"
            and self._in(one)
            and self._for(one.purposes)
            for one in self.case.facts.mandates
        )

    def _acts_for(self, department: str) -> bool:
        """The department itself, or one that it let open in its stead."""
        return self.case.access.consumer == department or any(
            (one.grantor, one.grantee, one.right) == (department, self.case.access.consumer, "OPEN")
            and one.state == "ACTIVE"
            and self._in(one)
            and self.case.record.item in one.items
            and self._for(one.purposes)
            and self._there(one.regions)
            for one in self.case.facts.powers
        )

    def _agrees(self, one: Agreement, section: str) -> bool:
        access, record = self.case.access, self.case.record
        parties = one.provider == record.issuer and one.item == record.item and self._acts_for(one.consumer)
        scope = self._for(one.purposes) and section in one.sections and self._there(one.regions)
        force = one.state == "ACTIVE" and self._in(one) and one.id not in self.case.facts.used_up
        needed = self.today <= (one.purpose_until or date.max)
        state = self._state() == "VALID" or self._state() in one.statuses
        version = one.superseded or not record.superseded
        fetched = access.mode == "QUERY" or one.mode == "STREAM"
        passed = not access.onward_to or access.onward_to in one.onward
        settled = one.notice != "MISSING" and self._set(one)
        allowed = parties and scope and force and needed and state and version and fetched and passed and settled
        return allowed and self._grounded(one, section)

    def _set(self, one: Agreement) -> bool:
        if not self.case.access.set_size:
            return True
        capped = one.set_limit is not None and self.case.access.set_size <= one.set_limit
        return capped and self.today <= (one.set_until or date.max) and self.case.access.ground != "CONSENT"

    def _grounded(self, one: Agreement, section: str) -> bool:
        access, holders = self.case.access, self.case.record.holders
        if access.ground not in {ground.value for ground in one.grounds}:
            return False
        if access.ground != "CONSENT":
            return access.citation != "" and access.citation in one.duties
        return bool(holders) and all(
            any(self._consents(given, one, holder, section) for given in self.case.facts.consents) for holder in holders
        )

    def _consents(self, given: Consent, under: Agreement, holder: bytes, section: str) -> bool:
        scopes = [s for s in given.scopes if s.subject == holder and s.item == self.case.record.item]
        child = given.minor_until is not None and self.today < given.minor_until
        delicate = SECTIONS[section].sensitive or child
        scope = any(section in s.sections and (section in s.sensitive or not delicate) for s in scopes)
        told = given.notice == "GIVEN" and (given.given_by == "GUARDIAN" or not child)
        fetched = self.case.access.mode == "QUERY" or given.mode == "STREAM"
        terms = not given.agreements or under.hash.hex() in given.agreements
        force = given.state == "ACTIVE" and self._in(given) and given.id not in self.case.facts.used_up
        to = given.recipient == under.consumer and self._for(given.purposes)
        return to and scope and told and fetched and terms and force


@given(CASES)
@settings(max_examples=1200, deadline=None)
def test_a_section_opens_exactly_when_the_rules_say_so(case: Case) -> None:
    """An independent reading of the rules permits the same sections of random facts, and no other."""
    naive = Naive(case)
    assert case.decide().permitted == tuple(name for name in dict.fromkeys(case.sections) if naive.opens(name))


def test_random_facts_are_permitted_often_enough() -> None:
    """Else the law above would say nothing of permits: also of those by powers, mandates and for sets."""
    permitted: list[Case] = []
    count = 0

    @given(CASES)
    @settings(max_examples=400, deadline=None, database=None, derandomize=True)
    def collect(case: Case) -> None:
        nonlocal count
        count += 1
        if case.decide().permitted:
            permitted.append(case)

    collect()
    assert len(permitted) > count / 8
    kinds = {type(one).__name__ for case in permitted for one in case.decide().rests_on}
    assert kinds == {"Agreement", "Consent", "Power", "Mandate", "CatalogueEntry"}
    assert any(case.access.set_size and "plain" in case.decide().permitted for case in permitted)


def _with_less(case: Case) -> Iterator[Case]:
    """The same case with one fact that speaks for it taken away."""
    facts = case.facts
    for name in ("agreements", "consents", "powers", "mandates"):
        documents = getattr(facts, name)
        for at, one in enumerate(documents):
            fewer: list[tuple[Any, ...]] = [()]
            # Not what bounds more by being there: no region is everywhere, no agreement named is any.
            for part in {"sections", "purposes", "grounds", "duties", "statuses", "onward", "items"}.intersection(
                dir(one)
            ):
                changed: dict[str, Any] = {part: frozenset()}
                fewer.append((replace(one, **changed),))
            for less in fewer:
                changed = {name: (*documents[:at], *less, *documents[at + 1 :])}
                yield replace(case, facts=replace(facts, **changed))
    yield replace(case, facts=replace(facts, consumer_known=False))
    yield replace(case, facts=replace(facts, index_fresh=False))
    yield replace(case, facts=replace(facts, audit_current=False))
    yield replace(case, facts=replace(facts, entry=None))
    yield replace(case, access=replace(case.access, citation=""))
    yield replace(case, record=replace(case.record, known_schema=False))
    yield replace(case, item=None)


@given(CASES)
@settings(max_examples=250, deadline=None)
def test_taking_a_fact_away_never_permits(case: Case) -> None:
    """What was refused stays refused with one document, section, purpose, ... less."""
    permitted = set(case.decide().permitted)
    # Another hash is another agreement: a consent that names none goes with any.
    consents = tuple(replace(one, agreements=NOTHING) for one in case.facts.consents)
    if replace(case, facts=replace(case.facts, consents=consents)).decide().permitted != case.decide().permitted:
        return
    for less in _with_less(replace(case, facts=replace(case.facts, consents=consents))):
        assert set(less.decide().permitted) <= permitted


@given(CASES)
@settings(max_examples=200, deadline=None)
def test_the_order_of_facts_and_sections_does_not_matter_to_what_opens(case: Case) -> None:
    """The database may give its rows in any order."""
    turned: dict[str, Any] = {
        name: getattr(case.facts, name)[::-1] for name in ("agreements", "consents", "powers", "mandates")
    }
    other = replace(case, facts=replace(case.facts, **turned), sections=tuple(case.sections)[::-1])
    assert set(other.decide().permitted) == set(case.decide().permitted)


@given(CASES)
@settings(max_examples=300, deadline=None)
def test_a_decision_holds_exactly_the_rules_of_its_permits(case: Case) -> None:
    """Every rule named in a permit is there to be limited and read again, and no other."""
    decision = case.decide()
    named = [word for s in decision.sections if s.code is Code.PERMIT for word in s.rule.split()]
    assert list(dict.fromkeys(named)) == [one.word for one in decision.rests_on]


@given(CASES)
@settings(max_examples=300, deadline=None)
def test_an_index_of_rules_leaves_out_nothing_that_opens(case: Case) -> None:
    """`RuleSet` finds what all documents together permit, and no more."""
    facts = case.facts
    documents: list[Basis] = [*facts.agreements, *facts.consents, *facts.powers, *facts.mandates]
    if facts.entry is not None:
        documents.append(facts.entry)
    found = RuleSet(documents).facts(case.access, case.record, used_up=facts.used_up)
    plain = replace(facts, consumer_known=True, consumer_suspended=False, index_fresh=True, audit_current=True)
    assert replace(case, facts=found).decide().permitted == replace(case, facts=plain).decide().permitted
