"""Audit entries: what the log keeps of every decision, admission and reading.

Entries hold ids, pseudonyms and commitments, no payload and no plain personal id. The entries of one call (`group`) are
signed together, by the same batch proof as records.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from bus import merkle
from bus.pki import Role, Signer
from bus.proof import Proof, ProofVerifier, sign_batch
from bus.trust import Trust
from schemas.avro import wire_codec, wire_schema
from schemas.errors import Code, Malformed, Refused

TOPIC = "audit.access"
FORMAT = 1
MAX_VALUE_BYTES = 65_535  # C2SP tlog-tiles: an entry's length is a uint16

_ENTRY = wire_codec("AuditEntry")
# What an entry may say, in the union's order.
KINDS: tuple[str, ...] = tuple(kind["name"] for kind in wire_schema("AuditEntry")["fields"][-1]["type"])
_LOGGED = wire_codec("LoggedEntry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A parsed audit entry. `kind` is the body's record name, `body` its fields; `leaf_hash` is of the logged value."""

    time: datetime
    group: bytes
    kind: str
    body: dict[str, Any]
    signer: bytes
    leaf_hash: bytes
    value: bytes


def plain(value: Any) -> Any:
    """A decoded value as JSON has it: bytes in hex, times in RFC 3339."""
    match value:
        case bytes():
            return value.hex()
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case Mapping():
            return {name: plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
    return value


def document(entry: Entry, index: int, logged_at: datetime) -> dict[str, Any]:
    """An entry as every answer, table and archive shows it: `index` is its place in the log, `logged_at` its time."""
    return {
        "index": index,
        "entry": entry.leaf_hash.hex(),
        "logged_at": logged_at.isoformat(),
        "time": entry.time.isoformat(),
        "kind": entry.kind,
        "request": entry.group.hex(),
        "logged_by": entry.signer.hex(),
        "body": plain(entry.body),
    }


def log_values(signer: Signer, bus: str, group: bytes, bodies: Sequence[tuple[str, Any]], now: datetime) -> list[bytes]:
    """The `audit.access` values of one call's entries, each (kind, fields by name or in order), under one signature.

    Raises `Malformed` (RECORD_TOO_LARGE) if one would not fit into the log: then none is written.
    """
    salts = secrets.token_bytes(16 * len(bodies))
    entries = [
        _ENTRY.encode((FORMAT, salts[16 * at : 16 * at + 16], now, group, (f"deptbus.v1.{kind}", fields)))
        for at, (kind, fields) in enumerate(bodies)
    ]
    proofs = sign_batch(signer, _origin(bus, signer.id, group), [merkle.leaf_hash(entry) for entry in entries])
    values = [_LOGGED.encode((entry, proof.to_avro())) for entry, proof in zip(entries, proofs, strict=True)]
    if any(len(value) > MAX_VALUE_BYTES for value in values):
        raise Malformed(Code.RECORD_TOO_LARGE, f"an audit entry has more than {MAX_VALUE_BYTES} bytes")
    return values


def parse(value: bytes) -> tuple[Entry, Proof, bytes]:
    """An entry, its proof and its bytes. Raises `Malformed`."""
    if not 1 <= len(value) <= MAX_VALUE_BYTES:
        raise Malformed(Code.RECORD_TOO_LARGE, f"a log entry has 1 to {MAX_VALUE_BYTES} bytes, not {len(value)}")
    logged = _LOGGED.decode(value)
    fields = _ENTRY.decode(logged["entry"])
    if fields["format"] != FORMAT:
        raise Malformed(Code.FORMAT_UNKNOWN, f"audit entry of format {fields['format']}")
    kind, body = fields["body"]
    proof = Proof.from_avro(logged["proof"])
    entry = Entry(
        time=fields["time"],
        group=fields["group"],
        kind=kind.rpartition(".")[2],
        body=body,
        signer=proof.signer,
        leaf_hash=merkle.leaf_hash(value),
        value=value,
    )
    return entry, proof, logged["entry"]


def verify(value: bytes, bus: str, trust: Trust, verifier: ProofVerifier) -> Entry:
    """An entry whose proof holds, signed by a gateway or a recorder whose certificate was good at the entry's time.

    Raises `Malformed` or `Refused`.
    """
    entry, proof, data = parse(value)
    origin = _origin(bus, entry.signer, entry.group)
    verifier.verify(proof, merkle.leaf_hash(data), origin, lambda signer: _key(trust, signer, entry.time))
    return entry


def _key(trust: Trust, signer: bytes, at: datetime) -> Any:
    try:
        return trust.key(signer, Role.GATEWAY, at)
    except Refused as exc:
        if exc.code is not Code.CERTIFICATE_ROLE:
            raise
        return trust.key(signer, Role.RECORDER, at)


def _origin(bus: str, signer: bytes, group: bytes) -> str:
    """`<bus>/entries/<signer>/<group>`: the signer's id stands in the origin, so nobody can pass on another's batch."""
    return f"{bus}/entries/{signer.hex()}/{group.hex()}"
