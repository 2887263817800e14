"""Identifiers: the vectors of `tests/vectors/identifiers`, and the laws behind them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum.cn import uscc as stdnum_uscc
from stdnum.iso7064 import mod_37_36

from schemas.errors import Code, Malformed
from schemas.identifiers import LicenceIdentifier, mod37_36, parse_citizen_number, parse_uscc
from schemas.validation import IDENTIFIERS, check_division

VECTORS = Path(__file__).parent.parent / "vectors" / "identifiers"
ALNUM = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LICENCE = "1.2.156.3005.2.11100000MB0143028R001.11330411MB2A00011E.2026000001.001.U"
PARSERS: dict[str, Callable[[str], object]] = {
    "uscc": parse_uscc,
    "citizen": parse_citizen_number,
    "licence": LicenceIdentifier.parse,
    "division": check_division,
}


def _cases() -> Iterator[object]:
    for name in PARSERS:
        for row in json.loads((VECTORS / f"{name}.json").read_text("utf-8")):
            yield pytest.param(name, row["value"], row["expect"], id=f"{name}: {row['note']}: {row['value']!r:.80}")


@pytest.mark.parametrize(("name", "value", "expect"), list(_cases()))
def test_vector(name: str, value: str, expect: str) -> None:
    parse = PARSERS[name]
    if expect == "ok":
        parse(value)
        return
    with pytest.raises(Malformed) as raised:
        parse(value)
    assert raised.value.code == Code(expect)
    assert not value or value not in raised.value.detail


def test_every_identifier_has_vectors() -> None:
    """A kind that the catalogue can name is never without good and bad examples."""
    assert set(PARSERS) == set(IDENTIFIERS)
    for name in PARSERS:
        expected = {row["expect"] for row in json.loads((VECTORS / f"{name}.json").read_text("utf-8"))}
        assert "ok" in expected
        assert len(expected) > 1


def _altered(text: str, places: range) -> Iterator[str]:
    """Every substitution of one character by another of [0-9A-Z], and every swap of two unlike neighbours."""
    for at in places:
        yield from (text[:at] + char + text[at + 1 :] for char in ALNUM if char != text[at])
    for at in places[:-1]:
        if text[at] != text[at + 1]:
            yield text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def test_check_character_catches_every_substitution_and_neighbour_swap() -> None:
    body = LICENCE.removeprefix("1.2.156.3005.2.").replace(".", "")
    altered = list(_altered(body, range(len(body))))
    assert len(altered) == 53 * 35 + 33
    assert all(mod37_36(text[:-1]) != text[-1] for text in altered)


def test_altered_licence_identifier_is_refused() -> None:
    start = len("1.2.156.3005.2.")
    for text in _altered(LICENCE, range(start, len(LICENCE))):
        with pytest.raises(Malformed):
            LicenceIdentifier.parse(text)


def test_altered_credit_code_is_refused() -> None:
    for text in _altered("91110000600037341L", range(18)):
        with pytest.raises(Malformed):
            parse_uscc(text)


@given(st.text(ALNUM, min_size=1, max_size=100))
def test_check_character_agrees_with_an_independent_implementation(body: str) -> None:
    assert mod37_36(body) == mod_37_36.calc_check_digit(body)


@given(st.from_regex(r"[1-9][0-9A-HJ-NPQRTUWXY][0-9]{6}[0-9A-HJ-NPQRTUWXY]{8}[0-9X]", fullmatch=True))
def test_credit_code_agrees_with_an_independent_implementation(body: str) -> None:
    """The outer check is as stdnum's; the inner one, which stdnum does not test, is all that may still be wrong."""
    code = body + stdnum_uscc.calc_check_digit(body)
    try:
        parse_uscc(code)
        fault = None
    except Malformed as refused:
        fault = refused.code
    assert fault in (None, Code.USCC_ORG_CHECK)


@given(
    serial=st.text(ALNUM, min_size=1, max_size=64),
    version=st.integers(0, 999),
    issuer=st.sampled_from(["11430000006122244L", "11330411MB2A00011E", "1132080001400001X7"]),
)
def test_licence_identifier_round_trip(serial: str, version: int, issuer: str) -> None:
    made = LicenceIdentifier(type_code="11100000MB0143028R001", issuer=issuer, serial=serial, version=version)
    assert LicenceIdentifier.parse(made.format()) == made


@given(st.text())
def test_only_our_error_escapes(text: str) -> None:
    for parse in PARSERS.values():
        try:
            parse(text)
        except Malformed:
            continue
