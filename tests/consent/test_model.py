"""Stored documents: they come back as they were, and a damaged one is never read as something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent.documents import OUTSIDE, Document
from consent.lifecycle import TABLES
from consent.model import Agreement, Basis, Consent, CorrectionState, DisputeState, Every, Frequency
from schemas.errors import Code, Malformed
from tests.consent.sound import AGREEMENT, CONSENT, ENTRY, MANDATE, POWER

KINDS = list(TABLES)
SLOW_TO_DRAW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # whole documents
DOCUMENTS = st.sampled_from(KINDS).flatmap(st.from_type)
# As the database keeps them: a change of this layout changes every hash, and needs a migration.
STORED_AGREEMENT: Mapping[str, Any] = {
    "id": "00000000-0000-0000-0000-000000000001",
    "provider": "11330411MB2A00011E",
    "consumer": "1132080001400001X7",
    "item": "business-licence",
    "basis": "税收征收管理法 第十五条",
    "scenario": "企业开办",
    "mode": "STREAM",
    "sections": ["plain", "sensitive"],
    "purposes": ["tax-registration"],
    "regions": ["32", "3304"],
    "grounds": [
        "CONSENT",
        "CONTRACT_OR_HR",
        "EMERGENCY",
        "NEWS",
        "OTHER_LAW",
        "SELF_PUBLISHED",
        "STATUTORY_DUTY",
    ],
    "duties": ["税收征收管理法 第十五条"],
    "notice": "GIVEN",
    "valid_from": "2026-03-01",
    "valid_until": "2026-03-31",
    "purpose_until": None,
    "requests_a_day": None,
    "records_a_day": 10,
    "max_age": 3600,
    "data_life": 30,
    "statuses": [],
    "superseded": False,
    "onward": ["11430000006122244L"],
    "set_limit": 100,
    "set_until": "2026-03-31",
}
STORED_CONSENT: Mapping[str, Any] = {
    "id": "00000000-0000-0000-0000-000000000002",
    "recipient": "1132080001400001X7",
    "purposes": ["tax-registration"],
    "scopes": [
        {
            "item": "business-licence",
            "subject": "01" * 32,
            "sections": ["plain", "sensitive"],
            "sensitive": ["sensitive"],
        }
    ],
    "agreements": [],
    "mode": "STREAM",
    "valid_from": "2026-03-01",
    "valid_until": "2026-03-31",
    "frequency": {"uses": 3, "every": "WEEK"},
    "max_uses": 2,
    "data_life": None,
    "notice": "GIVEN",
    "given_by": "SUBJECT",
    "minor_until": None,
    "recorded_by": "11330411MB2A00011E",
    "evidence": "ab" * 32,
}
WEEKLY = replace(CONSENT, agreements=frozenset(), frequency=Frequency(uses=3, every=Every.WEEK))
NUMBERS: list[Any] = ["1", 1.0, True, [1]]
LISTS: list[Any] = ["identity", None, {"identity": 1}, [1], [None], ["twice", "twice"]]
DAYS: list[Any] = ["", "2026-02-30", "20260301", "2026-W10-1", "2026-03-01T00:00:00", 20260301]


@given(DOCUMENTS)
@SLOW_TO_DRAW
def test_a_document_comes_back(document: Document) -> None:
    """Of every kind, through JSON text, as the database and answers have it; its hash is of the body alone."""
    kind = type(document)
    assert kind.from_json(_shown(document)) == document
    body = json.loads(json.dumps(document.body()))
    assert kind.stored(body, document.revision, document.state.value) == document
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).digest() == document.hash
    assert replace(document, revision=document.revision + 1).hash == document.hash


@given(DOCUMENTS, st.data())
@SLOW_TO_DRAW
def test_a_document_has_all_of_its_entries_and_no_other(document: Document, data: st.DataObject) -> None:
    """Nothing has a default: a lost limit or state would widen it."""
    shown = _shown(document)
    _corrupt(type(document), shown | {"extra": None})
    lost = data.draw(st.sampled_from(sorted(shown)))
    _corrupt(type(document), {name: value for name, value in shown.items() if name != lost})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
@given(data=st.data())
@SLOW_TO_DRAW
def test_every_entry_counts_for_the_hash(kind: type[Document], data: st.DataObject) -> None:
    """What could be changed without another hash would not have been signed."""
    one, other = data.draw(st.from_type(kind)), data.draw(st.from_type(kind))
    for field in fields(kind):
        changed: Any = replace(one, **{field.name: getattr(other, field.name)})
        same = field.name in OUTSIDE or getattr(one, field.name) == getattr(other, field.name)
        assert (changed.hash == one.hash) is same, field.name


def test_the_documents_are_as_written_here() -> None:
    """The layout is stored for years."""
    assert AGREEMENT.body() == STORED_AGREEMENT
    assert WEEKLY.body() == STORED_CONSENT
    assert AGREEMENT.word == "agreement:00000000-0000-0000-0000-000000000001@3"
    assert {type(one) for one in (AGREEMENT, CONSENT, POWER, MANDATE, ENTRY)} == set(get_args(Basis))
    assert [*CorrectionState, *DisputeState]  # the two kinds that no permit rests on


def test_a_body_under_anothers_hash_is_corrupt() -> None:
    """A changed row is found when it is read."""
    shown = _shown(AGREEMENT)
    _corrupt(Agreement, shown | {"max_age": 86400})
    _corrupt(Agreement, shown | {"hash": AGREEMENT.hash.hex().upper()})
    assert Agreement.from_json(shown | {"revision": 4, "state": "SUSPENDED"}).hash == AGREEMENT.hash


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("max_age", "records_a_day") for value in NUMBERS),
        *((name, value) for name in ("sections", "regions", "duties", "grounds", "statuses") for value in LISTS),
        *((name, value) for name in ("valid_from", "valid_until") for value in DAYS),
        ("valid_from", None),
        ("max_age", None),
        ("id", "1"),
        ("id", 1),
        ("id", "00000000000000000000000000000001"),
        ("provider", None),
        ("grounds", ["CONTRACT"]),
        ("statuses", ["LOST"]),
        ("superseded", "false"),  # read as a truth value it would be true
        ("superseded", 0),
        ("superseded", None),
    ],
)
def test_a_damaged_agreement_is_corrupt(name: str, value: Any) -> None:
    """A wrong type is not converted to a right one."""
    _unreadable(Agreement, {**STORED_AGREEMENT, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_uses", value) for value in NUMBERS),
        *(("scopes", [{**STORED_CONSENT["scopes"][0], "sensitive": value}]) for value in LISTS),
        *(("scopes", [{**STORED_CONSENT["scopes"][0], "subject": value}]) for value in ("AB" * 32, "a", "ab ", None)),
        ("scopes", [{}]),
        ("scopes", [{**STORED_CONSENT["scopes"][0], "extra": 1}]),
        ("scopes", None),
        ("frequency", {"uses": 3}),
        ("frequency", {"uses": 3, "every": "HOUR"}),
        ("frequency", "3 a week"),
        ("evidence", None),
    ],
)
def test_a_damaged_consent_is_corrupt(name: str, value: Any) -> None:
    """The same inside of its parts."""
    _unreadable(Consent, {**STORED_CONSENT, name: value})


@pytest.mark.parametrize(("revision", "state"), [("1", "ACTIVE"), (True, "ACTIVE"), (1, "active"), (1, "WITHDRAWN")])
def test_a_damaged_standing_is_corrupt(revision: Any, state: Any) -> None:
    """Also with a state of another kind."""
    with pytest.raises(Malformed) as refused:
        Agreement.stored(STORED_AGREEMENT, revision, state)
    assert refused.value.code is Code.DATA_CORRUPT


@pytest.mark.parametrize("document", [[], [[1, 2]], None, "text", 7, {}])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_what_is_no_document_is_corrupt(kind: type[Document], document: Any) -> None:
    """Whatever JSON it is."""
    _corrupt(kind, document)


def _shown(document: Document) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(document.to_json()))
    return read


def _corrupt(kind: type[Document], document: Any) -> None:
    with pytest.raises(Malformed) as refused:
        kind.from_json(document)
    assert refused.value.code is Code.DATA_CORRUPT


def _unreadable(kind: type[Document], body: Mapping[str, Any]) -> None:
    """By what is in it, not by its hash."""
    with pytest.raises(Malformed) as refused:
        kind.stored(body, 1, "ACTIVE")
    assert refused.value.code is Code.DATA_CORRUPT
