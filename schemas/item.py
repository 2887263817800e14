"""An item's schema document, and the section records that follow from it.

A document is an Avro record whose fields each carry `"section"`. The section record of a name is the record of the
fields of that section, in document order, types unchanged; names resolve in the whole document. `map` is not allowed:
its order is not fixed, so it has no canonical bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from schemas.avro import Codec, cut
from schemas.errors import Code, Malformed

MAX_SECTIONS = 64
MAX_DOCUMENT_BYTES = 64 * 1024  # a licence face has tens of fields, in 4 KB; larger is a mistake or an attack
MAX_PRECISION = 38  # decimal digits, as SQL databases have them; the bound is computed, and 10^8 digits take minutes
# What never travels, however shared: 政务数据共享条例 leaves both out of 政务数据 (from a summary: not verified).
SECRECY = MappingProxyType({"STATE": "a state secret (国家秘密)", "WORK": "a work secret (工作秘密)"})
_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of an item: its place, and what the standards call it."""

    name: str
    section: str
    sensitivity: str
    zh: str
    key: str
    identifier: str | None
    avro_type: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSchema:
    """A parsed schema document. `digest` is what claims name it by: SHA-256 of the exact bytes."""

    document: bytes
    digest: bytes
    name: str
    fields: Mapping[str, Field]
    sections: tuple[str, ...]
    codecs: Mapping[str, Codec]

    @classmethod
    def parse(cls, document: bytes) -> ItemSchema:
        """Raises `Malformed`: CONFIG_INVALID for a document that breaks a rule above, FIELD_SECRET for a secret."""
        if len(document) > MAX_DOCUMENT_BYTES:
            raise _invalid(f"the document is larger than {MAX_DOCUMENT_BYTES} bytes")
        try:
            schema = json.loads(document)
            if not isinstance(schema, dict) or schema.get("type") != "record":
                raise _invalid("the document is not an Avro record")
            if "map" in _types(schema):
                raise _invalid("map has no canonical order and is not allowed")
            _check_sizes(schema)
            fields = {field["name"]: _field(field) for field in schema["fields"]}
            sections = tuple(dict.fromkeys(field.section for field in fields.values()))
            if not 1 <= len(sections) <= MAX_SECTIONS:
                raise _invalid(f"{len(sections)} sections; 1 to {MAX_SECTIONS} are allowed")
            codecs = {name: _section_codec(schema, name) for name in sections}
        except Malformed:
            raise
        except Exception as exc:  # a hostile document: ValueError, KeyError, RecursionError, fastavro's own, ...
            raise _invalid(f"the document is no JSON or no Avro schema ({type(exc).__name__})") from exc
        return cls(
            document=document,
            digest=hashlib.sha256(document).digest(),
            name=schema["name"],
            fields=MappingProxyType(fields),
            sections=sections,
            codecs=MappingProxyType(codecs),
        )

    def encode(self, values: Mapping[str, Any]) -> dict[str, bytes]:
        """Every section's record, encoded, in the order of `sections`. Unknown fields are refused."""
        if not values.keys() <= self.fields.keys():
            unknown = sorted(values.keys() - self.fields.keys())
            raise Malformed(Code.VALUE_INVALID, f"{self.name} has no field {', '.join(unknown)}")
        try:
            return {name: codec.encode(values) for name, codec in self.codecs.items()}
        except Malformed as exc:
            raise Malformed(exc.code, f"{self.name}, field {self._culprit(values)}: {exc.detail}") from exc

    def _culprit(self, values: Mapping[str, Any]) -> str:
        """The first field whose value its own type does not hold."""
        schema = json.loads(self.document)
        for field in schema["fields"]:
            try:
                Codec(cut(schema, "field", [field])).encode(values)
            except Malformed:
                return str(field["name"])
        return "unknown"


def _field(field: Mapping[str, Any]) -> Field:
    for name, secrecy in _marked(field):
        if secrecy not in SECRECY:
            raise _invalid(f"field {name}: secrecy is one of {', '.join(SECRECY)}")
        raise Malformed(
            Code.FIELD_SECRET, f"item schema: field {name} is {SECRECY[secrecy]}: leave it out, it may not go"
        )
    section = field.get("section")
    if not isinstance(section, str) or not _NAME.match(section):
        raise _invalid(f"field {field.get('name')} has no valid section")
    return Field(
        name=field["name"],
        section=section,
        sensitivity=field.get("sensitivity", ""),
        zh=field.get("zh", ""),
        key=field.get("key", ""),
        identifier=field.get("identifier"),
        avro_type=field["type"],
    )


def _marked(node: Any) -> Iterator[tuple[Any, Any]]:
    """(name, secrecy) of every field that has a marking, nested ones, too."""
    if isinstance(node, list):
        for part in node:
            yield from _marked(part)
    elif isinstance(node, dict):
        if "secrecy" in node:
            yield node.get("name"), node["secrecy"]
        for part in node.values():
            yield from _marked(part)


def _section_codec(schema: Mapping[str, Any], section: str) -> Codec:
    fields = [{"name": f["name"], "type": f["type"]} for f in schema["fields"] if f["section"] == section]
    return Codec(cut(schema, f"{schema['name']}_{section.replace('-', '_')}", fields), name=f"section {section}")


def _types(node: Any) -> set[str]:
    """Every type name that a schema mentions."""
    if isinstance(node, str):
        return {node}
    if isinstance(node, list):
        return set().union(*map(_types, node)) if node else set()
    if isinstance(node, dict):
        return set().union(*(_types(node[key]) for key in ("type", "items", "values", "fields") if key in node))
    return set()


def _check_sizes(node: Any, within: frozenset[str] = frozenset()) -> None:
    """Every value takes a byte at least: of values that take none, a few bytes of an array may promise any number.

    No record holds itself: its values would be as deep as they are long, and readers have only so much of a stack.
    `within` are the records around, by their last names.
    """
    if isinstance(node, list):
        for branch in node:  # a union: even null has an index there
            if branch != "null":
                _check_sizes(branch, within)
    elif node == "null":
        raise _invalid("null stands only in a union")
    elif isinstance(node, str):
        if node.rpartition(".")[2] in within:
            raise _invalid("a record holds itself")
    elif isinstance(node, dict):
        kind, precision = node["type"], node.get("precision", 1)
        if kind == "record":
            inside = within | {node["name"].rpartition(".")[2]}
            for field in node["fields"]:
                _check_sizes(field["type"], inside)
        elif kind == "array":
            _check_sizes(node["items"], within)
        else:
            _check_sizes(kind, within)
        if (kind == "record" and not node["fields"]) or (kind == "fixed" and node["size"] < 1):
            raise _invalid("a record without fields and a fixed of no bytes hold nothing")
        if not 1 <= precision <= MAX_PRECISION:
            raise _invalid(f"a decimal has 1 to {MAX_PRECISION} digits")


def _invalid(what: str) -> Malformed:
    return Malformed(Code.CONFIG_INVALID, f"item schema: {what}")
