"""Trust: whose signature counts for what, when; what anybody may write to the topic changes nothing else."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import hpke, pki, trust
from bus.pki import CertificateAuthority, Role, Signer
from bus.trust import Trust, certificate_value, kem_key_value, revocation_value
from schemas.errors import Code, DeptbusError, Malformed, Misuse, Refused

GATEWAY_OWNER, DEPARTMENT, OTHER = "11330411MB2A00011E", "1132080001400001X7", "11430000006122244L"
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


class World:
    """A CA, a signer of each role for two bodies, and what a reader of the topic knows."""

    def __init__(self, folder: Path) -> None:
        self.ca = CertificateAuthority.create(folder, "bus.test", OTHER)
        self.signers = {
            (role, uscc): self.ca.issue(role, uscc, uscc) for role in Role for uscc in (GATEWAY_OWNER, DEPARTMENT)
        }
        self.trust = Trust(self.ca.signer.der)
        for signer in self.signers.values():
            self.trust.add(certificate_value(signer.der))
        self.now = datetime.now(UTC) + 2 * HOUR  # well within the certificates that were just issued

    def signer(self, role: Role, uscc: str = GATEWAY_OWNER) -> Signer:
        return self.signers[role, uscc]

    def kem(self, **changes: Any) -> bytes:
        """A gateway's KEM key, in force from now for an hour."""
        usual: dict[str, Any] = {
            "public": PUBLIC,
            "owner": GATEWAY_OWNER,
            "role": "GATEWAY",
            "not_before": self.now,
            "not_after": self.now + HOUR,
            "signer": self.signer(Role.GATEWAY),
        }
        return kem_key_value(**usual | changes)

    def revoke(self, signer: Signer, at: datetime, since: datetime | None = None) -> None:
        self.trust.add(revocation_value(signer.id, at, since, self.ca.signer))

    def code(self, value: bytes) -> Code:
        """What the trust refuses a value for."""
        with pytest.raises(DeptbusError) as refused:
            self.trust.add(value)
        return refused.value.code


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ca")


PUBLIC, PUBLIC_2 = (hpke.PrivateKey.generate().public for _ in range(2))
KEY = sha256(PUBLIC).digest()


# Certificates


def test_a_certificate_is_of_one_role_and_owner(world: World) -> None:
    """Each of the five roles counts for itself only, each key for its owner only."""
    for role in Role:
        signer = world.signer(role)
        assert world.trust.certificate(signer.id, role, world.now, GATEWAY_OWNER).id == signer.id
        for other in set(Role) - {role}:
            with pytest.raises(Refused) as refused:
                world.trust.certificate(signer.id, other, world.now)
            assert refused.value.code is Code.CERTIFICATE_ROLE
        with pytest.raises(Refused) as refused:
            world.trust.certificate(signer.id, role, world.now, DEPARTMENT)
        assert refused.value.code is Code.CERTIFICATE_OWNER


def test_a_certificate_counts_within_its_validity(world: World) -> None:
    """From its first second to its last."""
    signer = world.signer(Role.RECORD)
    begin, end = signer.certificate.not_valid_before_utc, signer.certificate.not_valid_after_utc
    for at in (begin, end):
        assert world.trust.key(signer.id, Role.RECORD, at) is not None
    for at in (begin - SECOND, end + SECOND):
        with pytest.raises(Refused) as refused:
            world.trust.key(signer.id, Role.RECORD, at)
        assert refused.value.code is Code.CERTIFICATE_EXPIRED


def test_another_authoritys_certificate_is_refused(world: World, tmp_path: Path) -> None:
    """Also of one by the same name, and the authority's own, which is of no role."""
    stranger = CertificateAuthority.create(tmp_path / "other", "bus.test", OTHER).issue(Role.RECORD, OTHER, OTHER)
    assert world.code(certificate_value(stranger.der)) is Code.CERTIFICATE_INVALID
    assert world.code(certificate_value(world.ca.signer.der)) is Code.CERTIFICATE_INVALID
    with pytest.raises(Refused) as refused:
        world.trust.key(stranger.id, Role.RECORD, world.now)
    assert refused.value.code is Code.CERTIFICATE_UNKNOWN


def test_a_certificate_has_one_spelling(world: World) -> None:
    """Bits outside of what is signed cannot be turned: by another id a revoked certificate would be back."""
    for number in range(8):  # the last bit of every other signature is 0, and may be called unused
        signer = world.ca.issue(Role.RECORD, OTHER, str(number))
        head = len(signer.der) - 67
        assert signer.der[head : head + 3] == b"\x03\x41\x00"
        for unused in range(1, 8):
            spelt = signer.der[: head + 2] + bytes([unused]) + signer.der[head + 3 :]
            assert world.code(certificate_value(spelt)) is Code.CERTIFICATE_INVALID
        world.trust.add(certificate_value(signer.der))


def test_a_key_is_certified_once(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two certificates for one key would let a signature change its owner; a restarted CA remembers."""
    key = Ed25519PrivateKey.generate()
    monkeypatch.setattr("bus.pki.Ed25519PrivateKey.generate", staticmethod(lambda: key), raising=False)
    authority = CertificateAuthority(tmp_path / "ca")
    assert authority.issue(Role.RECORD, OTHER, OTHER).uscc == OTHER
    for again in (authority, CertificateAuthority(tmp_path / "ca")):
        for role, uscc in ((Role.RECORD, OTHER), (Role.DEPARTMENT, OTHER), (Role.RECORD, DEPARTMENT)):
            with pytest.raises(Refused) as refused:
                again.issue(role, uscc, uscc)
            assert refused.value.code is Code.CERTIFICATE_INVALID


def test_certificates_are_not_without_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound, beyond which known ones still count and may come again."""
    monkeypatch.setattr(trust, "MAX_CERTIFICATES", 2 * len(Role))
    more = world.ca.issue(Role.RECORD, OTHER, OTHER)
    assert world.code(certificate_value(more.der)) is Code.CERTIFICATE_INVALID
    world.trust.add(certificate_value(world.signer(Role.RECORD).der))


# KEM keys


def test_a_gateways_key_is_found_while_it_is_valid(world: World) -> None:
    """From its first moment up to its last, without it; of its owner."""
    world.trust.add(world.kem())
    assert world.trust.gateway_key(GATEWAY_OWNER, world.now).id == KEY
    for owner, at in ((GATEWAY_OWNER, world.now - SECOND), (GATEWAY_OWNER, world.now + HOUR), (OTHER, world.now)):
        with pytest.raises(Refused) as refused:
            world.trust.gateway_key(owner, at)
        assert refused.value.code is Code.RECIPIENT_INVALID


def test_of_two_the_one_that_ends_last_is_sealed_to(world: World) -> None:
    """The older is about to go; a consumer's is never sealed to."""
    world.trust.add(world.kem())
    world.trust.add(world.kem(public=PUBLIC_2, not_after=world.now + 2 * HOUR))
    assert world.trust.gateway_key(GATEWAY_OWNER, world.now).id == sha256(PUBLIC_2).digest()


def test_a_consumers_key_is_no_gateways(world: World) -> None:
    """It is known for grants, and nothing else is sealed to it."""
    world.trust.add(world.kem(owner=DEPARTMENT, role="CONSUMER", signer=world.signer(Role.DEPARTMENT, DEPARTMENT)))
    known = world.trust.kem_key(KEY)
    assert known is not None
    assert (known.owner, known.role) == (DEPARTMENT, "CONSUMER")
    with pytest.raises(Refused):
        world.trust.gateway_key(DEPARTMENT, world.now)


@pytest.mark.parametrize("role", sorted(set(Role) - {Role.GATEWAY}, key=str))
def test_a_gateways_key_signed_by_another_role(world: World, role: Role) -> None:
    """A department's key names no gateway."""
    assert world.code(world.kem(signer=world.signer(role))) is Code.CERTIFICATE_ROLE
    assert world.trust.kem_key(KEY) is None


@pytest.mark.parametrize("role", sorted(set(Role) - {Role.DEPARTMENT}, key=str))
def test_a_consumers_key_signed_by_another_role(world: World, role: Role) -> None:
    """Nor a gateway's a consumer."""
    value = world.kem(role="CONSUMER", signer=world.signer(role))
    assert world.code(value) is Code.CERTIFICATE_ROLE


def test_a_key_signed_by_anothers_key(world: World) -> None:
    """Of the right role, but of another owner; and one that says it was signed by a key that did not sign."""
    other = world.signer(Role.GATEWAY, DEPARTMENT)
    assert world.code(world.kem(signer=other)) is Code.CERTIFICATE_OWNER
    body = trust.BUS_CERTIFICATE.decode(world.kem(signer=other))["body"][1]
    forged = body | {"signer": world.signer(Role.GATEWAY).id}
    value = trust.BUS_CERTIFICATE.encode({"body": ("deptbus.v1.KemKey", forged)})
    assert world.code(value) is Code.SIGNATURE_INVALID


@pytest.mark.parametrize(
    "change",
    [
        {"owner": DEPARTMENT},
        {"role": "CONSUMER"},
        {"public_key": PUBLIC_2},
        {"not_after": datetime(2999, 1, 1, tzinfo=UTC)},
        {"not_before": datetime(2025, 1, 1, tzinfo=UTC)},
        {"kem": 0x0020},
        {"signature": bytes(64)},
        {"signature": b""},
        {"signer": bytes(32)},
    ],
)
def test_a_key_changed_after_it_was_signed(world: World, change: dict[str, Any]) -> None:
    """Any one of its fields."""
    body = trust.BUS_CERTIFICATE.decode(world.kem())["body"][1]
    value = trust.BUS_CERTIFICATE.encode({"body": ("deptbus.v1.KemKey", body | change)})
    assert world.code(value) in {
        Code.SIGNATURE_INVALID,
        Code.CERTIFICATE_INVALID,
        Code.CERTIFICATE_OWNER,
        Code.CERTIFICATE_ROLE,
        Code.CERTIFICATE_UNKNOWN,
        Code.CERTIFICATE_EXPIRED,
    }
    assert world.trust.kem_key(KEY) is None
    assert world.trust.kem_key(sha256(PUBLIC_2).digest()) is None


def test_a_key_from_outside_its_signers_validity(world: World) -> None:
    """Its signer's certificate had to be valid at its first moment."""
    end = world.signer(Role.GATEWAY).certificate.not_valid_after_utc
    assert world.code(world.kem(not_before=end + SECOND, not_after=end + HOUR)) is Code.CERTIFICATE_EXPIRED


@pytest.mark.parametrize("public", [b"", PUBLIC[:-1], PUBLIC + b"\x00", b"\xff" * len(PUBLIC)])
def test_a_key_that_is_none(world: World, public: bytes) -> None:
    """Well signed, of a wrong length or no point: an error of ours, so that the reader of the topic goes on."""
    assert world.code(world.kem(public=public)) is Code.CERTIFICATE_INVALID


def test_nobody_takes_anothers_key_over(world: World) -> None:
    """Public keys are public: named again under another owner, the first one's would be gone."""
    world.trust.add(world.kem())
    own = world.signer(Role.DEPARTMENT, DEPARTMENT)
    taken = world.kem(owner=DEPARTMENT, role="CONSUMER", signer=own)
    assert world.code(taken) is Code.CERTIFICATE_OWNER
    assert world.code(world.kem(owner=DEPARTMENT, signer=world.signer(Role.GATEWAY, DEPARTMENT))) is (
        Code.CERTIFICATE_OWNER
    )
    assert world.trust.gateway_key(GATEWAY_OWNER, world.now).owner == GATEWAY_OWNER
    world.trust.add(world.kem(not_after=world.now + 2 * HOUR))  # its owner may prolong it
    assert world.trust.gateway_key(GATEWAY_OWNER, world.now + HOUR).id == KEY


# Revocations


def test_a_revoked_certificate_counts_for_what_was_before(world: World) -> None:
    """Up to the moment, without it: records that were admitted before stay good."""
    signer = world.signer(Role.RECORD)
    world.revoke(signer, world.now)
    assert world.trust.key(signer.id, Role.RECORD, world.now - timedelta(microseconds=1)) is not None
    for at in (world.now, world.now + HOUR):
        with pytest.raises(Refused) as refused:
            world.trust.key(signer.id, Role.RECORD, at)
        assert refused.value.code is Code.CERTIFICATE_REVOKED
    assert world.trust.key(world.signer(Role.RECORD, DEPARTMENT).id, Role.RECORD, world.now) is not None


def test_a_revocation_may_come_before_the_certificate(world: World) -> None:
    """The topic is compacted: order says nothing."""
    signer = world.ca.issue(Role.RECORD, OTHER, OTHER)
    world.revoke(signer, world.now)
    world.trust.add(certificate_value(signer.der))
    with pytest.raises(Refused) as refused:
        world.trust.key(signer.id, Role.RECORD, world.now)
    assert refused.value.code is Code.CERTIFICATE_REVOKED


@pytest.mark.parametrize("role", list(Role))
def test_only_the_authority_revokes(world: World, role: Role) -> None:
    """Not even the owner of the certificate, and nobody in the CA's name."""
    signer = world.signer(Role.RECORD)
    value = revocation_value(signer.id, world.now - HOUR, None, world.signer(role))
    assert world.code(value) is Code.CERTIFICATE_ROLE
    body = trust.BUS_CERTIFICATE.decode(value)["body"][1] | {"signer": world.ca.signer.id}
    assert world.code(trust.BUS_CERTIFICATE.encode({"body": ("deptbus.v1.Revocation", body)})) is Code.SIGNATURE_INVALID
    assert world.trust.key(signer.id, Role.RECORD, world.now) is not None


def test_a_revocation_changed_after_it_was_signed(world: World) -> None:
    """Cannot be turned to another certificate or time."""
    signer = world.signer(Role.RECORD)
    body = trust.BUS_CERTIFICATE.decode(
        revocation_value(world.signer(Role.DEPARTMENT).id, world.now, None, world.ca.signer)
    )["body"][1]
    changes: list[dict[str, Any]] = [
        {"certificate": signer.id},
        {"revoked_at": world.now - HOUR},
        {"compromised_since": world.now},
        {"signature": b""},
    ]
    for change in changes:
        value = trust.BUS_CERTIFICATE.encode({"body": ("deptbus.v1.Revocation", body | change)})
        assert world.code(value) is Code.SIGNATURE_INVALID


@pytest.mark.parametrize("order", [1, -1])
def test_the_earliest_revocation_counts(world: World, order: int) -> None:
    """An old one that somebody writes again gives nothing back."""
    signer = world.signer(Role.RECORD)
    for at in [world.now - HOUR, world.now + HOUR][::order]:
        world.revoke(signer, at)
    with pytest.raises(Refused):
        world.trust.key(signer.id, Role.RECORD, world.now - HOUR)
    assert world.trust.key(signer.id, Role.RECORD, world.now - HOUR - SECOND) is not None


@pytest.mark.parametrize("late", [False, True], ids=["before", "back-dated"])
def test_nothing_is_sealed_to_keys_of_a_revoked_gateway(world: World, late: bool) -> None:
    """Whoever stole its signing key may have named keys of their own, and may go on naming back-dated ones."""
    signer = world.signer(Role.GATEWAY)
    thief = world.kem(public=PUBLIC_2, not_before=world.now - HOUR, not_after=world.now + 1000 * HOUR)
    if not late:
        world.trust.add(thief)
    world.revoke(signer, world.now)
    if late:
        world.trust.add(thief)
    with pytest.raises(Refused) as refused:
        world.trust.gateway_key(GATEWAY_OWNER, world.now)
    assert refused.value.code is Code.RECIPIENT_INVALID
    renewed = world.ca.issue(Role.GATEWAY, GATEWAY_OWNER, GATEWAY_OWNER)
    world.trust.add(certificate_value(renewed.der))
    world.trust.add(world.kem(signer=renewed))
    assert world.trust.gateway_key(GATEWAY_OWNER, world.now).id == KEY
    assert world.code(world.kem(not_before=world.now, not_after=world.now + HOUR)) is Code.CERTIFICATE_REVOKED


# Departments' own CAs (the chains themselves: tests/vectors/certificate)


def own_ca(world: World, folder: Path, uscc: str = DEPARTMENT) -> CertificateAuthority:
    """A department's CA: its key made in its folder, certified by the bus CA."""
    asked = pki.parse_request(pki.request(folder, "ca", name=uscc, uscc=uscc, role=None))
    pki.install(folder, "ca", world.ca.certify(asked))
    return CertificateAuthority(folder)


def test_the_order_of_values_says_nothing(world: World, tmp_path: Path) -> None:
    """A CA, its key, the KemKey that this signs, the revocation that the CA signs: whatever comes first waits."""
    ca = own_ca(world, tmp_path)
    signer = ca.issue(Role.DEPARTMENT, DEPARTMENT, DEPARTMENT)
    values = [
        certificate_value(ca.signer.der),
        certificate_value(signer.der),
        world.kem(owner=DEPARTMENT, role="CONSUMER", signer=signer, not_before=world.now - HOUR),
        revocation_value(signer.id, world.now, world.now - SECOND, ca.signer),
    ]
    for order in permutations(values):
        known = Trust(world.ca.signer.der)
        for value in order:
            with suppress(Refused):
                known.add(value)
        assert known.kem_key(KEY) is not None
        assert known.certificate(signer.id, Role.DEPARTMENT, world.now - SECOND).issuer == ca.signer.id
        with pytest.raises(Refused) as refused:
            known.certificate(signer.id, Role.DEPARTMENT, world.now)
        assert refused.value.code is Code.CERTIFICATE_REVOKED


def test_what_waits_is_bounded(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write can fill it; what is there already counts on."""
    monkeypatch.setattr(trust, "MAX_WAITING", 2)
    ca = own_ca(world, tmp_path)
    signers = [ca.issue(Role.RECORD, DEPARTMENT, DEPARTMENT) for _ in range(3)]
    for signer in (*signers, *signers):
        assert world.code(certificate_value(signer.der)) is Code.CERTIFICATE_UNKNOWN
    world.trust.add(certificate_value(ca.signer.der))
    assert [world.trust.certified(one.private_key.public_key()) for one in signers] == [True, True, False]


def test_what_came_after_the_compromise_is_in_doubt(world: World, tmp_path: Path) -> None:
    """Of a key, and of everything below a CA; the earliest that somebody who may said. What was before stays good."""
    ca = own_ca(world, tmp_path)
    signer, other = (ca.issue(Role.RECORD, DEPARTMENT, DEPARTMENT) for _ in range(2))
    for one in (ca.signer, signer, other):
        world.trust.add(certificate_value(one.der))
    assert not world.trust.doubted(signer.id, world.now)
    world.trust.add(revocation_value(signer.id, world.now, None, ca.signer))
    assert not world.trust.doubted(signer.id, world.now)  # it was given up, not stolen
    world.trust.add(revocation_value(signer.id, world.now, world.now - HOUR, ca.signer))
    stranger = own_ca(world, tmp_path / "other", OTHER).signer
    world.trust.add(certificate_value(stranger.der))
    world.trust.add(revocation_value(signer.id, world.now - HOUR, world.now - 3 * HOUR, stranger))
    assert [world.trust.doubted(signer.id, at) for at in (world.now - HOUR - SECOND, world.now - HOUR)] == [False, True]
    assert not world.trust.doubted(other.id, world.now)
    world.revoke(ca.signer, world.now, world.now - 2 * HOUR)
    for one in (signer, other):
        assert world.trust.doubted(one.id, world.now - 2 * HOUR)
        assert not world.trust.doubted(one.id, world.now - 2 * HOUR - SECOND)
        assert world.trust.certificate(one.id, Role.RECORD, world.now - SECOND).uscc == DEPARTMENT
        with pytest.raises(Refused) as refused:
            world.trust.certificate(one.id, Role.RECORD, world.now)
        assert refused.value.code is Code.CERTIFICATE_REVOKED


def test_the_bus_cas_word_on_a_key_comes_first(world: World, tmp_path: Path) -> None:
    """A department's CA certifies a key of another's, which is public: written first, it puts nothing out of force."""
    victim = world.ca.issue(Role.RECORD, OTHER, OTHER)
    thief = own_ca(world, tmp_path)
    key = victim.private_key.public_key()
    taken = thief.certify(pki.Request(key=key, uscc=DEPARTMENT, name=DEPARTMENT, role=Role.RECORD))
    world.trust.add(certificate_value(thief.signer.der))
    world.trust.add(certificate_value(taken))
    world.trust.add(certificate_value(victim.der))
    assert world.trust.certificate(victim.id, Role.RECORD, world.now).uscc == OTHER
    with pytest.raises(Refused) as refused:
        world.trust.certificate(sha256(taken).digest(), Role.RECORD, world.now)
    assert refused.value.code is Code.CERTIFICATE_UNKNOWN
    assert world.code(certificate_value(taken)) is Code.CERTIFICATE_INVALID


def test_a_cas_revocations_are_not_without_number(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A department fills its own share only."""
    monkeypatch.setattr(trust, "MAX_REVOCATIONS", 2)
    ca = own_ca(world, tmp_path)
    world.trust.add(certificate_value(ca.signer.der))
    for number in range(2):
        world.trust.add(revocation_value(bytes([number]) * 32, world.now, None, ca.signer))
    assert world.code(revocation_value(bytes([9]) * 32, world.now, None, ca.signer)) is Code.CERTIFICATE_INVALID
    world.trust.add(revocation_value(bytes(32), world.now - HOUR, None, ca.signer))  # an earlier one of the same
    world.trust.add(revocation_value(bytes([9]) * 32, world.now, None, world.ca.signer))


# Making and renewing them


@pytest.mark.parametrize(
    ("uscc", "role", "code"),
    [
        (OTHER, Role.RECORD, Code.CERTIFICATE_OWNER),
        (DEPARTMENT, Role.GATEWAY, Code.CERTIFICATE_ROLE),
        (DEPARTMENT, Role.RECORDER, Code.CERTIFICATE_ROLE),
        (DEPARTMENT, Role.TLS, Code.CERTIFICATE_ROLE),
        (DEPARTMENT, None, Code.CERTIFICATE_INVALID),
    ],
)
def test_a_departments_ca_certifies_what_others_accept(
    world: World, tmp_path: Path, uscc: str, role: Role | None, code: Code
) -> None:
    """Nothing else leaves it, so nobody is surprised later."""
    ca = own_ca(world, tmp_path)
    asked = pki.parse_request(pki.request(tmp_path / "asks", "new", name=uscc, uscc=uscc, role=role))
    with pytest.raises(Refused) as refused:
        ca.certify(asked)
    assert refused.value.code is code
    below = ca.issue(Role.RECORD, DEPARTMENT, DEPARTMENT)
    assert below.certificate.not_valid_after_utc <= ca.signer.certificate.not_valid_after_utc


def test_who_asks_holds_the_key(tmp_path: Path) -> None:
    """A request is signed by the key that it is about: nobody has another's key certified."""
    pem = pki.request(tmp_path, "record", name="a", uscc=DEPARTMENT, role=Role.RECORD)
    asked = pki.parse_request(pem)
    assert (asked.uscc, asked.name, asked.role) == (DEPARTMENT, "a", Role.RECORD)
    der = bytearray(x509.load_pem_x509_csr(pem).public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = b"-----BEGIN CERTIFICATE REQUEST-----\n" + b64encode(bytes(der)) + b"\n-----END CERTIFICATE REQUEST-----\n"
    for bad in (forged, pem[:100], b"", bytes(pki.MAX_REQUEST_BYTES + 1)):
        with pytest.raises(Malformed) as refused:
            pki.parse_request(bad)
        assert refused.value.code is Code.CERTIFICATE_INVALID


def test_a_renewed_key_is_taken_up(world: World, tmp_path: Path) -> None:
    """By whoever holds the signer; the file is whole at any time, and another owner's is refused."""
    world.ca.issue(Role.RECORD, DEPARTMENT, "a").save(tmp_path, "record")
    held = Signer.load(tmp_path, "record")
    old, old_key = held.id, held.private_key.public_key()
    assert not held.refresh()
    pem = pki.request(tmp_path, "record", name="a", uscc=DEPARTMENT, role=Role.RECORD)
    with pytest.raises(Misuse):  # the old certificate is not of the key that waits
        pki.install(tmp_path, "record", held.der)
    assert not held.refresh()
    installed = pki.install(tmp_path, "record", world.ca.certify(pki.parse_request(pem)))
    assert held.refresh()
    assert (held.id, held.der) == (installed.id, installed.der)
    assert held.id != old
    assert not held.refresh()
    held.private_key.public_key().verify(held.sign(b"x"), b"x")
    with pytest.raises(InvalidSignature):
        old_key.verify(held.sign(b"x"), b"x")
    assert sorted(one.name for one in tmp_path.glob("record*")) == ["record.key", "record.pem"]
    assert (tmp_path / "record.key").stat().st_mode & 0o777 == 0o600
    world.ca.issue(Role.RECORD, OTHER, "b").save(tmp_path, "record")
    with pytest.raises(Misuse):
        held.refresh()
    (tmp_path / "record.key").unlink()
    assert not held.refresh()
    assert held.id == installed.id


# Whatever anybody writes


def test_values_are_not_without_size(world: World) -> None:
    """Refused before they are read."""
    assert world.code(bytes(trust.MAX_VALUE_BYTES + 1)) is Code.RECORD_TOO_LARGE


def test_keys_of_the_topic_tell_values_apart(world: World) -> None:
    """Compaction keeps one of each: another certificate, KEM key or revocation is another key."""
    signer = world.signer(Role.RECORD)
    values = [
        certificate_value(signer.der),
        world.kem(),
        world.kem(public=PUBLIC_2),
        revocation_value(signer.id, world.now, None, world.ca.signer),
    ]
    assert [trust.topic_key(value) for value in values] == [
        signer.id,
        KEY,
        sha256(PUBLIC_2).digest(),
        b"revocation" + signer.id + sha256(values[3]).digest(),
    ]


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, list[bytes]]:
    """A world, and a sound value of each kind."""
    world = World(tmp_path_factory.mktemp("world") / "ca")
    signer = world.signer(Role.RECORD)
    return world, [
        certificate_value(signer.der),
        world.kem(),
        revocation_value(signer.id, world.now, world.now - HOUR, world.ca.signer),
    ]


@given(which=st.integers(0, 2), at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
@settings(max_examples=300, deadline=None)
def test_damaged_values_change_nothing(
    values: tuple[World, list[bytes]], which: int, at: float, bit: int, cut: bool
) -> None:
    """One bit turned or the end cut off: refused with an error of ours, and nothing is known that was not."""
    world, sound = values
    value = bytearray(sound[which])
    place = int(at * len(value))
    if cut:
        del value[place:]
    else:
        value[place] ^= 1 << bit
    known = Trust(world.ca.signer.der)
    known.add(certificate_value(world.signer(Role.GATEWAY).der))
    with pytest.raises((Malformed, Refused)):
        known.add(bytes(value))
    assert known.kem_key(KEY) is None
    with pytest.raises(Refused) as refused:
        known.key(world.signer(Role.RECORD).id, Role.RECORD, world.now)
    assert refused.value.code is Code.CERTIFICATE_UNKNOWN


def test_keys_are_not_shown(world: World) -> None:
    """A signer's repr names neither key nor certificate."""
    signer = world.signer(Role.RECORD)
    private = signer.private_key.private_bytes_raw()
    assert private.hex() not in repr(signer)
    assert repr(private) not in repr(signer)


def test_a_parsed_certificate_is_frozen(world: World) -> None:
    """Values that are handed out cannot be changed by who got them; a changed copy is another."""
    found = world.trust.certificate(world.signer(Role.RECORD).id, Role.RECORD, world.now)
    assert replace(found, uscc=OTHER) != found


URL = "https://gateway.example:8443"


def reached(world: World, role: Role, names: list[x509.GeneralName]) -> bytes:
    """A certificate by the bus CA, of the role, with these names: `CertificateAuthority` makes few of them."""
    key = Ed25519PrivateKey.generate()
    made = x509.load_der_x509_certificate(world.signer(role).der)
    builder = pki.certificate_builder(
        made.subject, made.issuer, key.public_key(), made.not_valid_before_utc, made.not_valid_after_utc
    )
    for extension in made.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(world.ca.signer.private_key, None).public_bytes(Encoding.DER)


def test_a_gateways_certificate_says_where_it_is_reached(world: World) -> None:
    """Only while it counts, and only of its owner; what was asked for is what is certified."""
    signer = world.ca.issue(Role.GATEWAY, DEPARTMENT, DEPARTMENT, (URL, "https://[2001:db8::1]"))
    world.trust.add(certificate_value(signer.der))
    assert world.trust.gateways(DEPARTMENT, world.now) == signer.urls == (URL, "https://[2001:db8::1]")
    assert world.trust.gateways(GATEWAY_OWNER, world.now) == ()
    world.revoke(signer, world.now)
    assert world.trust.gateways(DEPARTMENT, world.now) == ()


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (Role.RECORD, [x509.UniformResourceIdentifier(URL)]),
        (Role.GATEWAY, [x509.DNSName("gateway.example")]),
        (Role.GATEWAY, [x509.UniformResourceIdentifier(URL), x509.DNSName("gateway.example")]),
        (Role.GATEWAY, [x509.UniformResourceIdentifier(f"{URL}{n}") for n in range(5)]),
        *(
            (Role.GATEWAY, [x509.UniformResourceIdentifier(url)])
            for url in (
                "http://gateway.example",
                "https://gateway.example/v1",
                "https://user@gateway.example",
                "https://gateway.example:0",
                "https://GATEWAY.example",
                "https://gateway.example\n",
                "https://",
                "https://169.254.169.254#",
                "file:///etc/passwd",
            )
        ),
    ],
)
def test_an_address_that_is_none_is_refused_with_its_certificate(
    world: World, role: Role, names: list[x509.GeneralName]
) -> None:
    """One rule a case: else a certificate would send everybody's signed requests somewhere else."""
    assert world.code(certificate_value(reached(world, role, names))) is Code.CERTIFICATE_INVALID


def test_an_address_that_is_none_is_not_asked_for(tmp_path: Path) -> None:
    """And no key waits for it."""
    with pytest.raises(Malformed):
        pki.request(
            tmp_path / "keys", "gateway", name="g", uscc=DEPARTMENT, role=Role.GATEWAY, urls=("http://gateway.example",)
        )
    assert not (tmp_path / "keys").exists()
