"""Stored agreements and consents: they come back as they were, and a damaged one is never read as something else."""

from __future__ import annotations

import json
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.model import Agreement, AgreementState, Consent, ConsentState, Ground, Status
from schemas.errors import Code, Malformed

NAMES = st.frozensets(st.text(max_size=8), max_size=3)
DAYS = st.dates()
COUNTS = st.integers(1, 2**53)
AGREEMENTS = st.builds(
    Agreement,
    id=st.uuids(),
    revision=COUNTS,
    provider=st.text(),
    consumer=st.text(),
    item=st.text(),
    sections=NAMES,
    purposes=NAMES,
    regions=NAMES,
    grounds=st.frozensets(st.sampled_from(Ground)),
    duties=NAMES,
    valid_from=DAYS,
    valid_until=st.none() | DAYS,
    records_a_day=st.none() | COUNTS,
    max_age=COUNTS,
    statuses=st.frozensets(st.sampled_from(Status)),
    superseded=st.booleans(),
    state=st.sampled_from(AgreementState),
)
CONSENTS = st.builds(
    Consent,
    id=st.uuids(),
    revision=COUNTS,
    subject=st.binary(min_size=32, max_size=32),
    recipient=st.text(),
    item=st.text(),
    purposes=NAMES,
    sections=NAMES,
    sensitive=NAMES,
    valid_from=DAYS,
    valid_until=st.none() | DAYS,
    max_uses=st.none() | COUNTS,
    recorded_by=st.text(),
    evidence=st.text(),
    state=st.sampled_from(ConsentState),
)
AGREEMENT: dict[str, Any] = {
    "id": str(UUID(int=1)),
    "revision": 1,
    "provider": "11330411MB2A00011E",
    "consumer": "1132080001400001X7",
    "item": "business-licence",
    "sections": ["identity"],
    "purposes": ["account-opening"],
    "regions": ["3304"],
    "grounds": ["CONSENT"],
    "duties": [],
    "valid_from": "2026-03-01",
    "valid_until": None,
    "records_a_day": 5,
    "max_age": 3600,
    "statuses": ["EXPIRED"],
    "superseded": False,
    "state": "ACTIVE",
}
CONSENT: dict[str, Any] = {
    "id": str(UUID(int=2)),
    "revision": 1,
    "subject": "ab" * 32,
    "recipient": "1132080001400001X7",
    "item": "business-licence",
    "purposes": ["account-opening"],
    "sections": ["identity"],
    "sensitive": [],
    "valid_from": "2026-03-01",
    "valid_until": "2026-12-31",
    "max_uses": None,
    "recorded_by": "11330411MB2A00011E",
    "evidence": "",
    "state": "ACTIVE",
}
WRONG_NUMBERS: list[Any] = ["1", 1.0, True, [1]]
WRONG_LISTS: list[Any] = ["identity", None, {"identity": 1}, [1], [None]]
WRONG_DAYS: list[Any] = ["", "2026-02-30", "20260301", "2026-W10-1", "2026-03-01T00:00:00", 20260301]


@given(AGREEMENTS)
def test_an_agreement_comes_back(agreement: Agreement) -> None:
    """Through JSON text, as the database keeps it."""
    assert Agreement.from_json(json.loads(json.dumps(agreement.to_json()))) == agreement


@given(CONSENTS)
def test_a_consent_comes_back(consent: Consent) -> None:
    """Through JSON text, as the database keeps it."""
    assert Consent.from_json(json.loads(json.dumps(consent.to_json()))) == consent


def test_the_documents_are_as_written_here() -> None:
    """The layout is stored for years: a change of it needs a migration."""
    assert Agreement.from_json(AGREEMENT).to_json() == AGREEMENT
    assert Consent.from_json(CONSENT).to_json() == CONSENT
    assert Agreement.from_json(AGREEMENT).valid_from == date(2026, 3, 1)


@pytest.mark.parametrize("name", AGREEMENT)
def test_an_agreement_without_one_of_its_entries_is_corrupt(name: str) -> None:
    """Nothing has a default: a lost limit or state would widen it."""
    _corrupt(Agreement, {key: value for key, value in AGREEMENT.items() if key != name})


@pytest.mark.parametrize("name", CONSENT)
def test_a_consent_without_one_of_its_entries_is_corrupt(name: str) -> None:
    """Nothing has a default."""
    _corrupt(Consent, {key: value for key, value in CONSENT.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("revision", "max_age", "records_a_day") for value in WRONG_NUMBERS),
        *((name, value) for name in ("sections", "regions", "duties", "grounds", "statuses") for value in WRONG_LISTS),
        *((name, value) for name in ("valid_from", "valid_until") for value in WRONG_DAYS),
        ("valid_from", None),
        ("max_age", None),
        ("id", "1"),
        ("id", 1),
        ("provider", None),
        ("grounds", ["CONTRACT"]),
        ("statuses", ["LOST"]),
        ("superseded", "false"),  # read as a truth value it would be true
        ("superseded", 0),
        ("superseded", None),
        ("state", "active"),
        ("state", "WITHDRAWN"),
        ("state", None),
        ("extra", 1),
    ],
)
def test_a_damaged_agreement_is_corrupt(name: str, value: Any) -> None:
    """A wrong type is not converted to a right one."""
    _corrupt(Agreement, AGREEMENT | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subject", "AB" * 32),
        ("subject", "a"),
        ("subject", "ab " * 32),
        ("subject", None),
        *(("max_uses", value) for value in WRONG_NUMBERS),
        *(("sensitive", value) for value in WRONG_LISTS),
        ("state", "TERMINATED"),
        ("evidence", None),
        ("extra", None),
    ],
)
def test_a_damaged_consent_is_corrupt(name: str, value: Any) -> None:
    """A wrong type is not converted to a right one."""
    _corrupt(Consent, CONSENT | {name: value})


@pytest.mark.parametrize("document", [[], [[1, 2]], None, "text", 7, {}])
def test_what_is_no_document_is_corrupt(document: Any) -> None:
    """Whatever JSON it is."""
    _corrupt(Agreement, document)
    _corrupt(Consent, document)


def _corrupt(kind: type[Agreement] | type[Consent], document: Any) -> None:
    with pytest.raises(Malformed) as refused:
        kind.from_json(document)
    assert refused.value.code is Code.DATA_CORRUPT
