"""Certificates: one CA for the bus, one role a key.

X.509 with Ed25519 (RFC 8410). `serialNumber` of the subject (2.5.4.5) is the owner's USCC; the role is the only
extended key usage, critical, from a private arc. A CA never certifies one public key twice.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from schemas.errors import Code, Malformed, Misuse, Refused

# A UUID-derived arc (ITU-T X.667): nobody assigns it, nobody else uses it.
_ARC = "2.25.311583583803563588260532141206597348873"
CA_YEARS = 10
CERTIFICATE_DAYS = 398  # a department renews once a year; the limit that public CAs keep to
_SIGNATURE = b"\x03\x41\x00"  # a BIT STRING of 64 bytes, no bits unused
_CLOCK_SKEW = timedelta(minutes=5)


class Role(StrEnum):
    """What a key may sign. The value is the certificate's extended key usage."""

    RECORD = f"{_ARC}.1"
    DEPARTMENT = f"{_ARC}.2"
    GATEWAY = f"{_ARC}.3"
    RECORDER = f"{_ARC}.4"
    TLS = f"{_ARC}.5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A parsed certificate that chains to a CA we trust."""

    id: bytes
    der: bytes
    role: Role
    uscc: str
    name: str
    key: Ed25519PublicKey
    not_before: datetime
    not_after: datetime


class Signer:
    """A private key and its certificate. `repr` shows neither."""

    __slots__ = ("_key", "certificate", "der", "id")

    def __init__(self, key: Ed25519PrivateKey, der: bytes) -> None:
        self._key = key
        self.der = der
        self.certificate = x509.load_der_x509_certificate(der)
        self.id = sha256(der).digest()

    @property
    def uscc(self) -> str:
        """The owner's unified social credit code, from the certificate's subject."""
        return _subject(self.certificate, NameOID.SERIAL_NUMBER)

    def sign(self, data: bytes) -> bytes:
        """Ed25519 (RFC 8032), 64 bytes."""
        return self._key.sign(data)

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """For libraries that sign themselves (HTTP message signatures)."""
        return self._key

    def save(self, folder: Path, stem: str) -> None:
        """`<stem>.key` (0600) and `<stem>.pem`."""
        write_private(folder / f"{stem}.key", _private_pem(self._key))
        (folder / f"{stem}.pem").write_bytes(self.certificate.public_bytes(Encoding.PEM))

    @classmethod
    def load(cls, folder: Path, stem: str) -> Signer:
        """Raises `Misuse` (CONFIG_INVALID) if the files are missing or not what they should be."""
        try:
            key = load_pem_private_key((folder / f"{stem}.key").read_bytes(), None)
            certificate = x509.load_pem_x509_certificate((folder / f"{stem}.pem").read_bytes())
        except (OSError, ValueError) as exc:
            raise Misuse(Code.CONFIG_INVALID, f"{folder / stem}: no readable key and certificate") from exc
        if not isinstance(key, Ed25519PrivateKey) or key.public_key() != certificate.public_key():
            raise Misuse(Code.CONFIG_INVALID, f"{folder / stem}: key and certificate do not belong together")
        return cls(key, certificate.public_bytes(Encoding.DER))


class CertificateAuthority:
    """The bus CA. Its folder keeps the key, the certificate and the digests of the keys it has certified."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._signer = Signer.load(folder, "ca")

    @classmethod
    def create(cls, folder: Path, name: str, uscc: str) -> CertificateAuthority:
        """A new CA in an empty folder: an Ed25519 key (0600) and its own certificate, ten years."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = Ed25519PrivateKey.generate()
        subject = _name(name, uscc)
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + timedelta(days=365 * CA_YEARS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(certify=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, None)
        )
        Signer(key, certificate.public_bytes(Encoding.DER)).save(folder, "ca")
        return cls(folder)

    @property
    def signer(self) -> Signer:
        """The CA's own key: signs revocations."""
        return self._signer

    def issue(self, role: Role, uscc: str, name: str) -> Signer:
        """A new key with a certificate for one role."""
        key = Ed25519PrivateKey.generate()
        self._remember(key.public_key())
        ca = self._signer.certificate
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name, uscc))
            .issuer_name(ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(certify=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(role.value)]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._signer.private_key.public_key()),
                critical=False,
            )
            .sign(self._signer.private_key, None)
        )
        return Signer(key, certificate.public_bytes(Encoding.DER))

    def _remember(self, key: Ed25519PublicKey) -> None:
        """Two certificates for one key would let a signature change its owner."""
        digest = sha256(key.public_bytes_raw()).hexdigest()
        issued = self._folder / "issued"
        known = issued.read_text("ascii").split() if issued.exists() else []
        if digest in known:
            raise Refused(Code.CERTIFICATE_INVALID, "this public key was certified before")
        with issued.open("a", encoding="ascii") as out:
            out.write(digest + "\n")
            out.flush()
            os.fsync(out.fileno())


def parse_certificate(der: bytes, authority: x509.Certificate) -> Certificate:
    """Raises `Refused` (CERTIFICATE_INVALID) unless `authority` issued it and it names one role and one owner.

    Whether it was valid at a time is `bus.trust`'s question.
    """
    try:
        parsed = x509.load_der_x509_certificate(der)
        parsed.verify_directly_issued_by(authority)
        usages = list(parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        constraints = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value
        key = parsed.public_key()
        role = Role(usages[0].dotted_string)
    except Exception as exc:  # hostile DER: InvalidVersion, DuplicateExtension, UnsupportedAlgorithm, ValueError, ...
        raise Refused(Code.CERTIFICATE_INVALID, "the certificate does not chain to the bus CA with a role") from exc
    if constraints.ca or len(usages) != 1 or not isinstance(key, Ed25519PublicKey):
        raise Refused(Code.CERTIFICATE_INVALID, "the certificate is not of one role with an Ed25519 key")
    # The parser passes a signature with unused bits, outside of what is signed: the same certificate by another id,
    # which a revocation of the first would not reach.
    if parsed.public_bytes(Encoding.DER) != der or not der.endswith(_SIGNATURE + parsed.signature):
        raise Malformed(Code.CERTIFICATE_INVALID, "the certificate is not DER")
    return Certificate(
        id=sha256(der).digest(),
        der=der,
        role=role,
        uscc=_subject(parsed, NameOID.SERIAL_NUMBER),
        name=_subject(parsed, NameOID.COMMON_NAME),
        key=key,
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
    )


def write_private(path: Path, data: bytes) -> None:
    """A file that only its owner reads, whole or not at all."""
    temporary = path.with_suffix(path.suffix + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(name: str, uscc: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.SERIAL_NUMBER, uscc)])


def _subject(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    values = certificate.subject.get_attributes_for_oid(oid)
    if len(values) != 1:
        raise Refused(Code.CERTIFICATE_INVALID, f"the certificate's subject has {len(values)} values of {oid._name}")
    return str(values[0].value)


def _key_usage(*, certify: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certify,
        key_cert_sign=certify,
        crl_sign=certify,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
