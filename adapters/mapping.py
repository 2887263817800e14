"""A row becomes values, or is quarantined with the first reason of the closed list. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from adapters import parsers
from adapters.config import Department, FieldMap
from adapters.text import damage, trim
from consent.decide import CHINA
from schemas.catalogue import Item
from schemas.errors import Code, Malformed

# First hit wins, in this order, whichever column it stands in.
REASONS = (
    Code.ENCODING,
    Code.COLUMNS,
    Code.TEXT_REPLACEMENT,
    Code.TEXT_SLIP,
    Code.TEXT_PINYIN,
    Code.NAME_MISSING,
    Code.USCC_MISSING,
    Code.USCC_LEGACY_15,
    Code.USCC_FORM,
    Code.USCC_CHECK,
    Code.USCC_ORG_CHECK,
    Code.DATE_INVALID,
    Code.CAPITAL_FORM,
    Code.REGION_UNKNOWN,
    Code.VALUE_INVALID,  # what the catalogue refuses beside these
)
_RANK = {reason: rank for rank, reason in enumerate(REASONS)}
_ONE: Mapping[str, Callable[[str], Any]] = {
    "text": parsers.parse_text,
    "uscc": parsers.parse_credit_code,
    "date": parsers.parse_date,
    "capital": parsers.parse_capital,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row as its source gave it.

    `line` is where it starts, the header being line 1; `fault` is the source's own finding.
    """

    line: int
    cells: tuple[str, ...]
    fault: Code | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A row that can be published. `digest` is of the mapped state: equal digests are the same state."""

    line: int
    values: Mapping[str, Any]
    region: str
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A row that its department has to mend."""

    line: int
    column: str
    reason: Code
    cells: tuple[str, ...]


def map_row(row: Row, header: tuple[str, ...], department: Department, item: Item) -> Accepted | Quarantined:
    """Never raises for what a row holds."""
    fault = row.fault or (None if len(row.cells) == len(header) else Code.COLUMNS)
    if fault is not None:
        return Quarantined(line=row.line, column="", reason=fault, cells=row.cells)
    cells = dict(zip(header, row.cells, strict=True))
    faults = [(found, column) for column, text in zip(header, row.cells, strict=True) if (found := damage(text))]
    values: dict[str, Any] = {}
    if not faults:
        for field in department.fields:
            try:
                values |= _read(field, cells)
            except Malformed as exc:
                faults.append((exc.code, field.columns[0]))
    if not faults:
        try:
            item.validate(values)
        except Malformed as exc:
            faults.append((exc.code if exc.code in _RANK else Code.VALUE_INVALID, exc.detail))
    if not faults and values[department.since] > datetime.now(CHINA).date():
        faults.append((Code.DATE_INVALID, department.since))  # nothing was issued on a day to come
    if faults:
        reason, column = min(faults, key=lambda fault: _RANK[fault[0]])
        return Quarantined(line=row.line, column=column, reason=reason, cells=row.cells)
    return Accepted(line=row.line, values=values, region=values[department.region], digest=state_digest(values))


_ENCODER = json.JSONEncoder(default=str, ensure_ascii=False, separators=(",", ":"))


def state_digest(values: Mapping[str, Any]) -> bytes:
    """SHA-256 of the values in a fixed order: what 'the same state of a licence' means."""
    return hashlib.sha256(_ENCODER.encode(dict(sorted(values.items()))).encode()).digest()


def _read(field: FieldMap, cells: Mapping[str, str]) -> dict[str, Any]:
    texts = ["" if (text := trim(cells[column])) in field.missing else text for column in field.columns]
    if not texts[0]:
        if field.required is not None:
            raise Malformed(field.required, f"{field.columns[0]} is missing")
        return {}
    if field.parser == "region":
        return {field.name: parsers.parse_region(texts[0], texts[1])}
    value = _ONE[field.parser](texts[0])
    if field.parser == "capital":
        amount, currency = value
        return {field.name: amount, field.currency: currency}
    return {field.name: value}
