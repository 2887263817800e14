"""Certificates from request to revocation: what `deptbus cert` does, for a bus and the departments' folders."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bus import db, hpke, pki
from bus.db import postgres_errors
from bus.gateway import reading
from bus.identity import KEM, Identity
from bus.pki import Certificate, CertificateAuthority, Role, Signer, write_private
from bus.transport import Cluster
from bus.trust import KemKey, Revoked, Trust, certificate_value, revocation_value
from bus.trustfeed import TrustFeed
from deploy.bootstrap import Bus, consumer_kem, own_gateway, publish_certificates
from schemas.errors import Code, Misuse, Refused

SOON = timedelta(days=30)


class Kind(StrEnum):
    """What may be renewed: a department's keys and CA, the bus's own processes' keys."""

    RECORD = "record"
    DEPARTMENT = "department"
    KEM = "kem"
    CA = "ca"
    GATEWAY = "gateway"
    RECORDER = "recorder"


_ROLES = {
    Kind.RECORD: Role.RECORD,
    Kind.DEPARTMENT: Role.DEPARTMENT,
    Kind.CA: None,
    Kind.GATEWAY: Role.GATEWAY,
    Kind.RECORDER: Role.RECORDER,
}
PROCESSES = (Kind.GATEWAY, Kind.RECORDER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whose key it is, and the folder that it stays in."""

    folder: Path
    kind: Kind
    name: str
    uscc: str
    urls: tuple[str, ...] = ()  # where a gateway is reached

    @classmethod
    def of(cls, kind: Kind, bus: Bus, identity: Identity | None, folder: Path | None) -> Holder:
        """Raises `Misuse` (CONFIG_INVALID): a department's key has a department, a process's has none, unless it is the
        department's own gateway's.
        """
        if kind is Kind.GATEWAY and identity is not None and folder is not None:
            at, name = own_gateway(folder) / kind, f"{identity.name} {kind}"
            return cls(folder=at, kind=kind, name=name, uscc=identity.uscc, urls=Signer.load(at, kind).urls)
        if kind in PROCESSES:
            if identity is not None:
                raise Misuse(Code.CONFIG_INVALID, f"the {kind}'s key is the bus's own: leave --as out")
            return cls(folder=bus.folder / kind, kind=kind, name=f"{bus.origin} {kind}", uscc=bus.operator)
        if identity is None or folder is None:
            raise Misuse(Code.CONFIG_INVALID, f"a {kind} key is a department's: say whose with --as")
        at = folder / "ca" if kind is Kind.CA else folder
        return cls(folder=at, kind=kind, name=identity.name, uscc=identity.uscc)

    def request(self) -> bytes:
        """A certification request (PEM) for a new key that waits in the folder. Raises `Misuse` for a KEM key."""
        if self.kind is Kind.KEM:
            raise Misuse(Code.CONFIG_INVALID, "a KEM key is signed by its department, not certified: renew it")
        role = _ROLES[self.kind]
        return pki.request(self.folder, self.kind, name=self.name, uscc=self.uscc, role=role, urls=self.urls)

    def install(self, certificate: bytes) -> Signer:
        """Puts the waiting key in place. Raises `Misuse` (CONFIG_INVALID)."""
        return pki.install(self.folder, self.kind, certificate)


def id_of(certificate: bytes) -> str:
    """What everybody calls a certificate (DER): its SHA-256 in hex."""
    return sha256(certificate).hexdigest()


def pem(certificate: bytes) -> bytes:
    """As files have it."""
    return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)


@asynccontextmanager
async def knowing(authority: bytes, kafka: Cluster) -> AsyncIterator[Trust]:
    """Everything on `bus.certificates` now."""
    feed = TrustFeed(Trust(authority), kafka, "certificates")
    try:
        await feed.start()
        yield feed.trust
    finally:
        await feed.stop()


def expected(request: pki.Request, kind: Kind, uscc: str) -> pki.Request:
    """The request, if it is for this kind of key and this owner. Raises `Refused` (CERTIFICATE_ROLE, _OWNER)."""
    if kind is Kind.KEM or request.role is not _ROLES[kind]:
        raise Refused(Code.CERTIFICATE_ROLE, f"the request is not for a {kind} key: ask who sent it")
    if request.uscc != uscc:
        raise Refused(Code.CERTIFICATE_OWNER, f"the request is for {request.uscc}, not for {uscc}: ask who sent it")
    return request


async def issue(by: CertificateAuthority, bus_authority: bytes, request: pki.Request, kafka: Cluster) -> bytes:
    """Certifies a key and publishes the certificate (DER): it counts when this returns.

    Raises `Refused` (CERTIFICATE_INVALID: this or another CA has certified the key before; _OWNER, _ROLE).
    """
    async with knowing(bus_authority, kafka) as trust:
        if trust.certified(request.key):
            raise Refused(Code.CERTIFICATE_INVALID, "this public key was certified before: make a new one")
        made = by.certify(request)
        trust.add_certificate(made)  # what no reader would take is not published
    await publish_certificates(kafka, [certificate_value(made)])
    return made


async def renew(holder: Holder, by: CertificateAuthority, bus_authority: bytes, kafka: Cluster) -> Signer:
    """A new key beside the old one: certified, published, then put in place, where who runs with it takes it up.

    A crash before that leaves the old one in use, and perhaps a certificate that nobody uses. The old one counts until
    it ends or is revoked: what was signed with it and is under way stays good.
    """
    made = await issue(by, bus_authority, pki.parse_request(holder.request()), kafka)
    return holder.install(made)


async def renew_kem(identity: Identity, folder: Path, kafka: Cluster) -> bytes:
    """A new key that grants are sealed to, signed by the department; returns its id. As `renew`."""
    key = hpke.PrivateKey.generate()
    await publish_certificates(kafka, [consumer_kem(key.public, identity.department)])
    write_private(folder / KEM, key.private_bytes())
    return key.id


async def revoke(
    by: CertificateAuthority, bus_authority: bytes, certificate: bytes, since: datetime | None, kafka: Cluster
) -> Certificate:
    """Ends a certificate now, and all below it. Raises `Refused` (CERTIFICATE_UNKNOWN, _OWNER: it is another CA's)."""
    async with knowing(bus_authority, kafka) as trust:
        found = find(trust, certificate)
        if not by.of_bus and found.issuer != by.signer.id:
            raise Refused(Code.CERTIFICATE_OWNER, "a department's CA revokes what it issued: ask the bus CA for others")
    await publish_certificates(kafka, [revocation_value(certificate, datetime.now(UTC), since, by.signer)])
    return found


def find(trust: Trust, certificate: bytes) -> Certificate:
    """A certificate by its id. Raises `Refused` (CERTIFICATE_UNKNOWN)."""
    found = trust.known(certificate)
    if found is None:
        raise Refused(Code.CERTIFICATE_UNKNOWN, "no certificate of this id is on the bus: see `deptbus cert list`")
    return found


async def in_doubt(trust: Trust, uscc: str, since: datetime, dsn: str) -> list[str]:
    """The records (leaf hashes) of an issuer that were admitted since then under a key that was compromised."""
    connection = await db.connect(dsn)
    try:
        async with postgres_errors("looking for records in doubt"):
            return [one.hex() for one in await reading.doubted(connection, uscc, since, trust)]
    finally:
        await connection.close()


def listed(trust: Trust, names: dict[str, str], now: datetime, *, ended: bool) -> list[dict[str, Any]]:
    """Certificates and KEM keys, what ends first at the top; what has `ended` only if asked for."""
    rows = [_certificate(trust, one, now) for one in trust.certificates]
    rows += [_row(one, one.owner, f"{one.role.lower()} kem", "", None, now) for one in trust.kem_keys]
    shown = [row | {"name": names.get(row["owner"], "")} for row in rows if ended or row["state"] not in _ENDED]
    return sorted(shown, key=lambda row: row["not_after"])


_ENDED = ("ended", "revoked")


def _certificate(trust: Trust, one: Certificate, now: datetime) -> dict[str, Any]:
    role = "ca" if one.role is None else one.role.name.lower()
    issuer = "bus" if one.issuer is None else find(trust, one.issuer).uscc
    return _row(one, one.uscc, role, issuer, trust.revoked(one.id), now)


def _row(
    one: Certificate | KemKey, owner: str, role: str, issuer: str, revoked: Revoked | None, now: datetime
) -> dict[str, Any]:
    since = None if revoked is None else revoked.compromised_since
    return {
        "id": one.id.hex(),
        "owner": owner,
        "role": role,
        "issuer": issuer,
        "not_before": one.not_before.isoformat(),
        "not_after": one.not_after.isoformat(),
        "days_left": (one.not_after - now).days,
        "state": _state(one, revoked, now),
        "compromised_since": None if since is None else since.isoformat(),
    }


def _state(one: Certificate | KemKey, revoked: Revoked | None, now: datetime) -> str:
    if revoked is not None and revoked.at <= now:
        return "revoked"
    if now > one.not_after:
        return "ended"
    if now < one.not_before:
        return "not yet"
    short = isinstance(one, KemKey) and one.role == "GATEWAY"  # of a day and a half: another one comes each day
    return "ends soon" if one.not_after - now < SOON and not short else "good"
