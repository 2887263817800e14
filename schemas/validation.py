"""What an item's values must satisfy before they are sealed, compiled once a schema: a publisher checks every record.

Only what the codec would not notice is tested here: a wrong type that Avro would silently convert, identifiers, and
rules between fields. The rest is the codec's own refusal.
"""

from __future__ import annotations

import datetime
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from operator import contains
from types import NoneType
from typing import Any, Final

from schemas.divisions import Divisions
from schemas.errors import Code, Malformed
from schemas.identifiers import LicenceIdentifier, parse_citizen_number, parse_uscc
from schemas.item import ItemSchema

# Exact types: a bool is no int, and a datetime, which Avro would cut to its UTC day, is no date.
_PYTHON: Final[Mapping[str, type]] = {
    "string": str,
    "enum": str,
    "int": int,
    "long": int,
    "boolean": bool,
    "bytes": bytes,
    "fixed": bytes,
    "array": list,
    "record": dict,
    "null": NoneType,
    "date": datetime.date,
    "timestamp-millis": datetime.datetime,
    "timestamp-micros": datetime.datetime,
    "decimal": Decimal,
}


@cache
def _division_codes() -> frozenset[str]:
    return frozenset(Divisions.load().codes)


def check_division(code: str) -> None:
    """A code that the table knows, in force or retired. Raises `Malformed` (REGION_UNKNOWN)."""
    if code not in _division_codes():
        raise Malformed(Code.REGION_UNKNOWN, "no division of GB/T 2260 has or had this code")


IDENTIFIERS: Final[Mapping[str, Callable[[str], object]]] = {
    "uscc": parse_uscc,
    "citizen": parse_citizen_number,
    "licence": LicenceIdentifier.parse,
    "division": check_division,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """A schema's compiled checks. `name` is the item's, for errors; `by_key` gives the field of a standard key."""

    name: str
    types: Mapping[str, frozenset[type]]
    identifiers: tuple[tuple[str, Callable[[str], object]], ...]
    by_key: Mapping[str, str]

    @classmethod
    def of(cls, name: str, schema: ItemSchema) -> Checks:
        """Raises `Malformed` (CONFIG_INVALID): a type or an identifier that is not supported."""
        fields = schema.fields.values()
        unknown = {field.identifier for field in fields if field.identifier} - IDENTIFIERS.keys()
        if unknown:
            raise Malformed(Code.CONFIG_INVALID, f"{name}: no such identifier: {', '.join(sorted(map(str, unknown)))}")
        by_key = {field.key: field.name for field in fields}
        identifiers = {field.name: IDENTIFIERS[field.identifier] for field in fields if field.identifier}
        if "ZZBS" in by_key:
            identifiers[by_key["ZZBS"]] = LicenceIdentifier.parse
        return cls(
            name=name,
            types={field.name: _python_types(name, field.avro_type) for field in fields},
            identifiers=tuple(identifiers.items()),
            by_key=by_key,
        )

    def run(self, values: Mapping[str, Any]) -> None:
        """Raises `Malformed` naming the field, never its value: VALUE_INVALID or the identifier's own code."""
        # In C for nearly every record; the field is looked for only where one is wrong.
        if not all(map(contains, self.types.values(), map(type, map(values.get, self.types)))):
            field = next(name for name, types in self.types.items() if type(values.get(name)) not in types)
            raise self._wrong_type(field, values.get(field))
        for field, parse in self.identifiers:
            value = values.get(field)
            if value is not None:
                try:
                    parsed = parse(value)
                except Malformed as exc:
                    raise Malformed(exc.code, f"{self.name}, field {field}: {exc.detail}") from exc
                if isinstance(parsed, LicenceIdentifier) and field == self.by_key.get("ZZBS"):
                    self._check_licence_identifier(values, parsed)
        self._check_term(values)

    def _check_licence_identifier(self, values: Mapping[str, Any], parsed: LicenceIdentifier) -> None:
        """ZZLXDM and ZZBFJGDM repeat parts of ZZBS (GB/T 36903, GB/T 36904)."""
        for key, part in (("ZZLXDM", parsed.type_code), ("ZZBFJGDM", parsed.issuer)):
            if self._value(values, key) not in (None, part):
                raise self._invalid(self.by_key[key], f"differs from the {self.by_key['ZZBS']}")

    def _check_term(self, values: Mapping[str, Any]) -> None:
        start, end = self._value(values, "ZZYXQQSRQ"), self._value(values, "ZZYXQJZRQ")
        if start is not None and end is not None and end < start:
            raise self._invalid(self.by_key["ZZYXQJZRQ"], f"ends before {self.by_key['ZZYXQQSRQ']}")

    def _value(self, values: Mapping[str, Any], key: str) -> Any:
        field = self.by_key.get(key)
        return None if field is None else values.get(field)

    def _wrong_type(self, field: str, value: Any) -> Malformed:
        return self._invalid(field, "is required" if value is None else f"cannot be a {type(value).__name__}")

    def _invalid(self, field: str, what: str) -> Malformed:
        return Malformed(Code.VALUE_INVALID, f"{self.name}, field {field} {what}")


def is_identifying(value: object) -> bool:
    """Whether a value may stand in a licence reference: text in NFC without control characters."""
    return isinstance(value, str) and value.isprintable() and value != "" and unicodedata.is_normalized("NFC", value)


def _python_types(name: str, avro_type: Any) -> frozenset[type]:
    branches = avro_type if isinstance(avro_type, list) else [avro_type]
    kinds = {_kind(branch) for branch in branches}
    if not kinds <= _PYTHON.keys():
        raise Malformed(Code.CONFIG_INVALID, f"{name}: type not supported: {', '.join(sorted(kinds - _PYTHON.keys()))}")
    return frozenset(_PYTHON[kind] for kind in kinds)


def _kind(branch: Any) -> str:
    if isinstance(branch, dict):
        return str(branch.get("logicalType", branch["type"]))
    return str(branch)
