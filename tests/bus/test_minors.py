"""Until when a person is under 14, as the citizen number says it."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from bus.gateway.consents import SubjectBody, minor_until
from tests.integration.bus import citizen_number

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("born", "turns"),
    [
        (date(2012, 3, 15), date(2026, 3, 15)),
        (date(2012, 1, 1), date(2026, 1, 1)),
        (date(2012, 12, 31), date(2026, 12, 31)),
        (date(2012, 2, 28), date(2026, 2, 28)),
        (date(2012, 2, 29), date(2026, 3, 1)),  # no such day in 2026
        (date(2012, 3, 1), date(2026, 3, 1)),
    ],
)
def test_the_day_before_the_fourteenth_birthday_is_the_last(born: date, turns: date) -> None:
    """From the birthday on nothing says that the person ever was a minor."""
    subject = SubjectBody(kind="PERSON", id=citizen_number(born))
    assert minor_until(subject, born) == minor_until(subject, turns - DAY) == turns
    assert minor_until(subject, turns) is None
    assert minor_until(subject, turns + DAY) is None


def test_a_firm_is_never_a_minor() -> None:
    """However its code reads."""
    assert minor_until(SubjectBody(kind="ORGANISATION", id="91330411MA2B00019F"), date(2026, 1, 1)) is None
