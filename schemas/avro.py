"""Avro binary, one encoding a value.

Avro libraries accept many encodings of one value (long varints, arrays in blocks, sized blocks); a signature over bytes
needs exactly one. A reader decodes, encodes again and refuses any difference (`bus/FORMATS.md`, 'Encoding').
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from io import BytesIO
from typing import Any

import fastavro

from schemas import reading, writing
from schemas.compiling import INT32, SHORTEST, compiled
from schemas.errors import Code, Malformed


def _int32(value: Any, schema: Any = None, reader_schema: Any = None) -> Any:
    """fastavro reads and writes an `int` as a `long`: the type's own range is tested here, in both directions."""
    if type(value) is int and not -(2**31) <= value < 2**31:
        raise ValueError("an int has 32 bits")
    return value


def _shortest_decimal(value: Any, schema: Any) -> Any:
    """fastavro takes a byte more than it needs for some numbers below zero: -1.28."""
    raw = fastavro.write.LOGICAL_WRITERS["bytes-decimal"](value, schema)
    if not isinstance(raw, bytes):
        return raw
    unscaled = int.from_bytes(raw, "big", signed=True)
    return unscaled.to_bytes(writing.twos_complement_size(unscaled), "big", signed=True)


# They take effect only where a schema says so, and only `Codec` makes it say so.
fastavro.read.LOGICAL_READERS[f"int-{INT32}"] = _int32
fastavro.write.LOGICAL_WRITERS[f"int-{INT32}"] = _int32
fastavro.read.LOGICAL_READERS[f"bytes-{SHORTEST}"] = fastavro.read.LOGICAL_READERS["bytes-decimal"]
fastavro.write.LOGICAL_WRITERS[f"bytes-{SHORTEST}"] = _shortest_decimal


class Codec:
    """Encodes and strictly decodes one Avro type."""

    __slots__ = ("_read", "_schema", "_write", "name")

    def __init__(self, schema: Any, *, name: str = "value") -> None:
        self._schema = fastavro.parse_schema(_bounded(schema), _force=True)
        self._write = compiled(self._schema, writing.PARTS) or self._library
        self._read = compiled(self._schema, reading.PARTS) or self._library_read
        self.name = name

    def encode(self, value: Any) -> bytes:
        """The canonical encoding. Raises `Malformed` (VALUE_INVALID) for a value that the type does not hold."""
        try:
            return self._write(value)
        except Malformed:
            raise
        except Exception:  # not a plain value: the library takes or refuses it
            return self._library(value)

    def _library(self, value: Any) -> bytes:
        out = BytesIO()
        try:
            fastavro.schemaless_writer(out, self._schema, value)
        except Exception as exc:  # fastavro raises whatever the conversion met: TypeError, ValueError, KeyError, ...
            raise Malformed(Code.VALUE_INVALID, f"{self.name} does not fit its schema ({type(exc).__name__})") from exc
        return out.getvalue()

    def decode(self, data: bytes) -> Any:
        """The value of exactly these bytes. Raises `Malformed` for anything but the canonical encoding."""
        value, end = self.read(data, 0)
        if end != len(data):
            raise Malformed(Code.RECORD_NOT_CANONICAL, f"{len(data) - end} bytes left over after {self.name}")
        return value

    def read(self, data: bytes, start: int) -> tuple[Any, int]:
        """The value that begins at `start`, and where it ends. Strict as `decode`."""
        try:
            return self._read(data, start)
        except Exception:  # not canonical, or not for these readers: the library says which
            return self._library_read(data, start)

    def _library_read(self, data: bytes, start: int) -> tuple[Any, int]:
        source = BytesIO(data)
        source.seek(start)
        try:
            value = fastavro.schemaless_reader(
                source, self._schema, None, return_record_name=True, return_record_name_override=True
            )
        except Exception as exc:  # hostile bytes: EOFError, IndexError, UnicodeDecodeError, OverflowError, ...
            raise Malformed(Code.RECORD_MALFORMED, f"{self.name} cannot be decoded ({type(exc).__name__})") from exc
        end = source.tell()
        try:
            again = self.encode(value)
        except Malformed as exc:
            raise Malformed(Code.RECORD_NOT_CANONICAL, f"{self.name} holds what cannot be written back") from exc
        if again != data[start:end]:
            raise Malformed(Code.RECORD_NOT_CANONICAL, f"{self.name} is not in its canonical encoding")
        return value, end


@cache
def wire_schema(name: str) -> Any:
    """A schema of `schemas/wire`, parsed from JSON."""
    return json.loads((resources.files("schemas") / "wire" / f"{name}.avsc").read_text("utf-8"))


@cache
def wire_codec(name: str) -> Codec:
    """The codec of a schema of `schemas/wire`."""
    return Codec(wire_schema(name), name=name)


def wire_part(name: str, record: str | None = None, *, until: str | None = None) -> Codec:
    """The codec of a part of a wire schema: a named record in it, or its fields before `until`: what is signed."""
    document = wire_schema(name)
    found = next(t for t in named_types(document) if t["name"] == (record or document["name"]))
    names = [field["name"] for field in found["fields"]]
    count = len(names) if until is None else names.index(until)
    return Codec(cut(document, found["name"], found["fields"][:count]), name=found["name"])


def cut(document: Mapping[str, Any], name: str, fields: Sequence[Any]) -> dict[str, Any]:
    """A record of some of a document's fields. Named types are defined where they first come in it."""
    defined = {named["name"]: named for named in named_types(document["fields"])}
    namespace = document.get("namespace", "")
    resolved = _with_definitions(list(fields), defined, set())
    return {"type": "record", "name": name, "namespace": namespace, "fields": resolved}


def named_types(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every record, enum and fixed that a schema defines, outermost first."""
    if isinstance(node, list):
        for part in node:
            yield from named_types(part)
    elif isinstance(node, dict):
        if node.get("type") in ("record", "enum", "fixed"):
            yield node
        for key in ("type", "items", "fields"):
            if not isinstance(node.get(key), str):
                yield from named_types(node.get(key))


def _bounded(node: Any) -> Any:
    """The schema with every plain `int` held to 32 bits, every decimal to its shortest form."""
    if isinstance(node, dict) and node.get("type") == "bytes" and node.get("logicalType") == "decimal":
        return {**node, "logicalType": SHORTEST}
    if node == "int":
        return {"type": "int", "logicalType": INT32}
    if isinstance(node, dict) and node.get("type") == "int" and "name" not in node:
        return {"logicalType": INT32, **node}  # a date keeps its own, narrower range
    if isinstance(node, list):
        return [_bounded(part) for part in node]
    if isinstance(node, dict):
        return {key: _bounded(value) if key in ("type", "items", "fields") else value for key, value in node.items()}
    return node


def _with_definitions(node: Any, defined: Mapping[str, Any], seen: set[str]) -> Any:
    if isinstance(node, str) and node in defined and node not in seen:
        return _with_definitions(defined[node], defined, seen)
    if isinstance(node, list):
        return [_with_definitions(part, defined, seen) for part in node]
    if isinstance(node, dict):
        if node.get("type") in ("record", "enum", "fixed"):
            if node["name"] in seen:
                return node["name"]
            seen.add(node["name"])
        return {
            key: _with_definitions(value, defined, seen) if key in ("type", "items", "fields") else value
            for key, value in node.items()
        }
    return node
