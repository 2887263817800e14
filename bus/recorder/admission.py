"""Admission: which records count (`bus/FORMATS.md`, 'Admission').

Pure: what Kafka brought and what the index says go in, a plan of rows comes out. `bus.recorder.service` reads and
writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from bus import envelope, session
from bus.envelope import Record
from bus.pki import Certificate
from bus.proof import ProofVerifier
from bus.trust import Trust
from consent.issuing import Issuing
from schemas.catalogue import Catalogue
from schemas.errors import Code, DeptbusError, Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A record as Kafka delivered it. `time` is the broker's."""

    topic: str
    partition: int
    offset: int
    time: datetime
    key: bytes | None
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A record that verifies. `checkpoint` is what its issuer signed for the whole batch.

    `authority` is the department in whose power it was issued, if that is not its issuer: known once it is judged.
    """

    arrived: Arrived
    record: Record
    checkpoint: bytes
    certificate: Certificate
    authority: str | None = None

    @property
    def place(self) -> tuple[bytes, int]:
        """(licence, sequence): what one record alone may claim."""
        return self.record.claims.licence, self.record.claims.sequence

    @property
    def leaf(self) -> tuple[str, bytes, int]:
        """(issuer, session, leaf): what one record alone may claim."""
        claims = self.record.claims
        return claims.issuer, claims.session, claims.leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A record that is not admitted, and why. `leaf_hash` names it if its signature holds."""

    arrived: Arrived
    code: Code
    detail: str
    leaf_hash: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """An admitted record that holds a place which another one claims."""

    leaf_hash: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSession:
    """What the index knows of a session."""

    item: str
    schema: bytes
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What the database says of the records at hand. `before` has the authority of each licence's version before."""

    sessions: Mapping[tuple[bytes, str], KnownSession]
    issuing: Issuing
    admitted: frozenset[bytes]
    by_sequence: Mapping[tuple[bytes, int], Rival]
    by_leaf: Mapping[tuple[str, bytes, int], Rival]
    before: Mapping[tuple[bytes, int], str]


@dataclass(slots=True)
class Plan:
    """What is to be written: admitted records in order, conflicts with their rivals, refusals."""

    admitted: list[Checked] = field(default_factory=list)
    conflicts: list[tuple[Checked, Rival, str]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


def check(
    arrived: Iterable[Arrived], bus: str, trust: Trust, verifier: ProofVerifier
) -> tuple[list[Checked], list[Refusal]]:
    """What can be said of each record from its own bytes and the certificates, as they stand at the broker's time."""
    checked: list[Checked] = []
    refused: list[Refusal] = []
    for one in arrived:
        try:
            record = envelope.parse(one.value)
            envelope.check_place(record, one.topic, one.key)
            checkpoint, certificate = envelope.verify(record, bus, trust, verifier, one.time)
        except DeptbusError as exc:
            refused.append(Refusal(arrived=one, code=exc.code, detail=exc.detail))
        else:
            checked.append(Checked(arrived=one, record=record, checkpoint=checkpoint, certificate=certificate))
    return checked, refused


def judge(checked: Sequence[Checked], index: Index, catalogue: Catalogue) -> Plan:
    """Admits, refuses or finds a conflict, record by record, in the order that Kafka gave.

    Session, schema and powers come first: what fails there is refused, never a conflict. Then each record claims three
    unique places: its leaf hash (the same again: nothing), its session's leaf, its licence's sequence.
    """
    plan = Plan()
    seen = set(index.admitted)
    by_sequence, by_leaf = dict(index.by_sequence), dict(index.by_leaf)
    versions: dict[bytes, list[tuple[int, str]]] = {}  # of this same poll: the index does not know them yet
    for one in checked:
        claims = one.record.claims
        if one.record.leaf_hash in seen:
            continue
        try:
            _check_session(one, index)
            _check_schema(one, catalogue)
            authority = _authority(one, index, versions.get(claims.licence, ()))
        except Refused as exc:
            leaf_hash = one.record.leaf_hash
            plan.refused.append(Refusal(arrived=one.arrived, code=exc.code, detail=exc.detail, leaf_hash=leaf_hash))
            continue
        seen.add(one.record.leaf_hash)
        taken = (by_leaf.get(one.leaf), "leaf"), (by_sequence.get(one.place), "sequence")
        rival = next(((rival, place) for rival, place in taken if rival is not None), None)
        if rival is not None:
            plan.conflicts.append((one, *rival))
            continue
        mine = Rival(leaf_hash=one.record.leaf_hash, value=one.arrived.value)
        by_sequence[one.place] = by_leaf[one.leaf] = mine
        versions.setdefault(claims.licence, []).append((claims.sequence, authority))
        plan.admitted.append(one if authority == claims.issuer else replace(one, authority=authority))
    return plan


def _check_session(one: Checked, index: Index) -> None:
    claims = one.record.claims
    known = index.sessions.get((claims.session, claims.issuer))
    if known is None:
        raise Refused(Code.SESSION_UNKNOWN, f"no session of {claims.issuer} was announced for this record")
    if known.item != claims.item or known.schema != claims.schema:
        raise Refused(Code.SESSION_MISMATCH, "the claims name another item or schema than their session")
    if one.arrived.time > known.not_after + session.LATE_ADMISSION:
        raise Refused(Code.SESSION_LATE, "the session ended more than 24 hours ago: admission by hand only")


def _check_schema(one: Checked, catalogue: Catalogue) -> None:
    claims = one.record.claims
    schema = catalogue.item(claims.item).schemas.get(claims.schema)
    if schema is None:
        raise Refused(Code.SCHEMA_UNKNOWN, f"the catalogue has no such schema of {claims.item}")
    names = tuple(name for name, _ in claims.sections)
    retention = catalogue.item(claims.item).retention
    if claims.operation == "ERASED" and retention is not None:
        raise Refused(Code.LAW_KEEPS, f"the law keeps records of {claims.item}: {retention.basis}")
    if names != (() if claims.operation == "ERASED" else schema.sections):
        raise Refused(Code.SECTIONS_MISMATCH, f"the sections are not those of {claims.item}'s schema, in its order")


def _authority(one: Checked, index: Index, versions: Sequence[tuple[int, str]]) -> str:
    """In whose power it was issued, as things stood when the broker had it: that of the licence's version before."""
    claims = one.record.claims
    lower = (authority for sequence, authority in versions if sequence < claims.sequence)
    before = index.before.get(one.place) or next(lower, None)
    return index.issuing.authority(claims.item, claims.issuer, claims.region, one.arrived.time, before)
