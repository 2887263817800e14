"""What a decision costs: a unit of each limit of everything that its permits rest on."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.gateway.facts import _unit
from consent.limits import EVER, Limit, beginning, limits
from consent.model import Basis, Every, Frequency
from schemas.errors import Code
from tests.consent.sound import AGREEMENT, CONSENT, ENTRY, MANDATE, POWER, TODAY

MONTH = date(2026, 3, 1)
LIMITED = replace(AGREEMENT, requests_a_day=7, records_a_day=5)
OFTEN = replace(CONSENT, max_uses=3, frequency=Frequency(uses=2, every=Every.MONTH))


def test_every_limit_of_a_document_costs_a_unit() -> None:
    """Requests and records of an agreement today, uses of a consent ever and in each period."""
    assert limits(LIMITED, TODAY) == [
        Limit(LIMITED.id, Code.RATE_EXCEEDED, TODAY, 7),
        Limit(LIMITED.id, Code.VOLUME_EXCEEDED, TODAY, 5),
    ]
    assert limits(OFTEN, TODAY) == [
        Limit(OFTEN.id, Code.CONSENT_USED_UP, EVER, 3),
        Limit(OFTEN.id, Code.CONSENT_FREQUENCY, MONTH, 2),
    ]


@pytest.mark.parametrize("document", [replace(AGREEMENT, records_a_day=None), POWER, MANDATE, ENTRY])
def test_what_has_no_limit_costs_nothing(document: Basis) -> None:
    """An absent limit is none, and powers, mandates and entries have none."""
    assert limits(document, TODAY) == []


@given(st.sampled_from(Every), st.dates(date(1970, 1, 2), date(9999, 12, 31)))
def test_a_period_is_named_by_its_first_day(every: Every, day: date) -> None:
    """Every day of it has the same, none before it has, and no period is taken for 'ever'."""
    first = beginning(every, day)
    assert beginning(every, first) == first <= day
    assert first == EVER or beginning(every, first - timedelta(days=1)) < first
    longest = {Every.DAY: 1, Every.WEEK: 7, Every.MONTH: 31, Every.YEAR: 366}[every]
    assert (day - first).days < longest


def test_a_week_begins_on_monday() -> None:
    """As GB/T 7408 (ISO 8601) has it."""
    assert beginning(Every.WEEK, date(2026, 3, 15)) == date(2026, 3, 9)


def test_a_request_is_one_unit_of_a_rate_and_a_record_one_of_the_others() -> None:
    """Two records of a request share its unit of a rate; what is repeated is the same unit; nothing else is."""
    request, other = b"r" * 16, b"s" * 16
    rate, volume = limits(LIMITED, TODAY)
    assert _unit(request, b"one", rate) == _unit(request, b"two", rate) != _unit(other, b"one", rate)
    units = {
        _unit(asked, record, limit)
        for asked in (request, other)
        for record in (b"one", b"two")
        for limit in (volume, *limits(OFTEN, TODAY), Limit(UUID(int=9), volume.code, TODAY, 5))
    }
    assert len(units) == 16
    assert _unit(request, b"one", volume) != _unit(request, b"one", replace(volume, period=MONTH))
