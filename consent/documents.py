"""Documents: the frozen values that departments sign and the trail knows by hash, and their JSON.

A document's *body* never changes: its hash is its identity. Where it stands (`revision`, `state`) is kept outside, so
that who signed the body has signed what counts. The JSON is strict both ways: nothing has a default, because a lost
limit would widen what a document allows.
"""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints
from uuid import UUID

from schemas.errors import Code, Malformed

OUTSIDE = ("revision", "state")  # of every document: where it stands, not what it says


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no blanks, UTF-8: the bytes that a hash is of. Raises `Malformed` (VALUE_INVALID)."""
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as exc:  # JSON's and YAML's escapes can write one
        raise Malformed(Code.VALUE_INVALID, "half a surrogate pair is no text") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A value inside a document."""


class _Once:
    """What is computed from a document once. Without a dict: a decision looks at few places in memory."""

    __slots__ = ("_hash", "_word")
    _hash: bytes
    _word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(_Once):
    """Base of all documents. `kind` is what the trail, the database and commands call its class."""

    kind: ClassVar[str]

    id: UUID
    revision: int
    state: StrEnum

    @property
    def hash(self) -> bytes:
        """SHA-256 of the body's canonical JSON."""
        try:
            return self._hash
        except AttributeError:
            object.__setattr__(self, "_hash", hashlib.sha256(canonical(self.body())).digest())
            return self._hash

    @property
    def word(self) -> str:
        """As the trail names it, `<kind>:<id>@<revision>`."""
        try:
            return self._word
        except AttributeError:
            object.__setattr__(self, "_word", f"{self.kind}:{self.id}@{self.revision}")
            return self._word

    def body(self) -> dict[str, Any]:
        """What was signed, as JSON."""
        return {field.name: to_json(getattr(self, field.name)) for field in fields(self) if field.name not in OUTSIDE}

    def to_json(self) -> dict[str, Any]:
        """As answers show it: the body, where it stands, and its hash in hex."""
        return self.body() | {"revision": self.revision, "state": self.state.value, "hash": self.hash.hex()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What `to_json` gave. Raises `Malformed` (DATA_CORRUPT), also if the hash is not the body's."""
        if not isinstance(document, Mapping):
            raise Malformed(Code.DATA_CORRUPT, f"a stored {cls.kind} is no JSON object")
        body = {name: value for name, value in document.items() if name not in (*OUTSIDE, "hash")}
        made = cls.stored(body, document.get("revision"), document.get("state"))
        if made.hash.hex() != document.get("hash"):
            raise Malformed(Code.DATA_CORRUPT, f"the hash of a stored {cls.kind} is not its body's")
        return made

    @classmethod
    def stored(cls, body: Mapping[str, Any], revision: Any, state: Any, known: bytes | None = None) -> Self:
        """A document from its parts; `known` is its hash, where that is known: it is not computed once more.

        Raises `Malformed` (DATA_CORRUPT): only this class writes such bodies.
        """
        made: Self = _read(cls, {**body, "revision": revision, "state": state})
        if known is not None:
            object.__setattr__(made, "_hash", known)
        return made


def to_json(value: Any) -> Any:
    """A field's value as JSON has it: sets sorted, bytes in hex, days as YYYY-MM-DD."""
    match value:
        case frozenset():
            return sorted(value)
        case tuple():
            return [to_json(one) for one in value]
        case bytes():
            return value.hex()
        case UUID():
            return str(value)
        case date():
            return value.isoformat()
        case Part():
            return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    return value


def _read(cls: Any, document: Mapping[str, Any]) -> Any:
    fields_of = readers(cls)
    try:
        if document.keys() != fields_of.keys():
            raise ValueError("an entry is missing, or not known")
        return cls(**{name: read(document[name]) for name, read in fields_of.items()})
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise Malformed(Code.DATA_CORRUPT, f"a stored {cls.__name__.lower()} cannot be read") from exc


@cache
def readers(cls: type) -> Mapping[str, Callable[[Any], Any]]:
    """What reads each field of a frozen value from its JSON. They raise TypeError or ValueError, or `Malformed` inside
    of a `Part`.
    """
    hints = get_type_hints(cls)
    return {field.name: _reader(hints[field.name]) for field in fields(cls)}


def _reader(kind: Any) -> Callable[[Any], Any]:
    """A JSON value of this type and no other: `True` is no number, "false" no truth, a text no list of letters."""
    if get_origin(kind) in (types.UnionType, type(None)) or isinstance(kind, types.UnionType):
        (inner,) = (one for one in get_args(kind) if one is not type(None))
        read_inner = _reader(inner)
        return lambda value: None if value is None else read_inner(value)
    if get_origin(kind) is frozenset:
        (inner,) = get_args(kind)
        read_one = _reader(inner)
        # Of one field, documents share equal sets: many speak of the same few purposes, sections and regions.
        shared = lru_cache(maxsize=10_000)(lambda found: found)
        return lambda values: shared(_set([read_one(one) for one in _list(values)]))
    if get_origin(kind) is tuple:
        read_each = _reader(get_args(kind)[0])
        return lambda values: tuple(read_each(one) for one in _list(values))
    if kind in _SCALARS:
        return _SCALARS[kind]
    if issubclass(kind, StrEnum):
        return lambda value: kind(_text(value))
    return lambda value: _read(kind, value)


def _exactly(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"{kind.__name__} expected")
        return value

    return read


def _set(values: list[Any]) -> frozenset[Any]:
    if len(found := frozenset(values)) != len(values):
        raise ValueError("an entry comes twice")
    return found


def _hex(value: Any) -> bytes:
    read = bytes.fromhex(_text(value))
    if read.hex() != value:
        raise ValueError("bytes are written in lower-case hex")
    return read


def _uuid(value: Any) -> UUID:
    read = UUID(_text(value))
    if str(read) != value:
        raise ValueError("an id is written in its usual form")
    return read


@lru_cache(maxsize=10_000)  # twenty-seven years
def _day(value: Any) -> date:
    day = date.fromisoformat(_text(value))
    if day.isoformat() != value:
        raise ValueError("a day is written YYYY-MM-DD")
    return day


_text, _list = _exactly(str), _exactly(list)
_SCALARS: Mapping[Any, Callable[[Any], Any]] = {
    str: _text,
    int: _exactly(int),
    bool: _exactly(bool),
    bytes: _hex,
    UUID: _uuid,
    date: _day,
}
