"""A department without engines: a CA of its own, its certificates, one gateway key, an open session."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bus import hpke
from bus.identity import Identity
from bus.pki import CertificateAuthority, Role
from bus.sealer import Sealer
from bus.trust import KemKey, Trust, certificate_value, kem_key_value
from tests.bench.sample import ISSUER, ITEM, item

ORIGIN = "bench.local"
OPERATOR = "112106000050000185"  # synthetic


@dataclass(frozen=True, slots=True, kw_only=True)
class Department:
    """An issuer, and what a reader of its records trusts and what a gateway holds of them."""

    identity: Identity
    trust: Trust
    gateway: hpke.PrivateKey
    recipient: KemKey

    def sealer(self) -> Sealer:
        return Sealer(self.identity, item())


def department(folder: Path) -> Department:
    """Made anew in an empty folder."""
    authority = CertificateAuthority.create(folder, ORIGIN, OPERATOR)
    gateway_signer = authority.issue(Role.GATEWAY, OPERATOR, "gateway")
    identity = Identity(
        name="market",
        uscc=ISSUER,
        origin=ORIGIN,
        gateway_owner=OPERATOR,
        authority=authority.signer.der,
        record=authority.issue(Role.RECORD, ISSUER, "market"),
        department=authority.issue(Role.DEPARTMENT, ISSUER, "market"),
        kem=hpke.PrivateKey.generate(),
        pseudonym_keys={ITEM: {1: bytes(range(32))}},
    )
    gateway = hpke.PrivateKey.generate()
    now = datetime.now(UTC).replace(microsecond=0)
    kem = kem_key_value(gateway.public, OPERATOR, "GATEWAY", now, now + timedelta(days=1), gateway_signer)
    trust = Trust(authority.signer.der)
    for value in (certificate_value(gateway_signer.der), certificate_value(identity.record.der), kem):
        trust.add(value)
    return Department(
        identity=identity, trust=trust, gateway=gateway, recipient=trust.gateway_key(OPERATOR, datetime.now(UTC))
    )
