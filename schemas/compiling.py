"""A schema walked once, into whatever is made of its parts: `schemas.writing` and `schemas.reading` give the parts.

Only what this project's schemas use is compiled; for anything else there is the library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

INT32 = "deptbus-int32"  # the logical type that holds an `int` to its 32 bits
SHORTEST = "deptbus-decimal"  # and a decimal to the shortest two's complement


class Unusual(Exception):
    """A schema, a value or bytes that the compiled parts leave to the library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts(Generic[T]):
    """How each kind of node is made. Records and unions get (name, part) pairs; only records have one in a union.

    `defaults` says whether fields with a default are compiled: to read them makes no difference.
    """

    primitive: Mapping[str, T]
    record: Callable[[Sequence[tuple[str, T]]], T]
    enum: Callable[[Sequence[str]], T]
    fixed: Callable[[int], T]
    array: Callable[[T], T]
    union: Callable[[Sequence[tuple[str, T]]], T]
    decimal: Callable[[Mapping[str, Any]], T]
    defaults: bool


def compiled(schema: Any, parts: Parts[T]) -> T | None:
    """What is made of a schema that fastavro has parsed; None for types that only fastavro handles."""
    try:
        return _node(schema, parts, {})
    except Unusual:
        return None


def _node(schema: Any, parts: Parts[T], named: dict[str, T]) -> T:
    """`named` are the types that were defined before it: a type that holds itself has none."""
    if isinstance(schema, list):
        return parts.union([(_record_name(branch), _node(branch, parts, named)) for branch in schema])
    if isinstance(schema, str):
        found = named.get(schema) or parts.primitive.get(schema)
        if found is None:
            raise Unusual
        return found
    kind, logical = schema["type"], schema.get("logicalType")
    if kind == "record":
        if not parts.defaults and any("default" in field for field in schema["fields"]):
            raise Unusual
        made = parts.record([(field["name"], _node(field["type"], parts, named)) for field in schema["fields"]])
    elif kind == "enum":
        made = parts.enum(schema["symbols"])
    elif kind == "fixed" and logical is None:
        made = parts.fixed(schema["size"])
    elif kind == "array":
        return parts.array(_node(schema["items"], parts, named))
    elif kind == "bytes" and logical == SHORTEST:
        return parts.decimal(schema)
    elif isinstance(kind, str) and logical in (None, INT32):
        return _node(kind, parts, named)
    elif f"{kind}-{logical}" in parts.primitive:
        return parts.primitive[f"{kind}-{logical}"]
    else:
        raise Unusual
    named[schema["name"]] = made
    return made


def _record_name(branch: Any) -> str:
    return str(branch["name"]) if isinstance(branch, dict) and branch["type"] == "record" else ""
