"""Whose signature counts: certificates, KEM keys and revocations, as they travel on `bus.certificates`.

Fed with the topic's values (anybody might write there: what does not verify is refused and changes nothing), or with
certificates from a file when verifying offline.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bus import hpke
from bus.pki import Certificate, Role, Signer, parse_certificate
from schemas.avro import wire_codec, wire_part
from schemas.errors import Code, Malformed, Refused

MAX_CERTIFICATES = 100_000  # 10,000 bodies (Zhejiang), four roles, renewals: and still under 300 MB
MAX_VALUE_BYTES = 16 * 1024

BUS_CERTIFICATE = wire_codec("BusCertificate")


# What is signed of a record that is signed alone: its fields before `signature`.
_SIGNED = {name: wire_part("BusCertificate", name, until="signature") for name in ("KemKey", "Revocation")}


@dataclass(frozen=True, slots=True, kw_only=True)
class KemKey:
    """A recipient's public key: a gateway's (for sessions) or a consumer's (for grants)."""

    id: bytes
    key: hpke.PublicKey
    owner: str
    role: str
    not_before: datetime
    not_after: datetime
    signer: bytes


class Trust:
    """What is known of keys. Constructed with the bus CA's certificate (DER)."""

    def __init__(self, authority: bytes) -> None:
        self.authority = x509.load_der_x509_certificate(authority)
        self.authority_der = authority
        self._certificates: dict[bytes, Certificate] = {}
        self._kem: dict[bytes, KemKey] = {}
        self._revoked: dict[bytes, tuple[datetime, datetime | None]] = {}

    def add(self, value: bytes) -> None:
        """One value of `bus.certificates`.

        Raises `Malformed` or `Refused` and changes nothing if it does not verify.
        """
        if len(value) > MAX_VALUE_BYTES:
            raise Malformed(Code.RECORD_TOO_LARGE, f"a certificate record has at most {MAX_VALUE_BYTES} bytes")
        kind, body = BUS_CERTIFICATE.decode(value)["body"]
        match kind.rpartition(".")[2]:
            case "Certificate":
                self.add_certificate(body["der"])
            case "KemKey":
                self._add_kem(body)
            case "Revocation":
                self._add_revocation(body)

    def add_certificate(self, der: bytes) -> Certificate:
        """A certificate issued by the bus CA."""
        certificate = parse_certificate(der, self.authority)
        if len(self._certificates) >= MAX_CERTIFICATES and certificate.id not in self._certificates:
            raise Refused(Code.CERTIFICATE_INVALID, f"more than {MAX_CERTIFICATES} certificates")
        self._certificates[certificate.id] = certificate
        return certificate

    def certificate(self, signer: bytes, role: Role, at: datetime, uscc: str | None = None) -> Certificate:
        """The signer's certificate, if it is known, of this role and owner, valid at `at` and not revoked by then.

        Raises `Refused`: CERTIFICATE_UNKNOWN, _ROLE, _OWNER, _EXPIRED or _REVOKED.
        """
        found = self._certificates.get(signer)
        if found is None:
            raise Refused(Code.CERTIFICATE_UNKNOWN, "the signer's certificate is not known to this bus")
        if found.role is not role:
            raise Refused(Code.CERTIFICATE_ROLE, f"a key of another role signed: {role.name} is needed")
        if uscc is not None and found.uscc != uscc:
            raise Refused(Code.CERTIFICATE_OWNER, f"the key belongs to {found.uscc}, not to {uscc}")
        if not found.not_before <= at <= found.not_after:
            raise Refused(
                Code.CERTIFICATE_EXPIRED, f"the certificate of {found.uscc} is not valid at {at:%Y-%m-%d %H:%M}"
            )
        revoked = self._revoked.get(signer)
        if revoked is not None and revoked[0] <= at:
            raise Refused(Code.CERTIFICATE_REVOKED, f"the certificate of {found.uscc} is revoked")
        return found

    def key(self, signer: bytes, role: Role, at: datetime, uscc: str | None = None) -> Ed25519PublicKey:
        """The signer's public key, under the same conditions as `certificate`."""
        return self.certificate(signer, role, at, uscc).key

    def kem_key(self, key_id: bytes) -> KemKey | None:
        """A KEM key by its id, whether or not it is valid now; None if it is not known."""
        return self._kem.get(key_id)

    def gateway_key(self, owner: str, at: datetime) -> KemKey:
        """The gateway key to seal a session to: the valid one that ends last. Raises `Refused` (RECIPIENT_INVALID)."""
        valid = [
            k
            for k in self._kem.values()
            if k.role == "GATEWAY" and k.owner == owner and k.not_before <= at < k.not_after and self._stands(k, at)
        ]
        if not valid:
            raise Refused(Code.RECIPIENT_INVALID, f"no gateway key of {owner} is valid now: start its gateway")
        return max(valid, key=lambda k: k.not_after)

    def _stands(self, kem: KemKey, at: datetime) -> bool:
        """Whether the key's signer may still sign.

        Else whoever has a stolen, revoked gateway key could go on naming keys of their own, back-dated.
        """
        try:
            self.certificate(kem.signer, Role.GATEWAY, at, kem.owner)
        except Refused:
            return False
        return True

    def _add_kem(self, body: dict[str, Any]) -> None:
        if body["kem"] != hpke.KEM_ID:
            raise Refused(Code.CERTIFICATE_INVALID, f"KEM {body['kem']:#06x} is not supported")
        role = Role.GATEWAY if body["role"] == "GATEWAY" else Role.DEPARTMENT
        signer = self.certificate(body["signer"], role, body["not_before"], body["owner"])
        verify_signed("KemKey", body, signer.key)
        key = hpke.PublicKey(body["public_key"])
        known = self._kem.get(key.id)
        if known is not None and (known.owner, known.role) != (body["owner"], body["role"]):
            raise Refused(Code.CERTIFICATE_OWNER, f"this KEM key is {known.owner}'s already")
        if known is None and len(self._kem) >= MAX_CERTIFICATES:
            raise Refused(Code.CERTIFICATE_INVALID, f"more than {MAX_CERTIFICATES} KEM keys")
        self._kem[key.id] = KemKey(
            id=key.id,
            key=key,
            owner=body["owner"],
            role=body["role"],
            not_before=body["not_before"],
            not_after=body["not_after"],
            signer=body["signer"],
        )

    def _add_revocation(self, body: dict[str, Any]) -> None:
        authority = self.authority.public_key()
        assert isinstance(authority, Ed25519PublicKey)
        verify_signed("Revocation", body, authority)
        at, since = self._revoked.get(body["certificate"], (body["revoked_at"], None))
        doubts = [moment for moment in (since, body["compromised_since"]) if moment is not None]
        # The earliest of all that were signed: an old one that comes again gives nothing back.
        self._revoked[body["certificate"]] = (min(at, body["revoked_at"]), min(doubts, default=None))


def verify_signed(record: str, body: dict[str, Any], key: Ed25519PublicKey) -> None:
    """Checks the signature of a KemKey or Revocation. Raises `Refused` (SIGNATURE_INVALID)."""
    try:
        key.verify(body["signature"], signed_text(record, _SIGNED[record].encode(body)))
    except InvalidSignature as exc:
        raise Refused(Code.SIGNATURE_INVALID, f"the {record}'s signature does not hold") from exc


def signed_text(record: str, fields: bytes) -> bytes:
    """What is signed of a record that is signed alone: `"deptbus/1 <record>\\n"` and its fields before `signature`."""
    return f"deptbus/1 {record}\n".encode() + fields


def topic_key(value: bytes) -> bytes:
    """The Kafka key of a `bus.certificates` value: what compaction keeps one of."""
    kind, body = BUS_CERTIFICATE.decode(value)["body"]
    match kind.rpartition(".")[2]:
        case "Certificate":
            return sha256(body["der"]).digest()
        case "KemKey":
            return sha256(body["public_key"]).digest()
        case _:
            return b"revocation" + bytes(body["certificate"])


def certificate_value(der: bytes) -> bytes:
    """A `bus.certificates` value."""
    return BUS_CERTIFICATE.encode({"body": ("deptbus.v1.Certificate", {"der": der})})


def kem_key_value(
    public: bytes, owner: str, role: str, not_before: datetime, not_after: datetime, signer: Signer
) -> bytes:
    """A `bus.certificates` value for a KEM key, signed by its owner's department or gateway key."""
    body = {
        "kem": hpke.KEM_ID,
        "public_key": public,
        "owner": owner,
        "role": role,
        "not_before": not_before,
        "not_after": not_after,
        "signer": signer.id,
    }
    body["signature"] = signer.sign(signed_text("KemKey", _SIGNED["KemKey"].encode(body)))
    return BUS_CERTIFICATE.encode({"body": ("deptbus.v1.KemKey", body)})


def revocation_value(
    certificate: bytes, revoked_at: datetime, compromised_since: datetime | None, authority: Signer
) -> bytes:
    """A `bus.certificates` value that ends a certificate."""
    body: dict[str, Any] = {
        "certificate": certificate,
        "revoked_at": revoked_at,
        "compromised_since": compromised_since,
        "signer": authority.id,
    }
    body["signature"] = authority.sign(signed_text("Revocation", _SIGNED["Revocation"].encode(body)))
    return BUS_CERTIFICATE.encode({"body": ("deptbus.v1.Revocation", body)})
