"""Whose signature counts: certificates, KEM keys and revocations, as they travel on `bus.certificates`.

Fed with the topic's values (anybody might write there: what does not verify is refused and changes nothing), or with
certificates from a file when verifying offline. The bus CA stands above all; below it keys, and departments' CAs with
their own keys. A value may be written again, so their order says nothing: what comes before the certificate that it
needs waits for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bus import hpke
from bus.pki import Certificate, Role, Signer, load, parse_certificate
from schemas.avro import wire_codec, wire_part
from schemas.errors import Code, Malformed, Refused

MAX_CERTIFICATES = 100_000  # 10,000 bodies (Zhejiang), four roles, renewals: and still under 300 MB
MAX_VALUE_BYTES = 16 * 1024
MAX_WAITING = 1_000  # values before the certificates that they need: 16 MiB at most, from whoever may write
MAX_REVOCATIONS = 10_000  # a department's CA: whoever revokes more than it can ever have issued harms itself only

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """From when on a certificate is refused, and from when on what it signed is in doubt."""

    at: datetime
    compromised_since: datetime | None


class Trust:
    """What is known of keys. Constructed with the bus CA's certificate (DER)."""

    def __init__(self, authority: bytes) -> None:
        self.authority = x509.load_der_x509_certificate(authority)
        self.authority_der = authority
        self._authority_id = sha256(authority).digest()
        self._issuers: dict[bytes, list[tuple[x509.Certificate, Certificate | None]]] = {
            self.authority.subject.public_bytes(): [(self.authority, None)]
        }
        self._certificates: dict[bytes, Certificate] = {}
        self._by_key: dict[bytes, bytes] = {_raw(self.authority.public_key()): self._authority_id}
        self._kem: dict[bytes, KemKey] = {}
        self._reached: dict[str, list[bytes]] = {}  # gateways' certificates that say where, by owner
        self._revoked: dict[tuple[bytes, bytes], Revoked] = {}  # by (signer, certificate)
        self._revocations: Counter[bytes] = Counter()
        self._waiting: dict[bytes, list[bytes]] = {}

    def add(self, value: bytes) -> None:
        """One value of `bus.certificates`.

        Raises `Malformed` or `Refused` and changes nothing if it does not verify. What needs a certificate that is not
        known is refused, too (CERTIFICATE_UNKNOWN), and counts once that is.
        """
        if len(value) > MAX_VALUE_BYTES:
            raise Malformed(Code.RECORD_TOO_LARGE, f"a certificate record has at most {MAX_VALUE_BYTES} bytes")
        kind, body = BUS_CERTIFICATE.decode(value)["body"]
        match kind.rpartition(".")[2]:
            case "Certificate":
                try:
                    self.add_certificate(body["der"])
                except Refused as exc:
                    if exc.code is Code.CERTIFICATE_UNKNOWN:
                        self._wait(load(body["der"]).issuer.public_bytes(), value)
                    raise
            case "KemKey":
                self._need(body["signer"], value)
                self._add_kem(body)
            case "Revocation":
                self._need(body["signer"], value)
                self._add_revocation(body)

    def add_certificate(self, der: bytes) -> Certificate:
        """A certificate by the bus CA or by a department's CA that is known, or such a CA's.

        Raises `Malformed`, `Refused` (CERTIFICATE_UNKNOWN: the issuer is not known; _INVALID, _OWNER, _ROLE).
        """
        parsed = load(der)
        issuers = self._issuers.get(parsed.issuer.public_bytes())
        if issuers is None:
            raise Refused(Code.CERTIFICATE_UNKNOWN, "the certificate's issuer is not known to this bus")
        certificate = _issued(der, issuers)
        if certificate.id in self._certificates:
            return certificate
        if len(self._certificates) >= MAX_CERTIFICATES:
            raise Refused(Code.CERTIFICATE_INVALID, f"more than {MAX_CERTIFICATES} certificates")
        self._claim_key(certificate)
        self._certificates[certificate.id] = certificate
        if certificate.urls:
            self._reached.setdefault(certificate.uscc, []).append(certificate.id)
        if certificate.role is None:
            self._issuers.setdefault(parsed.subject.public_bytes(), []).append((parsed, certificate))
            self._retry(parsed.subject.public_bytes())
        self._retry(certificate.id)
        return certificate

    def certificate(self, signer: bytes, role: Role, at: datetime, uscc: str | None = None) -> Certificate:
        """The signer's certificate, if it is known, of this role and owner, valid at `at` and not revoked by then.

        So is, if a department's CA issued it, that CA's. Raises `Refused`: CERTIFICATE_UNKNOWN, _ROLE, _OWNER, _EXPIRED
        or _REVOKED.
        """
        found = self._certificates.get(signer)
        if found is None:
            raise Refused(Code.CERTIFICATE_UNKNOWN, "the signer's certificate is not known to this bus")
        if found.role is not role:
            raise Refused(Code.CERTIFICATE_ROLE, f"a key of another role signed: {role.name} is needed")
        if uscc is not None and found.uscc != uscc:
            raise Refused(Code.CERTIFICATE_OWNER, f"the key belongs to {found.uscc}, not to {uscc}")
        self._check_stands(found, at)
        if found.issuer is not None:
            self._check_stands(self._certificates[found.issuer], at)
        return found

    def _check_stands(self, found: Certificate, at: datetime) -> None:
        what = "certificate" if found.role is not None else "CA"
        if not found.not_before <= at <= found.not_after:
            raise Refused(Code.CERTIFICATE_EXPIRED, f"the {what} of {found.uscc} is not valid at {at:%Y-%m-%d %H:%M}")
        revoked = self._revocation(found) if self._revoked else None
        if revoked is not None and revoked.at <= at:
            raise Refused(Code.CERTIFICATE_REVOKED, f"the {what} of {found.uscc} is revoked")

    def _revocation(self, found: Certificate) -> Revoked | None:
        """What the bus CA and the certificate's own CA said, nobody else: of both the earliest."""
        signers = [self._authority_id] if found.issuer is None else [self._authority_id, found.issuer]
        said = [self._revoked.get((signer, found.id)) for signer in signers]
        return _earliest([one for one in said if one is not None])

    def revoked(self, certificate: bytes) -> Revoked | None:
        """From when on a certificate (by its id) does not count, its own CA's end included; None: it was not revoked.

        Raises `Refused` (CERTIFICATE_UNKNOWN).
        """
        found = self._certificates.get(certificate)
        if found is None:
            raise Refused(Code.CERTIFICATE_UNKNOWN, "the certificate is not known to this bus")
        chain = [found] if found.issuer is None else [found, self._certificates[found.issuer]]
        return _earliest([one for one in map(self._revocation, chain) if one is not None])

    def doubted(self, signer: bytes, admitted: datetime) -> bool:
        """Whether what this certificate signed may be a thief's: admitted after its key, or its CA's, was compromised.

        The log says when something was admitted; no signer's clock does.
        """
        if not self._revoked or signer not in self._certificates:
            return False
        revoked = self.revoked(signer)
        since = None if revoked is None else revoked.compromised_since
        return since is not None and since <= admitted

    def chain(self, certificate: bytes) -> list[bytes]:
        """What a third party needs beside the bus CA's certificate (DER), a CA before what it issued.

        Raises `Refused` (CERTIFICATE_UNKNOWN).
        """
        found = self._certificates.get(certificate)
        if found is None:
            raise Refused(Code.CERTIFICATE_UNKNOWN, "the certificate is not known to this bus")
        return [found.der] if found.issuer is None else [self._certificates[found.issuer].der, found.der]

    def known(self, certificate: bytes) -> Certificate | None:
        """A certificate by its id, whether or not it counts now."""
        return self._certificates.get(certificate)

    @property
    def certificates(self) -> Collection[Certificate]:
        """Everything that is known, also what has ended."""
        return self._certificates.values()

    @property
    def kem_keys(self) -> Collection[KemKey]:
        """As `certificates`."""
        return self._kem.values()

    def certified(self, key: Ed25519PublicKey) -> bool:
        """Whether some CA has certified this key already."""
        return _raw(key) in self._by_key

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
            when = f"{at:%Y-%m-%d %H:%M} UTC, by this clock"
            raise Refused(Code.RECIPIENT_INVALID, f"no gateway key of {owner} is valid at {when}: start its gateway")
        return max(valid, key=lambda k: k.not_after)

    def gateways(self, owner: str, at: datetime) -> tuple[str, ...]:
        """Where a department's own gateways are reached, the newest certificate's addresses first; empty: nowhere."""
        ids = reversed(self._reached.get(owner, ()))  # of one second, the last to come
        known = [self._certificates[one] for one in ids if self._counts(one, at, owner)]
        known.sort(key=lambda one: one.not_before, reverse=True)
        return tuple(dict.fromkeys(url for one in known for url in one.urls))

    def _counts(self, gateway: bytes, at: datetime, owner: str) -> bool:
        try:
            self.certificate(gateway, Role.GATEWAY, at, owner)
        except Refused:
            return False
        return True

    def _stands(self, kem: KemKey, at: datetime) -> bool:
        """Whether the key's signer may still sign.

        Else whoever has a stolen, revoked gateway key could go on naming keys of their own, back-dated.
        """
        return self._counts(kem.signer, at, kem.owner)

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
        signer, revoked = body["signer"], body["certificate"]
        verify_signed("Revocation", body, self._ca_key(signer, body["revoked_at"]))
        place = signer, revoked
        new = Revoked(at=body["revoked_at"], compromised_since=body["compromised_since"])
        known = self._revoked.get(place)
        if known is None:
            if signer != self._authority_id and self._revocations[signer] >= MAX_REVOCATIONS:
                raise Refused(Code.CERTIFICATE_INVALID, f"more than {MAX_REVOCATIONS} revocations by one CA")
            self._revocations[signer] += 1
        # The earliest of all that were signed: an old one that comes again gives nothing back.
        self._revoked[place] = new if known is None else (_earliest([known, new]) or new)

    def _ca_key(self, signer: bytes, at: datetime) -> Ed25519PublicKey:
        """The key of who revokes: the bus CA or a department's, each what it issued (and the bus CA everything)."""
        if signer == self._authority_id:
            key = self.authority.public_key()
            assert isinstance(key, Ed25519PublicKey)
            return key
        found = self._certificates[signer]
        if found.role is not None:
            raise Refused(Code.CERTIFICATE_ROLE, "only a CA revokes certificates")
        if not found.not_before <= at <= found.not_after:
            raise Refused(Code.CERTIFICATE_EXPIRED, f"the CA of {found.uscc} is not valid at {at:%Y-%m-%d %H:%M}")
        return found.key

    def _claim_key(self, certificate: Certificate) -> None:
        """One key, one certificate: two would let a signature change hands.

        What the bus CA certified counts before what a department's CA did: else one that certifies another's key, which
        is public, would put it out of force wherever the bus CA's certificate comes second.
        """
        key = certificate.key.public_bytes_raw()
        first = self._by_key.get(key)
        if first is not None:
            known = self._certificates.get(first)
            if known is None or known.issuer is None or certificate.issuer is not None:
                raise Refused(Code.CERTIFICATE_INVALID, "this public key was certified before")
            del self._certificates[first]
        self._by_key[key] = certificate.id

    # What comes before its certificate

    def _need(self, signer: bytes, value: bytes) -> None:
        if signer != self._authority_id and signer not in self._certificates:
            self._wait(signer, value)
            raise Refused(Code.CERTIFICATE_UNKNOWN, "the signer's certificate is not known to this bus")

    def _wait(self, wanted: bytes, value: bytes) -> None:
        there = self._waiting.get(wanted, [])
        if value not in there and sum(map(len, self._waiting.values())) < MAX_WAITING:
            self._waiting[wanted] = [*there, value]

    def _retry(self, came: bytes) -> None:
        for value in self._waiting.pop(came, ()):
            with suppress(Malformed, Refused):
                self.add(value)


def _issued(der: bytes, issuers: Sequence[tuple[x509.Certificate, Certificate | None]]) -> Certificate:
    """The certificate, by whichever of these CAs of one name signed it: a CA that was renewed keeps its name."""
    for issuer, by in issuers[:-1]:
        try:
            return parse_certificate(der, issuer, by)
        except Refused as exc:
            if exc.code is not Code.CERTIFICATE_INVALID:
                raise
    return parse_certificate(der, *issuers[-1])


def _earliest(said: Sequence[Revoked]) -> Revoked | None:
    if not said:
        return None
    doubts = [one.compromised_since for one in said if one.compromised_since is not None]
    return Revoked(at=min(one.at for one in said), compromised_since=min(doubts, default=None))


def _raw(key: Any) -> bytes:
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else b""


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
    """The Kafka key of a `bus.certificates` value, by which tools tell them apart."""
    kind, body = BUS_CERTIFICATE.decode(value)["body"]
    match kind.rpartition(".")[2]:
        case "Certificate":
            return sha256(body["der"]).digest()
        case "KemKey":
            return sha256(body["public_key"]).digest()
        case _:
            # The value's own: a cluster that compacts nevertheless keeps an earlier one beside a later one.
            return b"revocation" + bytes(body["certificate"]) + sha256(value).digest()


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
