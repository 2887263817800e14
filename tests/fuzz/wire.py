"""Targets: what travels on Kafka and between consumer and gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import strategies as st

from bus import audit, deadletters, disclosure, envelope, hpke, merkle, messages, notices, pki, sealing, session, sets
from bus.cataloguefeed import CatalogueFeed, standing_value
from bus.gateway.release import parse_read
from bus.opening import decode_section
from bus.pki import Role, parse_certificate, parse_request
from bus.proof import ProofVerifier
from bus.transport import Cluster
from bus.trust import Trust, certificate_value, revocation_value, topic_key
from consent.model import PowerKind
from schemas.avro import wire_codec, wire_schema
from schemas.catalogue import Catalogue
from schemas.errors import Code, DeptbusError, Malformed
from schemas.item import ItemSchema
from tests.bus.test_properties import WIRE, values
from tests.consent.sound import ENTRY, POWER
from tests.fuzz.target import Target, as_json, chosen, of_json, scratch, vectors
from tests.vectors import messages as message_vectors
from tests.vectors import world


@cache
def trust() -> Trust:
    """All of the vectors' keys. What verifies once more changes nothing."""
    known = Trust(world.CA.der)
    for value in world.trusted(world.RECORD, world.GATEWAY, world.RECORDER, world.DEPARTMENT):
        known.add(value)
    known.add(world.GATEWAY_KEM_VALUE)
    known.add(world.CONSUMER_KEM_VALUE)
    return known


VERIFIER = ProofVerifier()


def _codec(name: str) -> Any:
    codec = wire_codec(name)

    def run(data: bytes) -> None:
        assert codec.encode(codec.decode(data)) == data, "read, and written in another way"

    return run, lambda: _wire_seeds(name)


def _wire_seeds(name: str) -> list[bytes]:
    match name:
        case "AuditEntry":
            return [audit.parse(value)[2] for value in vectors("audit-entry") if _is_entry(value)]
        case "BusCertificate":
            return list(_certificates())
        case "Disclosure":
            return list(vectors("disclosure"))
        case "Envelope":
            return [value[5:] for value in vectors("record")]
        case "Grant":
            return list(vectors("grant"))
        case "KeyRequest":
            return list(vectors("key-request"))
        case "LoggedEntry":
            return list(vectors("audit-entry"))
        case "Session":
            return list(vectors("session"))
        case "Standing":
            return list(_standings())
        case _:
            return [wire_codec("Secrets").encode([(bytes(32), "identity", bytes(32))])]


def _is_entry(value: bytes) -> bool:
    try:
        audit.parse(value)
    except Malformed:
        return False
    return True


def _certificates() -> Iterator[bytes]:
    yield from world.trusted(world.RECORD, world.GATEWAY)
    yield certificate_value(world.CA.der)
    yield world.GATEWAY_KEM_VALUE
    yield world.CONSUMER_KEM_VALUE
    yield revocation_value(world.fixed("nobody"), world.AT, None, world.CA)


def _record(data: bytes) -> None:
    record = envelope.parse(data)
    assert envelope.encode_prefix(record.claims) + envelope.encode_sections(record.claims.sections) == (
        record.claims_bytes
    )
    envelope.check_place(record, f"licence.{world.ITEM}", world.LICENCE)
    envelope.verify(record, world.ORIGIN, trust(), VERIFIER, world.AT)


def _session(data: bytes) -> None:
    read = session.parse(data)
    session.roots(read, world.GATEWAY_KEM, world.SCHEMA.sections)
    session.verify(read, trust(), world.AT, read.key)


def _key_request(data: bytes) -> None:
    request = messages.KeyRequest.decode(data)
    assert request.encode() == data
    for read in request.reads:
        parse_read(read)


def _grant(data: bytes) -> None:
    messages.open_grant(data, message_vectors.REQUEST_ID, world.CONSUMER_KEM, trust(), world.AT)


def _entry(data: bytes) -> None:
    entry, _, _ = audit.parse(data)
    as_json(audit.document(entry, 1, world.AT))
    notices.verify(data, world.ORIGIN, trust(), VERIFIER)


def _disclosure(data: bytes) -> None:
    disclosure.claims_of(data)
    disclosure.verify(data, world.CA.der, world.ORIGIN)


def _trust(data: bytes) -> None:
    trust().add(data)
    topic_key(data)


def _certificate(data: bytes) -> None:
    disclosure.der(data)
    parse_certificate(data, world.CA.certificate)


def _key(data: bytes) -> None:
    key = hpke.PublicKey(data[: hpke.PUBLIC_BYTES])
    key.seal(b"secret", b"info")
    world.GATEWAY_KEM.open(data[hpke.PUBLIC_BYTES :], b"info")


def _schema(data: bytes) -> None:
    """An item's schema document and, behind a NUL, bytes that are read by each of its sections."""
    document, _, section = data.partition(b"\0")
    schema = ItemSchema.parse(document)
    for name in schema.sections:
        decode_section(schema, name, section)


def _schema_seeds() -> Iterator[bytes]:
    yield world.SCHEMA_DOCUMENT + b"\0" + world.SCHEMA.encode(world.VALUES)["identity"]
    for item in Catalogue.load().items.values():
        yield item.schema.document + b"\0" + bytes(64)
    inner = {"type": "record", "name": "N", "fields": []}
    for kind in ("null", inner, {"type": "array", "items": "null"}, {"type": "fixed", "name": "F", "size": 0}):
        field = {"name": "a", "section": "s", "type": {"type": "array", "items": kind}}
        document = {"type": "record", "name": "R", "fields": [field]}
        yield as_json(document) + b"\0" + world.zigzag(2**60) + bytes(8)


def _section(data: bytes) -> None:
    name, _, plain = data.partition(b"\0")
    decode_section(world.SCHEMA, name.decode("ascii", "replace"), plain)


def _body(data: bytes) -> None:
    sealing.open_body(world.GOOD.secrets["identity"], world.GOOD.sections[0][1], data)


def _tree(data: bytes) -> None:
    """An index, a size, and hashes: of an inclusion and of a consistency path, and of a member of a set."""
    index, size = (int.from_bytes(data[at : at + 8], signed=True) for at in (0, 8))
    hashes = [data[at : at + 32] for at in range(16, len(data), 32)]
    first, *path = hashes or [b""]
    for check in (
        lambda: merkle.root_from_path(first, index, size, path),
        lambda: merkle.verify_consistency(index, size, first, b"".join(path[:1]), path[1:]),
        lambda: sets.verify(sets.Member(record=first, subjects=()), index, size, path, first),
    ):
        with suppress(DeptbusError):
            check()


def _tree_seeds() -> Iterator[bytes]:
    leaves = [merkle.leaf_hash(bytes([n])) for n in range(7)]
    paths = merkle.paths(merkle.levels(leaves))
    for index, path in enumerate(paths):
        yield index.to_bytes(8) + len(leaves).to_bytes(8) + leaves[index] + b"".join(path)


def _letter(document: Any) -> None:
    """Headers of a record on `retry.<group>` and `dlq.<group>`, where a name may stand without a value."""
    if not isinstance(document, dict):
        return
    headers = [
        (name, None if value is None else str(value).encode(errors="replace")) for name, value in document.items()
    ]
    message = SimpleNamespace(
        topic="retry.group", partition=0, offset=7, timestamp=1_750_000_000_000, headers=headers, key=b"", value=b""
    )
    letter = deadletters._letter(message, False)
    assert deadletters.origin_of(message) == letter.origin
    assert letter.origin.time.tzinfo is not None
    deadletters.headers_of(message, Malformed(Code.RECORD_MALFORMED, "fuzz"))


def _letter_seeds() -> Iterator[bytes]:
    origin = as_json({"topic": "licence.a", "partition": 0, "offset": 5, "timestamp": 1_750_000_000_000}).decode()
    yield as_json({"deptbus-origin": origin, "deptbus-code": "CONFLICT", "deptbus-detail": "twice", "own": "x"})
    yield as_json({"deptbus-origin": origin, "deptbus-replay-of": "7", "deptbus-code": None})
    yield as_json({"deptbus-origin": "{}"})


@cache
def _catalogue_feed() -> CatalogueFeed:
    async def catch_up() -> None:
        """There is no topic to catch up with."""

    known = SimpleNamespace(trust=trust(), catch_up=catch_up)
    return CatalogueFeed(cast(Any, known), world.OPERATOR, Cluster(servers="nowhere:9092"), "fuzz")


def _standing(data: bytes) -> None:
    """Nothing is waited for on the way: the coroutine ends at its first step."""
    with suppress(StopIteration):
        _catalogue_feed().accept(ENTRY.id.bytes, data, world.AT).send(None)


def _standings() -> Iterator[bytes]:
    for document in (ENTRY, replace(POWER, right=PowerKind.ISSUE)):
        yield standing_value(document, world.AT, world.GATEWAY)


def _drawn(name: str, number: int) -> st.SearchStrategy[bytes]:
    codec = wire_codec(name)
    return values(wire_schema(name)).map(lambda value: bytes([number]) + codec.encode(value))


def _requests() -> Iterator[bytes]:
    for role in (Role.RECORD, None):
        yield pki.request(scratch() / "requests", "fuzz", name="tax", uscc=world.CONSUMER, role=role)


_CODECS_RUN, _CODECS_SEEDS = chosen(*map(_codec, WIRE))
_KEPT_RUN, _KEPT_SEEDS = chosen(
    (_certificate, lambda: (world.RECORD.der, world.CA.der)),
    (_key, lambda: (world.GATEWAY_KEM.public + hpke.PublicKey(world.GATEWAY_KEM.public).seal(b"secret", b"info"),)),
    (_section, lambda: [b"business\0" + world.SCHEMA.encode(world.VALUES)["business"]]),
    (_body, lambda: vectors("section", "body")),
    (parse_request, _requests),
)

TARGETS = (
    Target(
        name="codecs",
        run=_CODECS_RUN,
        seeds=_CODECS_SEEDS,
        drawn=lambda: st.one_of([_drawn(name, number) for number, name in enumerate(WIRE)]),
    ),
    Target(name="record", run=_record, seeds=lambda: (*vectors("record"), *vectors("example"))),
    Target(name="session", run=_session, seeds=lambda: vectors("session")),
    Target(name="key-request", run=_key_request, seeds=lambda: _wire_seeds("KeyRequest")),
    Target(name="grant", run=_grant, seeds=lambda: vectors("grant")),
    Target(name="audit-entry", run=_entry, seeds=lambda: vectors("audit-entry")),
    Target(name="disclosure", run=_disclosure, seeds=lambda: vectors("disclosure")),
    Target(name="certificates", run=_trust, seeds=_certificates),
    Target(name="keys-and-bodies", run=_KEPT_RUN, seeds=_KEPT_SEEDS),
    Target(name="item-schema", run=_schema, seeds=_schema_seeds),
    Target(name="trees", run=_tree, seeds=_tree_seeds),
    Target(name="dead-letter", run=of_json(_letter), seeds=_letter_seeds),
    Target(name="standing", run=_standing, seeds=_standings),
)
