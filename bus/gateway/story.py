"""The story of one record, as the log tells it: admitted, looked up, opened, refused, taken back, disputed, erased.

An auditor and the record's issuer read all of it; another department what it asked itself, and no sign of more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from bus.gateway import reading, sets, trail
from bus.gateway.reading import Version
from bus.gateway.trail import Filter, Found, Group, Published
from bus.terms import Word
from schemas.errors import Code, Malformed

MOST = 10_000  # entries of a story: some 10 MB of answer
TOGETHER = 500  # words of a group

_NAMES = {
    "Admitted": "admitted",
    "Reading": "looked up",
    "Voided": "voided",
    "Impact": "impact told",
    "Conflict": "conflict",
    "Ruling": "ruling",
    "ErasureStarted": "erasure started",
    "ErasureComplete": "erased",
    "Finding": "finding",
    "SetDecision": "opened in a set",
}

# Of the entries about others, what their parties are told; findings and other departments' notices are not.
_TOLD = frozenset(("Voided", "Ruling"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry of the story. `version` is the one that a `later version` is about."""

    what: str
    found: Found
    version: Version | None = None

    def to_json(self) -> dict[str, Any]:
        """The entry, and what it is in this story."""
        later = self.version
        about = {} if later is None else {"record": later.record.hex(), "sequence": later.sequence}
        operation = {} if later is None else {"operation": later.operation}
        return {"what": self.what, **about, **operation, **self.found.to_json()}


async def story(
    connection: asyncpg.Connection,
    record: bytes,
    version: Version | None,
    at: Published,
    caller: str,
    *,
    auditor: bool,
) -> list[Event]:
    """What the caller may know, in the log's order; nothing if it may know nothing. `version` is the record's place.

    Raises `Malformed` (REQUEST_TOO_LARGE) for a record that more was asked about than fits into an answer.
    """
    whole = auditor or (version is not None and version.issuer == caller)
    own: tuple[Group, ...] = () if whole else (frozenset([("party", caller)]),)
    about_it = _group([("record", record.hex()), *await sets.words_about(connection, record)])
    found = await _all(connection, at, about_it, *own)
    later: dict[str, list[Version]] = {}
    if version is not None and whole:
        for one in await reading.later_versions(connection, version):
            later.setdefault(one.entry.hex(), []).append(one)
        admissions = {version.entry.hex(), *later}
        found += await _any(connection, at, [("entry", entry) for entry in admissions])
    if version is not None and auditor:  # who looked where the record could have been the answer
        subjects = _group(("subject", holder.hex()) for holder in version.holders)
        if subjects:
            found += await _all(connection, at, subjects, _group([("kind", "Reading")]))
    disputed = [one for one in found if one.entry.kind in ("Decision", "SetDecision", "Conflict")]
    about = await _any(connection, at, [("about", one.entry.leaf_hash.hex()) for one in disputed])
    found += [one for one in about if auditor or one.entry.kind in _TOLD]
    unique = {one.stored.index: one for one in found}
    first = version.entry.hex() if version is not None else ""
    return [event for index in sorted(unique) for event in _events(unique[index], first, later)]


def _events(found: Found, admitted: str, later: dict[str, list[Version]]) -> Iterable[Event]:
    """One entry may admit a whole batch: this record, and later versions of its licence."""
    entry = found.entry
    if entry.kind == "Decision":
        codes = [section["code"] for section in entry.body["sections"]]
        permitted = "may pass on" if entry.body["onward_to"] else "opened"
        what = permitted if Code.PERMIT in codes else "refused" if codes else "looked up"
        yield Event(what=what, found=found)
        return
    if entry.kind != "Admitted" or entry.leaf_hash.hex() == admitted:
        yield Event(what=_NAMES.get(entry.kind, entry.kind), found=found)
    for version in later.get(entry.leaf_hash.hex(), ()):
        yield Event(what="later version", found=found, version=version)


async def _any(connection: asyncpg.Connection, at: Published, words: Sequence[Word]) -> list[Found]:
    """The entries that have one of these words."""
    found: list[Found] = []
    for begin in range(0, len(words), TOGETHER):
        found += await _all(connection, at, _group(words[begin : begin + TOGETHER]))
    return found


async def _all(connection: asyncpg.Connection, at: Published, *groups: Group) -> list[Found]:
    """The entries that have a word of each group."""
    found: list[Found] = []
    async for more in trail.pages(connection, Filter(groups=groups), at):
        found += more
        if len(found) > MOST:
            raise Malformed(
                Code.REQUEST_TOO_LARGE,
                f"this story has more than {MOST} entries: read it page by page, as entries with this record",
            )
    return found


def _group(words: Iterable[Word]) -> Group:
    return frozenset(words)
