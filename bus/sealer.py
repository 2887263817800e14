"""From a department's values to sealed, signed records. No I/O: `bus.publisher` sends what this makes."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from bus import merkle, pseudonyms, sealing, session
from bus.envelope import (
    MAX_VALUE_BYTES,
    Claims,
    Subject,
    batch_origin,
    check_claims,
    encode_prefix,
    encode_sections,
    encode_value,
)
from bus.identity import Identity
from bus.outbox import Sealed
from bus.proof import sign_batch
from bus.trust import KemKey
from schemas.catalogue import Item
from schemas.errors import Code, Malformed, Refused
from schemas.operations import Operation

SCHEMA_ID = 1  # the envelope's id in the read-only registry; a hint for tools
ROTATE_BEFORE = timedelta(minutes=5)  # a batch sealed now must reach the broker before its session ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a department says of one licence.

    `values` are the item's fields by their English names; `sequence` counts the licence's records from 1; `region` is
    six digits of GB/T 2260; `parents` are leaf hashes of the records that this one is derived from.
    """

    item: str
    operation: Operation
    values: Mapping[str, Any]
    sequence: int
    occurred_at: datetime
    region: str
    valid_from: date | None = None
    valid_until: date | None = None
    parents: tuple[bytes, ...] = ()
    generation: int | None = None


class Sealer:
    """Seals records of one item in sessions of its own. Not thread-safe: one owner at a time."""

    def __init__(self, identity: Identity, item: Item) -> None:
        self._identity = identity
        self._item = item
        self._session: session.Session | None = None
        self._leaves: dict[str, sealing.LeafKeys] = {}
        self._next_leaf = 0
        self._owner = 0

    def needs_session(self, count: int, now: datetime) -> bool:
        """Whether a batch of `count` needs a new session. A fork begins its own: two processes never share leaves.

        So does a clock that was turned back, or else no session would end by it.
        """
        current = self._session
        return (
            current is None
            or self._owner != os.getpid()
            or self._next_leaf + count > sealing.MAX_LEAVES
            or not current.created_at - session.CLOCK_TOLERANCE <= now <= current.not_after - ROTATE_BEFORE
        )

    def open_session(self, recipient: KemKey, now: datetime) -> session.Session:
        """Begins a session. The caller publishes it before the first record that it seals."""
        secret = secrets.token_bytes(session.SECRET_BYTES)
        self._session = session.create(
            self._identity.record,
            session=secrets.token_bytes(16),
            secret=secret,
            item=self._item.name,
            schema=self._item.schema.digest,
            recipient=recipient,
            now=now,
        )
        self._leaves = {
            name: sealing.LeafKeys(sealing.section_root(secret, name)) for name in self._item.schema.sections
        }
        self._next_leaf = 0
        self._owner = os.getpid()
        return self._session

    def drop_session(self) -> None:
        """Nothing is sealed in it: it was not published, or does not stand."""
        self._session = None

    def seal(self, drafts: Sequence[Draft]) -> list[Sealed]:
        """One signed batch. Raises `Malformed` naming the draft and field.

        Then nothing was sealed and no leaf spent.
        """
        if self._session is None:
            raise Malformed(Code.SESSION_UNKNOWN, "no session is open")
        prepared = [self._prepare(draft) for draft in drafts]
        first = self._next_leaf
        self._next_leaf += len(prepared)  # spent from here on, sent or not
        records = record_ids(len(prepared))
        made = [self._seal_one(*one, first + at, records[at]) for at, one in enumerate(prepared)]
        origin = batch_origin(self._identity.origin, self._identity.uscc, self._session.session, first)
        leaves = [merkle.leaf_hash(claims_bytes) for _, claims_bytes, _ in made]
        proofs = sign_batch(self._identity.record, origin, leaves)
        spans = secrets.token_hex(8 * len(made))
        return [
            _sealed(claims, leaf, encode_value(SCHEMA_ID, claims_bytes, bodies, proof), spans[16 * at : 16 * at + 16])
            for at, ((claims, claims_bytes, bodies), leaf, proof) in enumerate(zip(made, leaves, proofs, strict=True))
        ]

    def reference(self, values: Mapping[str, Any], generation: int | None = None) -> bytes:
        """The licence reference, 32 bytes, of these values."""
        _, key = self._identity.pseudonym_key(self._item.name, generation)
        return pseudonyms.licence(key, self._item.identify(values))

    def _prepare(self, draft: Draft) -> tuple[Draft, int, bytes, tuple[Subject, ...], dict[str, bytes]]:
        """Everything that can be refused, before a leaf is spent."""
        item = self._item
        if draft.occurred_at.tzinfo is None:
            raise Malformed(Code.VALUE_INVALID, f"{item.name}: occurred_at has no time zone: whose clock is it?")
        generation, key = self._identity.pseudonym_key(item.name, draft.generation)
        item.validate(draft.values)
        licence = pseudonyms.licence(key, item.identify(draft.values))
        if draft.operation is Operation.ERASED:
            if item.retention is not None:
                raise Refused(Code.LAW_KEEPS, f"the law keeps records of {item.name}: {item.retention.basis}")
            return draft, generation, licence, (), {}
        subjects = tuple(
            Subject(role, kind, pseudonyms.subject(key, kind, canonical))
            for role, kind, canonical in item.subjects(draft.values)
        )
        return draft, generation, licence, subjects, item.schema.encode(draft.values)

    def _seal_one(
        self,
        draft: Draft,
        generation: int,
        licence: bytes,
        subjects: tuple[Subject, ...],
        sections: Mapping[str, bytes],
        leaf: int,
        record: UUID,
    ) -> tuple[Claims, bytes, list[bytes]]:
        assert self._session is not None
        claims = Claims(
            record=record,
            item=self._item.name,
            schema=self._item.schema.digest,
            operation=draft.operation.value,
            issuer=self._identity.uscc,
            subjects=subjects,
            licence=licence,
            pseudonyms=generation,
            sequence=draft.sequence,
            occurred_at=draft.occurred_at,
            valid_from=draft.valid_from,
            valid_until=draft.valid_until,
            region=draft.region,
            parents=draft.parents,
            session=self._session.session,
            leaf=leaf,
        )
        check_claims(claims)
        prefix = encode_prefix(claims)
        commitments: list[tuple[str, bytes]] = []
        bodies: list[bytes] = []
        for name, encoded in sections.items():
            secret = sealing.section_secret(self._leaves[name].node(leaf), prefix)
            commitment, body = sealing.seal(secret, encoded)
            commitments.append((name, commitment))
            bodies.append(body)
        return claims, prefix + encode_sections(commitments), bodies


def _sealed(claims: Claims, leaf_hash: bytes, value: bytes, span: str) -> Sealed:
    if len(value) > MAX_VALUE_BYTES:
        raise Malformed(Code.RECORD_TOO_LARGE, f"the record has {len(value)} bytes; at most {MAX_VALUE_BYTES}")
    return Sealed(
        topic=f"licence.{claims.item}",
        key=claims.licence,
        value=value,
        headers=_headers(claims, span),
        leaf_hash=leaf_hash,
        licence=claims.licence,
        sequence=claims.sequence,
        record=claims.record,
    )


def _headers(claims: Claims, span: str) -> tuple[tuple[str, bytes], ...]:
    """CloudEvents 1.0, Kafka binary mode, and W3C trace context. Hints: nothing is decided by them.

    The trace id is the record id, so that an audit entry leads back to the publisher without a header being trusted.
    """
    record = claims.record.hex
    time = claims.occurred_at.astimezone(UTC).isoformat(timespec="microseconds")[:26]
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{record[:8]}-{record[8:12]}-{record[12:16]}-{record[16:20]}-{record[20:]}".encode()),
        ("ce_source", f"urn:deptbus:{claims.issuer}".encode()),
        ("ce_type", f"{claims.item}.{claims.operation}".encode()),
        ("ce_time", f"{time}Z".encode()),
        ("ce_dataschema", f"urn:deptbus:schema:{claims.schema.hex()}".encode()),
        ("content-type", b"application/avro"),
        ("traceparent", f"00-{record}-{span}-01".encode()),
    )


def record_ids(count: int) -> list[UUID]:
    """Time-ordered UUIDs (RFC 9562 §5.7) of one moment: 48 bits of milliseconds, 74 random bits each."""
    base = (time.time_ns() // 1_000_000) << 80 | 0x7 << 76 | 0x2 << 62
    random = secrets.token_bytes(10 * count)
    return [
        UUID(int=base | int.from_bytes(random[at : at + 10]) & ~(0xF << 76 | 0x3 << 62))
        for at in range(0, 10 * count, 10)
    ]
