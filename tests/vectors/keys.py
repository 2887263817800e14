"""Vectors of pseudonyms and licence references."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bus import pseudonyms
from tests.vectors.records import Case
from tests.vectors.world import ITEM, PSEUDONYM_ROOT

USCC = "91330106MA26Y2B582"
CITIZEN = "11010519491231002X"  # the example of GB 11643: nobody's


def cases() -> Iterator[Case]:
    for name, fields in {**_subjects(), **_licences(), **_bad()}.items():
        yield "pseudonym", name, fields


def _key(note: str, expect: str = "ok", item: str = ITEM, generation: int = 1) -> tuple[bytes, dict[str, Any]]:
    key = pseudonyms.item_key(PSEUDONYM_ROOT, item, generation)
    head = {"note": note, "expect": expect, "root_key": PSEUDONYM_ROOT.hex(), "item": item, "generation": generation}
    return key, head | {"key": key.hex()}


def _subject(note: str, kind: str, canonical: str, **of: Any) -> dict[str, Any]:
    key, fields = _key(note, **of)
    return fields | {"kind": kind, "id": canonical, "pseudonym": pseudonyms.subject(key, kind, canonical).hex()}


def _licence(note: str, identifying: list[str], **of: Any) -> dict[str, Any]:
    key, fields = _key(note, **of)
    return fields | {"identifying": identifying, "licence": pseudonyms.licence(key, identifying).hex()}


def _subjects() -> dict[str, dict[str, Any]]:
    return {
        "ok-organisation": _subject("An organisation by its credit code.", "ORGANISATION", USCC),
        "ok-department": _subject("The same code as a department is another pseudonym.", "DEPARTMENT", USCC),
        "ok-person": _subject("A person by the citizen number, X in upper case.", "PERSON", CITIZEN),
        "ok-generation-10": _subject("Generations are decimal.", "PERSON", CITIZEN, generation=10),
        "ok-other-item": _subject("Another item: nobody can join the two.", "PERSON", CITIZEN, item="other-permit"),
    }


def _licences() -> dict[str, dict[str, Any]]:
    return {
        "ok-licence": _licence("One identifying field.", [USCC]),
        "ok-licence-of-two": _licence("Two identifying fields, a line feed between.", ["JY13301060012345", "浙江"]),
    }


def _bad() -> dict[str, dict[str, Any]]:
    def bad(note: str, *identifying: str) -> dict[str, Any]:
        return _key(note, "VALUE_INVALID")[1] | {"identifying": list(identifying)}

    return {
        "identifying-line-feed": bad("A line feed would make two texts of one.", "JY1330106\n0012345"),
        "identifying-not-nfc": bad("e and a combining accent: not NFC.", "cafe\u0301"),
        "identifying-empty": bad("An identifying field is empty.", ""),
        "identifying-control": bad("A control character.", "JY1\u00002"),
    }
