"""The trail: append-only, the same from every reading of the topic, read only by whom it concerns, without names."""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from bus import audit, db, envelope
from bus.identity import Identity
from bus.messages import open_grant
from bus.trustfeed import stop_task
from consent.decide import CHINA
from schemas.errors import Code
from tests.integration.bus import DUTY, LICENCE, PURPOSE, World, citizen_number, draft, fresh_firm

ENTRIES = "/v1/audit/entries:query"
SEARCH = "/v1/licences:search"


@pytest.mark.parametrize("table", ["log_tile", "log_bundle", "log_term"])
async def test_the_stored_log_only_grows(world: World, table: str) -> None:
    """What would change or drop a row is refused by PostgreSQL itself, also to the owner of the tables."""
    parties = await world.parties()
    sealed, _ = await world.firms(parties.provider)
    await world.keys(parties.consumer, sealed)
    await world.covered()
    changes = {
        "log_tile": "hashes = substring(hashes FOR 32 * (length(hashes) / 32 - 1))",
        "log_bundle": "entries = overlay(entries PLACING '\\x00' FROM 10 FOR 1)",
        "log_term": "bits = ~bits",
    }
    (part,) = await world.db.fetchrow("SELECT max(tableoid::regclass::text) FROM " + table)
    for statement in (
        f"UPDATE {table} SET {changes[table]}",
        f"DELETE FROM {table}",
        f"DELETE FROM {part}",
        f"TRUNCATE {table} CASCADE",
        f"TRUNCATE {part} CASCADE",
    ):
        with pytest.raises(asyncpg.RaiseError, match="only grows"):
            await world.db.execute(statement)


async def test_the_topic_alone_gives_the_same_log_again(world: World, dsn: str, tmp_path: Path) -> None:
    """A recorder over an empty database makes the same tiles, bundles and index, byte for byte."""
    parties = await world.parties()
    sealed, _ = await world.firms(parties.provider)
    await world.keys(parties.consumer, sealed)
    size = await world.covered()
    await db.migrate(dsn)
    recorder = world.recorder(dsn, tmp_path)
    everything = [
        "SELECT level, number, hashes FROM log_tile ORDER BY 1, 2",
        "SELECT number, opened, starts, logged_at, entries FROM log_bundle ORDER BY 1",
        "SELECT term, day, bundle, bits FROM log_term ORDER BY 1, 2, 3",
        "SELECT dimension, value FROM log_word ORDER BY 1, 2",
    ]
    task = asyncio.create_task(recorder.run())
    empty = await db.connect(dsn)
    try:

        async def replayed() -> bool:
            return (await empty.fetchval("SELECT size FROM log_checkpoint") or 0) >= size

        await world.until(replayed, 30)
        await world.until(lambda: _same_size(world.db, empty))
        for query in everything:
            assert await empty.fetch(query) == await world.db.fetch(query)
    finally:
        await stop_task(task)
        await empty.close()


async def _same_size(one: Any, other: Any) -> bool:
    """The bus goes on while the test looks: equal sizes, and nothing that comes meanwhile."""
    query = "SELECT size FROM log_state"
    return bool(await one.fetchval(query) == await other.fetchval(query))


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
    (reading,) = await world.found(("request", nobody["request"]), ("kind", "Reading"))
    assert (reading.entry.body["reader"], reading.entry.body["operator"]) == (consumer.uscc, "counter-1")
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
    await world.covered()
    start = (await world.found(("record", mine.leaf_hash.hex())))[0].stored.index

    async def records(who: Identity, **asked: Any) -> set[str]:
        entries = (await world.post(who, ENTRIES, {"after": start - 1, "kind": "Decision", **asked}))["entries"]
        return {entry["body"]["record"] for entry in entries}

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
