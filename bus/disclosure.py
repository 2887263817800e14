"""Disclosures: one section of a record, provable to a third party without the others.

The secret is never in it: salt and plaintext recompute the commitment that the issuer signed.

Whoever has a disclosure can copy it: nothing offline can stop that. So `deptbus record disclose` asks the bus first
whether the provider agreed that it goes to this party (`bus.lookup.may_pass_on`), and the answer is in the audit log:
who passed on what nobody allowed has no such entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bus import envelope, merkle
from bus.envelope import Claims, Record
from bus.opening import decode_section
from bus.pki import Certificate
from bus.proof import Proof, ProofVerifier
from bus.sealing import check_commitment
from bus.trust import Trust
from schemas.avro import wire_codec
from schemas.errors import Code, Malformed, Refused
from schemas.item import ItemSchema

MAX_BYTES = 4 * 1024 * 1024
_CODEC = wire_codec("Disclosure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """What a third party learns: who issued it, the claims, and the sections shown."""

    claims: Claims
    leaf_hash: bytes
    issuer: Certificate
    sections: Mapping[str, Mapping[str, Any]]
    schema: ItemSchema
    signed_at_proven: bool


def disclose(
    record: Record, schema: ItemSchema, shown: Sequence[tuple[str, bytes, bytes]], certificates: Sequence[bytes]
) -> bytes:
    """A disclosure of sections `(name, salt, padded plaintext)`. `certificates` are `Trust.chain`'s."""
    return _CODEC.encode(
        {
            "claims": record.claims_bytes,
            "proof": record.proof.to_avro(),
            "sections": [{"name": name, "salt": salt, "plain": plain} for name, salt, plain in shown],
            "schema": schema.document,
            "certificates": certificates,
            "admitted": None,
        }
    )


def claims_of(data: bytes) -> Claims:
    """What a disclosure claims, unverified. Raises `Malformed`."""
    return envelope.parse_claims(_decode(data)["claims"])[0]


def verify(data: bytes, authority: bytes, bus: str | None = None) -> Disclosure:
    """Checks a disclosure offline, with the bus CA's certificate (DER or PEM) alone.

    The batch origin names the bus; without `bus` it is read from the CA certificate's name. The certificate is checked
    as it stood when the record says it was made: without a proof of admission the time is the issuer's word. Raises
    `Malformed` or `Refused`.
    """
    fields = _decode(data)
    claims, _ = envelope.parse_claims(fields["claims"])
    schema = ItemSchema.parse(fields["schema"])
    if schema.digest != claims.schema:
        raise Refused(Code.SCHEMA_UNKNOWN, "the schema shown is not the one that the claims name")
    trust = Trust(der(authority))
    for certificate in fields["certificates"]:
        trust.add_certificate(certificate)
    record = Record(
        claims=claims,
        claims_bytes=fields["claims"],
        prefix=b"",
        bodies=(),
        proof=Proof.from_avro(fields["proof"]),
        leaf_hash=merkle.leaf_hash(fields["claims"]),
        value=b"",
    )
    origin = bus or bus_of(trust.authority)
    _, issuer = envelope.verify(record, origin, trust, ProofVerifier(), envelope.made_at(claims))
    commitments = dict(claims.sections)
    sections: dict[str, Mapping[str, Any]] = {}
    for shown in fields["sections"]:
        if shown["name"] not in commitments or shown["name"] in sections:
            raise Refused(
                Code.SECTION_UNKNOWN, f"the claims commit to no section {shown['name']}, or it is shown twice"
            )
        check_commitment(shown["salt"], commitments[shown["name"]], shown["plain"])
        sections[shown["name"]] = decode_section(schema, shown["name"], shown["plain"])
    return Disclosure(
        claims=claims,
        leaf_hash=record.leaf_hash,
        issuer=issuer,
        sections=sections,
        schema=schema,
        signed_at_proven=False,
    )


def _decode(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise Malformed(Code.RECORD_TOO_LARGE, f"a disclosure has at most {MAX_BYTES} bytes")
    fields: dict[str, Any] = _CODEC.decode(data)
    return fields


def der(certificate: bytes) -> bytes:
    """A certificate file's DER, from DER or PEM. Raises `Malformed` (CERTIFICATE_INVALID)."""
    try:
        if certificate.lstrip().startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
        return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.DER)
    except (ValueError, x509.InvalidVersion) as exc:
        raise Malformed(Code.CERTIFICATE_INVALID, "the CA file holds no certificate") from exc


def bus_of(authority: x509.Certificate) -> str:
    """The bus origin that a CA stands for: its common name (set when the CA is made)."""
    names = authority.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""
