"""The envelope: claims in clear, sections sealed, one proof (`bus/FORMATS.md`, 'Envelope').

`parse` holds the rules of 'A reader accepts a record when' that need nothing but the bytes; `verify` adds the proof and
the issuer's certificate. Both are pure: the recorder, subscribers and offline verifiers run the same code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from uuid import UUID

from bus import merkle
from bus.pki import Certificate, Role
from bus.proof import Proof, ProofVerifier
from bus.sealing import MAX_LEAVES
from bus.trust import Trust
from schemas.avro import Codec, cut, named_types, wire_codec, wire_part, wire_schema
from schemas.errors import Code, Malformed
from schemas.identifiers import parse_uscc

FORMAT = 1
SUITE = "ED25519_AES256GCM_SHA256"
MAX_VALUE_BYTES = 1024 * 1024  # a licence face is a few KiB; files travel as digest and locator
MAX_LIST = 64
MAX_HEAD_BYTES = 16 * 1024  # claims with 64 of everything have less than 11 KiB
MAX_SEQUENCE = 2**62
_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}\Z")
_REGION = re.compile(r"[0-9]{6}\Z")
_MAGIC = b"\x00"
_SECTION_FIELDS = next(t for t in named_types(wire_schema("Envelope")) if t["name"] == "Section")["fields"]

# The claims in two parts, because keys are bound to the first, and the batch proof covers both.
_PREFIX = wire_part("Envelope", "Claims", until="sections")
_SECTIONS = Codec({"type": "array", "items": cut(wire_schema("Envelope"), "Section", _SECTION_FIELDS)}, name="sections")
_BODIES = Codec({"type": "array", "items": "bytes"}, name="bodies")
_PROOF = wire_part("Envelope", "Proof")
ENVELOPE = wire_codec("Envelope")


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a record is about. `pseudonym` is 32 bytes under the item's key."""

    role: str
    kind: str
    pseudonym: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What everybody may read of a record. Field by field as in `bus/FORMATS.md`; `sections` are (name, commitment)."""

    record: UUID
    item: str
    schema: bytes
    operation: str
    issuer: str
    subjects: tuple[Subject, ...]
    licence: bytes
    pseudonyms: int
    sequence: int
    occurred_at: datetime
    valid_from: date | None
    valid_until: date | None
    region: str
    parents: tuple[bytes, ...]
    session: bytes
    leaf: int
    sections: tuple[tuple[str, bytes], ...] = ()

    @property
    def holders(self) -> tuple[bytes, ...]:
        """Whose consent counts: every holder and co-holder (共有人)."""
        return tuple(s.pseudonym for s in self.subjects if s.role != "REPRESENTATIVE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record as received: what it claims, and the exact bytes that were signed."""

    claims: Claims
    claims_bytes: bytes
    prefix: bytes
    bodies: tuple[bytes, ...]
    proof: Proof
    leaf_hash: bytes
    value: bytes


def encode_prefix(claims: Claims) -> bytes:
    """The encoding of the claims up to, without, `sections`."""
    return _PREFIX.encode(
        (
            FORMAT,
            SUITE,
            claims.record.bytes,
            claims.item,
            claims.schema,
            claims.operation,
            claims.issuer,
            [(s.role, s.kind, s.pseudonym) for s in claims.subjects],
            claims.licence,
            claims.pseudonyms,
            claims.sequence,
            claims.occurred_at,
            claims.valid_from,
            claims.valid_until,
            claims.region,
            claims.parents,
            claims.session,
            claims.leaf,
        )
    )


def encode_sections(sections: Sequence[tuple[str, bytes]]) -> bytes:
    """The encoding of the claims' last field."""
    return _SECTIONS.encode(sections)


def encode_value(schema_id: int, claims_bytes: bytes, bodies: Sequence[bytes], proof: Proof) -> bytes:
    """A Kafka value: the Confluent prefix (`00`, big-endian schema id) and the envelope."""
    return b"".join(
        (_MAGIC, schema_id.to_bytes(4, "big"), claims_bytes, _BODIES.encode(bodies), _PROOF.encode(proof.to_avro()))
    )


def encode_proof(proof: Proof) -> bytes:
    """The encoding of a proof alone."""
    return _PROOF.encode(proof.to_avro())


def parse_claims(data: bytes) -> tuple[Claims, bytes]:
    """Claims and their prefix from exactly these bytes: what a key request shows. Raises `Malformed`."""
    claims, prefix_end, end = _read_claims(data, 0)
    if end != len(data):
        raise Malformed(Code.RECORD_NOT_CANONICAL, f"{len(data) - end} bytes left over after the claims")
    return claims, data[:prefix_end]


def claims_at_head(head: bytes) -> Claims:
    """The claims of a Kafka value of which only the first `MAX_HEAD_BYTES` are there. Raises `Malformed`."""
    return _read_claims(head, 5)[0]


def parse(value: bytes) -> Record:
    """A record from a Kafka value, every rule that needs only the value checked. Raises `Malformed`."""
    if len(value) > MAX_VALUE_BYTES:
        raise Malformed(Code.RECORD_TOO_LARGE, f"the value has {len(value)} bytes; at most {MAX_VALUE_BYTES}")
    if value[:1] != _MAGIC or len(value) < 6:
        raise Malformed(Code.RECORD_MALFORMED, "the value does not begin with 00 and a schema id")
    claims, prefix_end, claims_end = _read_claims(value, 5)
    bodies, end = _BODIES.read(value, claims_end)
    proof, end = _PROOF.read(value, end)
    if end != len(value):
        raise Malformed(Code.RECORD_NOT_CANONICAL, f"{len(value) - end} bytes left over after the envelope")
    if len(bodies) != len(claims.sections):
        raise Malformed(Code.BODY_COUNT, f"{len(bodies)} bodies for {len(claims.sections)} sections")
    claims_bytes = value[5:claims_end]
    return Record(
        claims=claims,
        claims_bytes=claims_bytes,
        prefix=value[5:prefix_end],
        bodies=tuple(bodies),
        proof=Proof.from_avro(proof),
        leaf_hash=merkle.leaf_hash(claims_bytes),
        value=value,
    )


def check_place(record: Record, topic: str, key: bytes | None) -> None:
    """The record stands where its claims say. Raises `Malformed` (TOPIC_MISMATCH or KEY_MISMATCH)."""
    if topic != f"licence.{record.claims.item}":
        raise Malformed(Code.TOPIC_MISMATCH, f"a record of {record.claims.item} does not belong on {topic}")
    if key != record.claims.licence:
        raise Malformed(Code.KEY_MISMATCH, "the Kafka key is not the licence reference")


def batch_origin(bus: str, issuer: str, session: bytes, first_leaf: int) -> str:
    """The origin that a batch of records is signed under."""
    return f"{bus}/batch/{issuer}/{session.hex()}/{first_leaf}"


def verify(record: Record, bus: str, trust: Trust, verifier: ProofVerifier, at: datetime) -> tuple[bytes, Certificate]:
    """The checkpoint body that the issuer signed, and the certificate that it signed with, valid at `at`.

    Raises `Malformed` (PROOF_INVALID) or `Refused` (SIGNATURE_INVALID, CERTIFICATE_*). The signature being good says
    nothing of the time: only admission does.
    """
    claims, proof = record.claims, record.proof
    first = claims.leaf - proof.index
    if first < 0 or first + proof.size > MAX_LEAVES:
        raise Malformed(Code.PROOF_INVALID, "the batch does not lie inside its session's leaves")
    origin = batch_origin(bus, claims.issuer, claims.session, first)
    certificate = trust.certificate(proof.signer, Role.RECORD, at, claims.issuer)
    return verifier.verify(proof, record.leaf_hash, origin, lambda _: certificate.key), certificate


def made_at(claims: Claims) -> datetime:
    """When the record was made, by its id (UUIDv7, RFC 9562: milliseconds). The issuer's word: proves nothing."""
    return datetime.fromtimestamp((claims.record.int >> 80) / 1000, UTC)


def _read_claims(data: bytes, start: int) -> tuple[Claims, int, int]:
    raw, prefix_end = _PREFIX.read(data, start)
    if raw["format"] != FORMAT:
        raise Malformed(Code.FORMAT_UNKNOWN, f"format {raw['format']}; this reader knows {FORMAT}")
    if raw["suite"] != SUITE:
        raise Malformed(Code.SUITE_UNSUPPORTED, f"suite {raw['suite']} is reserved, not defined")
    sections, end = _SECTIONS.read(data, prefix_end)
    claims = Claims(
        record=UUID(bytes=raw["record"]),
        item=raw["item"],
        schema=raw["schema"],
        operation=raw["operation"],
        issuer=raw["issuer"],
        subjects=tuple(Subject(s["role"], s["kind"], s["pseudonym"]) for s in raw["subjects"]),
        licence=raw["licence"],
        pseudonyms=raw["pseudonyms"],
        sequence=raw["sequence"],
        occurred_at=raw["occurred_at"],
        valid_from=raw["valid_from"],
        valid_until=raw["valid_until"],
        region=raw["region"],
        parents=tuple(raw["parents"]),
        session=raw["session"],
        leaf=raw["leaf"],
        sections=tuple((s["name"], s["commitment"]) for s in sections),
    )
    check_claims(claims)
    return claims, prefix_end, end


def check_claims(claims: Claims) -> None:
    """Ranges and forms of the claims. Raises `Malformed` (CLAIMS_INVALID, or the issuer's USCC_*)."""
    names = [name for name, _ in claims.sections]
    erased = claims.operation == "ERASED"
    # One expression: every record passes here twice or more, and all is well with nearly each.
    broken = (
        (not _NAME.match(claims.item) and "item")
        or ((len(names) > MAX_LIST or len(set(names)) != len(names) or not all(map(_NAME.match, names))) and "sections")
        or (erased and (names or claims.subjects) and "sections of ERASED")
        or (len(claims.subjects) > MAX_LIST and "subjects")
        or (len(claims.parents) > MAX_LIST and "parents")
        or (not _REGION.match(claims.region) and "region")
        or (not 1 <= claims.sequence <= MAX_SEQUENCE and "sequence")
        or (claims.pseudonyms < 1 and "pseudonyms")
        or (not 0 <= claims.leaf < MAX_LEAVES and "leaf")
        or (claims.record.version != 7 and "record")
        or (_ends_before_it_starts(claims) and "validity")
    )
    if broken:
        raise Malformed(Code.CLAIMS_INVALID, f"claims: {broken} is out of its range")
    parse_uscc(claims.issuer)


def _ends_before_it_starts(claims: Claims) -> bool:
    return claims.valid_from is not None and claims.valid_until is not None and claims.valid_until < claims.valid_from
