"""The trail's readers, against every entry of the log, decoded: filters, pages, counts, stories, embargoes."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bus import audit, envelope, tables
from bus.gateway import trail
from bus.gateway.trail import ANY_KIND, Filter
from bus.identity import Identity
from bus.outbox import Sealed
from bus.terms import DIMENSIONS, LISTED
from bus.tilestore import Stored
from bus.trustfeed import stop_task
from consent.decide import CHINA
from schemas.errors import Code
from tests.integration.bus import LICENCE, PURPOSE, Parties, World, citizen_number, draft, fresh_firm
from tests.integration.test_audit import SEARCH, search

ENTRIES, COUNTS, STORY = "/v1/audit/entries:query", "/v1/audit/counts:query", "/v1/audit/stories:show"
READINGS, EMBARGOES, CONFIRM = "/v1/audit/readings:list", "/v1/audit/embargoes", "/v1/audit/embargoes:confirm"

BUSY_SECONDS = 0.2
Said = dict[str, set[str]]


def said(entry: Mapping[str, Any]) -> Said:
    """What an entry can be found by, from its JSON: written without the index's own words."""
    body, kind = entry["body"], entry["kind"]
    found: Said = {"kind": {kind}, "request": {entry["request"]}, "entry": {entry["entry"]}}

    def add(dimension: str, *values: str | None) -> None:
        found.setdefault(dimension, set()).update(value for value in values if value)

    left, right = {
        "Decision": ("consumer", "provider"),
        "Revision": ("recipient", "grantor"),
        "Reading": ("reader", ""),
        "Finding": ("consumer", ""),
        "Impact": ("addressee", "issuer"),
        "Evaluation": ("caller", ""),
        "SetDecision": ("consumer", "provider"),
        "Due": ("consumer", "provider"),
    }.get(kind, ("", ""))
    consumer, provider = body.get(left), body.get(right)
    if kind == "Admitted":
        provider = bytes.fromhex(body["checkpoint"]).split(b"\n")[0].split(b"/")[-3].decode()
    add("consumer", consumer)
    add("provider", provider)
    if kind != "Finding":  # not a department's to find
        add("party", consumer, provider)
    add("subject", *body.get("subjects", ()))
    if kind not in ("Conflict", "Ruling"):
        for dimension in ("item", "purpose", "ground", "operator", "agent", "case", "record", "licence"):
            add(dimension, body.get(dimension))
    match kind:
        case "Decision":
            add("region", *(body["region"][:digits] for digits in (2, 4, 6)))
            for section in body["sections"]:
                add("section", section["name"])
                add("code", section["code"])
                for rule in section["rule"].split():
                    add("rule", rule)
                add("decision", "PERMIT" if section["code"] == "PERMIT" else "REFUSE")
        case "Conflict":
            add("record", body["first"], body["second"])
            add("code", "CONFLICT")
        case "Ruling":
            add("about", body["conflict"])
            add("record", body["stands"])
        case "Voided":
            add("about", body["entry"])
            add("code", body["code"])
        case "Revision":
            add("rule", f"{body['kind']}:{body['id']}@{body['revision']}")
            add("item", *body["items"])
            add("party", body["author"])
        case "Evaluation":
            for answer in body["answers"]:
                add("code", answer["code"])
                add("rule", *answer["rule"].split())
        case "SetDecision":
            add("region", *(body["region"][:digits] for digits in (2, 4, 6) if len(body["region"]) >= digits))
            add("section", *body["sections"])
            add("code", "PERMIT")
            add("decision", "PERMIT")
            add("about", body["root"])
            add("rule", *body["rule"].split())
        case "Due":
            add("rule", f"{body['kind']}:{body['id']}")
        case "Finding":
            add("rule", f"supervision:{body['rule']}")
            add("about", *body["entries"])
        case "Impact":
            add("record", *body["opened"], *(one["record"] for one in body["derived"]))
            add("licence", *(one["licence"] for one in body["derived"]))
            add("about", *body["entries"])
    return found


def meets(entry: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    """Whether a filter means this entry."""
    words, at = said(entry), datetime.fromisoformat(entry["logged_at"])
    if "since" in query and at < datetime.fromisoformat(query["since"]):
        return False
    if "until" in query and at >= datetime.fromisoformat(query["until"]):
        return False
    return all(query[name] in words.get(name, ()) for name in DIMENSIONS & query.keys())


async def everything(world: World) -> list[dict[str, Any]]:
    """Every entry of the log, decoded from the topic's bytes and not found by any word."""
    await world.covered()
    rows = await world.db.fetch("SELECT number, logged_at FROM log_bundle ORDER BY number")
    times = [at for row in rows for at in row["logged_at"]]
    values = [m.value for m in sorted(await world.on_topic(audit.TOPIC), key=lambda m: m.offset) if m.value]
    found = []
    for index, (value, at) in enumerate(zip(values, times, strict=False)):
        stored = Stored(index=index, logged_at=at, value=value)
        found.append(trail.Found(stored=stored, entry=audit.parse(value)[0]).to_json())
    return found


async def busy(world: World, parties: Parties, sealed: Sequence[Sealed]) -> None:
    """Asks and asks: entries arrive while others read."""
    while True:
        await world.keys(parties.consumer, sealed)
        await asyncio.sleep(BUSY_SECONDS)


async def story_of(world: World) -> tuple[Parties, list[Sealed], dict[str, Any]]:
    """A firm whose licence was opened, refused, looked up in vain, and came in a second version."""
    parties = await world.parties(superseded=True)
    values = fresh_firm()
    (first,) = await world.publish(parties.provider, draft(values))
    mandate = {
        "agent": "agent-1",
        "subject": {"kind": "ORGANISATION", "id": values["uscc"]},
        "items": [LICENCE],
        "purposes": [PURPOSE],
        "valid_from": "2025-01-01",
        "valid_until": "2099-12-31",
        "evidence": "ab" * 32,
    }
    await world.post(parties.provider, "/v1/mandates", mandate)
    await world.keys(parties.consumer, [first], operator="clerk-1", case="case-7", agent="agent-1")
    await world.keys(parties.consumer, [first], purpose="account-opening", operator="clerk-2")
    early = str(datetime.now(CHINA).date() - timedelta(days=400))
    asked = search(parties.consumer, "ORGANISATION", values["uscc"], as_of=early)
    assert (await world.post(parties.consumer, SEARCH, asked))["records"] == []
    (second,) = await world.publish(parties.provider, draft(values | {"name": "改名后的测试公司"}, 2))
    return parties, [first, second], values


async def test_filters_pages_and_counts_are_what_every_entry_says(world: World) -> None:
    """Every dimension, alone and with others, while entries arrive: nothing skipped, nothing twice, nothing false."""
    parties, sealed, _ = await story_of(world)
    auditor = await world.join(auditor=True)
    entries = await everything(world)
    start = next(e["index"] for e in entries if said(e).get("provider") == {parties.provider.uscc})
    own = [e for e in entries if e["index"] >= start]
    chance = random.Random(4)
    queries: list[dict[str, Any]] = []
    for dimension in sorted(DIMENSIONS - {"subject"}):
        able = [e for e in own if said(e).get(dimension)]
        assert able or dimension == "about", dimension
        for entry in chance.sample(able, min(1, len(able))):
            words = {name: chance.choice(sorted(values)) for name, values in said(entry).items() if values}
            words.pop("subject", None)
            more = chance.sample(sorted(words), chance.randint(0, 2))
            query = {name: words[name] for name in {dimension, *more}}
            if chance.random() < 0.3:
                query[chance.choice(["since", "until"])] = chance.choice(own)["logged_at"]
            queries.append(query)
    asked: list[tuple[dict[str, Any], list[dict[str, Any]], int]] = []
    counted: list[tuple[dict[str, Any], str | None, dict[str, Any]]] = []
    writing = asyncio.create_task(busy(world, parties, sealed))
    try:
        for query in queries:
            found: list[dict[str, Any]] = []
            after: int | None = start - 1
            while after is not None:
                body = {**query, "after": after, "limit": chance.randint(7, 40)}
                page = await world.post(auditor, ENTRIES, body, chance.randint(0, 1))
                found, after = found + page["entries"], page["next"]
            asked.append((query, found, page["checkpoint"]["size"]))
            days = {name: value for name, value in query.items() if name not in ("since", "until")}
            by = chance.choice([None, *sorted(LISTED)])
            counted.append((days, by, await world.post(auditor, COUNTS, days | ({"by": by} if by else {}))))
    finally:
        await stop_task(writing)
    entries = await everything(world)
    for query, found, size in asked:
        assert found == [e for e in entries[start:size] if meets(e, query)], query
    for query, by, answer in counted:
        true = [e for e in entries[: answer["checkpoint"]["size"]] if meets(e, query)]
        numbers = Counter((day(e), value) for e in true for value in (said(e).get(by, ()) if by else (None,)))
        assert {(d["day"], d.get("value")): d["count"] for d in answer["days"]} == numbers, (query, by)
        assert answer["total"] == len(true)
    assert any(found for _, found, _ in asked)
    for entry in entries:  # and each has a row
        assert all(isinstance(cell, str) for cell in tables.row(entry, {}))
    # A department counts its own.
    mine = await world.post(parties.consumer, COUNTS, {"by": "provider"})
    assert {d["value"] for d in mine["days"]} == {parties.provider.uscc}


def day(entry: Mapping[str, Any]) -> str:
    return datetime.fromisoformat(entry["logged_at"]).astimezone(CHINA).date().isoformat()


async def test_counts_end_where_the_checkpoint_does(world: World) -> None:
    """Within a bundle, on both sides: what is not published yet and what is not served any more do not count."""
    await story_of(world)
    size = await world.covered()
    at = await trail.published(world.db)
    for minimum, end in ((0, size), (3, size - 1), (size - 2, size), (0, 1), (size - 1, size)):
        cut = trail.Published(size=end, root=at.root, note=at.note, cosigned_size=0, cosigned=None, minimum=minimum)
        counted = await trail.counts(world.db, Filter(), cut)
        assert sum(count for _, count in counted) == end - minimum
        by = await trail.counts_by(world.db, Filter(groups=(ANY_KIND,)), cut, "kind", datetime.now(CHINA).date())
        assert sum(count for *_, count in by) == end - minimum


async def test_a_question_that_cannot_be_meant_is_refused_with_what_there_is(world: World) -> None:
    """An answer of nothing would be taken for the truth. The sentence does not repeat what was asked."""
    auditor = await world.join(auditor=True)
    number = citizen_number()
    wrong: list[tuple[str, dict[str, Any]]] = [
        (ENTRIES, {"kind": number}),
        (ENTRIES, {"code": number}),
        (ENTRIES, {"decision": "permit"}),
        (ENTRIES, {"ground": "BECAUSE"}),
        (ENTRIES, {"record": "ab"}),
        (ENTRIES, {"region": "33041"}),
        (ENTRIES, {"party": "tax"}),
        (ENTRIES, {"case": "x" * 201}),
        (ENTRIES, {"since": "2026-01-01T00:00:00"}),
        (ENTRIES, {"since": "0001-01-01T00:00:00+00:00"}),
        (ENTRIES, {"until": "9999-12-31T23:59:59-08:00"}),
        (ENTRIES, {"reader": {"investigation": "x"}}),
        (ENTRIES, {"reader": {"operator": number}}),
        (COUNTS, {"since": "2026-01-01T00:00:00+00:00"}),
        (COUNTS, {"by": "case"}),
        (STORY, {"record": number}),
    ]
    for path, body in wrong:
        answer = await world.send_json(auditor, path, body)
        assert answer.status_code in (400, 403), (body, answer.text)
        assert number not in answer.text
    empty = await world.post(auditor, ENTRIES, {"after": 2**62})
    assert (empty["entries"], empty["next"]) == ([], None)


async def test_the_story_of_a_record(world: World) -> None:
    """Whole for an auditor and the issuer; its own for another; the same nothing for a stranger and for no record."""
    parties, (first, second), values = await story_of(world)
    auditor, stranger = await world.join(auditor=True), await world.join()
    await world.covered()
    record = {"record": first.leaf_hash.hex()}
    told = await world.post(auditor, STORY, record)
    whats = [event["what"] for event in told["events"] if event["what"] != "finding"]
    assert whats == ["admitted", "opened", "refused", "looked up", "later version"]
    assert [e["index"] for e in told["events"]] == sorted(e["index"] for e in told["events"])
    assert [e["record"] for e in told["events"] if e["what"] == "later version"] == [second.leaf_hash.hex()]
    assert (told["record"]["state"], told["record"]["superseded"]) == ("ADMITTED", True)
    # Who looked is between the looker and auditors; everything else is the issuer's to know.
    issuers = [event["what"] for event in (await world.post(parties.provider, STORY, record))["events"]]
    assert issuers == ["admitted", "opened", "refused", "later version"]
    assert [e["what"] for e in (await world.post(parties.consumer, STORY, record))["events"]] == ["opened", "refused"]
    nothing = [
        await world.send_json(stranger, STORY, record),
        await world.send_json(stranger, STORY, {"record": secrets.token_hex(32)}),
    ]
    assert {(a.status_code, a.text) for a in nothing} == {(404, nothing[0].text)}
    # The auditor's reading of it is in the next story: she looked where this record is the answer.
    await world.covered()
    told = await world.post(auditor, STORY, record)
    assert auditor.uscc in {event["body"].get("reader") for event in told["events"]}
    assert values["uscc"] not in str(told)


async def readings(world: World, department: Identity) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await world.post(department, READINGS, {}))["readings"]
    return found


async def test_departments_see_who_read_after_an_embargo_that_a_second_person_set(world: World) -> None:
    """In the log at once, shown later: 30 days if nobody says otherwise, 180 whatever is said."""
    parties, _, _ = await story_of(world)
    one, two = await world.join(auditor=True), await world.join(auditor=True)
    await world.covered()
    investigation = f"inv-{secrets.token_hex(4)}"
    now = datetime.now(UTC)

    def read(who: Identity, operator: str, investigation: str) -> Any:
        reader = {"operator": operator, "investigation": investigation}
        return world.post(who, ENTRIES, {"party": parties.provider.uscc, "kind": "Decision", "reader": reader})

    async def propose(who: Identity, operator: str, until: datetime) -> dict[str, Any]:
        body = {"investigation": investigation, "until": until.isoformat(), "operator": operator}
        made: dict[str, Any] = await world.post(who, EMBARGOES, body)
        return made

    async def confirm(who: Identity, operator: str, embargo: Mapping[str, Any]) -> int:
        return (await world.send_json(who, CONFIRM, {"id": embargo["id"], "operator": operator})).status_code

    assert await readings(world, parties.provider) == []
    await read(one, "anna", investigation)
    await read(one, "anna", "")
    logged = [e for e in await world.logged("Reading") if e.body["what"] == f"audit/entries:query#{investigation}"]
    assert [(e.body["reader"], e.body["operator"]) for e in logged] == [(one.uscc, "anna")]
    assert await readings(world, parties.provider) == []
    shown = {r["investigation"]: datetime.fromisoformat(r["shown_from"]) for r in await readings(world, two)}
    assert abs(shown[investigation] - now - timedelta(days=30)) < timedelta(minutes=5)
    # Two persons, both auditors', the second of whom has not read for it.
    early = await propose(one, "boss", now)
    assert await readings(world, parties.provider) == []
    assert await confirm(one, "boss", early) == 403
    assert await confirm(one, "anna", early) == 403
    assert await confirm(parties.provider, "x", early) == 403
    assert await confirm(one, "chief", early) == 200
    assert await confirm(two, "otto", early) == 409
    assert [r["investigation"] for r in await readings(world, parties.provider)] == [investigation]
    assert [r["reader"] for r in await readings(world, parties.consumer)] == [one.uscc]
    assert await readings(world, await world.join()) == []
    # A later one counts instead; another auditor's operator of the same name is another person.
    late = await propose(two, "anna", now + timedelta(days=179))
    assert await confirm(one, "boss", late) == 200
    assert await readings(world, parties.provider) == []
    too_long = {"investigation": investigation, "until": (now + timedelta(days=181)).isoformat(), "operator": "anna"}
    assert (await world.send_json(two, EMBARGOES, too_long)).status_code == 400
    assert (await world.send_json(parties.provider, EMBARGOES, too_long)).status_code in (400, 403)
    acts = [e.body["what"] for e in await world.logged("Reading") if e.body["what"].endswith(f"#{investigation}")]
    assert [act.split(" ")[0] for act in acts if act.startswith("embargo:")] == [
        "embargo:proposed",
        "embargo:confirmed",
    ] * 2
    # Time goes by.
    await world.db.execute("UPDATE reading SET at = at - interval '31 days' WHERE reader = $1", one.uscc)
    assert [r["investigation"] for r in await readings(world, parties.provider)] == [""]
    await world.db.execute("UPDATE reading SET at = at - interval '150 days' WHERE reader = $1", one.uscc)
    assert [r["investigation"] for r in await readings(world, parties.provider)] == ["", investigation]


async def test_what_an_auditor_asks_leaves_no_plain_id(world: World) -> None:
    """She asks by a person's number: it is in no entry, no row, no metric, no line of a log."""
    number = citizen_number()
    values = fresh_firm() | {"representative_id": number}
    parties = await world.parties()
    (sealed,) = await world.publish(parties.provider, draft(values))
    await world.keys(parties.consumer, [sealed])
    auditor = await world.join(auditor=True)
    await world.covered()
    for kind, one in (("PERSON", number), ("ORGANISATION", values["uscc"])):
        subject = {"subject": {"kind": kind, "id": one}}
        await world.post(auditor, ENTRIES, subject)
        await world.post(auditor, COUNTS, subject | {"by": "consumer"})
    told = await world.post(auditor, STORY, {"record": envelope.parse(sealed.value).leaf_hash.hex()})
    await world.covered()
    rows = await world.db.fetch("SELECT reader, operator, what, investigation, parties::text FROM reading")
    kept = [str(told), str(rows), *(path.read_text("utf-8", "replace") for path in world.place.logs)]
    kept += [str([m.value for m in await world.on_topic(audit.TOPIC)])]
    for secret in (number, values["uscc"]):
        assert [text[:100] for text in kept if secret in text] == []
    assert PURPOSE in str(told)
    assert Code.PERMIT in str(told)
