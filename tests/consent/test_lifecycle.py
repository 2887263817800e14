"""Lives of documents: what no table allows is refused; no sequence of acts opens anything without a ground in force."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from consent.documents import Document
from consent.lifecycle import BEGINNINGS, TABLES, Act, Role, act, opens
from consent.model import (
    Agreement,
    AgreementState,
    CatalogueEntry,
    Consent,
    ConsentState,
    Correction,
    CorrectionState,
    Dispute,
    DisputeState,
    EntryState,
    Mandate,
    Power,
    PowerState,
)
from schemas.errors import Code, Refused
from tests.consent.sound import (
    AGENT,
    AGREEMENT,
    BY_CONSENT,
    CONSENT,
    ENTRY,
    FACTS,
    FIRST,
    LAST,
    MANDATE,
    NOON,
    POWER,
    RECORD,
    WINDOW,
    Case,
)

KINDS = list(TABLES)
STATES: dict[type[Document], Any] = {kind: type(next(iter(begins))) for kind, begins in BEGINNINGS.items()}
FINAL = {
    *(AgreementState.REFUSED, AgreementState.EXPIRED, AgreementState.TERMINATED),
    *(ConsentState.DECLINED, ConsentState.WITHDRAWN, ConsentState.EXPIRED),
    *(PowerState.ENDED, PowerState.EXPIRED),
    EntryState.RETIRED,
    *(CorrectionState.FIXED, CorrectionState.CONFIRMED),
    *(DisputeState.SETTLED, DisputeState.DECIDED),
}
ROLES = st.frozensets(st.sampled_from(Role))
BY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)

# What a lawyer would strike out first: who may do what. Written once more, apart from the tables.
ALLOWED = {
    Agreement: """
        SUBMITTED ACCEPT ACCEPTED provider; SUBMITTED RETURN RETURNED provider; SUBMITTED END TERMINATED consumer;
        RETURNED RESUBMIT SUBMITTED consumer; RETURNED END TERMINATED consumer;
        ACCEPTED APPROVE APPROVED provider; ACCEPTED REFUSE REFUSED provider; ACCEPTED END TERMINATED consumer;
        APPROVED PROVISION PROVISIONED provider; APPROVED END TERMINATED provider consumer;
        PROVISIONED ACTIVATE ACTIVE consumer; PROVISIONED END TERMINATED provider consumer;
        ACTIVE SUSPEND SUSPENDED provider consumer; ACTIVE END TERMINATED provider consumer;
        SUSPENDED RESUME ACTIVE provider; SUSPENDED END TERMINATED provider consumer;
        SUBMITTED EXPIRE EXPIRED clock; RETURNED EXPIRE EXPIRED clock; ACCEPTED EXPIRE EXPIRED clock;
        APPROVED EXPIRE EXPIRED clock; PROVISIONED EXPIRE EXPIRED clock; ACTIVE EXPIRE EXPIRED clock;
        SUSPENDED EXPIRE EXPIRED clock""",
    Consent: """
        REQUESTED GIVE ACTIVE provider; REQUESTED DECLINE DECLINED provider;
        REQUESTED WITHDRAW WITHDRAWN provider consumer issuer; REQUESTED EXPIRE EXPIRED clock;
        ACTIVE PAUSE PAUSED provider consumer issuer; ACTIVE WITHDRAW WITHDRAWN provider consumer issuer;
        ACTIVE EXPIRE EXPIRED clock; PAUSED RESUME ACTIVE provider;
        PAUSED WITHDRAW WITHDRAWN provider consumer issuer; PAUSED EXPIRE EXPIRED clock""",
    Power: "ACTIVE END ENDED provider consumer; ACTIVE EXPIRE EXPIRED clock",
    Mandate: "ACTIVE END ENDED provider consumer; ACTIVE EXPIRE EXPIRED clock",
    CatalogueEntry: """
        DRAFT REVIEW REVIEWED operator; DRAFT RETIRE RETIRED provider operator; REVIEWED RETURN DRAFT operator;
        REVIEWED PUBLISH PUBLISHED operator; PUBLISHED RETIRE RETIRED operator; PUBLISHED EXPIRE RETIRED clock""",
    Correction: "REQUESTED FIX FIXED provider; REQUESTED CONFIRM CONFIRMED provider",
    Dispute: """
        DISPUTED SETTLE SETTLED provider consumer; DISPUTED COORDINATE COORDINATED operator;
        COORDINATED SETTLE SETTLED provider consumer; COORDINATED DECIDE DECIDED operator""",
}


def _documents(kind: type[Document]) -> st.SearchStrategy[Any]:
    return st.from_type(kind)


@BY_KIND
def test_the_tables_are_as_written_here(kind: type[Document]) -> None:
    """A transition more or less, or another who may do it, is a change of the rules: it is made in both places."""
    read = {
        (STATES[kind](before), Act(what)): (STATES[kind](after), {Role(who.upper()) for who in roles})
        for before, what, after, *roles in map(str.split, ALLOWED[kind].split(";"))
    }
    assert {key: (step.state, set(step.roles)) for key, step in TABLES[kind].items()} == read


@BY_KIND
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_not_in_the_table_is_refused(kind: type[Document], data: st.DataObject) -> None:
    """Any state, act, caller and reason: allowed by the table, or refused with its code; nothing else changes."""
    document = data.draw(_documents(kind))
    what, roles, reason = data.draw(st.sampled_from(Act)), data.draw(ROLES), data.draw(st.sampled_from(["", "why"]))
    step = TABLES[kind].get((document.state, what))
    expected = (
        Code.STATE_INVALID
        if step is None
        else Code.REQUEST_FORBIDDEN
        if not roles & step.roles
        else Code.REASON_MISSING
        if step.reason and not reason
        else None
    )
    if expected is None:
        assert step is not None
        after = act(document, what, roles, reason=reason)
        assert (after.state, after.revision) == (step.state, document.revision + 1)
        assert after.body() == document.body()
        return
    with pytest.raises(Refused) as refused:
        act(document, what, roles, reason=reason)
    assert refused.value.code is expected


@BY_KIND
def test_final_states_are_final_and_every_other_ends(kind: type[Document]) -> None:
    """Nothing leads out of them, everything else leads to one; every state can be come to."""
    table = TABLES[kind]
    reached = set(BEGINNINGS[kind])
    while more := {step.state for (before, _), step in table.items() if before in reached} - reached:
        reached |= more
    assert reached == set(STATES[kind])
    assert {state for state in reached if not any(before is state for before, _ in table)} == FINAL & reached
    ends = FINAL & reached
    while more := {before for (before, _), step in table.items() if step.state in ends} - ends:
        ends |= more
    assert ends == reached


@BY_KIND
def test_the_clock_does_what_nobody_else_can(kind: type[Document]) -> None:
    """And nobody else's act is the clock's."""
    for (_, what), step in TABLES[kind].items():
        assert (step.roles == {Role.CLOCK}) is (what is Act.EXPIRE)
        assert (Role.CLOCK in step.roles) is (what is Act.EXPIRE)


def test_what_opens_says_so() -> None:
    """An act that leads to what a permit can rest on is logged before it counts, and no other has to wait."""
    opening = {AgreementState.ACTIVE, ConsentState.ACTIVE, EntryState.PUBLISHED}
    for kind, table in TABLES.items():
        for (before, what), step in table.items():
            assert opens(kind, before, what) is (step.state in opening)
    assert not opens(Agreement, AgreementState.REFUSED, Act.RESUME)


def test_an_application_is_returned_once() -> None:
    """一次性告知: the second return is refused; an entry of the catalogue may be returned again."""
    application = replace(AGREEMENT, state=AgreementState.SUBMITTED)
    provider = frozenset({Role.PROVIDER})
    assert act(application, Act.RETURN, provider, reason="why").state is AgreementState.RETURNED
    with pytest.raises(Refused) as refused:
        act(application, Act.RETURN, provider, reason="why", done=frozenset({Act.SUBMIT, Act.RETURN}))
    assert refused.value.code is Code.STATE_INVALID
    assert act(application, Act.ACCEPT, provider, done=frozenset({Act.RETURN})).state is AgreementState.ACCEPTED
    reviewed = replace(ENTRY, state=EntryState.REVIEWED)
    operator = frozenset({Role.OPERATOR})
    again = act(reviewed, Act.RETURN, operator, reason="why", done=frozenset({Act.RETURN}))
    assert again.state is EntryState.DRAFT


@pytest.mark.parametrize("who", [Role.PROVIDER, Role.CONSUMER, Role.ISSUER])
@pytest.mark.parametrize("state", [ConsentState.REQUESTED, ConsentState.ACTIVE, ConsentState.PAUSED])
def test_withdrawing_is_as_easy_as_giving(who: Role, state: ConsentState) -> None:
    """PIPL art. 15: no reason, from every state that is not final, by whoever the subject turns to."""
    assert act(replace(CONSENT, state=state), Act.WITHDRAW, frozenset({who})).state is ConsentState.WITHDRAWN


class Lives(RuleBasedStateMachine):
    """Acts on five documents that one permit rests on, by anybody, in any order, looked at on three days."""

    opened: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.documents: dict[str, Any] = {
            "agreement": replace(AGREEMENT, state=AgreementState.SUBMITTED),
            "consent": replace(CONSENT, state=ConsentState.REQUESTED),
            "power": POWER,
            "mandate": MANDATE,
            "entry": replace(ENTRY, state=EntryState.DRAFT),
        }
        self.done: dict[str, list[Act]] = {name: [] for name in self.documents}
        self.in_force = False

    @rule(data=st.data(), what=st.sampled_from(Act), roles=ROLES, reason=st.sampled_from(["", "why"]))
    def act(self, data: st.DataObject, what: Act, roles: frozenset[Role], reason: str) -> None:
        """Anything by anybody."""
        self.do(data.draw(st.sampled_from(sorted(self.documents))), what, roles, reason)

    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        """What the tables have, so that lives get somewhere; not the ends, which come often enough by themselves."""
        name, what, step = data.draw(st.sampled_from([s for one in self.documents for s in self.steps(one)]))
        self.do(name, what, step.roles, "why")

    def steps(self, name: str) -> list[tuple[str, Act, Any]]:
        """What leads one document on."""
        document = self.documents[name]
        return [
            (name, what, step)
            for (before, what), step in TABLES[type(document)].items()
            if before is document.state and step.state not in FINAL
        ] or [("power", Act.GIVE, TABLES[Power][PowerState.ACTIVE, Act.END])]  # refused: there is nothing to do

    def do(self, name: str, what: Act, roles: frozenset[Role], reason: str) -> None:
        """A refused act changes nothing."""
        document = self.documents[name]
        try:
            self.documents[name] = act(document, what, roles, reason=reason, done=frozenset(self.done[name]))
        except Refused:
            assert self.documents[name] is document
        else:
            self.done[name].append(what)

    @invariant()
    def permits_rest_on_what_is_in_force(self) -> None:
        """By what was done and what day it is, not by states: each document began, was not stopped, has not ended.

        The clock's own acts may be late: no decision waits for them.
        """
        facts = replace(
            FACTS,
            entry=self.documents["entry"],
            agreements=(self.documents["agreement"],),
            consents=(self.documents["consent"],),
            powers=(self.documents["power"],),
            mandates=(self.documents["mandate"],),
        )
        case = Case(
            access=replace(BY_CONSENT, consumer=WINDOW, agent=AGENT),
            facts=facts,
            record=replace(RECORD, valid_from=None, valid_until=None),
        )
        self.in_force = all(_in_force(name, done) for name, done in self.done.items())
        Lives.opened += self.in_force
        day = timedelta(days=1)
        for moment, in_term in ((NOON, True), (_noon(FIRST - day), False), (_noon(LAST + day), False)):
            assert bool(replace(case, now=moment).decide().permitted) is (self.in_force and in_term)


def _noon(day: date) -> datetime:
    return datetime.combine(day, NOON.timetz())


# What must have been done to each, in this order (other acts may lie between), for it to be in force.
BEGUN = {
    "agreement": [Act.ACCEPT, Act.APPROVE, Act.PROVISION, Act.ACTIVATE],
    "consent": [Act.GIVE],
    "power": [],
    "mandate": [],
    "entry": [Act.REVIEW, Act.PUBLISH],
}
STOPS = {Act.SUSPEND: Act.RESUME, Act.PAUSE: Act.RESUME}
ENDS = {Act.END, Act.EXPIRE, Act.WITHDRAW, Act.DECLINE, Act.REFUSE, Act.RETIRE}


def _in_force(name: str, done: list[Act]) -> bool:
    past: Iterator[Act] = iter(done)
    begun = all(what in past for what in BEGUN[name])
    stopped = [what for what in done if what in STOPS or what is Act.RESUME]
    return begun and not ENDS & set(done) and (not stopped or stopped[-1] is Act.RESUME)


def test_no_sequence_of_acts_opens_anything_without_a_ground_in_force() -> None:
    """And while all of them are in force it opens, which some of the sequences come to."""
    bounds = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, database=None)
    run_state_machine_as_test(Lives, settings=bounds)
    assert Lives.opened > 0


def test_a_whole_life_opens_from_its_last_step_to_its_first_stop() -> None:
    """Step by step, as a clerk does it."""
    lives = Lives()
    opened: list[str] = []
    for name, what, who in (
        ("entry", Act.REVIEW, Role.OPERATOR),
        ("entry", Act.PUBLISH, Role.OPERATOR),
        ("consent", Act.GIVE, Role.PROVIDER),
        ("agreement", Act.ACCEPT, Role.PROVIDER),
        ("agreement", Act.APPROVE, Role.PROVIDER),
        ("agreement", Act.PROVISION, Role.PROVIDER),
        ("agreement", Act.ACTIVATE, Role.CONSUMER),
        ("consent", Act.PAUSE, Role.ISSUER),
        ("consent", Act.RESUME, Role.PROVIDER),
        ("agreement", Act.SUSPEND, Role.CONSUMER),
        ("agreement", Act.RESUME, Role.PROVIDER),
        ("consent", Act.WITHDRAW, Role.ISSUER),
    ):
        lives.documents[name] = act(lives.documents[name], what, frozenset({who}), reason="why")
        lives.done[name].append(what)
        lives.permits_rest_on_what_is_in_force()
        if lives.in_force:
            opened.append(what.value)
    assert opened == ["ACTIVATE", "RESUME", "RESUME"]
