"""Questions about rules on a running bus: why, what if, and whether it would be decided so today."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bus.gateway.policy import standing_rules
from bus.identity import Identity
from bus.outbox import Sealed
from deploy.yamlfile import read_yaml
from schemas.errors import Code
from schemas.operations import Operation
from tests.integration.bus import DUTY, LICENCE, PURPOSE, REGION, World, draft, key_request, reads

BY_CONSENT = {"ground": "CONSENT", "citation": ""}
YESTERDAY = (datetime.now(UTC) - timedelta(days=2)).date().isoformat()
BY_DUTY = {"purpose": PURPOSE, "ground": "STATUTORY_DUTY", "citation": DUTY, "sections": ["identity"]}


async def decided(world: World, of: Identity, sealed: Sealed, **changed: Any) -> tuple[list[str], bytes]:
    """The codes that a request for keys gets, and the leaf hash of its entry."""
    sections = changed.pop("sections", ("identity",))
    grant, _ = await world.ask(of, key_request(of, reads([sealed], sections), **changed))
    return [code for _, code in grant.results[0].sections], grant.results[0].entry


async def test_what_is_explained_is_what_keys_are_given_or_refused_for(world: World) -> None:
    """The same codes under the same rules, each refusal with its rule in two languages; the trail says who asked."""
    parties = await world.parties(purposes=[PURPOSE], regions=["33"])
    consumer, provider = parties.consumer, parties.provider
    (sealed, other), (values, _) = await world.firms(provider, 2)
    consent = await world.consent(parties, values)
    record = sealed.leaf_hash.hex()
    questions: list[dict[str, Any]] = [
        BY_DUTY,
        BY_DUTY | {"sections": ["identity", "business", "nothing"]},
        BY_DUTY | {"purpose": "statistics"},
        BY_DUTY | {"citation": "no such article"},
        BY_DUTY | {"ground": "NEWS"},
        BY_DUTY | BY_CONSENT,
        BY_DUTY | BY_CONSENT | {"sections": ["business"]},
        BY_DUTY | {"agent": "agent-7"},
    ]
    asked = {"record": record, "mode": "STREAM", "operator": "window-3"}
    entries = [(await decided(world, consumer, sealed, **question))[1] for question in questions]
    answers = [await world.post(consumer, "/v1/policy:explain", question | asked) for question in questions]
    for entry, answer in zip(entries, answers, strict=True):
        (found,) = await world.found(("entry", entry.hex()))
        for was, said in zip(found.entry.body["sections"], answer["sections"], strict=True):
            assert (was["code"], was["rule"]) == (said["code"], " ".join(said["rests_on"]) or said["miss"]["of"])
            assert (said["miss"] is None) == (was["code"] == Code.PERMIT)
    assert f"consent:{consent['id']}" in str(answers)

    # The provider may ask about who may open its records, others only about themselves.
    about = BY_DUTY | BY_CONSENT | {"record": other.leaf_hash.hex(), "consumer": consumer.uscc, "checks": True}
    (said,) = (await world.post(provider, "/v1/policy:explain", about))["sections"]
    assert said["miss"]["rule"] == "consent-given"
    assert "没有同意" in said["miss"]["zh"]
    assert said["miss"]["verified"]
    assert {check["rule"]: check["kept"] for check in said["candidates"][0]}["ground-agreed"]
    stranger = await world.join(receives=[LICENCE])
    assert (await world.send_json(stranger, "/v1/policy:explain", about)).status_code == 403
    assert (await world.send_json(consumer, "/v1/policy:explain", about | {"record": "00" * 32})).status_code == 404
    assert (await world.send_json(consumer, "/v1/policy:explain", BY_DUTY)).status_code == 400

    # Of a licence that nobody has: without a subject, nobody has consented.
    imagined = {"item": LICENCE, "provider": provider.uscc, "region": REGION}
    subject = {"subject": {"kind": "ORGANISATION", "id": values["uscc"]}}
    for more, code in (
        ({}, Code.PERMIT),
        (BY_CONSENT, Code.CONSENT_NONE),
        (BY_CONSENT | subject, Code.PERMIT),
        ({"region": "110000"}, Code.AGREEMENT_REGION),
    ):
        answer = await world.post(consumer, "/v1/policy:explain", BY_DUTY | imagined | more)
        assert answer["sections"][0]["code"] == code
    readings = await world.found(("kind", "Reading"), ("operator", "window-3"), ("party", consumer.uscc), count=8)
    assert {one.entry.body["what"] for one in readings} == {"policy:explain"}


async def test_changes_are_tried_out_and_nothing_is_stored(world: World) -> None:
    """Before and after; what a change newly permits; and the rules that decide are those from before."""
    parties = await world.parties(purposes=["statistics"])
    consumer, agreement = parties.consumer, parties.agreement
    (sealed,), _ = await world.firms(parties.provider)
    before = {one.id: one.word for one in await standing_rules(world.db)}
    changes = [{"kind": "agreement", "id": agreement["id"], "purposes": [PURPOSE]}]
    question = BY_DUTY | {"record": sealed.leaf_hash.hex(), "changes": changes}
    answer = await world.post(consumer, "/v1/policy:simulate", question)
    assert answer["differs"]
    assert answer["before"][0]["miss"]["rule"] == "agreement-purpose"
    assert answer["after"][0]["rests_on"] == [f"agreement:{agreement['id']}@{agreement['revision'] + 1}"]
    assert await world.codes(consumer, sealed) == [Code.AGREEMENT_PURPOSE]

    ended = [{"kind": "agreement", "id": agreement["id"], "end": True}]
    answer = await world.post(consumer, "/v1/policy:simulate", question | {"changes": ended})
    assert answer["after"][0]["code"] == Code.AGREEMENT_ENDED
    unchanged = [{"kind": "agreement", "id": agreement["id"], "regions": [REGION]}]
    assert not (await world.post(consumer, "/v1/policy:simulate", question | {"changes": unchanged}))["differs"]
    # A window that would open for the consumer: a power that nobody gave yet, of a document that it is no party to.
    window = await world.join(receives=[LICENCE])
    power = {
        "kind": "power",
        "right": "OPEN",
        "grantor": consumer.uscc,
        "grantee": window.uscc,
        "items": [LICENCE],
        "purposes": ["statistics"],
        "valid_from": "2026-01-01",
    }
    opened = question | {"changes": [power], "purpose": "statistics"}
    answer = await world.post(window, "/v1/policy:simulate", opened)
    assert [one["code"] for one in (*answer["before"], *answer["after"])] == ["AGREEMENT_NONE", "PERMIT"]
    assert (await world.send_json(window, "/v1/policy:simulate", question | {"changes": ended})).status_code == 400

    diff = await world.post(consumer, "/v1/policy:diff", {"changes": changes})
    (permits,), (refuses,) = diff["permits"], diff["refuses"]
    assert (permits["consumers"], permits["purposes"]) == ([consumer.uscc], [PURPOSE])
    assert "statistics" in refuses["purposes"]
    assert permits["sections"] == sorted(agreement["sections"])
    assert diff["documents"][0]["fields"] == ["purposes"]
    assert before == {one.id: one.word for one in await standing_rules(world.db)}


async def test_yesterdays_decisions_under_todays_rules(world: World) -> None:
    """Dozens of permits and refusals: not one differs while no rule changes; what ended since changes its own alone."""
    began = datetime.now(UTC)
    parties = await world.parties(records_a_day=100)
    consumer, provider = parties.consumer, parties.provider
    sealed, values = await world.firms(provider, 6)
    limited = await world.join(receives=[LICENCE])
    narrow = await world.agree(provider, limited, requests_a_day=2, mode="QUERY", statuses=["REVOKED"])
    stranger = await world.join(receives=[LICENCE])
    past = await world.join(receives=[LICENCE])
    await world.agree(provider, past, valid_until=YESTERDAY)
    elsewhere = await world.join(receives=[LICENCE])
    far = await world.agree(provider, elsewhere, sections=["business"], regions=["11"])
    await world.consent(parties, values[0])
    await world.consent(parties, values[1], max_uses=1)
    paused = await world.consent(parties, values[2])
    await world.act(provider, "consents", paused, "PAUSE")
    expected: list[str] = []

    async def ask(of: Identity, what: Sealed, *codes: Code, **changed: Any) -> None:
        answered, _ = await decided(world, of, what, **changed)
        assert answered == list(codes)
        expected.extend(codes)

    for one in sealed[:3]:
        await ask(consumer, one, Code.PERMIT)
        await ask(stranger, one, Code.AGREEMENT_NONE)
        await ask(past, one, Code.AGREEMENT_ENDED)
        await ask(limited, one, Code.AGREEMENT_MODE)
        await ask(consumer, one, Code.AGREEMENT_PURPOSE, purpose="statistics")
        await ask(consumer, one, Code.DUTY_NOT_NAMED, citation="")
        await ask(consumer, one, Code.GROUND_NOT_AGREED, ground="NEWS")
        await ask(consumer, one, Code.GROUND_UNKNOWN, ground="WHIM")
        await ask(consumer, one, Code.PERMIT, Code.PERMIT, Code.SECTION_UNKNOWN, sections=("identity", "business", "x"))
        await ask(consumer, one, Code.MANDATE_NONE, agent="agent-7")
    await ask(elsewhere, sealed[0], Code.AGREEMENT_REGION, sections=("business",))
    await ask(consumer, sealed[0], Code.PERMIT, Code.CONSENT_SECTION, sections=("identity", "business"), **BY_CONSENT)
    await ask(consumer, sealed[1], Code.PERMIT, **BY_CONSENT)
    await ask(consumer, sealed[1], Code.CONSENT_USED_UP, **BY_CONSENT)
    await ask(consumer, sealed[2], Code.CONSENT_PAUSED, **BY_CONSENT)
    await ask(consumer, sealed[3], Code.CONSENT_NONE, **BY_CONSENT)
    # Versions that come later: the first is superseded from then on, the licence revoked after that.
    await ask(consumer, sealed[3], Code.PERMIT)
    (newer,) = await world.publish(provider, draft(values[3], 2))
    await ask(consumer, sealed[3], Code.SUPERSEDED)
    await ask(consumer, newer, Code.PERMIT)
    await world.publish(provider, draft(values[3], 3, operation=Operation.REVOKED))
    await ask(consumer, newer, Code.SUPERSEDED)
    until = datetime.now(UTC) + timedelta(minutes=1)

    auditor = await world.join(auditor=True)
    period = {"since": began.isoformat(), "until": until.isoformat(), "limit": 20}
    own = {consumer.uscc, limited.uscc, stranger.uscc, past.uscc, elsewhere.uscc}

    async def replayed() -> tuple[int, list[dict[str, Any]]]:
        """All pages; of the differences those of this test's departments, for the stack is others', too."""
        await world.covered()
        count, found, after = 0, list[dict[str, Any]](), -1
        while after is not None:
            page = await world.post(auditor, "/v1/policy:replay", period | {"after": after})
            count, after = count + page["decided"], page["next"]
            found += [one for one in page["differences"] if one["consumer"] in own]
        return count, found

    count, found = await replayed()
    assert found == []
    assert count >= 40
    assert len(set(expected)) >= 14
    assert (await world.send_json(consumer, "/v1/policy:replay", period)).status_code == 403

    await world.act(provider, "agreements", far, "END", "no longer needed")
    await world.act(provider, "agreements", narrow, "SUSPEND", "being looked at")
    _, found = await replayed()
    assert {one["consumer"] for one in found} == {elsewhere.uscc, limited.uscc}
    changed = {(one["sections"][0]["was"], one["sections"][0]["now"]) for one in found}
    assert changed == {("AGREEMENT_REGION", "AGREEMENT_ENDED"), ("AGREEMENT_MODE", "AGREEMENT_SUSPENDED")}
    assert len(found) == 4
    assert {(act["act"], act["reason"]) for one in found for act in one["acts"]} >= {
        ("END", "no longer needed"),
        ("SUSPEND", "being looked at"),
    }
    await world.act(provider, "agreements", parties.agreement, "END")
    _, found = await replayed()
    permitted = [one for one in found if one["consumer"] == consumer.uscc and one["sections"][0]["was"] == "PERMIT"]
    assert {one["sections"][0]["now"] for one in permitted} == {"AGREEMENT_ENDED"}
    assert {one["sections"][0]["before"].split()[0] for one in permitted} == {
        f"agreement:{parties.agreement['id']}@{parties.agreement['revision']}"
    }
    readings = await world.found(("kind", "Reading"), ("party", auditor.uscc), count=3)
    assert {one.entry.body["what"] for one in readings} == {"policy:replay"}


async def test_cases_are_run_by_the_rules_that_a_gateway_decides_by(world: World) -> None:
    """A lawyer's file as JSON: as expected; an expectation turned round is told, with its rule."""
    file = read_yaml(Path(__file__).parents[1] / "policy" / "grounds.yaml")
    asker = await world.join()
    answer = await world.post(asker, "/v1/policy:test", {"file": json.dumps(file, default=str)})
    assert (answer["cases"], answer["failed"]) == (len(file["cases"]), 0)
    turned = next(one for one in file["cases"] if one["expect"] == "DUTY_NOT_NAMED")
    turned["expect"] = "PERMIT"
    answer = await world.post(asker, "/v1/policy:test", {"file": json.dumps(file, default=str)})
    told = answer["differences"][0]
    assert answer["failed"] == 1
    assert (told["case"], told["got"], told["rule"]) == (turned["name"], Code.DUTY_NOT_NAMED, "duty-named")
    for bad in ("[", "{}", '{"cases": [{}]}'):
        assert (await world.send_json(asker, "/v1/policy:test", {"file": bad})).status_code in (400, 413)
