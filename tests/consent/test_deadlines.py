"""Deadlines: which limit runs in which state, from which day, and what is said where the calendar ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from uuid import UUID

import pytest

from consent.deadlines import Standing, running
from consent.documents import Document
from consent.lifecycle import Act
from consent.model import (
    Agreement,
    AgreementState,
    ConsentState,
    Correction,
    CorrectionState,
    Dispute,
    DisputeState,
)
from schemas.catalogue import ShareClass
from tests.consent import sound
from tests.consent.test_calendar import FAR

FREE, ASKED = ShareClass.UNCONDITIONAL, ShareClass.CONDITIONAL
ID = UUID(int=1)
AGREEMENT = replace(
    sound.AGREEMENT, revision=1, valid_until=None, data_life=None, set_until=None, state=AgreementState.SUBMITTED
)
CORRECTION = Correction(
    id=ID,
    revision=1,
    record=b"",
    item="licence",
    provider="p",
    consumer="c",
    section="identity",
    reason="",
    state=CorrectionState.REQUESTED,
)
DISPUTE = Dispute(
    id=ID, revision=1, agreement=ID, provider="p", consumer="c", raised_by="c", reason="", state=DisputeState.DISPUTED
)
CONSENT = replace(sound.CONSENT, revision=1, state=ConsentState.REQUESTED)
DAY = date(2025, 9, 25)  # before the National Day's holidays


def agreement(state: AgreementState) -> Agreement:
    return replace(AGREEMENT, state=state)


@pytest.mark.parametrize(
    ("document", "shares", "acts", "limit", "due"),
    [
        (AGREEMENT, [FREE], {Act.SUBMIT: DAY}, "ANSWER_UNCONDITIONAL", date(2025, 9, 26)),
        (AGREEMENT, [FREE, ASKED], {Act.SUBMIT: DAY}, "ANSWER_CONDITIONAL", date(2025, 10, 15)),
        (
            agreement(AgreementState.ACCEPTED),
            [ASKED],
            {Act.SUBMIT: DAY, Act.ACCEPT: date(2025, 9, 28)},  # accepting is no answer yet
            "ANSWER_CONDITIONAL",
            date(2025, 10, 15),
        ),
        (
            agreement(AgreementState.ACCEPTED),
            [FREE],
            {Act.SUBMIT: date(2025, 9, 1), Act.RETURN: date(2025, 9, 2), Act.RESUBMIT: DAY, Act.ACCEPT: DAY},
            "ANSWER_UNCONDITIONAL",
            date(2025, 9, 26),
        ),
        (
            agreement(AgreementState.APPROVED),
            [FREE],
            {Act.SUBMIT: date(2025, 9, 1), Act.APPROVE: DAY},
            "PROVISION",
            date(2025, 10, 29),
        ),
        (CORRECTION, [], {Act.REQUEST: DAY}, "CORRECTION", date(2025, 10, 15)),
        (DISPUTE, [], {Act.REQUEST: date(2025, 10, 9)}, "DISPUTE", date(2025, 11, 19)),
        (
            replace(DISPUTE, state=DisputeState.COORDINATED),
            [],
            {Act.REQUEST: date(2025, 10, 9), Act.COORDINATE: date(2025, 10, 30)},  # coordinating takes its part of them
            "DISPUTE",
            date(2025, 11, 19),
        ),
    ],
)
def test_the_limit_and_its_day(
    document: Document, shares: list[ShareClass], acts: dict[Act, date], limit: str, due: date
) -> None:
    """Days as the State Council's notice for 2025 has them; the last day is in time."""
    found = running(document, shares, acts)
    assert found is not None
    assert (found.limit.id, found.due) == (limit, due)
    assert [found.standing(day) for day in (found.since, due, date(2025, 12, 31))] == [
        Standing.RUNNING,
        Standing.RUNNING,
        Standing.LATE,
    ]


@pytest.mark.parametrize(
    "document",
    [
        *(
            agreement(state)
            for state in AgreementState
            if state not in (AgreementState.SUBMITTED, AgreementState.ACCEPTED, AgreementState.APPROVED)
        ),
        replace(CORRECTION, state=CorrectionState.FIXED),
        replace(CORRECTION, state=CorrectionState.CONFIRMED),
        replace(DISPUTE, state=DisputeState.SETTLED),
        replace(DISPUTE, state=DisputeState.DECIDED),
        CONSENT,  # a subject answers when it likes; its state has the name of a correction's
    ],
)
def test_nobody_else_has_a_deadline(document: Document) -> None:
    """In particular an application that was returned: its supplement counts anew."""
    assert running(document, [ASKED], dict.fromkeys(Act, DAY)) is None


def test_beyond_the_calendar_it_is_unknown_and_not_guessed() -> None:
    """Whatever the day; until the operator's own calendar says."""
    acts = {Act.SUBMIT: date(2090, 1, 1)}
    unknown = running(AGREEMENT, [FREE], acts)
    assert unknown is not None
    assert unknown.due is None
    assert unknown.standing(date(2099, 1, 1)) is Standing.UNKNOWN
    assert Standing.UNKNOWN.value == "DEADLINE_UNKNOWN"
    known = running(AGREEMENT, [FREE], acts, FAR)
    assert known is not None
    assert known.due == date(2090, 1, 4)
