"""Who may issue what: by item, region and day, by law or delegated, and at what moment that was so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from consent.issuing import Issuing, Standing, standing
from consent.model import CatalogueEntry, DataClass, EntryState, Power, PowerKind, PowerState
from schemas.errors import Code, Refused

OPERATOR, CITY, COUNTY, WINDOW, OTHER = "operator", "city", "county", "window", "other"
ITEM = "business-licence"
NOW = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ENTRY = CatalogueEntry(
    id=UUID(int=1),
    revision=3,
    item=ITEM,
    definition=bytes(32),
    format="Avro",
    update="REALTIME",
    data_class=DataClass.GENERAL,
    drafted_by=OPERATOR,
    valid_from=date(2020, 1, 1),
    valid_until=None,
    state=EntryState.PUBLISHED,
)
BY_LAW = Power(
    id=UUID(int=2),
    revision=1,
    right=PowerKind.ISSUE,
    grantor=OPERATOR,
    grantee=CITY,
    items=frozenset({ITEM}),
    purposes=frozenset(),
    regions=frozenset({"3304"}),
    valid_from=date(2020, 1, 1),
    valid_until=None,
    basis="",
    state=PowerState.ACTIVE,
)
DELEGATED = replace(BY_LAW, id=UUID(int=3), grantor=CITY, grantee=WINDOW, regions=frozenset({"330411"}))


def asked(*documents: CatalogueEntry | Power, at: datetime = NOW, since: datetime = NOW - HOUR, **changed: Any) -> str:
    """The department in whose power the record counts, or the code of the refusal."""
    found = [standing(one, since) for one in documents]
    issuing = Issuing(OPERATOR, [one for one in found if one is not None])
    question = {"item": ITEM, "issuer": CITY, "region": "330411"} | changed
    try:
        return issuing.authority(at=at, **question)
    except Refused as exc:
        return exc.code


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, CITY),
        ({"region": "330102"}, Code.ISSUER_NOT_ENTITLED),
        ({"issuer": OTHER}, Code.ISSUER_NOT_ENTITLED),
        ({"issuer": WINDOW}, CITY),
        ({"issuer": WINDOW, "region": "330402"}, Code.ISSUER_NOT_ENTITLED),
        ({"issuer": WINDOW, "before": CITY}, CITY),
        ({"issuer": CITY, "before": OTHER}, Code.ISSUER_NOT_ENTITLED),
        ({"item": "tax-registration"}, Code.ITEM_NOT_PUBLISHED),
    ],
)
def test_item_region_and_licence(changed: dict[str, Any], said: str) -> None:
    """A delegated power gives its grantor's authority, in its own regions, for the grantor's licences."""
    assert asked(ENTRY, BY_LAW, DELEGATED, **changed) == said


def test_a_power_counts_on_its_days_in_china() -> None:
    """From the first minute of its first day to the last of its last, UTC+8."""
    power = replace(BY_LAW, valid_from=date(2026, 3, 2), valid_until=date(2026, 3, 2))
    first, last = datetime(2026, 3, 1, 16, 0, tzinfo=UTC), datetime(2026, 3, 2, 15, 59, 59, tzinfo=UTC)
    second = timedelta(seconds=1)
    said = [asked(ENTRY, power, at=at) for at in (first - second, first, last, last + second)]
    assert said == [Code.ISSUER_NOT_ENTITLED, CITY, CITY, Code.ISSUER_NOT_ENTITLED]


def test_what_ended_counts_for_what_came_before() -> None:
    """A power that was taken back, an entry that was retired: from that moment on, and not before."""
    ended, retired = replace(BY_LAW, state=PowerState.ENDED), replace(ENTRY, state=EntryState.RETIRED)
    assert [asked(ENTRY, ended, at=at, since=NOW) for at in (NOW - HOUR, NOW)] == [CITY, Code.ISSUER_NOT_ENTITLED]
    assert [asked(retired, BY_LAW, at=at, since=NOW) for at in (NOW - HOUR, NOW)] == [CITY, Code.ITEM_RETIRED]


def test_an_entry_counts_from_its_publication() -> None:
    """A draft never counts; a published one for what comes after; the newer one of an item goes on where one ended."""
    assert asked(replace(ENTRY, state=EntryState.DRAFT), BY_LAW) == Code.ITEM_NOT_PUBLISHED
    law = Standing(document=BY_LAW, opened=None, closed=None)
    issuing = Issuing(OPERATOR, [law, Standing(document=ENTRY, opened=NOW, closed=None)])
    with pytest.raises(Refused) as refused:
        issuing.authority(ITEM, CITY, "330411", NOW - HOUR)
    assert refused.value.code is Code.ITEM_NOT_PUBLISHED
    assert issuing.authority(ITEM, CITY, "330411", NOW) == CITY
    issuing.put(Standing(document=replace(ENTRY, state=EntryState.RETIRED), opened=NOW, closed=NOW + HOUR))
    issuing.put(Standing(document=replace(ENTRY, id=UUID(int=9)), opened=NOW + HOUR, closed=None))
    assert issuing.authority(ITEM, CITY, "330411", NOW + HOUR) == CITY


def test_nobody_passes_on_what_is_not_theirs() -> None:
    """Not a delegated power, not one that ended, none outside the grantor's region, and none to oneself."""
    further = replace(DELEGATED, id=UUID(int=4), grantor=WINDOW, grantee=OTHER)
    assert asked(ENTRY, BY_LAW, DELEGATED, further, issuer=OTHER) == Code.ISSUER_NOT_ENTITLED
    ended = replace(BY_LAW, state=PowerState.ENDED)
    assert asked(ENTRY, ended, DELEGATED, issuer=WINDOW) == Code.ISSUER_NOT_ENTITLED
    wide = replace(DELEGATED, regions=frozenset())
    assert asked(ENTRY, BY_LAW, wide, issuer=WINDOW, region="330102") == Code.ISSUER_NOT_ENTITLED
    mine = replace(DELEGATED, grantor=OTHER, grantee=OTHER)
    assert asked(ENTRY, mine, issuer=OTHER) == Code.ISSUER_NOT_ENTITLED
    opening = replace(BY_LAW, right=PowerKind.OPEN)
    assert asked(ENTRY, opening) == Code.ISSUER_NOT_ENTITLED


def test_a_window_of_two_departments_goes_on_with_each_ones_licences() -> None:
    """A new licence is the first one's by credit code, or the issuer's own if it has the power itself."""
    county = replace(BY_LAW, id=UUID(int=5), grantee=COUNTY)
    second = replace(DELEGATED, id=UUID(int=6), grantor=COUNTY)
    documents = (ENTRY, BY_LAW, DELEGATED, county, second)
    assert [asked(*documents, issuer=WINDOW, before=before) for before in (None, COUNTY)] == [CITY, COUNTY]
    own = replace(BY_LAW, id=UUID(int=7), grantee=WINDOW)
    assert asked(*documents, own, issuer=WINDOW) == WINDOW
