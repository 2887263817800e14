"""A department's declarative file for receiving: what it asks for and why, and the table that opened records go to.

item = "business-licence"
department = "tax"              # a department of `deptbus org add`

[ask]                           # on every key request, and in the audit trail
sections = ["identity"]
purpose = "tax-registration"
ground = "STATUTORY_DUTY"
citation = "税收征收管理法 第十五条"
operator = "tax-sync"

[sink]
table = "business_licence"      # made if it is not there, beside business_licence_offset

[sink.columns]                  # fields of the sections asked for, and their PostgreSQL types
name = "text"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.sink import TYPES
from bus.subscriber import Wanted
from schemas.catalogue import Catalogue, Item
from schemas.errors import Code, DeptbusError, Misuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiving:
    """The whole file. `name` is the file's: the subscriber's group. `columns` are field names to PostgreSQL types."""

    name: str
    item: str
    department: str
    wanted: Wanted
    table: str
    columns: Mapping[str, str]


def is_receiving(path: Path) -> bool:
    """Whether a declarative file has a sink. Raises `Misuse` (CONFIG_INVALID)."""
    return "sink" in _toml(path)


def load(path: Path, catalogue: Catalogue) -> Receiving:
    """Raises `Misuse` (CONFIG_INVALID) naming file and key."""
    document = _toml(path)
    try:
        return _read(path.stem, document, catalogue)
    except KeyError as exc:
        raise Misuse(Code.CONFIG_INVALID, f"{path}: {exc.args[0]!r} is missing") from exc
    except (TypeError, ValueError, AttributeError) as exc:
        raise Misuse(Code.CONFIG_INVALID, f"{path}: {exc}") from exc
    except DeptbusError as exc:
        raise Misuse(Code.CONFIG_INVALID, f"{path}: {exc.detail}") from exc


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise Misuse(Code.CONFIG_INVALID, f"{path}: not a readable TOML file ({exc})") from exc


def _read(name: str, document: dict[str, Any], catalogue: Catalogue) -> Receiving:
    item = catalogue.item(document.pop("item"))
    ask, sink = document.pop("ask"), document.pop("sink")
    receiving = Receiving(
        name=name,
        item=item.name,
        department=str(document.pop("department")),
        wanted=Wanted(**{**ask, "sections": tuple(ask["sections"])}),
        table=str(sink.pop("table")),
        columns=dict(sink.pop("columns")),
    )
    unknown = [*document, *(f"sink.{key}" for key in sink)]
    if unknown:
        raise ValueError(f"unknown key {', '.join(unknown)}")
    _check(receiving, item)
    return receiving


def _check(receiving: Receiving, item: Item) -> None:
    for section in receiving.wanted.sections:
        if section not in item.sections:
            raise ValueError(f"ask.sections: {item.name} has no section {section}")
    for column, kind in receiving.columns.items():
        field = item.schema.fields.get(column)
        if field is None or field.section not in receiving.wanted.sections:
            raise ValueError(f"sink.columns: {column} is no field of the sections asked for")
        if kind not in TYPES:
            raise ValueError(f"sink.columns: {column} is one of {', '.join(sorted(TYPES))}, not {kind}")
