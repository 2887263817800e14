"""Vectors of Kafka records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from bus import merkle
from bus.pki import Role, Signer
from bus.trust import revocation_value
from tests.vectors import world
from tests.vectors.world import (
    CA,
    ISSUER,
    ITEM,
    LICENCE,
    ORIGIN,
    RECORD,
    Made,
    array,
    blob,
    days,
    make,
    nullable,
    subject,
    text,
    trusted,
    zigzag,
)

Case = tuple[str, str, dict[str, Any]]
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
OTHER_ISSUER = "11100000MB0143028R"
WRONG_ORGANISATION_CHECK = "11330411MB2A00010B"  # its last character is right


def record(
    note: str,
    made: Made,
    expect: str = "ok",
    *,
    key: bytes = LICENCE,
    topic: str = f"licence.{ITEM}",
    trust: list[bytes] | None = None,
    value: bytes | None = None,
    origin: str = ORIGIN,
) -> dict[str, Any]:
    """A vector's fields. What follows from a good one is in it too."""
    fields: dict[str, Any] = {
        "note": note,
        "expect": expect,
        "origin": origin,
        "authority": CA.der.hex(),
        "certificates": [one.hex() for one in (trusted(RECORD) if trust is None else trust)],
        "broker_time": f"{world.AT:%Y-%m-%dT%H:%M:%SZ}",
        "topic": topic,
        "key": key.hex(),
        "value": (made.value if value is None else value).hex(),
    }
    if expect == "ok":
        fields |= {
            "claims": made.claims.hex(),
            "prefix": made.prefix.hex(),
            "leaf_hash": made.leaf_hash.hex(),
            "checkpoint": made.checkpoint.hex(),
            "sections": [{"name": name, "commitment": c.hex()} for name, c in made.sections],
            "secrets": {name: secret.hex() for name, secret in made.secrets.items()},
        }
    return fields


def prefix(note: str, expect: str, /, *, topic: str = f"licence.{ITEM}", **raw: bytes) -> dict[str, Any]:
    """The usual record with claims replaced, signed as if they were right."""
    return record(note, make(prefix=raw), expect, topic=topic)


def cases() -> Iterator[Case]:
    for name, fields in {**_good(), **_encoding(), **_claims(), **_place(), **_proof(), **_certificate()}.items():
        yield "record", name, fields


def _good() -> dict[str, dict[str, Any]]:
    parents = array([world.fixed(f"parent {n}") for n in range(64)])
    many = array([subject(0 if n == 0 else 1, 0, world.fixed(f"holder {n}")) for n in range(64)])
    last = make(leaf=65_535, index=2, size=3)
    day = nullable(zigzag(days(date(2025, 6, 1))))
    return {
        "ok": record("The usual record: the second of a batch of three.", world.GOOD),
        "ok-batch-of-one": record("A batch of one has an empty path.", make(index=0, size=1)),
        "ok-last-of-three": record(
            "The last of three: its path is shorter than its neighbours'.", make(index=2, size=3)
        ),
        "ok-last-leaf": record("The last leaf of a session.", last),
        "ok-limits": record(
            "64 subjects, 64 parents, valid for one day.",
            make(prefix={"subjects": many, "parents": parents, "valid_from": day, "valid_until": day}),
        ),
        "ok-erased": record(
            "ERASED names no subjects and has no sections.",
            make(prefix={"operation": zigzag(9), "subjects": array([]), "sequence": zigzag(2)}, plain={}),
        ),
        "ok-other-schema-id": record(
            "The Confluent schema id is a hint and not checked.", make(head=b"\x00\xff\xff\xff\xff")
        ),
    }


def _encoding() -> dict[str, dict[str, Any]]:
    loose, broken = "RECORD_NOT_CANONICAL", "RECORD_MALFORMED"
    one, two = zigzag(1), zigzag(2)
    parent = world.fixed("parent 0")
    bodies = world.GOOD.bodies
    good = world.GOOD.value
    return {
        "long-varint": prefix("sequence 1 in two bytes.", loose, sequence=zigzag(1, longer=1)),
        "long-varint-of-length": prefix(
            "The length of region in two bytes.", loose, region=zigzag(6, longer=1) + b"330411"
        ),
        "long-varint-of-enum": prefix("operation 0 in two bytes.", loose, operation=zigzag(0, longer=1)),
        "long-varint-of-union": prefix("The branch of valid_until in two bytes.", loose, valid_until=b"\x80\x00"),
        "varint-over-64-bits": prefix(
            "sequence 1 + 2^64: ten bytes that overflow to 1.", loose, sequence=_overflowing()
        ),
        "array-in-two-blocks": prefix(
            "Two parents in a block each.", loose, parents=one + parent + one + parent + b"\x00"
        ),
        "array-with-block-size": prefix(
            "A negative count and the block's size.", loose, parents=zigzag(-1) + zigzag(32) + parent + b"\x00"
        ),
        "array-with-wrong-block-size": prefix(
            "A negative count and a size that is not the block's.", loose, parents=zigzag(-1) + two + parent + b"\x00"
        ),
        "array-trailing-block": record(
            "A block after the end of bodies.",
            make(bodies=bodies + one + blob(bytes(16)) + b"\x00"),
            loose,
        ),
        "array-long-end": prefix("The end of parents in two bytes.", loose, parents=b"\x80\x00"),
        "array-count-huge": prefix("2^40 parents are announced.", broken, parents=zigzag(2**40) + parent + b"\x00"),
        "union-index-out-of-range": prefix("Branch 2 of two.", broken, valid_until=zigzag(2)),
        "union-index-negative": prefix(
            "Branch -1, which some languages take for the last.", loose, valid_until=zigzag(-1) + zigzag(30_000)
        ),
        "enum-index-out-of-range": prefix("Operation 10 of ten.", broken, operation=zigzag(10)),
        "enum-index-negative": prefix(
            "Operation -10, which some languages take for the first.", loose, operation=zigzag(-10)
        ),
        "int-over-32-bits": prefix("pseudonyms 2^31.", broken, pseudonyms=zigzag(2**31)),
        "int-wraps-to-1": prefix("pseudonyms 2^32 + 1, which is 1 in 32 bits.", broken, pseudonyms=zigzag(2**32 + 1)),
        "date-beyond-9999": prefix("valid_until in the year 10000.", broken, valid_until=nullable(zigzag(2_932_897))),
        "timestamp-beyond-9999": prefix(
            "occurred_at in the year 10000.", broken, occurred_at=zigzag(253_402_300_800_000_000)
        ),
        "string-invalid-utf-8": prefix("A continuation byte alone.", broken, region=blob(b"33041\x80")),
        "string-overlong-utf-8": prefix("A digit in two bytes of UTF-8.", broken, region=blob(b"33041\xc0\xb1")),
        "string-surrogate": prefix("A UTF-16 surrogate in UTF-8.", broken, region=blob(b"330\xed\xa0\x80")),
        "string-length-negative": prefix("region of length -1.", broken, region=zigzag(-1)),
        "string-length-huge": prefix("region of length 2^40.", broken, region=zigzag(2**40) + b"330411"),
        "left-over-byte": record("One byte after the envelope.", make(tail=b"\x00"), loose),
        "cut-short": record("The last byte is missing.", world.GOOD, broken, value=good[:-1]),
        "empty-value": record("An empty value: only a null one is ignored.", world.GOOD, broken, value=b""),
        "short-value": record("The prefix alone.", world.GOOD, broken, value=good[:5]),
        "no-schema-prefix": record("The envelope without 00 and schema id.", world.GOOD, broken, value=good[5:]),
        "wrong-magic": record("01 instead of 00.", make(head=b"\x01\x00\x00\x00\x01"), broken),
        "format-2": prefix("A format that this page does not define.", "FORMAT_UNKNOWN", format=zigzag(2)),
        "format-0": prefix("Formats count from 1.", "FORMAT_UNKNOWN", format=zigzag(0)),
        "suite-sm": prefix("Reserved: SM2_SM4GCM_SM3.", "SUITE_UNSUPPORTED", suite=zigzag(1)),
        "suite-mldsa": prefix("Reserved: MLDSA44_AES256GCM_SHA256.", "SUITE_UNSUPPORTED", suite=zigzag(2)),
        "suite-unknown": prefix("No symbol has this number.", broken, suite=zigzag(3)),
    }


def _overflowing() -> bytes:
    return b"\x82" + b"\x80" * 8 + b"\x02"


def _claims() -> dict[str, dict[str, Any]]:
    bad = "CLAIMS_INVALID"
    day = nullable(zigzag(days(date(2025, 5, 31))))
    plain = {f"s{n}": b"" for n in range(65)}
    v4 = bytearray(world.PREFIX["record"])
    v4[6] = 0x40 | v4[6] & 0x0F
    v7_variant = bytearray(world.PREFIX["record"])
    v7_variant[8] = 0x0F & v7_variant[8]
    name, commitment = world.GOOD.sections[0]
    twice = array([text(name) + commitment] * 2)

    def item(name: str, note: str) -> dict[str, Any]:
        return prefix(note, bad, topic=f"licence.{name}", item=text(name))

    def issuer(code: str, note: str, expect: str) -> dict[str, Any]:
        return record(note, make(prefix={"issuer": text(code)}, issuer=code), expect)

    return {
        "item-upper-case": item("Example-permit", "Names have no upper case."),
        "item-65-characters": item("a" * 65, "Names have at most 64 characters."),
        "item-empty": item("", "Names have at least one character."),
        "item-digit-first": item("1permit", "Names begin with a letter."),
        "item-line-feed": item(ITEM + "\n", "A line feed at the end is no part of a name."),
        "section-upper-case": record("A section's name in upper case.", make(plain={"Identity": b"x"}), bad),
        "section-65-characters": record("A section's name of 65 characters.", make(plain={"s" * 65: b"x"}), bad),
        "section-twice": record("Two sections of one name.", make(sections=twice), bad),
        "sections-65": record("65 sections.", make(plain=plain), bad),
        "subjects-65": prefix("65 subjects.", bad, subjects=array([subject()] * 65)),
        "parents-65": prefix("65 parents.", bad, parents=array([world.fixed("parent 0")] * 65)),
        "issuer-check-character": issuer(ISSUER[:-1] + "F", "The issuer's last character.", "USCC_CHECK"),
        "issuer-organisation-check": issuer(
            WRONG_ORGANISATION_CHECK, "The check of the organisation code inside the issuer's.", "USCC_ORG_CHECK"
        ),
        "issuer-lower-case": issuer(ISSUER.lower(), "The issuer's code in lower case.", "USCC_FORM"),
        "issuer-empty": issuer("", "No issuer.", "USCC_MISSING"),
        "issuer-15-digits": issuer("330411000012345", "A registration number of before 2015.", "USCC_LEGACY_15"),
        "region-5-digits": prefix("Regions have six digits.", bad, region=text("33041")),
        "region-letter": prefix("Regions are digits.", bad, region=text("33041A")),
        "region-full-width": prefix("Full-width digits are no digits.", bad, region=text("33041１")),
        "record-uuid-4": prefix("The record's id is a UUID of version 4.", bad, record=bytes(v4)),
        "record-uuid-variant": prefix("The record's id has another variant.", bad, record=bytes(v7_variant)),
        "valid-until-before-valid-from": prefix("valid_until is the day before valid_from.", bad, valid_until=day),
        "erased-with-subjects": record("ERASED with a subject.", make(prefix={"operation": zigzag(9)}, plain={}), bad),
        "erased-with-sections": record(
            "ERASED with sections.", make(prefix={"operation": zigzag(9), "subjects": array([])}), bad
        ),
        "sequence-0": prefix("Sequences count from 1.", bad, sequence=zigzag(0)),
        "sequence-over-2-62": prefix("A sequence of 2^62 + 1.", bad, sequence=zigzag(2**62 + 1)),
        "pseudonyms-0": prefix("Generations count from 1.", bad, pseudonyms=zigzag(0)),
        "leaf-65536": record("A leaf beyond the last.", make(leaf=65_536), bad),
        "leaf-negative": record("A leaf before the first.", make(leaf=-1, index=0, size=1), bad),
    }


def _place() -> dict[str, dict[str, Any]]:
    good = world.GOOD
    body = blob(bytes(80))
    return {
        "key-mismatch": record("The Kafka key is another licence.", good, "KEY_MISMATCH", key=world.fixed("another")),
        "key-empty": record("The Kafka key is empty.", good, "KEY_MISMATCH", key=b""),
        "topic-mismatch": record("The topic is another item's.", good, "TOPIC_MISMATCH", topic="licence.other-permit"),
        "bodies-one-too-few": record("One body for two sections.", make(bodies=array([body])), "BODY_COUNT"),
        "bodies-one-too-many": record("Three bodies for two sections.", make(bodies=array([body] * 3)), "BODY_COUNT"),
        "bodies-none": record("No body for two sections.", make(bodies=array([])), "BODY_COUNT"),
    }


def _proof() -> dict[str, dict[str, Any]]:
    bad, forged = "PROOF_INVALID", "SIGNATURE_INVALID"
    good = world.GOOD
    path = [merkle.leaf_hash(b"another record 0"), merkle.leaf_hash(b"another record 2")]
    signature = RECORD.sign(good.checkpoint)
    s = int.from_bytes(signature[32:], "little") + ED25519_ORDER
    siblings = [world.fixed(f"sibling {n}") for n in range(17)]
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    wrong = [bytes([path[0][0] ^ 1]) + path[0][1:], path[1]]

    def proof(note: str, expect: str, **raw: bytes) -> dict[str, Any]:
        return record(note, make(proof=raw), expect)

    return {
        "proof-size-0": proof("A batch of none.", bad, size=zigzag(0)),
        "proof-size-65537": record("A batch of 65,537.", make(leaf=0, index=0, size=65_537, path=siblings), bad),
        "proof-index-is-size": proof("Index 3 of three.", bad, index=zigzag(3)),
        "proof-index-negative": proof("Index -1.", bad, index=zigzag(-1)),
        "proof-int-over-32-bits": proof(
            "A size of 2^32 + 3, which is 3 in 32 bits.", "RECORD_MALFORMED", size=zigzag(2**32 + 3)
        ),
        "leaf-below-index": record("Leaf 0 as the second of a batch: its first leaf would be -1.", make(leaf=0), bad),
        "batch-beyond-session": record(
            "The last leaf as the first of two: the batch would end beyond the session.",
            make(leaf=65_535, index=0, size=2),
            bad,
        ),
        "path-too-short": proof("A hash is missing at the end of the path.", bad, path=array(path[:1])),
        "path-empty": proof("No path in a batch of three.", bad, path=array([])),
        "path-too-long": proof("A hash too many at the end of the path.", bad, path=array([*path, path[0]])),
        "path-of-batch-of-one-not-empty": record(
            "A path in a batch of one.", make(index=0, size=1, proof={"path": array(path[:1])}), bad
        ),
        "path-wrong-node": proof("One bit of the path.", forged, path=array(wrong)),
        "path-swapped": proof("The path from root to leaf.", forged, path=array(path[::-1])),
        "index-of-neighbour": record(
            "Index 0 instead of 1: the batch would begin a leaf later.", make(proof={"index": zigzag(0)}), forged
        ),
        "signature-flipped": proof("One bit of the signature.", forged, signature=blob(flipped)),
        "signature-63-bytes": proof("The signature's last byte is missing.", bad, signature=blob(signature[:63])),
        "signature-65-bytes": proof("A byte after the signature.", bad, signature=blob(signature + b"\x00")),
        "signature-empty": proof("No signature.", bad, signature=blob(b"")),
        "signature-s-not-reduced": proof(
            "S plus the group's order: RFC 8032 wants S below it, or a signature has two forms.",
            forged,
            signature=blob(signature[:32] + s.to_bytes(32, "little")),
        ),
        "claims-changed": record(
            "The region changed after signing.", make(after_signing=(text("330411"), text("330402"))), forged
        ),
        "commitment-changed": record(
            "A commitment changed after signing.",
            make(after_signing=(good.sections[0][1], world.fixed("commitment"))),
            forged,
        ),
        "other-bus": record("The same bytes on another bus.", make(origin="bus.example/other"), forged),
    }


def _certificate() -> dict[str, dict[str, Any]]:
    def signed_by(note: str, by: Signer, expect: str) -> dict[str, Any]:
        return record(note, make(by=by), expect, trust=trusted(RECORD, by))

    role = world.signer(Role.DEPARTMENT, ISSUER)
    other = world.signer(Role.RECORD, OTHER_ISSUER)
    old = world.signer(Role.RECORD, ISSUER, label="ended", begin=datetime(2024, 1, 1, tzinfo=UTC), end=world.BEGIN)
    future = world.signer(Role.RECORD, ISSUER, label="future", begin=world.AT + timedelta(seconds=1))
    at = world.AT
    revoked = revocation_value(RECORD.id, at, None, CA)
    later = revocation_value(RECORD.id, at + timedelta(seconds=1), at - timedelta(days=1), CA)
    return {
        "ok-revoked-later": record(
            "Revoked a second after: verification looks at the broker's time, admission flags the rest.",
            world.GOOD,
            trust=[*trusted(RECORD), later],
        ),
        "certificate-unknown": record(
            "Nobody published the signer's certificate.", world.GOOD, "CERTIFICATE_UNKNOWN", trust=[]
        ),
        "certificate-role": signed_by("A department key signed, not a record key.", role, "CERTIFICATE_ROLE"),
        "certificate-owner": signed_by("Another department's record key signed.", other, "CERTIFICATE_OWNER"),
        "certificate-ended": signed_by("The certificate ended before the broker's time.", old, "CERTIFICATE_EXPIRED"),
        "certificate-not-begun": signed_by("The certificate begins a second later.", future, "CERTIFICATE_EXPIRED"),
        "certificate-revoked": record(
            "Revoked at the broker's time.", world.GOOD, "CERTIFICATE_REVOKED", trust=[*trusted(RECORD), revoked]
        ),
    }
