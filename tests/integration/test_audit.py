"""The trail: append-only, the same from every reading of the topic, read only by whom it concerns, without names."""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import asyncpg
import httpx
import pytest

from bus import audit, db, envelope
from bus.identity import Identity
from bus.messages import open_grant
from bus.recorder.service import Recorder
from bus.trust import Trust
from bus.trustfeed import stop_task
from consent.decide import CHINA
from schemas.errors import Code
from tests.integration.bus import DUTY, LICENCE, PURPOSE, World, citizen_number, draft, fresh_firm

ENTRIES = "/v1/audit/entries:query"
SEARCH = "/v1/licences:search"


@pytest.mark.parametrize("table", ["audit_entry", "audit_subject"])
async def test_audit_rows_cannot_be_changed(world: World, table: str) -> None:
    """UPDATE, DELETE and TRUNCATE are refused by PostgreSQL itself, also to the owner of the tables."""
    parties = await world.parties()
    sealed, _ = await world.firms(parties.provider)
    await world.keys(parties.consumer, sealed)
    await world.rowed()
    count = await world.db.fetchval(f"SELECT count(*) FROM {table}")
    assert count
    for statement in (
        f"UPDATE {table} SET position = position",
        f"DELETE FROM {table}",
        f"TRUNCATE {table} CASCADE",
    ):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await world.db.execute(statement)
    assert await world.db.fetchval(f"SELECT count(*) FROM {table}") == count


async def test_the_topic_alone_gives_the_same_rows_again(world: World, dsn: str) -> None:
    """A recorder over an empty database writes the same leaf hashes at the same offsets, and the same subjects."""
    parties = await world.parties()
    sealed, _ = await world.firms(parties.provider)
    await world.keys(parties.consumer, sealed)
    await world.rowed()
    await db.migrate(dsn)
    bus = world.place.bus
    recorder = Recorder(
        bus.signer("recorder"),
        bus.origin,
        world.catalogue,
        Trust(bus.authority.signer.der),
        world.place.kafka,
        dsn,
    )
    entries = "SELECT position, leaf_hash, kind, consumer, permitted, refused FROM audit_entry ORDER BY position"
    subjects = "SELECT position, pseudonym FROM audit_subject ORDER BY position, pseudonym"
    task = asyncio.create_task(recorder.run())
    empty = await db.connect(dsn)
    try:
        wanted = await world.db.fetch(entries)

        async def replayed() -> bool:
            return len(await empty.fetch(entries)) >= len(wanted)

        await world.until(replayed, 30)
        assert await empty.fetch(entries) == wanted
        assert await empty.fetch(subjects) == await world.db.fetch(subjects)
    finally:
        await stop_task(task)
        await empty.close()


def search(identity: Identity, kind: str, number: str, **changed: Any) -> dict[str, Any]:
    body = {
        "item": LICENCE,
        "subject": {"kind": kind, "id": number},
        "sections": ["identity"],
        "request": secrets.token_hex(16),
        "recipient": identity.kem.id.hex(),
        "purpose": PURPOSE,
        "ground": "STATUTORY_DUTY",
        "operator": "counter-1",
        "citation": DUTY,
        "case": f"case-{secrets.token_hex(4)}",
    }
    return body | changed


async def found(world: World, identity: Identity, body: dict[str, Any]) -> list[Any]:
    """The identity sections that the search's own grant opens."""
    answer = await world.post(identity, SEARCH, body)
    if answer["grant"] is None:
        return []
    now = datetime.now(UTC)
    request = bytes.fromhex(body["request"])
    _, keys = open_grant(b64decode(answer["grant"]), request, identity.kem, world.trust, now)
    records = [envelope.parse(b64decode(text)) for text in answer["records"]]
    sections = [world.open_record(record, keys) for record in records if (record.leaf_hash, "identity") in keys]
    return sections


async def test_a_clerk_finds_licences_in_force_today_or_as_they_stood_and_leaves_no_name(world: World) -> None:
    """The grant of the same call opens them; no answer is logged too; no id is in a log line, metric or the trail."""
    number, stranger = citizen_number(), citizen_number()
    values = fresh_firm() | {"representative_id": number}
    renamed = values | {"name": "改名后的测试公司"}
    parties = await world.parties(superseded=True)
    today = datetime.now(CHINA).date()
    early = datetime.now(UTC) - timedelta(days=10)
    await world.publish(parties.provider, draft(values, occurred_at=early, valid_from=today - timedelta(days=10)))
    await world.publish(parties.provider, draft(renamed, 2, valid_from=today - timedelta(days=10)))
    ended = fresh_firm() | {"representative_id": number}
    await world.publish(parties.provider, draft(ended, valid_until=today - timedelta(days=1)))
    consumer = parties.consumer

    def names(sections: list[Any]) -> list[str]:
        return [section["name"] for section in sections]

    for kind, one in (("ORGANISATION", values["uscc"]), ("PERSON", number)):
        assert names(await found(world, consumer, search(consumer, kind, one))) == [renamed["name"]]
    before = search(consumer, "ORGANISATION", values["uscc"], as_of=str(today - timedelta(days=5)))
    assert names(await found(world, consumer, before)) == [values["name"]]
    too_early = search(consumer, "ORGANISATION", values["uscc"], as_of=str(today - timedelta(days=11)))
    assert await found(world, consumer, too_early) == []
    nobody = search(consumer, "PERSON", stranger)
    assert await found(world, consumer, nobody) == []
    (row,) = await world.rows("request = $1 AND kind = 'Reading'", bytes.fromhex(nobody["request"]))
    assert (row["consumer"], row["operator"]) == (consumer.uscc, "counter-1")
    # What is wrong with a request is said without its ids, and a number in a text is refused.
    wrong = number[:-1] + ("0" if number[-1] != "0" else "1")
    refused = [
        await world.send_json(consumer, SEARCH, search(consumer, "PERSON", wrong)),
        await world.send_json(consumer, SEARCH, search(consumer, "PERSON", number, case=f"concerning {number}")),
        await world.send_json(consumer, SEARCH, search(consumer, number, number)),
        await world.send_json(consumer, SEARCH, search(consumer, "PERSON", number) | {number: 1}),
        await world.send_json(consumer, SEARCH, search(consumer, "PERSON", number) | {"as_of": number}),
    ]
    assert [a.status_code for a in refused] == [400, 403, 400, 400, 400]
    assert refused[1].json()["code"] == Code.PERSONAL_ID

    secret_ids = [number, wrong, stranger, values["uscc"], ended["uscc"]]
    said = [a.text for a in refused] + [log.read_text("utf-8", "replace") for log in world.place.logs]
    async with httpx.AsyncClient(trust_env=False) as client:
        said += [(await client.get(url)).text for url in world.place.metrics]
    trail = b"".join(m.value for m in await world.on_topic(audit.TOPIC))
    for one in secret_ids:
        assert [text[:200] for text in said if one in text] == []
        assert one.encode() not in trail


async def test_the_auditor_reads_everything_and_a_department_its_own(world: World) -> None:
    """Whoever asks: the reading is on the topic, with the request's digest, when the answer arrives."""
    parties = await world.parties()
    other = await world.parties()
    auditor = await world.join(auditor=True)
    (mine,), (values,) = await world.firms(parties.provider)
    (theirs,), _ = await world.firms(other.provider)
    for one, who in ((mine, parties), (theirs, other)):
        await world.keys(who.consumer, [one])
    await world.rowed()
    start = await world.db.fetchval("SELECT min(position) FROM audit_entry WHERE record = $1", mine.leaf_hash)

    async def records(who: Identity, **asked: Any) -> set[str]:
        entries = (await world.post(who, ENTRIES, {"after": start - 1, "kind": "Decision", **asked}))["entries"]
        return {entry["record"] for entry in entries}

    both = {mine.leaf_hash.hex(), theirs.leaf_hash.hex()}
    assert await records(auditor) == both
    assert await records(auditor, consumer=other.consumer.uscc) == {theirs.leaf_hash.hex()}
    assert await records(auditor, subject={"kind": "ORGANISATION", "id": values["uscc"]}) == {mine.leaf_hash.hex()}
    for own in (parties.consumer, parties.provider):
        assert await records(own) == {mine.leaf_hash.hex()}
        assert await records(own, consumer=other.consumer.uscc) == set()
    body = b'{"limit": 3, "after": -%d}' % secrets.randbelow(10**9)
    answer = await world.send(auditor, body, path=ENTRIES)
    readings = [e for e in await world.logged("Reading") if e.body["digest"] == sha256(body).digest()]
    assert answer.status_code == 200
    assert [(e.body["reader"], e.body["returned"]) for e in readings] == [(auditor.uscc, 3)]
