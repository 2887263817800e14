"""What holds for every input: one encoding a value, keys bound to claims, and no exception but ours."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import audit, disclosure, envelope, hpke, merkle, messages, sealing, session
from bus.envelope import Claims, Subject
from bus.opening import decode_section, open_section
from bus.pki import parse_certificate
from bus.proof import Proof, ProofVerifier
from bus.trust import Trust
from schemas.avro import wire_codec, wire_schema
from schemas.errors import Code, DeptbusError, Malformed, Refused
from schemas.item import ItemSchema
from tests.vectors import entries, world
from tests.vectors import messages as message_vectors
from tests.vectors.world import GOOD, SCHEMA

FEW = settings(max_examples=30, deadline=None)
WIRE = (
    "AuditEntry",
    "BusCertificate",
    "Disclosure",
    "Envelope",
    "Grant",
    "KeyRequest",
    "LoggedEntry",
    "Secrets",
    "Session",
    "Standing",
)

hashes = st.binary(min_size=32, max_size=32)
ids = st.binary(min_size=16, max_size=16)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
days = st.dates()
int32 = st.integers(-(2**31), 2**31 - 1)


def values(schema: Any, named: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    """Values of an Avro schema, as the codec returns them."""
    named = {} if named is None else named
    if isinstance(schema, list):
        return st.one_of(*[_branch(part, named) for part in schema])
    if isinstance(schema, str):
        if schema in named:
            return values(named[schema], named)
        return {
            "null": st.none(),
            "int": int32,
            "long": st.integers(-(2**63), 2**63 - 1),
            "string": texts,
            "bytes": st.binary(max_size=40),
        }[schema]
    if "name" in schema:
        named[schema["name"]] = schema
    match schema["type"]:
        case "record":
            return st.fixed_dictionaries({f["name"]: values(f["type"], named) for f in schema["fields"]})
        case "array":
            return st.lists(values(schema["items"], named), max_size=3)
        case "fixed":
            return st.binary(min_size=schema["size"], max_size=schema["size"])
        case "enum":
            return st.sampled_from(schema["symbols"])
    match schema.get("logicalType"):
        case "date":
            return days
        case "timestamp-micros":
            return times
    return values(schema["type"], named)


def _branch(part: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    found = values(part, named)
    if isinstance(part, dict) and part["type"] == "record":
        return st.tuples(st.just(f"deptbus.v1.{part['name']}"), found)
    return found


@pytest.mark.parametrize("name", WIRE)
@given(data=st.data())
@FEW
def test_every_codec_reads_what_it_writes_and_writes_what_it_reads(name: str, data: st.DataObject) -> None:
    codec = wire_codec(name)
    value = data.draw(values(wire_schema(name)))
    encoded = codec.encode(value)
    assert codec.decode(encoded) == value
    assert codec.encode(codec.decode(encoded)) == encoded


@pytest.mark.parametrize("name", WIRE)
@given(data=st.data())
@FEW
def test_whatever_a_codec_accepts_has_this_one_encoding(name: str, data: st.DataObject) -> None:
    codec = wire_codec(name)
    encoded = bytearray(codec.encode(data.draw(values(wire_schema(name)))))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        value = codec.decode(bytes(encoded))
    except Malformed:
        return
    assert codec.encode(value) == encoded


# Parsers


def _parsers() -> dict[str, tuple[Callable[[bytes], Any], bytes]]:
    """Every function that takes foreign bytes, and bytes that it accepts."""
    authority = world.CA.certificate
    key = world.CONSUMER_KEM

    def grant(data: bytes) -> Any:
        return messages.open_grant(data, message_vectors.REQUEST_ID, key, _trust(), world.AT)

    def entry(data: bytes) -> Any:
        return audit.verify(data, world.ORIGIN, _trust(), ProofVerifier())

    return {
        "record": (envelope.parse, GOOD.value),
        "claims": (envelope.parse_claims, GOOD.claims),
        "session": (session.parse, message_vectors.session_value()),
        "key request": (messages.KeyRequest.decode, message_vectors.request_value()),
        "grant": (grant, message_vectors.grant_value()),
        "audit entry": (entry, entries.entry_value()),
        "disclosure": (lambda data: disclosure.verify(data, world.CA.der, world.ORIGIN), entries.disclosure_value()),
        "certificate record": (lambda data: _trust().add(data), world.GATEWAY_KEM_VALUE),
        "certificate": (lambda data: parse_certificate(data, authority), world.RECORD.der),
        "authority": (disclosure.der, world.CA.der),
        "KEM key": (hpke.PublicKey, world.GATEWAY_KEM.public),
        "item schema": (ItemSchema.parse, world.SCHEMA_DOCUMENT),
        "section": (lambda data: decode_section(SCHEMA, "business", data), SCHEMA.encode(world.VALUES)["business"]),
    }


PARSERS = _parsers()


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=300))
@FEW
def test_random_bytes_are_refused_with_our_error(name: str, data: bytes) -> None:
    _only_ours(PARSERS[name][0], data)


@pytest.mark.parametrize("name", PARSERS)
def test_changed_bytes_are_refused_with_our_error_or_accepted(name: str) -> None:
    """Bits flipped, bytes put in and taken out: near to what is right, where parsers go deep."""
    parse, good = PARSERS[name]
    chance = random.Random(name)
    for _ in range(80):
        data = bytearray(good)
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del data[at : at + chance.randrange(1, 40)]
            case _:
                data[at:at] = chance.randbytes(chance.randrange(1, 12))
        _only_ours(parse, bytes(data))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"type":"record"}',
        b'{"type":"record","name":"A","fields":{}}',
        b'{"type":"record","name":"A","fields":[1]}',
        b'{"type":"record","name":"A","fields":[{"section":"a"}]}',
        b'{"type":"record","name":"A","fields":[{"name":"b","section":"a"}]}',
        b'{"type":"record","name":"A","fields":[{"name":"b","section":"a","type":"nothing"}]}',
        b'{"type":"record","name":"A","fields":[{"name":"b","section":"a","type":["map","null"]}]}',
        b"[" * 100_000,
        b'{"a":' * 40_000,
        b"\xff\xfe",
    ],
)
def test_no_schema_document_raises_anything_else(document: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        ItemSchema.parse(document)
    assert refused.value.code is Code.CONFIG_INVALID


# One flipped bit in a record. For each part, the codes that a reader may give: nothing else, and never none.

PLAIN_CODES = {
    Code.RECORD_MALFORMED,
    Code.RECORD_NOT_CANONICAL,
    Code.SIGNATURE_INVALID,
}
CLAIMS_CODES = PLAIN_CODES | {
    Code.FORMAT_UNKNOWN,
    Code.SUITE_UNSUPPORTED,
    Code.CLAIMS_INVALID,
    Code.BODY_COUNT,
    Code.KEY_MISMATCH,
    Code.TOPIC_MISMATCH,
    Code.PROOF_INVALID,  # another leaf: the batch does not lie inside the session
    Code.CERTIFICATE_OWNER,
    Code.USCC_FORM,
    Code.USCC_CHECK,
    Code.USCC_ORG_CHECK,
}
BODIES_CODES = {Code.RECORD_MALFORMED, Code.RECORD_NOT_CANONICAL, Code.BODY_COUNT, Code.BODY_UNOPENABLE}
PROOF_CODES = PLAIN_CODES | {Code.PROOF_INVALID, Code.CERTIFICATE_UNKNOWN}
CLAIMS_AT = 5
BODIES_AT = CLAIMS_AT + len(GOOD.claims)
PROOF_AT = BODIES_AT + len(GOOD.bodies)
REGIONS = {
    "claims": (CLAIMS_AT, BODIES_AT, CLAIMS_CODES),
    "bodies": (BODIES_AT, PROOF_AT, BODIES_CODES),
    "path and signer": (PROOF_AT, len(GOOD.value) - 65, PROOF_CODES),
    "signature": (len(GOOD.value) - 64, len(GOOD.value), {Code.SIGNATURE_INVALID}),
}


@pytest.mark.parametrize("region", REGIONS)
def test_every_flipped_bit_of_a_record_is_refused(region: str) -> None:
    start, end, codes = REGIONS[region]
    for at in range(start, end):
        for bit in range(8):
            value = bytearray(GOOD.value)
            value[at] ^= 1 << bit
            with pytest.raises(DeptbusError) as refused:
                _read(bytes(value))
            assert refused.value.code in codes, f"byte {at}, bit {bit}"


def test_the_unchanged_record_is_read() -> None:
    assert _read(GOOD.value)["name"] == world.VALUES["name"]


# Keys are bound to claims


CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "record": st.uuids(version=4),
    "item": st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
    "schema": hashes,
    "operation": st.sampled_from(["CHANGED", "RENEWED", "SUSPENDED", "REVOKED", "ERASED"]),
    "issuer": texts,
    "subjects": st.lists(
        st.builds(Subject, st.sampled_from(["HOLDER", "CO_HOLDER"]), st.sampled_from(["PERSON", "PLACE"]), hashes),
        max_size=3,
    ).map(tuple),
    "licence": hashes,
    "pseudonyms": st.integers(2, 2**31 - 1),
    "sequence": st.integers(2, 2**62),
    "occurred_at": times,
    "valid_from": st.none() | days,
    "valid_until": days,
    "region": texts,
    "parents": st.lists(hashes, min_size=1, max_size=3).map(tuple),
    "session": ids,
    "leaf": st.integers(0, 65_535),
}


def test_every_claim_is_tried() -> None:
    assert CHANGES.keys() == set(Claims.__slots__) - {"sections"}


@pytest.mark.parametrize("name", CHANGES)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_changed_claim_gives_a_key_that_opens_nothing(name: str, data: st.DataObject) -> None:
    record = envelope.parse(GOOD.value)
    changed = replace(record.claims, **{name: data.draw(CHANGES[name])})
    prefix = envelope.encode_prefix(changed)
    if prefix == record.prefix:
        return
    section, commitment = record.claims.sections[0]
    node = sealing.LeafKeys(sealing.section_root(world.SESSION_SECRET, section)).node(record.claims.leaf)
    assert sealing.section_secret(node, record.prefix) == GOOD.secrets[section]
    with pytest.raises(Refused) as refused:
        sealing.open_body(sealing.section_secret(node, prefix), commitment, record.bodies[0])
    assert refused.value.code is Code.BODY_UNOPENABLE


@given(
    claims=st.builds(
        Claims,
        record=ids.map(lambda raw: UUID(bytes=raw)),
        item=texts,
        operation=st.sampled_from(["ISSUED", "ERASED"]),
        schema=hashes,
        issuer=texts,
        subjects=CHANGES["subjects"],
        licence=hashes,
        pseudonyms=int32,
        sequence=st.integers(-(2**63), 2**63 - 1),
        occurred_at=times,
        valid_from=st.none() | days,
        valid_until=st.none() | days,
        region=texts,
        parents=st.lists(hashes, max_size=3).map(tuple),
        session=ids,
        leaf=int32,
        sections=st.lists(st.tuples(texts, hashes), max_size=3).map(tuple),
    )
)
@FEW
def test_prefix_and_sections_are_the_claims_in_two_parts(claims: Claims) -> None:
    """The two codecs write what the whole envelope's codec writes."""
    proof = Proof(0, 1, (), bytes(32), bytes(64))
    apart = envelope.encode_prefix(claims) + envelope.encode_sections(claims.sections)
    whole = envelope.ENVELOPE.decode(apart + b"\x00" + envelope.encode_proof(proof))
    assert whole["claims"]["record"] == claims.record.bytes
    assert whole["claims"]["valid_until"] == claims.valid_until
    assert [(s["name"], s["commitment"]) for s in whole["claims"]["sections"]] == list(claims.sections)


@given(section=st.binary(max_size=300), secret=hashes)
@FEW
def test_a_sealed_section_opens_to_its_padded_self(section: bytes, secret: bytes) -> None:
    commitment, body = sealing.seal(secret, section)
    plain = sealing.open_body(secret, commitment, body)
    assert plain[: len(section)] == section
    sealing.check_padding(plain, len(section))
    assert len(plain) % sealing.PAD_TO == 0


# Trees


@cache
def _tree(size: int) -> tuple[list[bytes], bytes, list[list[bytes]]]:
    leaves = [merkle.leaf_hash(number.to_bytes(2, "big")) for number in range(size)]
    tree = merkle.levels(leaves)
    return leaves, tree[-1][0], merkle.paths(tree)


def test_inclusion_paths_of_all_small_trees_verify_and_nothing_else_does() -> None:
    for size in range(1, 131):
        leaves, root, paths = _tree(size)
        assert root == merkle.root(leaves)
        for index in range(size):
            assert merkle.root_from_path(leaves[index], index, size, paths[index]) == root
            assert not _leads(root, index, size, paths[index], root) or size == 1
            assert not _leads(leaves[index], index, size, paths[index][:-1], root) or size == 1
            assert not _leads(leaves[index], index, size, [*paths[index], root], root)


@given(size=st.integers(2, 130), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_path_proves_one_place_only(size: int, data: st.DataObject) -> None:
    leaves, root, paths = _tree(size)
    index, other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    path = list(paths[index])
    assert _leads(leaves[index], other, size, path, root) == (index == other)
    assert _leads(leaves[other], index, size, path, root) == (index == other)
    at = data.draw(st.integers(0, len(path) - 1))
    path[at] = bytes([path[at][0] ^ 1]) + path[at][1:]
    assert not _leads(leaves[index], index, size, path, root)


@given(leaves=st.lists(st.integers(0, 65_535), max_size=40), root=hashes)
@FEW
def test_leaf_keys_give_the_same_nodes_in_any_order(leaves: list[int], root: bytes) -> None:
    keys = sealing.LeafKeys(root)
    assert [keys.node(leaf) for leaf in leaves] == [_node(root, leaf) for leaf in leaves]


def test_leaf_keys_in_sequence() -> None:
    root = bytes(32)
    keys = sealing.LeafKeys(root)
    for start in (0, 4_000, 32_700, 65_400):
        assert [keys.node(leaf) for leaf in range(start, start + 136)] == [
            _node(root, leaf) for leaf in range(start, start + 136)
        ]


def _node(root: bytes, leaf: int) -> bytes:
    """As the format page says it, without what `LeafKeys` remembers."""
    node = root
    for bit in f"{leaf:016b}":
        node = sha256(bytes([0x10 + int(bit)]) + node).digest()
    return node


def _leads(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    try:
        return merkle.root_from_path(leaf, index, size, path) == root
    except Malformed:
        return False


def _read(value: bytes) -> dict[str, Any]:
    """A reader with every section's key: the fields."""
    record = envelope.parse(value)
    envelope.check_place(record, f"licence.{world.ITEM}", world.LICENCE)
    envelope.verify(record, world.ORIGIN, _trust(), ProofVerifier(), world.AT)
    fields: dict[str, Any] = {}
    for name, secret in GOOD.secrets.items():
        fields |= open_section(SCHEMA, record, name, secret)[0]
    return fields


@cache
def _trust() -> Trust:
    trust = Trust(world.CA.der)
    for value in world.trusted(world.RECORD, world.GATEWAY, world.RECORDER, world.DEPARTMENT):
        trust.add(value)
    return trust


def _only_ours(parse: Callable[[bytes], Any], data: bytes) -> None:
    with suppress(DeptbusError):
        parse(data)
