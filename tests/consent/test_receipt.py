"""Receipts: the guide's required fields are there, every term is the vocabulary's, and nobody is named."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consent.lifecycle import CONSENT as TABLE
from consent.lifecycle import Act
from consent.model import Agreement, Consent, Every, Frequency, Giver, Notice
from consent.purposes import TREE
from consent.receipt import Done, Receipt, document, receipt
from tests.consent.sound import AGREEMENT, ANOTHER, CONSENT, CONSUMER, HOLDER, ITEM, OTHER, PROVIDER, SCOPE, STRANGER

AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
# The consent of `sound`, with all that a receipt can tell.
FULL = replace(CONSENT, frequency=Frequency(uses=3, every=Every.MONTH), max_uses=5, recorded_by=OTHER)
EVERY_ACT = tuple(dict.fromkeys(act for _, act in TABLE))
# DPV 2.3 (W3C DPVCG, dpv/dpv.csv and loc/loc.csv; W3C Software and Document License): terms with their IRIs.
TERMS = {
    row["term"]: row["iri"]
    for row in csv.DictReader(Path(__file__).with_name("dpv-terms.csv").read_text("utf-8").splitlines())
}
NAMESPACES = {"dpv": "https://w3id.org/dpv#", "loc": "https://w3id.org/dpv/loc#"}
PURPOSES = {
    row["term"] for row in csv.DictReader(Path(__file__).with_name("dpv-purposes.csv").read_text("utf-8").splitlines())
}
# What §8 and §9 of the guide say MUST be present, as paths into a receipt.
RECORD = "dpv:hasRecordOfActivity"
PROCESS, EVENT, ENTITY = (RECORD, "dpv:hasProcess"), (RECORD, "dpv:hasConsentStatus"), (RECORD, "dpv:hasEntity")
REQUIRED = (
    ("dct:conformsTo",),
    ("dct:identifier",),
    ("dct:created",),
    (RECORD, "dct:conformsTo"),
    (RECORD, "dct:identifier"),
    (RECORD, "dpv:hasDataSubject"),
    (RECORD, "dpv:hasNotice", "dct:language"),
    (*PROCESS, "dpv:hasPurpose", "skos:broader"),
    (*PROCESS, "dpv:hasPersonalData", "skos:broader"),
    (*PROCESS, "dpv:hasStorageCondition"),
    (*PROCESS, "dpv:hasDataController"),
    (*PROCESS, "dpv:hasRecipient"),
    (*PROCESS, "dpv:hasLegalBasis"),
    (RECORD, "dpv:hasConsentControl", "dpv:isExercisedAt"),
    (RECORD, "dpv:hasJurisdiction"),
    (RECORD, "dpv:hasRight", "dpv:isExercisedAt"),
    (*ENTITY, "dpv:hasName"),
    (*ENTITY, "dpv:hasIdentifier"),
    (*ENTITY, "schema:contactPoint"),
    (*ENTITY, "schema:address"),
    (*EVENT, "dpv:isIndicatedAtTime"),
    (*EVENT, "dpv:hasDuration"),
    (*EVENT, "dpv:isIndicatedBy"),
)


def made(of: Consent, *acts: Act, under: Agreement = AGREEMENT) -> Any:
    """The receipt of a consent after these acts, an hour apart: requests are the recipient's, others another one's."""
    done = [
        Done(act=act, author=CONSUMER if act is Act.REQUEST else OTHER, at=AT + timedelta(hours=hour))
        for hour, act in enumerate(acts)
    ]
    return document(receipt(of, [under], {CONSUMER: "示范银行", PROVIDER: "示范局"}, {ITEM.name: ITEM}, done, AT))


def inside(value: Any) -> Iterator[str]:
    """Every name and text of a document."""
    match value:
        case dict():
            for name, inner in value.items():
                yield name
                yield from inside(inner)
        case list() | tuple():
            for inner in value:
                yield from inside(inner)
        case str():
            yield value


def at(value: Any, path: tuple[str, ...]) -> list[Any]:
    """What stands at a path: each object on the way has it."""
    found = [value]
    for name in path:
        found = [inner[name] for one in found for inner in (one if isinstance(one, list) else [one])]
    return found


@pytest.mark.parametrize("path", REQUIRED, ids="/".join)
def test_required_fields_are_there(path: tuple[str, ...]) -> None:
    """In every process, event and entity."""
    found = at(made(FULL, *EVERY_ACT), path)
    assert found
    assert all(one not in ("", [], {}, None) for one in found)


def test_every_term_is_the_vocabularys() -> None:
    """Whatever a receipt can say, and each purpose of the tree; and the list has no other."""
    everything = [
        made(replace(FULL, purposes=frozenset(TREE)), *EVERY_ACT),
        made(replace(FULL, valid_until=None, max_uses=None), Act.GIVE, under=replace(AGREEMENT, data_life=None)),
        made(replace(FULL, given_by=Giver.GUARDIAN, minor_until=date(2030, 1, 1)), Act.GIVE),
        made(replace(FULL, notice=Notice.MISSING, purposes=frozenset({"of-long-ago"})), Act.GIVE),
        msgspec.json.schema_components([Receipt]),
    ]
    used = {text for text in inside(everything) if re.fullmatch(r"(dpv|loc):\w+", text)}
    assert used - {f"dpv:{one}" for one in PURPOSES} == set(TERMS)
    for term, iri in TERMS.items():
        prefix, _, name = term.partition(":")
        assert iri == NAMESPACES[prefix] + name


def test_nobody_is_named_but_departments() -> None:
    """The subject is a pseudonym under each item."""
    told = made(replace(FULL, scopes=(SCOPE, replace(SCOPE, item=ANOTHER, subject=STRANGER))), Act.GIVE)
    (subject,) = at(told, (RECORD, "dpv:hasDataSubject"))
    assert [(one["schema:name"], one["schema:value"]) for one in subject["dpv:hasIdentifier"]] == [
        (ITEM.name, HOLDER.hex()),
        (ANOTHER, STRANGER.hex()),
    ]
    assert set(re.findall(r"\b[0-9A-Z]{18}\b", json.dumps(told))) == {CONSUMER, PROVIDER, OTHER}


def test_what_was_done_is_told_in_order() -> None:
    """Each event with its time, who wanted it, and which department did it."""
    (events,) = at(made(FULL, Act.REQUEST, Act.GIVE, Act.PAUSE, Act.WITHDRAW), EVENT)
    assert [one["@type"] for one in events] == [
        ["dpv:ConsentRequested"],
        ["dpv:ConsentGiven", "dpv:ExplicitlyExpressedConsent"],
        ["dpv:ConsentStatusInvalidForProcessing"],
        ["dpv:ConsentWithdrawn"],
    ]
    assert [one["dpv:isIndicatedBy"]["@id"] for one in events] == [f"_:{CONSUMER}", *["_:subject"] * 3]
    assert [one["dpv:isImplementedByEntity"]["@id"] for one in events] == [f"_:{CONSUMER}", *[f"_:{OTHER}"] * 3]
    assert [one["dpv:isIndicatedAtTime"] for one in events] == [
        f"2026-03-02T{hour:02d}:30:00+00:00" for hour in range(9, 13)
    ]
    assert [one["rdf:value"] for one in events[1]["dpv:hasDuration"]] == ["2026-03-31T23:59:59+08:00", "5"]


def test_separate_consent_and_sensitive_data_are_told_apart() -> None:
    """A child's data is sensitive whatever the section (PIPL art. 28); from the birthday on it is not."""
    plain, sensitive = "dpv:PersonalData", "dpv:SensitivePersonalData"

    def said(of: Consent) -> dict[str, list[str]]:
        (found,) = at(made(of, Act.GIVE), PROCESS)
        return {
            one["dpv:hasLegalBasis"]["@id"]: [data["@type"] for data in one["dpv:hasPersonalData"]] for one in found
        }

    assert said(FULL) == {"dpv:ExplicitlyExpressedConsent": [sensitive], "dpv:ExpressedConsent": [plain]}
    child = replace(FULL, minor_until=AT.date() + timedelta(days=1))
    assert said(child) == {"dpv:ExplicitlyExpressedConsent": [sensitive], "dpv:ExpressedConsent": [sensitive]}
    assert said(replace(FULL, minor_until=AT.date())) == said(FULL)


@pytest.mark.parametrize(
    ("own", "agreed", "said"),
    [(30, None, "P30D"), (30, 7, "P7D"), (None, 7, "P7D"), (None, None, "the purpose is reached (处理目的已实现)")],
)
def test_the_shortest_life_is_told(own: int | None, agreed: int | None, said: str) -> None:
    """Of the consent's and the agreement's."""
    told = made(replace(FULL, data_life=own), Act.GIVE, under=replace(AGREEMENT, data_life=agreed))
    conditions = at(told, (*PROCESS, "dpv:hasStorageCondition"))
    assert {keeping["dpv:hasDuration"]["rdf:value"] for _, keeping in conditions} == {said}
