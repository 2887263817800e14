"""What can be done to records, sessions, grants, entries and disclosures on their way: seen offline, by its code.

Each part is genuine: only put where it does not belong, or changed by one bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bus import envelope, merkle
from bus.envelope import Record
from bus.opening import open_section
from bus.proof import ProofVerifier, sign_batch
from bus.trust import Trust
from schemas.errors import Code, DeptbusError
from tests.bus.test_vectors import CHECKS, VECTORS
from tests.vectors import world

OTHER_LEAF = world.LEAF + 16  # of the same session, in a batch of its own
TRUST = Trust(world.CA.der)
for _value in world.trusted(world.RECORD):
    TRUST.add(_value)


@dataclass(frozen=True, slots=True)
class Two:
    """Two genuine records of one issuer, item and session, with their sections' secrets."""

    one: Record
    secrets: dict[str, bytes]
    other: Record


@pytest.fixture(scope="module")
def two() -> Two:
    other_values = world.VALUES | {"name": "另一家示范公司", "staff": 13}
    other = world.make(leaf=OTHER_LEAF, index=2, size=4, plain=world.SCHEMA.encode(other_values))
    return Two(envelope.parse(world.GOOD.value), dict(world.GOOD.secrets), envelope.parse(other.value))


def value_of(record: Record) -> bytes:
    """The bytes of a record that was put together anew."""
    return envelope.encode_value(1, record.claims_bytes, record.bodies, record.proof)


def read(value: bytes, secrets: dict[str, bytes]) -> None:
    """Everything that a reader does."""
    record = envelope.parse(value)
    envelope.check_place(record, f"licence.{world.ITEM}", world.LICENCE)
    envelope.verify(record, world.ORIGIN, TRUST, ProofVerifier(), world.AT)
    for name, secret in secrets.items():
        open_section(world.SCHEMA, record, name, secret)


def with_sections(two: Two, sections: tuple[tuple[str, bytes], ...], bodies: tuple[bytes, ...]) -> bytes:
    claims = two.one.prefix + envelope.encode_sections(sections)
    return value_of(replace(two.one, claims_bytes=claims, bodies=bodies))


def body_of_another(two: Two) -> bytes:
    return value_of(replace(two.one, bodies=(two.other.bodies[0], *two.one.bodies[1:])))


def section_of_another(two: Two) -> bytes:
    sections = (two.other.claims.sections[0], *two.one.claims.sections[1:])
    return with_sections(two, sections, (two.other.bodies[0], *two.one.bodies[1:]))


def bodies_exchanged(two: Two) -> bytes:
    return value_of(replace(two.one, bodies=two.one.bodies[::-1]))


def sections_exchanged(two: Two) -> bytes:
    return with_sections(two, two.one.claims.sections[::-1], two.one.bodies[::-1])


def sections_renamed(two: Two) -> bytes:
    (first, a), (second, b) = two.one.claims.sections
    return with_sections(two, ((first, b), (second, a)), two.one.bodies[::-1])


def section_left_out(two: Two) -> bytes:
    return with_sections(two, two.one.claims.sections[:1], two.one.bodies[:1])


def proof_of_another(two: Two) -> bytes:
    return value_of(replace(two.one, proof=two.other.proof))


def path_of_another_batch(two: Two) -> bytes:
    return value_of(replace(two.one, proof=replace(two.one.proof, path=two.other.proof.path)))


def signature_of_another_batch(two: Two) -> bytes:
    return value_of(replace(two.one, proof=replace(two.one.proof, signature=two.other.proof.signature)))


def batch_signed_for_another_place(two: Two) -> bytes:
    """The issuer's own signature over the right tree, under the origin of another batch."""
    origin = envelope.batch_origin(world.ORIGIN, world.ISSUER, world.SESSION_ID, OTHER_LEAF)
    (proof,) = sign_batch(world.RECORD, origin, [two.one.leaf_hash])
    return value_of(replace(two.one, proof=proof))


def claims_of_another(two: Two) -> bytes:
    return value_of(replace(two.one, claims_bytes=two.other.claims_bytes))


def not_signed(two: Two) -> bytes:
    return value_of(replace(two.one, proof=replace(two.one.proof, signature=bytes(64))))


PUT_TOGETHER: dict[Callable[[Two], bytes], Code] = {
    body_of_another: Code.BODY_UNOPENABLE,
    section_of_another: Code.SIGNATURE_INVALID,
    bodies_exchanged: Code.BODY_UNOPENABLE,
    sections_exchanged: Code.SIGNATURE_INVALID,
    sections_renamed: Code.SIGNATURE_INVALID,
    section_left_out: Code.SIGNATURE_INVALID,
    proof_of_another: Code.SIGNATURE_INVALID,
    path_of_another_batch: Code.SIGNATURE_INVALID,
    signature_of_another_batch: Code.SIGNATURE_INVALID,
    batch_signed_for_another_place: Code.SIGNATURE_INVALID,
    claims_of_another: Code.SIGNATURE_INVALID,
    not_signed: Code.SIGNATURE_INVALID,
}


@pytest.mark.parametrize("attack", PUT_TOGETHER, ids=lambda attack: attack.__name__)
def test_genuine_parts_put_together_otherwise(two: Two, attack: Callable[[Two], bytes]) -> None:
    read(value_of(two.one), two.secrets)
    with pytest.raises(DeptbusError) as refused:
        read(attack(two), two.secrets)
    assert refused.value.code is PUT_TOGETHER[attack]


def test_a_leaf_hash_is_no_node() -> None:
    """A tree whose leaf is another tree's node: what is hashed as a leaf is never taken for an inner node."""
    left, right = merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")
    assert merkle.leaf_hash(left + right) != merkle.root([left, right])


# Bits


def vector(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
    return found


def test_a_flipped_bit_of_any_byte_is_refused() -> None:
    """Of what is signed beside records: each byte, and of each another bit."""
    for name in ("session/ok", "grant/ok", "disclosure/ok", "audit-entry/ok-decision"):
        good, check = vector(name), CHECKS[name.partition("/")[0]]
        check(good)
        value = bytes.fromhex(good["value"])
        for at in range(len(value)):
            flipped = value[:at] + bytes([value[at] ^ 1 << at % 8]) + value[at + 1 :]
            with pytest.raises(DeptbusError):
                check(good | {"value": flipped.hex()})


def test_only_the_schema_id_may_be_anything() -> None:
    """Four bytes for other people's tools: nothing is decided by them, so nobody signs them."""
    good = vector("record/ok")
    value = bytearray.fromhex(good["value"])
    value[1:5] = b"\xff" * 4
    CHECKS["record"](good | {"value": value.hex()})
