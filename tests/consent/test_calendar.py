"""Working days (工作日) with 调休, and where the calendar ends."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.calendar import Year, add_working_days, is_working_day

# Years that an operator names, far from those that the package knows: no free days but weekends, and one of 调休.
FAR = {
    2090: Year(holidays=frozenset({date(2090, 1, 2), date(2090, 1, 3)}), workdays=frozenset({date(2090, 1, 7)})),
    2091: Year(holidays=frozenset({date(2091, 1, 1)}), workdays=frozenset()),
}


@pytest.mark.parametrize(
    ("start", "days", "end"),
    [
        ("2025-09-26", 1, "2025-09-28"),  # a Sunday that is worked
        ("2025-09-30", 1, "2025-10-09"),  # over the National Day and the Mid-Autumn Festival
        ("2025-09-25", 10, "2025-10-15"),
        ("2025-09-25", 20, "2025-10-29"),
        ("2025-10-04", 1, "2025-10-09"),  # from a holiday: the first day that is worked
        ("2024-12-31", 1, "2025-01-02"),  # over a year's end, New Year's Day free
    ],
)
def test_counted_by_the_notices(start: str, days: int, end: str) -> None:
    """The first day does not count."""
    assert add_working_days(date.fromisoformat(start), days) == date.fromisoformat(end)


@pytest.mark.parametrize(
    ("start", "days", "end"),
    [
        ("2090-01-01", 1, "2090-01-04"),  # Monday and Tuesday free
        ("2090-01-06", 1, "2090-01-07"),  # a Saturday that is worked
        ("2090-12-29", 1, "2091-01-02"),  # a Friday; Monday is New Year's Day
    ],
)
def test_counted_by_the_operator_alone(start: str, days: int, end: str) -> None:
    """Years that only the operator's file knows."""
    assert add_working_days(date.fromisoformat(start), days, FAR) == date.fromisoformat(end)
    assert add_working_days(date.fromisoformat(start), days) is None


def test_beyond_the_known_years_nothing_is_guessed() -> None:
    """As soon as one day on the way is not known; what ends before is."""
    assert add_working_days(date(2091, 12, 28), 1, FAR) == date(2091, 12, 31)
    assert add_working_days(date(2091, 12, 28), 2, FAR) is None
    assert add_working_days(date(2089, 12, 31), 1, FAR) == date(2090, 1, 4)  # the first day itself need not be known


@given(st.dates(date(2010, 1, 1), date(2024, 12, 31)), st.integers(1, 40))
def test_as_many_working_days_lie_between(start: date, days: int) -> None:
    """After the start, up to and with the end, which is one itself."""
    end = add_working_days(start, days)
    assert end is not None
    between = [start + timedelta(days=n) for n in range(1, (end - start).days + 1)]
    assert sum(bool(is_working_day(day)) for day in between) == days
    assert is_working_day(end)
