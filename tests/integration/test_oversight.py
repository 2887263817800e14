"""Supervision on a running bus: what a clerk does too much of is found once, and what is said of it can be checked."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from bus import audit, db, topics
from bus.identity import Identity
from bus.supervision import Rules
from bus.trustfeed import stop_task
from schemas.errors import Code
from tests.integration.bus import World

LIST = "/v1/audit/findings:list"


async def found(world: World, auditor: Identity, consumer: Identity, rule: str) -> list[Any]:
    answer = await world.post(auditor, LIST, {"consumer": consumer.uscc, "rule": rule})
    assert answer["next"] is None
    findings: list[Any] = answer["findings"]
    return findings


async def test_a_burst_is_found_once_and_points_at_its_evidence(world: World) -> None:
    """Sixty records in one request by a person: in the list, in the log, on the topic, on the metric. A system may."""
    parties, auditor = await world.parties(), await world.join(auditor=True)
    sealed, _ = await world.firms(parties.provider, 60)
    await world.keys(parties.consumer, sealed, operator="register-sync")
    await world.keys(parties.consumer, sealed, operator="clerk-7")
    await world.keys(parties.consumer, sealed[:5], operator="clerk-7")

    async def logged() -> bool:
        findings = await found(world, auditor, parties.consumer, "burst")
        return bool(findings) and findings[0]["entry"] is not None

    await world.until(logged)
    (finding,) = await found(world, auditor, parties.consumer, "burst")
    assert (finding["operator"], finding["severity"], finding["count"]) == ("clerk-7", "WARNING", 60)
    (subjects,) = await found(world, auditor, parties.consumer, "many-subjects")
    assert subjects["operator"] == "clerk-7"

    on_topic = [audit.parse(m.value)[0] for m in await world.on_topic(audit.TOPIC)]
    evidence = [one for one in on_topic if one.leaf_hash.hex() in finding["entries"]]
    assert len(evidence) == len(finding["entries"]) == 16
    assert {(e.kind, e.body["consumer"], e.body["operator"]) for e in evidence} == {
        ("Decision", parties.consumer.uscc, "clerk-7")
    }
    said = [one for one in on_topic if one.kind == "Finding" and one.group.hex() == finding["id"]]
    assert [one.leaf_hash.hex() for one in said] == [finding["entry"]]
    assert [hash_.hex() for hash_ in said[0].body["entries"]] == finding["entries"]
    (event,) = await world.on_topic(topics.SUPERVISION, bytes.fromhex(finding["id"]))
    told = json.loads(event.value)
    assert {name: told[name] for name in ("rule", "entries", "entry", "detail", "consumer")} == {
        name: finding[name] for name in ("rule", "entries", "entry", "detail", "consumer")
    }
    assert told["title"]["zh"] == "同一人员短时间内大量查询"
    async with httpx.AsyncClient(trust_env=False) as client:
        pages = [(await client.get(url)).text for url in world.place.metrics]
    assert any('bus_supervision_findings_total{rule="burst"}' in page for page in pages)


async def test_findings_are_the_auditors(world: World) -> None:
    parties = await world.parties()
    answer = await world.send_json(parties.consumer, LIST, {})
    assert (answer.status_code, answer.json()["code"]) == (403, Code.REQUEST_FORBIDDEN)


async def test_the_log_alone_gives_the_same_findings_and_says_none_again(
    world: World, dsn: str, tmp_path: Path
) -> None:
    """A recorder over an empty database finds what was found, sees that the log has it, and repeats nothing."""
    parties, auditor = await world.parties(), await world.join(auditor=True)
    sealed, _ = await world.firms(parties.provider)
    for _ in range(9):
        assert await world.codes(parties.consumer, sealed[0], operator="clerk-8", purpose="statistics") != ["PERMIT"]
    mine = "SELECT id, rule, first_index, last_index, entries, entry FROM supervision_finding WHERE consumer = $1"

    async def there(connection: asyncpg.Connection) -> bool:
        rows = await connection.fetch(mine, parties.consumer.uscc)
        return "refusals" in {row["rule"] for row in rows} and all(row["entry"] for row in rows)

    await world.until(lambda: there(world.db))
    wanted = await world.db.fetch(mine + " ORDER BY id", parties.consumer.uscc)
    await world.covered()
    await db.migrate(dsn)
    task = asyncio.create_task(world.recorder(dsn, tmp_path, rules=Rules.load()).run())
    empty = await db.connect(dsn)
    try:
        await world.until(lambda: there(empty), 60)
        assert await empty.fetch(mine + " ORDER BY id", parties.consumer.uscc) == wanted
    finally:
        await stop_task(task)
        await empty.close()
    said = Counter(entry.group for entry in await world.logged("Finding"))
    assert [said[row["id"]] for row in wanted] == [1] * len(wanted)
    assert len(await found(world, auditor, parties.consumer, "refusals")) == 1
