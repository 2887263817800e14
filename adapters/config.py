"""A department's declarative file: where its export is, what it maps to, and who issues for which region."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.catalogue import Catalogue
from schemas.errors import Code, DeptbusError, Misuse

PARSERS = ("text", "uscc", "date", "capital", "region")
ENCODINGS = ("utf-8", "gb18030")
FORMATS = ("csv", "xlsx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """`format` csv or xlsx.

    `encoding` utf-8 (with or without BOM) or gb18030; `path` may be given at the call instead.
    """

    format: str
    encoding: str
    delimiter: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMap:
    """How a field is read: `columns` (two for a region), a parser, the words that mean 'missing', and what that is.

    `required` is the reason that a missing value is quarantined for; without it the field is absent. `currency` names
    the field that takes a capital's currency.
    """

    name: str
    columns: tuple[str, ...]
    parser: str
    missing: frozenset[str]
    required: Code | None
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Department:
    """The whole file. `issuers` maps division prefixes to departments' names; '' is the default."""

    name: str
    item: str
    source: Source
    fields: tuple[FieldMap, ...]
    issuers: Mapping[str, str]
    region: str
    since: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the mapping reads."""
        return tuple(dict.fromkeys(column for field in self.fields for column in field.columns))

    def issuer(self, region: str) -> str:
        """Who issues for a division: the longest prefix that is named. Raises `Misuse`."""
        for length in (6, 4, 2, 0):
            if region[:length] in self.issuers:
                return self.issuers[region[:length]]
        raise Misuse(Code.CONFIG_INVALID, f"{self.name}: no department issues for {region}: add it under [issuers]")


def load(path: Path, catalogue: Catalogue) -> Department:
    """Raises `Misuse` (CONFIG_INVALID, FIELD_SECRET) naming file and key.

    Unknown keys are refused: a typing error must not be silent.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise Misuse(Code.CONFIG_INVALID, f"{path}: not a readable TOML file ({exc})") from exc
    try:
        return _read(path.stem, document, catalogue)
    except (KeyError, TypeError, ValueError) as exc:
        raise Misuse(Code.CONFIG_INVALID, f"{path}: {_say(exc)}") from exc
    except Misuse as exc:
        raise Misuse(exc.code, f"{path}: {exc.detail}") from exc
    except DeptbusError as exc:
        raise Misuse(Code.CONFIG_INVALID, f"{path}: {exc.detail}") from exc


def _read(name: str, document: dict[str, Any], catalogue: Catalogue) -> Department:
    item = catalogue.item(document.pop("item"))
    given = {"encoding": "utf-8", "delimiter": ",", "path": ""} | _table("source", document.pop("source"))
    secrets = frozenset(given.pop("secret", ()))  # columns held as state or work secrets (国家秘密, 工作秘密)
    source = Source(**given)
    one_character = len(source.delimiter) == 1 and source.delimiter not in '"\r\n\0'
    if source.format not in FORMATS or source.encoding not in ENCODINGS or not one_character:
        raise ValueError(f"source: format is one of {FORMATS}, encoding one of {ENCODINGS}, delimiter one character")
    given_fields = _table("fields", document.pop("fields"))
    fields = tuple(_field(key, value, item.schema.fields) for key, value in given_fields.items())
    for field in fields:
        if secret := secrets.intersection(field.columns):
            raise Misuse(Code.FIELD_SECRET, f"fields.{field.name} reads {', '.join(sorted(secret))}, which is a secret")
    issuers = {
        str(key).removeprefix("default"): str(value)
        for key, value in _table("issuers", document.pop("issuers")).items()
    }
    if not issuers or not all(not key or (key.isdigit() and len(key) in (2, 4, 6)) for key in issuers):
        raise ValueError("issuers: `default` or division prefixes of 2, 4 or 6 digits")
    mapping = Department(
        name=name,
        item=item.name,
        source=source,
        fields=fields,
        issuers=issuers,
        region=document.pop("region"),
        since=document.pop("since"),
    )
    if document:
        raise ValueError(f"unknown key {', '.join(document)}")
    names = {field.name for field in fields}
    if not {mapping.region, mapping.since} <= names or not set(item.identifying) <= names:
        raise ValueError(f"region, since and {', '.join(item.identifying)} must be mapped fields")
    if any(field.required is None for field in fields if field.name in (mapping.region, mapping.since)):
        raise ValueError("region and since name fields that say what a missing one is: required = ...")
    return mapping


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: a table is expected")
    return value


def _field(name: str, given: Any, known: Mapping[str, Any]) -> FieldMap:
    value = _table(f"fields.{name}", given)
    unknown = value.keys() - {"columns", "column", "parser", "missing", "required", "currency"}
    if unknown:
        raise ValueError(f"fields.{name}: unknown key {', '.join(sorted(unknown))}")
    if name not in known or (value.get("currency") and value["currency"] not in known):
        raise ValueError(f"fields.{name}: the item has no such field")
    columns = tuple(value.get("columns", ())) or (value["column"],)
    parser = value.get("parser", "text")
    if parser not in PARSERS or len(columns) != (2 if parser == "region" else 1):
        raise ValueError(f"fields.{name}: parser is one of {PARSERS}; a region reads two columns, others one")
    return FieldMap(
        name=name,
        columns=columns,
        parser=parser,
        missing=frozenset(value.get("missing", ())) | {""},
        required=Code(value["required"]) if "required" in value else None,
        currency=value.get("currency", ""),
    )


def _say(exc: Exception) -> str:
    return f"{exc.args[0]!r} is missing" if isinstance(exc, KeyError) else str(exc)
