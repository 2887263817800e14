"""China's working days (工作日): weekends, public holidays, and the weekends that are worked instead (调休).

The days are the State Council's notices (国务院办公厅节假日安排), which come out a year at a time, in the package
`chinesecalendar`. A year that it does not know is unknown here, not guessed: an operator can name its days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from types import MappingProxyType

import chinese_calendar

from consent.decide import CHINA

_WEEK_DAYS = 5
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Year:
    """A year as its notice has it: what is free besides weekends, and which weekend days are worked."""

    holidays: frozenset[date]
    workdays: frozenset[date]


Years = Mapping[int, Year]
NONE: Years = MappingProxyType({})


def is_working_day(day: date, years: Years = NONE) -> bool | None:
    """Whether people in China work on that day; None beyond the known years. `years` come before the package's."""
    named = years.get(day.year)
    if named is not None:
        return day in named.workdays or (day.weekday() < _WEEK_DAYS and day not in named.holidays)
    try:
        return bool(chinese_calendar.is_workday(day))
    except NotImplementedError:  # its way to say that the year's notice is not in the package
        return None


def is_working_time(at: datetime, opens: time, closes: time, years: Years = NONE) -> bool | None:
    """Whether `at` (aware) is on a working day, from `opens` to before `closes` in UTC+8; None if nobody knows.

    Off hours are off hours on any day: those are known in every year.
    """
    local = at.astimezone(CHINA)
    if not opens <= local.time() < closes:
        return False
    return is_working_day(local.date(), years)


def add_working_days(start: date, days: int, years: Years = NONE) -> date | None:
    """The `days`-th working day after `start`; None if a day on the way is beyond the known years.

    `start` itself never counts, working day or not (民法典 art. 201: 开始的当日不计入). `days` is at least 1.
    """
    assert days >= 1
    day = start
    while days:
        day += _DAY
        works = is_working_day(day, years)
        if works is None:
            return None
        days -= works
    return day
