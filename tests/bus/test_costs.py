"""What a decision costs: one unit of each limited rule that its permits rest on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import UUID

from bus.gateway.facts import EVER, _costs, _rules
from consent.model import Agreement, Consent, Decision, SectionDecision
from schemas.errors import Code
from tests.consent.test_model import AGREEMENT, CONSENT

FIRST = Agreement.from_json(AGREEMENT)
SECOND = replace(FIRST, id=UUID(int=7))
UNLIMITED = replace(FIRST, id=UUID(int=8), records_a_day=None)
GIVEN = replace(Consent.from_json(CONSENT), max_uses=3)
DECISION = Decision(
    sections=(SectionDecision("identity", Code.PERMIT, "rule"),),
    agreements=(FIRST, SECOND, UNLIMITED),
    consents=(GIVEN,),
)


def test_every_agreement_of_a_decision_is_limited() -> None:
    """Sections may open under different agreements; the day of a limit is counted in UTC+8."""
    late = datetime(2026, 3, 14, 16, 0, tzinfo=UTC)
    assert _costs(DECISION, late) == [
        ((FIRST.id, date(2026, 3, 15)), 5, Code.RATE_EXCEEDED),
        ((SECOND.id, date(2026, 3, 15)), 5, Code.RATE_EXCEEDED),
        ((GIVEN.id, EVER), 3, Code.CONSENT_USED_UP),
    ]


def test_every_rule_of_a_decision_is_read_again() -> None:
    """Before keys leave: also the agreements without a limit."""
    assert _rules(DECISION) == [FIRST, SECOND, UNLIMITED, GIVEN]


def test_a_refusal_costs_nothing() -> None:
    """It rests on nothing."""
    assert _costs(DECISION.refused(Code.FACTS_CHANGED), datetime.now(UTC)) == []
