"""Agreements from application to end, what is late and said once, corrections, disputes, and what may be passed on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
from aiokafka import AIOKafkaProducer

from bus import audit, db, metrics, topics
from bus.gateway import facts, rulebook
from bus.identity import Identity
from bus.kafka import producer
from bus.recorder.clock import DATA_LIFE, PURPOSE, Clock
from consent.calendar import NONE, Year
from consent.decide import CHINA
from consent.documents import Document
from consent.lifecycle import Act
from consent.model import AgreementState
from schemas.errors import Code
from tests.consent.test_deadlines import AGREEMENT, CORRECTION, DISPUTE
from tests.integration.bus import DUTY, LICENCE, World, key_request, reads
from tests.integration.bus import PURPOSE as FOR

APPLICATION = {
    "item": LICENCE,
    "sections": ["identity"],
    "purposes": [FOR],
    "grounds": ["STATUTORY_DUTY"],
    "duties": [DUTY],
    "valid_from": "2020-01-01",
}


async def refused(world: World, who: Identity, path: str, body: Mapping[str, Any]) -> str:
    answer = await world.send_json(who, path, body)
    assert answer.status_code != 200
    code: str = answer.json()["code"]
    return code


async def test_an_application_is_returned_once_and_a_refusal_names_its_reason(world: World) -> None:
    """Each act by its own side, in its own state; nobody else learns that there is anything."""
    provider, consumer, other = [await world.join(issues=[(LICENCE, "")]) for _ in range(3)]
    application = APPLICATION | {"provider": provider.uscc}
    made = await world.post(consumer, "/v1/agreements", application)
    forever = application | {"data_life": 40_000}
    assert await refused(world, consumer, "/v1/agreements", forever) == Code.REQUEST_MALFORMED
    act, show = "/v1/agreements:act", "/v1/agreements:show"
    one = {"id": made["id"]}

    deadline = (await world.post(provider, show, one))["deadline"]
    assert (deadline["limit"], deadline["verified"]) == ("ANSWER_CONDITIONAL", False)
    assert deadline["since"] == datetime.now(CHINA).date().isoformat()
    assert await refused(world, consumer, act, one | {"act": "ACCEPT"}) == Code.REQUEST_FORBIDDEN
    assert await refused(world, provider, act, one | {"act": "RETURN"}) == Code.REASON_MISSING
    assert await refused(world, provider, act, one | {"act": "EXPIRE"}) == Code.REQUEST_FORBIDDEN
    assert await refused(world, provider, act, one | {"act": "PROVISION"}) == Code.STATE_INVALID
    await world.act(provider, "agreements", made, "RETURN", "缺少使用依据")
    assert (await world.post(provider, show, one))["deadline"] is None
    assert await refused(world, consumer, act, one | {"act": "RESUBMIT"}) == Code.STATE_INVALID
    elsewhere = {"id": made["id"], "application": application | {"provider": other.uscc}}
    assert await refused(world, consumer, "/v1/agreements:resubmit", elsewhere) == Code.STATE_INVALID
    supplemented = {"id": made["id"], "application": application | {"basis": DUTY}}
    assert await refused(world, other, "/v1/agreements:resubmit", supplemented) == Code.NOT_FOUND
    again = await world.post(consumer, "/v1/agreements:resubmit", supplemented)
    assert (again["state"], again["revision"], again["basis"]) == ("SUBMITTED", 3, DUTY)
    assert await refused(world, provider, act, one | {"act": "RETURN", "reason": "又缺材料"}) == Code.STATE_INVALID

    for path, body in ((show, one), (act, one | {"act": "END"})):
        assert await refused(world, other, path, body) == Code.NOT_FOUND
    assert made["id"] not in {a["id"] for a in await world.post(other, "/v1/agreements:list", {})}

    await world.act(provider, "agreements", made, "ACCEPT")
    assert await refused(world, provider, act, one | {"act": "REFUSE"}) == Code.REASON_MISSING
    personal = {"act": "REFUSE", "reason": "见 110101199003074717 的材料"}
    assert await refused(world, provider, act, one | personal) == Code.PERSONAL_ID
    await world.act(provider, "agreements", made, "REFUSE", "超出职责范围")
    (listed,) = [a for a in await world.post(consumer, "/v1/agreements:list", {}) if a["id"] == made["id"]]
    assert (listed["state"], listed["deadline"]) == ("REFUSED", None)
    last = (await world.post(consumer, show, one))["acts"][-1]
    assert (last["act"], last["author"], last["reason"]) == ("REFUSE", provider.uscc, "超出职责范围")
    assert await refused(world, consumer, act, one | {"act": "END"}) == Code.STATE_INVALID


async def test_suspended_resumed_and_ended_on_every_gateway(world: World) -> None:
    """What one gateway was told counts on the other at once."""
    parties = await world.parties()
    (record,), _ = await world.firms(parties.provider)
    for who, act, reason, code in (
        (parties.provider, "SUSPEND", "数据质量问题", Code.AGREEMENT_SUSPENDED),
        (parties.provider, "RESUME", "", Code.PERMIT),
        (parties.consumer, "SUSPEND", "系统升级", Code.AGREEMENT_SUSPENDED),
        (parties.provider, "RESUME", "", Code.PERMIT),
        (parties.consumer, "END", "目的已实现", Code.AGREEMENT_ENDED),
    ):
        await world.act(who, "agreements", parties.agreement, act, reason, gateway=1)
        assert await world.codes(parties.consumer, record, 0) == [code]
        assert await world.codes(parties.consumer, record, 1) == [code]
    again = {"id": parties.agreement["id"], "act": "RESUME"}
    assert await refused(world, parties.provider, "/v1/agreements:act", again) == Code.STATE_INVALID


def a_clock(world: World, years: Mapping[int, Year] = NONE) -> Clock:
    bus = world.place.bus
    return Clock(bus.signer("recorder"), bus.origin, world.catalogue, years, world.place.dsn)


async def tick(world: World, clock: Clock, connection: asyncpg.Connection, now: datetime) -> None:
    sender: AIOKafkaProducer = await producer(world.place.kafka, "test")
    try:
        await clock.tick(connection, sender, now)
    finally:
        await sender.stop()


async def test_the_clock_ends_what_had_its_last_day(world: World) -> None:
    """Its own act, signed by the operator and in the log. The decision did not wait for it."""
    yesterday = datetime.now(CHINA).date() - timedelta(days=1)
    parties = await world.parties(valid_until=yesterday.isoformat())
    (record,), _ = await world.firms(parties.provider)
    assert await world.codes(parties.consumer, record) == [Code.AGREEMENT_ENDED]
    await tick(world, a_clock(world), world.db, datetime.now(CHINA))
    one = {"id": parties.agreement["id"]}
    shown = await world.post(parties.consumer, "/v1/agreements:show", one)
    assert (shown["state"], shown["acts"][-1]["act"]) == ("EXPIRED", "EXPIRE")
    assert shown["acts"][-1]["author"] == world.place.bus.operator
    found = await world.found(("kind", "Revision"), ("consumer", parties.consumer.uscc), count=6)
    last = found[-1].entry.body
    assert (last["act"], last["author"], last["hash"].hex()) == ("EXPIRE", world.place.bus.operator, shown["hash"])
    copies = [json.loads(m.value) for m in await world.on_topic(topics.RULES) if one["id"] in m.value.decode()]
    assert copies[-1]["state"] == "EXPIRED"
    assert await world.codes(parties.consumer, record, 1) == [Code.AGREEMENT_ENDED]


async def test_a_purpose_that_is_reached_is_said_in_the_log(world: World) -> None:
    """The agreement stands, and opens nothing more."""
    yesterday = datetime.now(CHINA).date() - timedelta(days=1)
    parties = await world.parties(purpose_until=yesterday.isoformat())
    (record,), _ = await world.firms(parties.provider)
    assert await world.codes(parties.consumer, record) == [Code.PURPOSE_ENDED]
    await tick(world, a_clock(world), world.db, datetime.now(CHINA))
    (found,) = await world.found(("kind", "Due"), ("consumer", parties.consumer.uscc))
    assert found.entry.body == {
        "kind": "agreement",
        "id": parties.agreement["id"],
        "limit": PURPOSE,
        "due": yesterday.isoformat(),
        "provider": parties.provider.uscc,
        "consumer": parties.consumer.uscc,
        "item": LICENCE,
        "count": 1,
    }


async def put(connection: asyncpg.Connection, document: Document, at: datetime, state: Any = None) -> None:
    """A document as if it had been made at a time; in `state` since then, if one is given."""
    async with connection.transaction():
        await rulebook.insert(connection, [document], "author")
        if state is not None:
            changed = replace(document, revision=2, state=state)
            act = Act.APPROVE if state is AgreementState.APPROVED else Act.ACTIVATE
            await rulebook.update(connection, changed, act, "author", "")
        await connection.execute("UPDATE rule_act SET at = $2 WHERE rule = $1", document.id, at)


async def test_each_day_that_came_is_said_once(world: World, dsn: str) -> None:
    """Answers, deliveries, corrections and disputes that are late; a purpose reached; data to be deleted."""
    await db.migrate(dsn)
    connection = await db.connect(dsn)
    begun = datetime(2025, 9, 25, 9, tzinfo=CHINA)
    ids = [uuid4() for _ in range(6)]
    answer, delivery, purpose = (replace(AGREEMENT, id=ids[at], item=LICENCE) for at in range(3))
    purpose = replace(purpose, purpose_until=date(2025, 10, 9), data_life=30)
    doubt, quarrel = replace(CORRECTION, id=ids[3], item=LICENCE), replace(DISPUTE, id=ids[4])
    far = replace(AGREEMENT, id=ids[5], item=LICENCE)
    clock = a_clock(world)
    try:
        await put(connection, answer, begun)
        await put(connection, delivery, begun, AgreementState.APPROVED)
        await put(connection, purpose, begun, AgreementState.ACTIVE)
        await put(connection, doubt, begun)
        await put(connection, quarrel, begun)
        await put(connection, far, datetime(2090, 1, 1, tzinfo=CHINA))
        opened = (begun.date(), [purpose.id], [date(2025, 10, 25)], [7])
        await connection.execute(facts.SQL["note"], "c", *opened)

        said: list[tuple[str, str]] = []
        for day, new in (
            (date(2025, 10, 9), []),
            (date(2025, 10, 10), [(purpose, PURPOSE)]),
            (date(2025, 10, 15), []),
            (date(2025, 10, 16), [(answer, "ANSWER_CONDITIONAL"), (doubt, "CORRECTION")]),
            (date(2025, 10, 25), []),
            (date(2025, 10, 26), [(purpose, DATA_LIFE)]),
            (date(2025, 11, 30), [(delivery, "PROVISION"), (quarrel, "DISPUTE")]),
        ):
            said += [(str(document.id), limit) for document, limit in new]
            for _ in range(2):
                await tick(world, clock, connection, datetime.combine(day, begun.timetz()))
            values = await connection.fetch("SELECT value FROM revision_outbox ORDER BY id")
            entries = [audit.parse(row["value"])[0] for row in values]
            assert {entry.kind for entry in entries} <= {"Due"}
            assert sorted((entry.body["id"], entry.body["limit"]) for entry in entries) == sorted(said), day
            assert not await connection.fetchval("SELECT count(*) FROM due WHERE NOT told")
        lives = [entry.body for entry in entries if entry.body["limit"] == DATA_LIFE]
        assert [(one["due"], one["count"], one["consumer"]) for one in lives] == [("2025-10-25", 7, "c")]
        assert metrics.DEADLINES.labels(limit="ANSWER_CONDITIONAL", state="late")._value.get() == 1
        assert metrics.DEADLINES.labels(limit="ANSWER_CONDITIONAL", state="unknown")._value.get() == 1

        events = [json.loads(m.value) for m in await world.on_topic(topics.RULES) if m.key in {i.bytes for i in ids}]
        assert sorted((one["id"], one["limit"]) for one in events) == sorted(said)
        assert {one["kind"] for one in events} == {"due"}
        # Whatever the topic may have lost is said again, and nothing more in the log.
        await connection.execute("UPDATE due SET told = false WHERE rule = $1", doubt.id)
        await tick(world, clock, connection, datetime(2025, 12, 1, tzinfo=CHINA))
        assert len([m for m in await world.on_topic(topics.RULES) if m.key == doubt.id.bytes]) == 2
        assert await connection.fetchval("SELECT count(*) FROM revision_outbox") == len(said)
        # The operator's own calendar: the year that nobody knew has days now.
        years = {2090: Year(holidays=frozenset(), workdays=frozenset())}
        await tick(world, a_clock(world, years), connection, datetime(2090, 2, 1, tzinfo=CHINA))
        assert await connection.fetchval("SELECT day FROM due WHERE rule = $1", far.id) == date(2090, 1, 13)
    finally:
        await connection.close()


async def test_what_was_opened_under_a_data_life_is_counted_until_its_day(world: World) -> None:
    """A repeated request opens nothing more; what is refused is not counted."""
    parties = await world.parties(data_life=30, records_a_day=3)
    sealed, _ = await world.firms(parties.provider, 4)
    request = key_request(parties.consumer, reads(sealed[:2]))
    await world.ask(parties.consumer, request)
    await world.ask(parties.consumer, request, 1)
    grant, _ = await world.keys(parties.consumer, sealed[2:])
    assert sorted(code for one in grant.results for _, code in one.sections) == [Code.PERMIT, Code.VOLUME_EXCEEDED]
    row = await world.db.fetchrow("SELECT * FROM data_life WHERE consumer = $1", parties.consumer.uscc)
    assert (str(row["rule"]), row["records"]) == (parties.agreement["id"], 3)
    assert row["ends_on"] - row["opened_on"] == timedelta(days=30)


async def test_a_record_is_doubted_and_its_issuer_answers(world: World) -> None:
    """By who opened it or might have, about a section that it could open."""
    parties, other = await world.parties(sections=["identity"]), await world.join(receives=[LICENCE])
    (record,), _ = await world.firms(parties.provider)
    body = {"record": record.leaf_hash.hex(), "section": "identity", "reason": "地址与现场不符"}
    assert await refused(world, other, "/v1/corrections", body) == Code.NOT_FOUND
    assert await refused(world, parties.consumer, "/v1/corrections", body | {"section": "business"}) == Code.NOT_FOUND
    assert await refused(world, parties.consumer, "/v1/corrections", body | {"section": "x"}) == Code.SECTION_UNKNOWN
    assert await refused(world, parties.consumer, "/v1/corrections", body | {"reason": ""}) == Code.REASON_MISSING
    made = await world.post(parties.consumer, "/v1/corrections", body)
    (listed,) = await world.post(parties.provider, "/v1/corrections:list", {})
    assert (listed["id"], listed["deadline"]["limit"]) == (made["id"], "CORRECTION")
    act = {"id": made["id"], "act": "FIX"}
    assert await refused(world, parties.provider, "/v1/corrections:act", act) == Code.REASON_MISSING
    forged = act | {"reason": "已更正"}
    assert await refused(world, parties.consumer, "/v1/corrections:act", forged) == Code.REQUEST_FORBIDDEN
    assert await refused(world, other, "/v1/corrections:show", {"id": made["id"]}) == Code.NOT_FOUND
    await world.act(parties.provider, "corrections", made, "FIX", "已更正")
    shown = await world.post(parties.consumer, "/v1/corrections:show", {"id": made["id"]})
    assert (shown["state"], shown["deadline"], [one["act"] for one in shown["acts"]]) == (
        "FIXED",
        None,
        ["REQUEST", "FIX"],
    )


async def test_a_dispute_is_settled_or_coordinated_and_decided(world: World) -> None:
    """The parties raise and settle, the operator sees all, coordinates, and decides what was coordinated."""
    parties, other = await world.parties(), await world.join()
    operator = await world.operator()
    body = {"agreement": parties.agreement["id"], "reason": "拒不提供约定数据"}
    assert await refused(world, other, "/v1/disputes", body) == Code.NOT_FOUND
    first = await world.post(parties.consumer, "/v1/disputes", body)
    second = await world.post(parties.provider, "/v1/disputes", body | {"reason": "超范围使用"})
    assert second["raised_by"] == parties.provider.uscc
    settle = {"id": first["id"], "act": "SETTLE", "reason": "协商一致"}
    assert await refused(world, other, "/v1/disputes:act", settle) == Code.NOT_FOUND
    assert await refused(world, parties.consumer, "/v1/disputes:act", settle | {"act": "DECIDE"}) == Code.STATE_INVALID
    await world.act(parties.provider, "disputes", first, "SETTLE", "协商一致")
    decide = {"id": second["id"], "act": "DECIDE", "reason": "按目录提供"}
    assert await refused(world, operator, "/v1/disputes:act", decide) == Code.STATE_INVALID
    await world.act(operator, "disputes", second, "COORDINATE", "已约谈双方")
    assert await refused(world, parties.consumer, "/v1/disputes:act", decide) == Code.REQUEST_FORBIDDEN
    await world.act(operator, "disputes", second, "DECIDE", "按目录提供")
    states = {one["id"]: one["state"] for one in await world.post(operator, "/v1/disputes:list", {})}
    assert (states[first["id"]], states[second["id"]]) == ("SETTLED", "DECIDED")
    assert len(await world.post(parties.consumer, "/v1/disputes:list", {})) == 2


async def test_data_goes_on_only_to_whom_the_provider_agreed(world: World) -> None:
    """Each answer is an entry that names the next receiver, and no key comes with it; an ended agreement says no."""
    receiver, stranger = await world.join(), await world.join()
    parties = await world.parties(onward=[receiver.uscc], sections=["identity"], records_a_day=1)
    (record,), (values,) = await world.firms(parties.provider)
    body = {
        "record": record.leaf_hash.hex(),
        "sections": ["identity", "business"],
        "to": receiver.uscc,
        "purpose": FOR,
        "ground": "STATUTORY_DUTY",
        "citation": DUTY,
        "operator": "desk-1",
        "case": "2026-0117",
    }
    check = "/v1/disclosures:check"

    async def codes(who: Identity, **changed: Any) -> tuple[str, ...]:
        answer = await world.post(who, check, body | changed)
        return tuple(one["code"] for one in answer["sections"])

    assert await world.codes(parties.consumer, record) == [Code.PERMIT]  # its only record today: no limit here
    assert await codes(parties.consumer) == (Code.PERMIT, Code.AGREEMENT_SECTION)
    assert await codes(parties.consumer, to=stranger.uscc) == (Code.ONWARD_NOT_AGREED, Code.AGREEMENT_SECTION)
    assert await codes(receiver, to=stranger.uscc, sections=["identity"]) == (Code.AGREEMENT_NONE,)
    assert await refused(world, parties.consumer, check, body | {"to": "nobody"}) == Code.USCC_FORM
    unknown = body | {"record": "00" * 32}
    assert await refused(world, parties.consumer, check, unknown) == Code.NOT_FOUND
    found = await world.found(("kind", "Decision"), ("consumer", parties.consumer.uscc), count=3)
    assert [one.entry.body["onward_to"] for one in found] == ["", receiver.uscc, stranger.uscc]
    assert [one.entry.body["case"] for one in found[1:]] == ["2026-0117"] * 2
    auditor = await world.join(auditor=True)
    story = await world.post(auditor, "/v1/audit/stories:show", {"record": record.leaf_hash.hex()})
    assert [one["what"] for one in story["events"]][-4:] == ["opened", "may pass on", "refused", "refused"]
    subject = {"kind": "ORGANISATION", "id": values["uscc"]}
    told = (await world.post(auditor, "/v1/subjects/usages:query", {"subject": subject}))["usages"]
    assert [one["onward_to"] for one in told] == [None, receiver.uscc]
    await world.act(parties.consumer, "agreements", parties.agreement, "END")
    assert await codes(parties.consumer, sections=["identity"]) == (Code.AGREEMENT_ENDED,)
