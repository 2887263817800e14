"""What data may be asked for: a closed tree of purposes (`purposes.toml`), with the Chinese names that a clerk knows.

Who may use data for a purpose may use it for those inside of it (`covers`), never the other way round.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from importlib import resources
from types import MappingProxyType
from typing import Annotated

import msgspec

from schemas.errors import Code, Malformed

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Id = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,63}$")]


class Match(StrEnum):
    """How a purpose relates to its DPV term."""

    EXACT = "exact"
    BROAD = "broad"  # the term holds more


class Purpose(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One purpose. `broader` is the one that it lies inside of, `dpv` a purpose of the W3C Data Privacy Vocabulary."""

    id: _Id
    zh: _Text
    en: _Text
    broader: _Id | None = None
    dpv: Annotated[str, msgspec.Meta(pattern=r"^https://w3id\.org/dpv#[A-Z][A-Za-z]*$")]
    match: Match


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    purposes: list[Purpose]


def parse(text: str) -> Mapping[str, Purpose]:
    """The purposes of a file's text, by id, in its order.

    Raises `Malformed` (CONFIG_INVALID) also for an id given twice, a broader purpose that is not there, and a circle.
    """
    try:
        read = msgspec.convert(tomllib.loads(text), _File).purposes
    except (ValueError, msgspec.ValidationError, RecursionError) as exc:
        raise _invalid(str(exc)) from exc
    tree = {one.id: one for one in read}
    if len(tree) < len(read):
        raise _invalid("two purposes have one id")
    for one in tree:
        _line(tree, one)
    return MappingProxyType(tree)


def _line(tree: Mapping[str, Purpose], purpose: str) -> tuple[str, ...]:
    line: list[str] = []
    at: str | None = purpose
    while at is not None:
        if at not in tree:
            raise _invalid(f"{line[-1]}: there is no broader purpose {at}")
        if at in line:
            raise _invalid(f"{purpose} lies in a circle, or under one")
        line.append(at)
        at = tree[at].broader
    return tuple(line)


def _invalid(what: str) -> Malformed:
    return Malformed(Code.CONFIG_INVALID, f"consent/purposes.toml: {what}")


TREE = parse((resources.files("consent") / "purposes.toml").read_text("utf-8"))
# Each purpose with its Chinese name.
PURPOSES: Mapping[str, str] = MappingProxyType({one.id: one.zh for one in TREE.values()})
_LINES = {purpose: _line(TREE, purpose) for purpose in TREE}


def ancestors(purpose: str) -> tuple[str, ...]:
    """The purpose itself, then what it lies inside of, up to the broadest; empty for one that is not in the tree."""
    return _LINES.get(purpose, ())


def covers(allowed: frozenset[str], purpose: str) -> bool:
    """Whether one of `allowed` is this purpose or one that it lies inside of. An unknown purpose is covered by itself
    alone.
    """
    return purpose in allowed or not allowed.isdisjoint(_LINES.get(purpose, ()))
