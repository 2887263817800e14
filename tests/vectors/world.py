"""The fixed keys, certificates and record that every vector starts from.

Records are put together here byte by byte, not with the codec under test: each part can be swapped for another encoding
of the same value, and everything around it (commitments, batch proof) is made again, so that one check alone is left to
refuse it. The keys are no secret and sign nothing but vectors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from bus import hpke, merkle, pseudonyms, sealing
from bus.envelope import batch_origin
from bus.pki import Role, Signer
from bus.proof import checkpoint_body
from bus.trust import certificate_value, kem_key_value
from schemas.item import ItemSchema

ORIGIN = "bus.example/vectors"
ISSUER = "11330411MB2A00011E"
CONSUMER = "112106000050000185"
OPERATOR = "11100000MB03271699"
AT = datetime(2025, 6, 1, 8, 0, tzinfo=UTC)  # the broker's clock
BEGIN, END = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
ITEM = "example-permit"
SESSION_ID = bytes(range(16))
LEAF = 5

SCHEMA_DOCUMENT = json.dumps(
    {
        "type": "record",
        "name": "ExamplePermit",
        "namespace": "deptbus.items",
        "fields": [
            {"name": "name", "type": "string", "section": "identity"},
            {"name": "established_on", "type": {"type": "int", "logicalType": "date"}, "section": "identity"},
            {"name": "uscc", "type": "string", "section": "identity"},
            {
                "name": "capital",
                "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}],
                "section": "business",
            },
            {"name": "online", "type": "boolean", "section": "business"},
            {
                "name": "size",
                "type": {"type": "enum", "name": "Size", "symbols": ["SMALL", "LARGE"]},
                "section": "business",
            },
            {"name": "sites", "type": {"type": "array", "items": "string"}, "section": "business"},
            {"name": "staff", "type": "int", "section": "business"},
        ],
    },
    separators=(",", ":"),
).encode()
SCHEMA = ItemSchema.parse(SCHEMA_DOCUMENT)
VALUES: dict[str, Any] = {
    "name": "辉恒纺织有限公司",
    "established_on": date(2019, 9, 28),
    "uscc": "91330106MA26Y2B582",
    "capital": Decimal("5000000.00"),
    "online": True,
    "size": "LARGE",
    "sites": ["杭州", "嘉兴"],
    "staff": 12,
}


def fixed(label: str, size: int = 32) -> bytes:
    """Bytes that a label stands for: `H("deptbus vectors " ‖ label ‖ " " ‖ n)` for n = 0, 1, ..., cut to `size`."""
    parts = (sha256(f"deptbus vectors {label} {n}".encode()).digest() for n in range(-(-size // 32)))
    return b"".join(parts)[:size]


SESSION_SECRET = fixed("session secret")
PSEUDONYM_ROOT = fixed("pseudonym root")
PSEUDONYM_KEY = pseudonyms.item_key(PSEUDONYM_ROOT, ITEM, 1)
LICENCE = pseudonyms.licence(PSEUDONYM_KEY, [VALUES["uscc"]])
HOLDER = pseudonyms.subject(PSEUDONYM_KEY, "ORGANISATION", VALUES["uscc"])


_CA_USAGE = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def _name(common: str, uscc: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common), x509.NameAttribute(NameOID.SERIAL_NUMBER, uscc)])


def authority(label: str = "ca", *, path: int = 0) -> Signer:
    """A CA by the name of the bus; with a path length of 1 departments' CAs may stand below it."""
    end = BEGIN + timedelta(days=3650)
    return _certified(label, label, ca=True, common=ORIGIN, uscc=OPERATOR, begin=BEGIN, end=end, path=path)


def signer(
    role: Role, uscc: str, *, label: str = "", by: str = "ca", begin: datetime = BEGIN, end: datetime = END
) -> Signer:
    """A key with its certificate."""
    return _certified(label or f"{role.name} {uscc}", by, role=role, common=uscc, uscc=uscc, begin=begin, end=end)


def below(
    label: str, ca: Signer, *, uscc: str, role: Role | None, begin: datetime = BEGIN, end: datetime = END
) -> Signer:
    """A key that any CA certified: for a role, or (None) a CA of path length 0."""
    name = f"{uscc} {label}"
    return _certified(
        label, ca, role=role, common=name, uscc=uscc, begin=begin, end=end, ca=role is None, usage=role is None
    )


def _certified(
    label: str,
    by: str | Signer,
    *,
    common: str,
    uscc: str,
    begin: datetime,
    end: datetime,
    ca: bool = False,
    role: Role | None = None,
    path: int = 0,
    usage: bool = False,
) -> Signer:
    key = Ed25519PrivateKey.from_private_bytes(fixed(f"key {label}"))
    issuer, name = (
        (by.private_key, by.certificate.subject)
        if isinstance(by, Signer)
        else (Ed25519PrivateKey.from_private_bytes(fixed(f"key {by}")), _name(ORIGIN, OPERATOR))
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(common, uscc))
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(fixed(f"serial {label}", 8), "big"))
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path if ca else None), critical=True)
    )
    if usage:
        builder = builder.add_extension(_CA_USAGE, critical=True)
    if role is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(role.value)]), critical=True)
    return Signer(key, builder.sign(issuer, None).public_bytes(Encoding.DER))


CA = authority()
RECORD = signer(Role.RECORD, ISSUER)
GATEWAY = signer(Role.GATEWAY, OPERATOR)
RECORDER = signer(Role.RECORDER, OPERATOR)
DEPARTMENT = signer(Role.DEPARTMENT, CONSUMER)
GATEWAY_KEM = hpke.PrivateKey(fixed("kem gateway", hpke.PRIVATE_BYTES))
CONSUMER_KEM = hpke.PrivateKey(fixed("kem consumer", hpke.PRIVATE_BYTES))
KEM_END = AT + timedelta(hours=12)
GATEWAY_KEM_VALUE = kem_key_value(GATEWAY_KEM.public, OPERATOR, "GATEWAY", BEGIN, KEM_END, GATEWAY)
CONSUMER_KEM_VALUE = kem_key_value(CONSUMER_KEM.public, CONSUMER, "CONSUMER", BEGIN, KEM_END, DEPARTMENT)


def trusted(*signers: Signer) -> list[bytes]:
    """`bus.certificates` values of these signers."""
    return [certificate_value(one.der) for one in signers]


# Avro by hand.


def zigzag(number: int, *, longer: int = 0) -> bytes:
    """A variable-length int or long; `longer` by that many bytes that say nothing."""
    rest = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    for _ in range(longer):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def text(value: str) -> bytes:
    return blob(value.encode())


def blob(value: bytes) -> bytes:
    return zigzag(len(value)) + value


def array(items: Sequence[bytes]) -> bytes:
    """The one canonical form."""
    return (zigzag(len(items)) + b"".join(items) if items else b"") + b"\x00"


def micros(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def days(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def nullable(encoded: bytes | None) -> bytes:
    return b"\x00" if encoded is None else b"\x02" + encoded


def subject(role: int = 0, kind: int = 1, pseudonym: bytes = HOLDER) -> bytes:
    return zigzag(role) + zigzag(kind) + pseudonym


PREFIX: Mapping[str, bytes] = {
    "format": zigzag(1),
    "suite": zigzag(0),
    "record": UUID("01972a4f-4c00-7abc-8def-0123456789ab").bytes,
    "item": text(ITEM),
    "schema": SCHEMA.digest,
    "operation": zigzag(0),
    "issuer": text(ISSUER),
    "subjects": array([subject()]),
    "licence": LICENCE,
    "pseudonyms": zigzag(1),
    "sequence": zigzag(1),
    "occurred_at": zigzag(micros(AT - timedelta(minutes=1))),
    "valid_from": nullable(zigzag(days(date(2025, 6, 1)))),
    "valid_until": nullable(None),
    "region": text("330411"),
    "parents": array([]),
    "session": SESSION_ID,
    "leaf": zigzag(LEAF),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A record in its parts."""

    prefix: bytes
    sections: tuple[tuple[str, bytes], ...]
    secrets: Mapping[str, bytes]
    claims: bytes
    bodies: bytes
    proof: bytes
    root: bytes
    checkpoint: bytes
    value: bytes

    @property
    def leaf_hash(self) -> bytes:
        return merkle.leaf_hash(self.claims)


def make(
    *,
    prefix: Mapping[str, bytes] | None = None,
    plain: Mapping[str, bytes] | None = None,
    sections: bytes | None = None,
    after_signing: tuple[bytes, bytes] | None = None,
    bodies: bytes | None = None,
    leaf: int = LEAF,
    index: int = 1,
    size: int = 3,
    path: Sequence[bytes] | None = None,
    proof: Mapping[str, bytes] | None = None,
    by: Signer = RECORD,
    issuer: str = ISSUER,
    origin: str = ORIGIN,
    head: bytes = b"\x00\x00\x00\x00\x01",
    tail: bytes = b"",
) -> Made:
    """The usual record with parts replaced by raw encodings, sealed and signed as if they were right.

    `after_signing` replaces one byte string in the signed claims by another: the signature is then about other bytes.
    """
    leaf_field = {"leaf": zigzag(leaf)}
    start = b"".join({**PREFIX, **leaf_field, **(prefix or {})}.values())
    plain = SCHEMA.encode(VALUES) if plain is None else plain
    secrets, sealed, encrypted = {}, [], []
    for name, encoded in plain.items():
        node = sealing.LeafKeys(sealing.section_root(SESSION_SECRET, name)).node(leaf % sealing.MAX_LEAVES)
        secrets[name] = sealing.section_secret(node, start)
        commitment, body = sealing.seal(secrets[name], encoded)
        sealed.append((name, commitment))
        encrypted.append(body)
    claims = start + (array([text(n) + c for n, c in sealed]) if sections is None else sections)
    leaf_hash = merkle.leaf_hash(claims)
    others = [merkle.leaf_hash(f"another record {n}".encode()) for n in range(size)] if path is None else []
    if path is None:
        others[index] = leaf_hash
        path = merkle.paths(merkle.levels(others))[index]
    root = merkle.root_from_path(leaf_hash, index, size, path)
    checkpoint = checkpoint_body(batch_origin(origin, issuer, SESSION_ID, leaf - index), size, root)
    signature = by.sign(checkpoint)
    proof_fields = {
        "index": zigzag(index),
        "size": zigzag(size),
        "path": array(path),
        "signer": by.id,
        "signature": blob(signature),
    }
    proof_bytes = b"".join({**proof_fields, **(proof or {})}.values())
    bodies = array([blob(body) for body in encrypted]) if bodies is None else bodies
    if after_signing is not None:
        assert claims.count(after_signing[0]) == 1
        claims = claims.replace(*after_signing)
    return Made(
        prefix=start,
        sections=tuple(sealed),
        secrets=secrets,
        claims=claims,
        bodies=bodies,
        proof=proof_bytes,
        root=root,
        checkpoint=checkpoint,
        value=head + claims + bodies + proof_bytes + tail,
    )


GOOD = make()
