"""Attacks on a running bus: each is refused with its code, and afterwards firms are published and opened as before."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from adapters.sink import PostgresSink
from bus import db, envelope, session
from bus.sealer import Sealer
from bus.subscriber import Opened
from bus.transport import client_context
from schemas.errors import Code
from tests.integration.bus import LICENCE, TAX, Parties, World, draft, fresh_firm, tax_draft

TOPIC = f"licence.{LICENCE}"
SQL = "'); DROP TABLE record; --"
HOSTILE = f"=cmd|'/C calc'!A0{SQL}\n\x1b[2J</script><script>alert(1)</script>%s{{{{7*7}}}}\u202e"
CROWD = 10_000
CROWD_SECONDS = 30.0

Message = tuple[str, bytes | None, bytes]


@pytest.fixture
async def parties(world: World) -> AsyncIterator[Parties]:
    """A provider and a consumer, for whom the bus does afterwards what it did before."""
    made = await world.parties()
    yield made
    (sealed,), (values,) = await world.firms(made.provider)
    for gateway in (0, 1):
        grant, keys = await world.keys(made.consumer, [sealed], gateway)
        assert world.open(sealed, keys)["name"] == values["name"], grant.results


async def ruled(world: World, *messages: Message) -> list[str]:
    """The recorder's code for each message, empty for one that it did not refuse."""
    places = await world.produce(*messages)
    topics = {topic for topic, _, _ in messages}
    await world.judged([cast(Any, SimpleNamespace(topic=topic)) for topic in topics])
    codes = {topic: await world.refusals(topic, places) for topic in topics}
    return [codes[topic][at] for at, (topic, _, _) in enumerate(messages)]


def flipped(value: bytes, at: int) -> bytes:
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


async def test_records_that_are_not_what_was_signed_never_count(world: World, parties: Parties) -> None:
    """Bits, parts of others, other places: the recorder names each, and the genuine ones between them are admitted."""
    sealer = await world.sealer(parties.provider)
    one, other = sealer.seal([draft(fresh_firm()), draft(fresh_firm())])
    (late,) = sealer.seal([draft(fresh_firm())])
    a, b = envelope.parse(one.value), envelope.parse(other.value)
    bits = range(5, len(one.value), len(one.value) // 60)
    exchanged = envelope.encode_value(1, a.claims_bytes, a.bodies, replace(a.proof, path=b.proof.path))
    sections = (b.claims.sections[0], *a.claims.sections[1:])
    mixed = a.prefix + envelope.encode_sections(sections)
    messages: dict[str, tuple[Message, set[Code]]] = {
        "no record": ((TOPIC, one.key, b"\x00" * 9), {Code.RECORD_MALFORMED}),
        "an empty value": ((TOPIC, one.key, b""), {Code.RECORD_MALFORMED}),
        "a byte more": ((TOPIC, one.key, one.value + b"\x00"), {Code.RECORD_NOT_CANONICAL}),
        "another licence's key": ((TOPIC, other.key, one.value), {Code.KEY_MISMATCH}),
        "another item's topic": ((f"licence.{TAX}", one.key, one.value), {Code.TOPIC_MISMATCH}),
        "the path of a neighbour": ((TOPIC, one.key, exchanged), {Code.SIGNATURE_INVALID}),
        "the proof of another batch": (
            (TOPIC, one.key, envelope.encode_value(1, a.claims_bytes, a.bodies, envelope.parse(late.value).proof)),
            {Code.SIGNATURE_INVALID, Code.PROOF_INVALID},
        ),
        "a section of another record": (
            (TOPIC, one.key, envelope.encode_value(1, mixed, (b.bodies[0], *a.bodies[1:]), a.proof)),
            {Code.SIGNATURE_INVALID},
        ),
    }
    codes = await ruled(world, *(message for message, _ in messages.values()))
    assert [name for name, code in zip(messages, codes, strict=True) if code not in messages[name][1]] == [], codes
    # Bodies are the readers' to check: what is signed are their commitments. All else is named here.
    covered = [at for at in bits if not _in_bodies(one.value, at)]
    assert "" not in await ruled(world, *((TOPIC, one.key, flipped(one.value, at)) for at in covered))
    assert await ruled(world, *((s.topic, s.key, s.value) for s in (one, other, late))) == ["", "", ""]
    assert [await world.codes(parties.consumer, sealed) for sealed in (one, other, late)] == [[Code.PERMIT]] * 3


def _in_bodies(value: bytes, at: int) -> bool:
    record = envelope.parse(value)
    claims_end = 5 + len(record.claims_bytes)
    return claims_end <= at < len(value) - len(envelope.encode_proof(record.proof))


async def test_a_body_that_was_changed_opens_nothing_and_blocks_nobody(world: World, parties: Parties) -> None:
    """The recorder can't see it, the reader does: a dead letter with its code, and the next record is handed over."""
    group = await world.group(parties.consumer)
    sealer = await world.sealer(parties.provider)
    bad, good = sealer.seal([draft(fresh_firm()), draft(fresh_firm())])
    record = envelope.parse(bad.value)
    bodies = (flipped(record.bodies[0], 9), *record.bodies[1:])
    changed = envelope.encode_value(1, record.claims_bytes, bodies, record.proof)
    assert await ruled(world, (TOPIC, bad.key, changed), (TOPIC, good.key, good.value)) == ["", ""]
    assert await handed_over(world, parties, group) == [good.leaf_hash]
    (letter,) = await world.letters(parties.consumer, group)
    assert dict(letter.headers)["deptbus-code"] == Code.BODY_UNOPENABLE.encode()


async def handed_over(world: World, parties: Parties, group: str) -> list[bytes]:
    handed: list[bytes] = []

    async def handle(batch: Sequence[Opened]) -> None:
        handed.extend(one.leaf_hash for one in batch)

    await world.within(world.subscriber(parties.consumer, group).drain(handle), 30)
    return handed


async def test_a_null_over_a_licence_takes_nothing_away(world: World, parties: Parties) -> None:
    """Whoever may write to the topic can't unpublish: null is passed over, and the licence is opened as before."""
    group = await world.group(parties.consumer)
    (sealed,), _ = await world.firms(parties.provider)
    await world.produce((TOPIC, sealed.key, cast(bytes, None)))
    assert await ruled(world, (TOPIC, sealed.key, b"")) == [Code.RECORD_MALFORMED]
    assert await world.codes(parties.consumer, sealed) == [Code.PERMIT]
    assert await handed_over(world, parties, group) == [sealed.leaf_hash]


async def test_an_older_version_that_comes_again_is_the_older_version(world: World, parties: Parties) -> None:
    """A replay of a licence's first record, after its second: the second stays what counts."""
    (first,), (values,) = await world.firms(parties.provider)
    (second,) = await world.publish(parties.provider, draft(values, 2))
    assert await ruled(world, (TOPIC, first.key, first.value)) == [""]
    assert await world.codes(parties.consumer, first) == [Code.SUPERSEDED]
    assert await world.codes(parties.consumer, second) == [Code.PERMIT]
    row = await world.db.fetchrow("SELECT sequence FROM licence WHERE licence = $1", first.key)
    assert row["sequence"] == 2


async def test_a_session_serves_who_began_it_for_what_it_was_begun(world: World, parties: Parties) -> None:
    """Another department's session, one for another item, and a value that takes the place of one that stands."""
    issuer = await world.join(issues=[(LICENCE, ""), (TAX, "")])
    theirs, mine = await world.sealer(parties.provider), await world.sealer(issuer)
    taxes = await world.sealer(issuer, TAX)
    began, other_item = theirs._session, mine._session
    assert began is not None
    assert other_item is not None
    (of_another,) = under(mine, began).seal([draft(fresh_firm())])
    under(mine, other_item)
    (of_other_item,) = under(taxes, other_item).seal([tax_draft(fresh_firm())])
    assert await ruled(world, *((s.topic, s.key, s.value) for s in (of_another, of_other_item))) == [
        Code.SESSION_UNKNOWN,
        Code.SESSION_MISMATCH,
    ]
    renamed = replace(began, sealed=flipped(began.sealed, 40))
    value = session._CODEC.encode({name: getattr(renamed, name) for name in session._FIELDS})
    (place,) = await world.produce((session.TOPIC, began.key, value))
    (record,) = theirs.seal([draft(fresh_firm())])
    assert await ruled(world, (record.topic, record.key, record.value)) == [""]
    assert await world.refusals(session.TOPIC, [place]) == [Code.SIGNATURE_INVALID]
    assert await world.codes(parties.consumer, record) == [Code.PERMIT]


def under(sealer: Sealer, began: session.Session) -> Sealer:
    """A sealer that names this session, whoever began it."""
    sealer._session = began
    sealer._next_leaf = 1_000
    return sealer


async def test_what_is_anothers_is_not_seen_and_not_done(world: World, parties: Parties) -> None:
    """Another's agreement, consent, purpose, case."""
    (sealed,), (values,) = await world.firms(parties.provider)
    consent = await world.consent(parties, values)
    stranger = await world.join(receives=[LICENCE])

    async def said(path: str, **body: Any) -> str:
        answer = await world.send_json(stranger, path, body)
        return cast(str, answer.json()["code"])

    for kind, document in (("agreements", parties.agreement), ("consents", consent)):
        shown = await said(f"/v1/{kind}:show", id=document["id"])
        assert shown in (Code.NOT_FOUND, Code.REQUEST_FORBIDDEN), kind
        act = "SUSPEND" if kind == "agreements" else "WITHDRAW"
        done = await said(f"/v1/{kind}:act", id=document["id"], act=act, reason="mine")
        assert done in (Code.NOT_FOUND, Code.REQUEST_FORBIDDEN), kind
    assert await world.codes(stranger, sealed) == [Code.AGREEMENT_NONE]
    assert await world.codes(stranger, sealed, ground="CONSENT", citation="") == [Code.AGREEMENT_NONE]
    assert await world.codes(parties.consumer, sealed, purpose="statistics") == [Code.AGREEMENT_PURPOSE]
    case = "2026-0001"
    assert await world.codes(parties.consumer, sealed, case=case) == [Code.PERMIT]
    await world.found(("case", case), ("consumer", parties.consumer.uscc))
    page = await world.send_json(stranger, "/v1/audit/entries:query", {"case": case})
    assert page.status_code in (400, 403) or page.json()["entries"] == []


BODIES: dict[str, bytes] = {
    "nested": b'{"act":' * 50_000,
    "nested in a list": b"[" * 100_000,
    "nested where anything may stand": b'{"changes":' + b"[" * 100_000,
    "a name twice": b'{"id":"00000000-0000-0000-0000-000000000000","act":"END","act":"SUSPEND","reason":""}',
    "a field that nobody knows": b'{"id":"00000000-0000-0000-0000-000000000000","act":"END","admin":true}',
    "no UTF-8": b'{"id":"\xff"}',
    "half a surrogate pair": b'{"id":"00000000-0000-0000-0000-000000000000","act":"END","reason":"\\ud800"}',
    "a number without end": b'{"id":' + b"9" * 10_000 + b"}",
    "nothing": b"",
    "a NUL": b"\x00",
}


async def test_a_signed_body_is_read_in_one_way_or_not_at_all(world: World, parties: Parties) -> None:
    for name, body in BODIES.items():
        for path in ("/v1/agreements:act", "/v1/policy:simulate", "/access/v1/evaluation"):
            answer = await world.send(parties.consumer, body, path=path)
            assert (answer.status_code, Code.REQUEST_MALFORMED in answer.text) == (400, True), (name, path, answer.text)


async def test_no_text_is_a_statement(world: World, parties: Parties) -> None:
    """Texts that PostgreSQL would run if they were put together with a statement, and the one that it can't hold."""
    auditor = await world.join(auditor=True)
    operator = SQL
    (sealed,), (values,) = await world.firms(parties.provider)
    assert await world.codes(parties.consumer, sealed, operator=operator, case=SQL, agent=None) == [Code.PERMIT]
    (found,) = await world.found(("operator", operator), ("consumer", parties.consumer.uscc))
    assert found.entry.body["case"] == SQL
    for text in (SQL, "a\x00b", "%", "_", "\\"):
        search = {
            "item": LICENCE,
            "subject": {"kind": "ORGANISATION", "id": values["uscc"]},
            "sections": ["identity"],
            "request": "00" * 16,
            "recipient": parties.consumer.kem.id.hex(),
            "purpose": text,
            "ground": text,
            "operator": text,
        }
        asked = (
            (parties.consumer, "/v1/licences:search", search),
            (parties.consumer, "/v1/licences:search", search | {"item": text, "purpose": "x", "ground": "x"}),
            (auditor, "/v1/audit/entries:query", {"case": text}),
            (auditor, "/v1/audit/entries:query", {"item": text, "operator": text}),
            (parties.provider, "/v1/sets:candidates", {"item": text, "region": text}),
            (parties.provider, "/v1/catalogue:show", {"id": text}),
        )
        for who, path, body in asked:
            answer = await world.send(who, json.dumps(body).encode(), path=path)
            assert answer.status_code in (200, 400, 403, 404), (path, text, answer.text)
    assert await world.db.fetchval("SELECT count(*) FROM record WHERE leaf_hash = $1", sealed.leaf_hash) == 1


async def test_a_licences_fields_are_text_wherever_they_come(world: World, parties: Parties, dsn: str) -> None:
    """From a publisher through the index into a department's own table: as written; with a NUL, a dead letter."""
    group = await world.group(parties.consumer)
    values = fresh_firm() | {"name": HOSTILE}
    nul = fresh_firm() | {"name": "甲\x00乙"}
    await world.publish(parties.provider, draft(values), draft(nul))
    table = f"licence{SQL}"[:30]
    async with PostgresSink(dsn, table, {"name": "text", "uscc": "text"}) as sink:
        await world.within(world.subscriber(parties.consumer, group).drain(sink.write), 30)
    connection = await db.connect(dsn)
    try:
        quoted = table.replace('"', '""')
        rows = await connection.fetch(f'SELECT name, uscc FROM "{quoted}"')
    finally:
        await connection.close()
    assert [(row["name"], row["uscc"]) for row in rows] == [(HOSTILE, values["uscc"])]
    (letter,) = await world.letters(parties.consumer, group)
    assert dict(letter.headers)["deptbus-code"] == Code.VALUE_INVALID.encode()
    for log in world.place.logs:
        text = log.read_text("utf-8", "replace")
        assert values["uscc"] not in text
        assert "alert(1)" not in text


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Enough of them for the whole crowd at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CROWD + 1_000
    enough = hard == resource.RLIM_INFINITY or hard >= wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard if enough else wanted))
    except (ValueError, OSError):
        pytest.skip(f"{wanted} open files are wanted: `ulimit -Hn` says {hard}")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
async def test_ten_thousand_idle_callers_shut_nobody_out(world: World, parties: Parties) -> None:
    """Most never greet, some greet and are silent, some stop in the middle of a request; a department is answered."""
    (sealed,), _ = await world.firms(parties.provider)
    where = urlsplit(world.place.gateways[1])
    address = (str(where.hostname), int(where.port or 0))
    tls = client_context(world.place.bus.tls_authority)
    crowd: list[socket.socket] = []
    began = time.monotonic()

    def gather() -> None:
        for number in range(CROWD):
            plain = socket.create_connection(address, timeout=CROWD_SECONDS)
            crowd.append(_greeted(plain, tls, address[0]) if number % 100 == 0 else plain)

    gathering = asyncio.create_task(asyncio.to_thread(gather))
    waits = []
    try:
        while not gathering.done():
            asked = time.monotonic()
            assert await world.codes(parties.consumer, sealed, 1) == [Code.PERMIT]
            waits.append(time.monotonic() - asked)
            await asyncio.sleep(0.2)
        await gathering
        assert len(crowd) == CROWD
        assert await world.codes(parties.consumer, sealed, 1) == [Code.PERMIT]
    finally:
        for one in crowd:
            one.close()
    assert time.monotonic() - began < CROWD_SECONDS
    assert max(waits) < 5, waits


def _greeted(plain: socket.socket, tls: ssl.SSLContext, name: str) -> socket.socket:
    """Through the handshake and into the middle of a request, if nobody else needed the place meanwhile."""
    with suppress(OSError):
        greeted = tls.wrap_socket(plain, server_hostname=name)
        greeted.sendall(b"POST /v1/keys HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")
        return greeted
    return plain
