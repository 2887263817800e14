"""The local stack's transport CA: whom one is connected to. In production the operator's own PKI stands here.

ECDSA P-256, because neither Kafka's Java nor browsers take Ed25519 in TLS. It signs nothing else.
Servers' and the administrator's certificates are made anew at every start, so that none expires while it is used: who
lets a stack run for longer than `CERTIFICATE_DAYS` starts it again within that time.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bus.pki import CA_YEARS, CERTIFICATE_DAYS, CLOCK_SKEW, certificate_builder, private_pem, write_private
from bus.transport import Cluster, Login
from schemas.errors import Code, Misuse

BROKER, ADMIN = "broker", "admin"  # common names: Kafka's super users
_LOOPBACK = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]


class TransportAuthority:
    """A folder with `ca.key` (0600) and `ca.pem`, made once, and beside them what it issued."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "ca.pem").exists():
            _create(folder)
        try:
            key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
            self._certificate = x509.load_pem_x509_certificate(self.file.read_bytes())
        except (OSError, ValueError) as exc:
            raise Misuse(
                Code.CONFIG_INVALID, f"{folder}: no readable CA for TLS; move it away to have a new one"
            ) from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self._certificate.public_key():
            raise Misuse(Code.CONFIG_INVALID, f"{folder}: key and certificate do not belong together")
        self._key = key

    @property
    def file(self) -> Path:
        """What everyone trusts: the CA's certificate (PEM)."""
        return self.folder / "ca.pem"

    def server(self, name: str) -> Path:
        """A new key and certificate for a server on loopback, as one PEM file (0600)."""
        usages = [ExtendedKeyUsageOID.SERVER_AUTH]
        # Brokers and controllers speak to each other, too: each is a client of the other.
        return self._issue(name, usages + [ExtendedKeyUsageOID.CLIENT_AUTH] * (name == BROKER), _LOOPBACK)

    def client(self, name: str) -> Path:
        """A new key and certificate of somebody who connects, as one file."""
        return self._issue(name, [ExtendedKeyUsageOID.CLIENT_AUTH], [])

    def _issue(self, name: str, usages: list[x509.ObjectIdentifier], at: list[x509.GeneralName]) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(name, self._certificate.subject, key.public_key(), CERTIFICATE_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if at:
            builder = builder.add_extension(x509.SubjectAlternativeName(at), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        file = self.folder / f"{name}.pem"
        write_private(file, private_pem(key) + certificate.public_bytes(Encoding.PEM))
        return file


def administrator(tls: TransportAuthority, servers: str) -> Cluster:
    """Kafka at its brokers' own listener, as its administrator: for topics, users and access rules alone."""
    file = tls.client(ADMIN)
    login = Login(authority=tls.file.read_text("ascii"), certificate=file, key=file, servers=servers)
    login.save(tls.folder)
    return Cluster(servers=servers, login=login)


def _create(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "deptbus transport")])
    certificate = (
        _builder("deptbus transport", name, key.public_key(), 365 * CA_YEARS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(folder / "ca.key", private_pem(key))
    write_private(folder / "ca.pem", certificate.public_bytes(Encoding.PEM))  # last: without it there is no CA


def _builder(name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now, subject = datetime.now(UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return certificate_builder(subject, issuer, key, now - CLOCK_SKEW, now + timedelta(days=days))
