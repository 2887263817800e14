"""The law as data (`law.toml`): grounds, notices and time limits, each with its article and whether its text was read.

What follows from them in a decision stands in code.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Annotated, Literal, TypeVar

import msgspec

from schemas.errors import Code, Malformed

_Text = Annotated[str, msgspec.Meta(min_length=1)]


class Provision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every entry has: names, the article as one cites it, whether its text was read; if not, `source` says where
    the entry comes from.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z_]*$")]
    zh: _Text
    en: _Text
    citation: _Text
    verified: bool
    source: str = ""

    def __post_init__(self) -> None:
        if self.verified == bool(self.source):
            raise ValueError(f"{self.id}: what is not verified has a source, only that")


class LegalGround(Provision, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ground of art. 13 (1) of the 个人信息保护法. `id` is a `consent.model.Ground`.

    `needs_citation`: a request on this ground names what it rests on: a duty, a law, a contract, an event.
    """

    needs_consent: bool
    needs_citation: bool


class NoticeRule(Provision, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a person is told (告知), and the exemptions. `id` is a `consent.model.Notice`."""


class Limit(Provision, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long somebody may take, counted as `consent.calendar.add_working_days` does."""

    days: Annotated[int, msgspec.Meta(ge=1)]
    unit: Literal["WORKING_DAY"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """The file, by ids, in its order."""

    grounds: Mapping[str, LegalGround]
    notices: Mapping[str, NoticeRule]
    limits: Mapping[str, Limit]


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    grounds: list[LegalGround]
    notices: list[NoticeRule]
    limits: list[Limit]


_P = TypeVar("_P", bound=Provision)


def parse(text: str) -> Law:
    """The law of a file's text. Raises `Malformed` (CONFIG_INVALID): where, and what was expected."""
    try:
        read = msgspec.convert(tomllib.loads(text), _File)
        return Law(grounds=_by_id(read.grounds), notices=_by_id(read.notices), limits=_by_id(read.limits))
    except (msgspec.ValidationError, ValueError, RecursionError) as exc:
        raise Malformed(Code.CONFIG_INVALID, f"consent/law.toml: {exc}") from exc


def _by_id(entries: Sequence[_P]) -> Mapping[str, _P]:
    found = {one.id: one for one in entries}
    if len(found) < len(entries):
        raise ValueError("two entries have one id")
    return MappingProxyType(found)


_LAW = parse((resources.files("consent") / "law.toml").read_text("utf-8"))
LEGAL_GROUNDS = _LAW.grounds
NOTICES = _LAW.notices
LIMITS = _LAW.limits
# Each ground with its Chinese name.
GROUNDS: Mapping[str, str] = MappingProxyType({one.id: one.zh for one in LEGAL_GROUNDS.values()})
