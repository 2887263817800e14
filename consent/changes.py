"""Rules as they would be: documents to add, to change in some of their fields, or to end.

A list of objects, each with its `kind` (agreement, consent, power, mandate, item). With the `id` of a document that
stands, the fields given replace its own, and `end: true` ends it; without one, a new document, in force. A whole set of
rules is written in the same way, as changes of nothing. Nobody has agreed to any of it: it is never stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from consent.documents import canonical, readers
from consent.lifecycle import Act
from consent.model import (
    Agreement,
    AgreementState,
    Basis,
    CatalogueEntry,
    Consent,
    ConsentState,
    EntryState,
    Mandate,
    Power,
    PowerState,
)
from schemas.catalogue import Item
from schemas.errors import Code, Malformed

MOST = 100  # changes in a question: what a person can oversee; a file of a whole set of rules has no such bound

KINDS: Mapping[str, type[Basis]] = MappingProxyType(
    {kind.kind: kind for kind in (Agreement, Consent, Power, Mandate, CatalogueEntry)}
)
# In force, and ended: by state.
_STATES: Mapping[type[Basis], tuple[StrEnum, StrEnum]] = MappingProxyType(
    {
        Agreement: (AgreementState.ACTIVE, AgreementState.TERMINATED),
        Consent: (ConsentState.ACTIVE, ConsentState.WITHDRAWN),
        Power: (PowerState.ACTIVE, PowerState.ENDED),
        Mandate: (PowerState.ACTIVE, PowerState.ENDED),
        CatalogueEntry: (EntryState.PUBLISHED, EntryState.RETIRED),
    }
)
# What a new document may leave out, as the application for one may. Whom, what and what for is always said.
_DEFAULTS: Mapping[type[Basis], Mapping[str, Any]] = MappingProxyType(
    {
        Agreement: {
            "basis": "",
            "scenario": "",
            "mode": "STREAM",
            "regions": [],
            "duties": [],
            "notice": "GIVEN",
            "valid_until": None,
            "purpose_until": None,
            "requests_a_day": None,
            "records_a_day": None,
            "max_age": 86_400,
            "data_life": None,
            "statuses": [],
            "superseded": False,
            "onward": [],
            "set_limit": None,
            "set_until": None,
        },
        Consent: {
            "agreements": [],
            "mode": "STREAM",
            "valid_until": None,
            "frequency": None,
            "max_uses": None,
            "data_life": None,
            "notice": "GIVEN",
            "given_by": "SUBJECT",
            "minor_until": None,
            "recorded_by": "",
            "evidence": "",
        },
        Power: {"regions": [], "valid_until": None, "basis": ""},
        Mandate: {"recorded_by": "", "evidence": ""},
        CatalogueEntry: {
            "definition": "",
            "format": "",
            "update": "",
            "data_class": "GENERAL",
            "drafted_by": "",
            "valid_until": None,
        },
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry of the list; `at` is its place, from 1. `given` are a body's fields as JSON has them, maybe `state`."""

    at: int
    kind: type[Basis]
    id: UUID | None
    act: Act | None
    given: Mapping[str, Any]

    def refused(self, why: str) -> Malformed:
        """What is wrong with it."""
        return Malformed(Code.REQUEST_MALFORMED, f"change {self.at} ({self.kind.kind}): {why}")


def parse(document: Any, most: int | None = MOST) -> tuple[Change, ...]:
    """The changes of a list as JSON or YAML has it. Raises `Malformed` (REQUEST_*): which one, and why."""
    if not isinstance(document, list) or not all(isinstance(one, dict) for one in document):
        raise Malformed(Code.REQUEST_MALFORMED, "changes are a list of objects, each with its kind")
    if most is not None and len(document) > most:
        raise Malformed(Code.REQUEST_TOO_LARGE, f"{len(document)} changes: at most {most} at once")
    return tuple(_change(at, dict(one)) for at, one in enumerate(document, 1))


def _change(at: int, given: dict[str, Any]) -> Change:
    name, identifier, end = given.pop("kind", None), given.pop("id", None), given.pop("end", False)
    if not isinstance(name, str) or name not in KINDS:
        raise Malformed(Code.REQUEST_MALFORMED, f"change {at}: kind is one of {', '.join(KINDS)}")
    made = Change(at=at, kind=KINDS[name], id=None, act=Act.END if end is True else None, given=plain(given))
    known = {field.name for field in fields(made.kind)} - {"id", "revision"}
    if unknown := sorted(str(one) for one in given.keys() - known):
        raise made.refused(f"it has no {', '.join(unknown)!r:.200}")
    if end is not False and (end is not True or identifier is None or given):
        raise made.refused("end is true, beside the id of what ends and nothing else")
    if identifier is None:
        return made
    try:
        return Change(at=at, kind=made.kind, id=UUID(str(identifier)), act=made.act, given=made.given)
    except ValueError as exc:
        raise made.refused("id is no UUID") from exc


def changed(
    documents: Iterable[Basis], changes: Sequence[Change], holders: Mapping[str, Sequence[bytes]] | None = None
) -> list[Basis]:
    """The documents after the changes, in the order of their ids. Raises `Malformed` (REQUEST_MALFORMED).

    `holders` are pseudonyms by item: a consent or a mandate that names no subject is theirs.
    """
    standing = {one.id: one for one in documents}
    for change in changes:
        before = None if change.id is None else standing.get(change.id)
        after = _new(change, holders or {}) if before is None else _next(before, change)
        standing[after.id] = after
    return sorted(standing.values(), key=lambda one: one.id)


def published(items: Iterable[Item], documents: Iterable[Basis]) -> list[Basis]:
    """The documents, and an entry of the catalogue for each item that they have none of: a file may leave those out."""
    found = list(documents)
    named = {one.item for one in found if isinstance(one, CatalogueEntry)}
    missing = [{"kind": "item", "item": one.name, "valid_from": "1970-01-01"} for one in items if one.name not in named]
    return changed(found, parse(missing, None))


def _next(before: Basis, change: Change) -> Basis:
    if not isinstance(before, change.kind):
        raise change.refused(f"the id is that of another kind, {before.kind}")
    given = dict(change.given)
    state = given.pop("state", _STATES[change.kind][1].value if change.act is Act.END else before.state.value)
    return _read(change, before.body() | given, before.revision + 1, state)


def _new(change: Change, holders: Mapping[str, Sequence[bytes]]) -> Basis:
    if change.act is Act.END:
        raise change.refused("nothing that you may see has this id")
    given = dict(change.given)
    state = given.pop("state", _STATES[change.kind][0].value)
    identifier = change.id or uuid5(NAMESPACE_OID, canonical([change.at, change.kind.kind, given]).decode())
    for name in ("scopes", "subjects"):
        if name in given:
            given[name] = _with_subjects(change, given[name], holders)
    body = {**_DEFAULTS[change.kind], **given, "id": str(identifier)}
    wanted = {field.name for field in fields(change.kind)} - {"revision", "state"}
    if missing := sorted(wanted - body.keys()):
        raise change.refused(f"a new one says its {', '.join(missing)}")
    return _read(change, body, 1, state)


def _with_subjects(change: Change, parts: Any, holders: Mapping[str, Sequence[bytes]]) -> list[Any]:
    """Parts of one item each, with a subject: theirs, or each holder at hand. `sensitive` may be left out."""
    if not isinstance(parts, list) or not all(isinstance(one, dict) and "item" in one for one in parts):
        raise change.refused("scopes and subjects are lists of objects, each with its item")
    found: list[Any] = []
    for part in parts:
        one = ({"sensitive": []} if change.kind is Consent else {}) | part
        if "subject" in one:
            found.append(one)
        else:
            found.extend(one | {"subject": holder.hex()} for holder in holders.get(one["item"], ()))
    return found


def _read(change: Change, body: Mapping[str, Any], revision: int, state: Any) -> Basis:
    plain = json.loads(canonical({**body, "revision": revision, "state": state}))
    for name, read in readers(change.kind).items():  # type: ignore[arg-type]  # a class is hashable, whatever its union
        try:
            read(plain[name])
        except (TypeError, ValueError, AttributeError, Malformed) as exc:
            raise change.refused(f"{name} cannot be {plain[name]!r:.80}: {exc}") from exc
    return change.kind.stored({name: plain[name] for name in body}, revision, plain["state"])


def plain(value: Any) -> Any:
    """As JSON has it: YAML reads days as days."""
    match value:
        case datetime():
            return value.isoformat()
        case date():
            return value.isoformat()
        case dict():
            return {str(name): plain(inner) for name, inner in value.items()}
        case list():
            return [plain(inner) for inner in value]
    return value
