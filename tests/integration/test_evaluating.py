"""AuthZEN on the bus's own decisions: the codes of keys, searches as brute force has them, one entry a call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from bus.gateway.app import create_app
from bus.httpsig import sign
from bus.identity import Identity
from consent.purposes import PURPOSES
from schemas.errors import Code, Unavailable
from schemas.operations import Operation
from tests.integration.bus import DUTY, LICENCE, PURPOSE, REGION, Parties, World, draft, fresh_firm
from tests.integration.conftest import BASE_URL

Json = dict[str, Any]

GATEWAY = 1  # the one that was told its address
DUTIFUL: Json = {"operator": "test", "ground": "STATUTORY_DUTY", "citation": DUTY}
CONSENTING: Json = {"operator": "test", "ground": "CONSENT"}
AT: Json = {"region": REGION}


def department(identity: Identity) -> Json:
    return {"type": "department", "id": identity.uscc}


def record(leaf_hash: bytes, *sections: str) -> Json:
    return {"type": "record", "id": leaf_hash.hex(), "properties": {"sections": list(sections or ("identity",))}}


def section(provider: Identity, name: str = f"{LICENCE}/identity", region: str = REGION) -> Json:
    return {"type": "section", "id": name, "properties": {"provider": provider.uscc, "region": region}}


async def send(world: World, who: Identity, endpoint: str, body: Any, **headers: str) -> httpx.Response:
    """A signed request, whatever is answered; a 200 is as the gateway describes it."""
    path, url = f"/access/v1/{endpoint}", world.place.gateways[GATEWAY]
    data = json.dumps(body).encode()
    signed = sign(who.department, "POST", url + path, data)
    answer = await world.http.post(
        url + path, content=data, headers={"Content-Type": "application/json", **signed, **headers}
    )
    if answer.status_code == 200:
        world.described(GATEWAY).check("post", path, 200, answer.json())
    return answer


async def ask(world: World, who: Identity, endpoint: str, body: Any) -> Any:
    answer = await send(world, who, endpoint, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def decisions(world: World, who: Identity, asked: Sequence[Json], **defaults: Any) -> list[Any]:
    """However many, in calls of at most a hundred."""
    found: list[Any] = []
    for at in range(0, len(asked), 100):
        said = await ask(world, who, "evaluations", defaults | {"evaluations": list(asked[at : at + 100])})
        found += said["evaluations"]
    return found


async def search(world: World, who: Identity, kind: str, asked: Json, limit: int) -> list[str]:
    """Every name that a search finds, page by page."""
    names: list[str] = []
    page: Json = {"limit": limit}
    while True:
        said = await ask(world, who, f"search/{kind}", asked | {"page": page})
        assert said["page"]["count"] == len(said["results"]) <= limit
        names += [one.get("id", one.get("name")) for one in said["results"]]
        if not said["page"]["next_token"]:
            return names
        page = {"token": said["page"]["next_token"]}


@pytest.fixture
async def parties(world: World) -> Parties:
    return await world.parties(max_age=3600)


async def test_codes_are_those_of_keys(world: World, parties: Parties) -> None:
    """The same questions, asked for a decision and for keys."""
    sealed, values = await world.firms(parties.provider, 3)
    await world.consent(parties, values[1])
    (ended,) = await world.publish(parties.provider, draft(values[2], 2, operation=Operation.CANCELLED))
    (absent,) = (await world.sealer(parties.provider)).seal([draft(fresh_firm())])
    questions: list[tuple[Any, Json, Json]] = [
        (one, words, {"sections": (name,)})
        for one in (*sealed, ended)
        for words in (
            {"ground": "STATUTORY_DUTY", "citation": DUTY},
            {"ground": "CONSENT", "citation": ""},
            {"ground": "STATUTORY_DUTY", "citation": DUTY, "purpose": "supervision"},
            {"ground": "CONSENT", "citation": "", "agent": "agent-7"},
        )
        for name in ("identity", "representative", "other")
    ]
    duty = {"ground": "STATUTORY_DUTY", "citation": DUTY}
    questions.append((absent, duty, {"sections": ("identity",)}))  # one: a gateway waits for the recorder to come to it
    asked = [
        {
            "action": {"name": words.get("purpose", PURPOSE)},
            "resource": record(one.leaf_hash, *more["sections"]),
            "context": {"operator": "test", **words},
        }
        for one, words, more in questions
    ]
    said = await decisions(world, parties.consumer, asked, subject=department(parties.consumer))
    codes = [one["context"]["code"] for one in said]
    assert codes == [(await world.codes(parties.consumer, one, **words, **more))[0] for one, words, more in questions]
    assert [one["decision"] for one in said] == [code == Code.PERMIT for code in codes]
    assert {Code.PERMIT, Code.CONSENT_NONE, Code.SUPERSEDED, Code.NOT_ADMITTED, Code.MANDATE_NONE} <= set(codes)
    assert {Code.STATUS_CANCELLED, Code.AGREEMENT_SECTION, Code.AGREEMENT_PURPOSE, Code.SECTION_UNKNOWN} <= set(codes)


async def test_a_permit_says_what_it_rests_on_and_obliges_to(world: World, parties: Parties) -> None:
    """All sections asked for or none; whoever cannot comply is denied; an entry of the log has it."""
    (sealed,), _ = await world.firms(parties.provider)
    question = {"subject": department(parties.consumer), "action": {"name": PURPOSE}, "context": DUTIFUL}
    both = question | {"resource": record(sealed.leaf_hash, "identity", "business")}
    said = await ask(world, parties.consumer, "evaluation", both)
    agreement = parties.agreement
    word = f"agreement:{agreement['id']}@{agreement['revision']}"
    obligations = said["context"]["obligations"]
    assert (said["decision"], said["context"]["rule"], said["context"]["hashes"]) == (True, word, [agreement["hash"]])
    assert [one["properties"] for one in obligations] == [
        {"action": "discard-keys", "rule": word, "after_seconds": 3600},
        {"action": "keep-from-others", "rule": word, "but_for": []},
    ]
    some = question | {"resource": record(sealed.leaf_hash, "identity", "representative")}
    said = await ask(world, parties.consumer, "evaluation", some)
    assert (said["decision"], said["context"]["sections"]) == (
        False,
        {"identity": Code.PERMIT, "representative": Code.AGREEMENT_SECTION},
    )
    assert "第三十四条" in said["context"]["reason_admin"]["zh"]
    unable = both | {"context": DUTIFUL | {"supported_obligations": ["step-up"]}}
    said = await ask(world, parties.consumer, "evaluation", unable)
    assert (said["decision"], said["context"]["code"]) == (False, Code.OBLIGATION_UNSUPPORTED)
    able = both | {"context": DUTIFUL | {"supported_obligations": ["custom", "step-up"], "more": {}}, "more": 1}
    said = await ask(world, parties.consumer, "evaluation", able)
    assert said["decision"]

    (found,) = await world.found(("entry", said["context"]["entry"]))
    body = found.entry.body
    assert (found.entry.kind, body["caller"], body["api"]) == ("Evaluation", parties.consumer.uscc, "evaluation")
    assert (body["operator"], body["returned"]) == ("test", 1)
    assert body["answers"] == [
        {
            "consumer": parties.consumer.uscc,
            "purpose": PURPOSE,
            "resource": sealed.leaf_hash.hex(),
            "code": Code.PERMIT,
            "rule": word,
        }
    ]
    auditor = await world.join(auditor=True)
    page = await world.post(auditor, "/v1/audit/entries:query", {"kind": "Evaluation", "rule": word})
    assert said["context"]["entry"] in [one["entry"] for one in page["entries"]]


async def test_who_may_ask_about_whom(world: World, parties: Parties) -> None:
    """Itself, a provider about its own records, an auditor about anybody; nobody else, whether or not it is there."""
    (sealed,), _ = await world.firms(parties.provider)
    stranger, auditor = await world.join(receives=[LICENCE]), await world.join(auditor=True)
    asked = [record(sealed.leaf_hash), section(parties.provider), record(bytes(32))]
    codes = {}
    for who in (parties.consumer, parties.provider, auditor, stranger):
        said = await decisions(
            world,
            who,
            [{"resource": one} for one in asked],
            subject=department(parties.consumer),
            action={"name": PURPOSE},
            context=DUTIFUL,
        )
        codes[who.uscc] = [one["context"]["code"] for one in said]
    every = [Code.PERMIT, Code.PERMIT, Code.NOT_ADMITTED]
    assert codes[parties.consumer.uscc] == codes[auditor.uscc] == every
    assert codes[parties.provider.uscc] == [*every[:2], Code.REQUEST_FORBIDDEN]
    assert codes[stranger.uscc] == [Code.REQUEST_FORBIDDEN] * 3


async def test_a_batch_ends_as_its_semantic_says_and_its_entry_with_it(world: World, parties: Parties) -> None:
    """What cannot be read is a denial of its own; what was not decided is in no entry."""
    asked: list[Json] = [
        {},
        {"resource": {"type": "section", "id": "\x00", "properties": {}}},
        {"resource": section(parties.provider, "")},
        {"subject": {"type": "department", "id": "\x00"}},
        {"subject": {"type": "department", "id": ""}},
        {"action": {"name": "\x00"}},
        {"action": {"name": 1}},
        {"context": DUTIFUL | {"agent": "\x00"}},
        {"context": DUTIFUL | {"case": "11010519491231002X"}},
        {"context": DUTIFUL | {"operator": "another"}},
        {"context": {}},
        {"resource": {"type": "record", "id": "\x00", "properties": {"section": "identity"}}},
        {"resource": {"type": "record", "id": "00" * 32, "properties": {"section": "\x00"}}},
        {"resource": {"type": "page", "id": "1"}},
    ]
    defaults = {
        "subject": department(parties.consumer),
        "action": {"name": PURPOSE},
        "resource": section(parties.provider),
        "context": DUTIFUL,
    }
    said = await decisions(world, parties.consumer, asked, **defaults)
    assert [one["context"].get("code", 400) for one in said] == [
        Code.PERMIT,
        Code.ITEM_UNKNOWN,
        Code.ITEM_UNKNOWN,
        Code.CONSUMER_UNKNOWN,
        Code.CONSUMER_UNKNOWN,
        Code.REQUEST_MALFORMED,
        400,
        Code.REQUEST_MALFORMED,
        Code.PERSONAL_ID,
        Code.REQUEST_MALFORMED,
        Code.REQUEST_MALFORMED,
        Code.NOT_ADMITTED,
        Code.NOT_ADMITTED,
        Code.REQUEST_MALFORMED,
    ]
    assert [one["decision"] for one in said] == [True, *[False] * 13]
    for semantic, count in (("deny_on_first_deny", 2), ("permit_on_first_permit", 1), ("execute_all", 3)):
        batch = defaults | {"evaluations": asked[:3], "options": {"evaluations_semantic": semantic}}
        answers = (await ask(world, parties.consumer, "evaluations", batch))["evaluations"]
        assert len(answers) == count
        (found,) = await world.found(("entry", answers[0]["context"]["entry"]))
        assert [one["code"] for one in found.entry.body["answers"]] == [one["context"]["code"] for one in answers]


async def test_searches_find_what_asking_for_each_would_permit(world: World, parties: Parties) -> None:
    """Subjects, records, sections and purposes, whatever the size of a page."""
    provider, consumer = parties.provider, parties.consumer
    _, values = await world.firms(provider, 7)
    for one in values[:4]:
        await world.consent(parties, one)
    await world.firms(provider, 1)
    await world.publish(provider, draft(values[0], 2), draft(values[1], 2, operation=Operation.SUSPENDED))
    await world.publish(provider, draft(fresh_firm(), region="330402"))
    second = await world.join(receives=[LICENCE])
    await world.agree(provider, second, purposes=["government-service"], regions=["3304"])

    leaves = [r["leaf_hash"].hex() for r in await world.db.fetch(*_records_of(provider))]
    common: Json = {"subject": department(consumer), "action": {"name": PURPOSE}}
    about = {"section": "identity", "item": LICENCE, "provider": provider.uscc}
    for words, place in ((DUTIFUL, {}), (CONSENTING, {}), (DUTIFUL, {"region": "330402"})):
        of = {"type": "record", "properties": about | place}
        each = [{"resource": of | {"id": leaf}} for leaf in leaves]
        said = await decisions(world, consumer, each, **common, context=words)
        expected = sorted(leaf for leaf, one in zip(leaves, said, strict=True) if one["decision"])
        assert len(expected) == {"CONSENT": 3, "STATUTORY_DUTY": 1 if place else 8}[words["ground"]]
        asked = common | {"resource": of, "context": words}
        assert await search(world, consumer, "resource", asked, 3) == expected
        assert await search(world, consumer, "resource", asked, 100) == expected
    nothing = common | {"resource": {"type": "record"}, "context": DUTIFUL}
    assert await search(world, consumer, "resource", nothing, 3) == []

    everybody = [row["uscc"] for row in await world.db.fetch("SELECT uscc FROM org")]
    for who, found in ((provider, {consumer.uscc, second.uscc}), (consumer, {consumer.uscc})):
        asked = {"action": {"name": PURPOSE}, "resource": section(provider), "context": DUTIFUL}
        each = [{"subject": {"type": "department", "id": uscc}} for uscc in everybody]
        said = await decisions(world, who, each, **asked)
        expected = sorted(uscc for uscc, one in zip(everybody, said, strict=True) if one["decision"])
        assert set(expected) == found
        assert await search(world, who, "subject", asked | {"subject": {"type": "department"}}, 1) == expected
    assert await search(world, provider, "subject", asked | {"subject": {"type": "user"}}, 1) == []

    names = [f"{item}/{name}" for item, one in world.catalogue.items.items() for name in one.sections]
    said = await decisions(
        world, consumer, [{"resource": section(provider, n)} for n in names], **common, context=DUTIFUL
    )
    expected = sorted(name for name, one in zip(names, said, strict=True) if one["decision"])
    asked = common | {"resource": section(provider), "context": DUTIFUL}
    assert {f"{LICENCE}/business", f"{LICENCE}/identity"} < set(expected) < set(names)  # and what is unconditional
    assert await search(world, consumer, "resource", asked, 1) == expected

    whole = {"subject": department(second), "resource": section(provider), "context": DUTIFUL}
    said = await decisions(world, second, [{"action": {"name": name}} for name in PURPOSES], **whole)
    expected = sorted(name for name, one in zip(PURPOSES, said, strict=True) if one["decision"])
    assert {PURPOSE, "government-service"} < set(expected) < set(PURPOSES)
    assert await search(world, second, "action", whole, 4) == expected
    elsewhere = whole | {"resource": section(provider, region="110105")}
    assert await search(world, second, "action", elsewhere, 4) == []


def _records_of(provider: Identity) -> tuple[str, str]:
    return "SELECT leaf_hash FROM record WHERE issuer = $1", provider.uscc


async def test_a_search_has_one_entry_a_page(world: World, parties: Parties) -> None:
    """With what was found; a page that found nothing says what was asked."""
    sealed, _ = await world.firms(parties.provider, 3)
    about = {"section": "identity", "item": LICENCE, "provider": parties.provider.uscc}
    asked = {
        "subject": department(parties.consumer),
        "action": {"name": PURPOSE},
        "resource": {"type": "record", "properties": about},
        "context": DUTIFUL,
    }
    said = await ask(world, parties.consumer, "search/resource", asked | {"page": {"limit": 2}})
    (found,) = await world.found(("entry", said["context"]["entry"]))
    assert (found.entry.body["api"], found.entry.body["returned"]) == ("search/resource", 2)
    assert [one["resource"] for one in found.entry.body["answers"]] == sorted(s.leaf_hash.hex() for s in sealed)[:2]
    nothing = asked | {"action": {"name": "statistics"}}
    said = await ask(world, parties.consumer, "search/resource", nothing)
    (found,) = await world.found(("entry", said["context"]["entry"]))
    assert found.entry.body["returned"] == 0
    assert [one["purpose"] for one in found.entry.body["answers"]] == ["statistics"]


async def test_requests_are_signed_bounded_and_of_now(world: World, parties: Parties) -> None:
    """Errors are statuses with a text; what came to identify the request goes back with each."""
    question = {
        "subject": department(parties.consumer),
        "action": {"name": PURPOSE},
        "resource": section(parties.provider),
        "context": DUTIFUL,
    }

    async def status(body: Any, endpoint: str = "evaluation", **headers: str) -> int:
        answer = await send(world, parties.consumer, endpoint, body, **{"X-Request-ID": "r-1", **headers})
        assert answer.headers["x-request-id"] == "r-1"
        return answer.status_code

    now = datetime.now(UTC)
    near, far = (now - timedelta(minutes=4)).isoformat(), (now - timedelta(minutes=6)).isoformat()
    assert await status(question) == 200
    assert await status(question, Signature="", **{"Signature-Input": ""}) == 401
    assert await status(question | {"context": DUTIFUL | {"time": near}}) == 200
    for wrong in (far, "2026-01-01", "now", 5):
        assert await status(question | {"context": DUTIFUL | {"time": wrong}}) == 400
    assert await status(question | {"evaluations": [{}] * 100}, "evaluations") == 200
    assert await status(question | {"evaluations": [{}] * 101}, "evaluations") == 413
    assert await status({"subject": department(parties.consumer)}) == 400

    path = "/.well-known/authzen-configuration"
    said = (await world.http.get(world.place.gateways[GATEWAY] + path)).json()
    world.described(GATEWAY).check("get", path, 200, said)
    assert said["policy_decision_point"] == BASE_URL
    assert said["access_evaluation_endpoint"] == f"{BASE_URL}/access/v1/evaluation"


async def test_without_engines_nothing_is_answered_and_what_can_be_is_logged(
    world: World, parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503. Without PostgreSQL not even who asks is known: whether a signature was used before stands there."""
    question = {
        "subject": department(parties.consumer),
        "action": {"name": PURPOSE},
        "resource": section(parties.provider),
        "context": DUTIFUL,
    }
    body = json.dumps(question).encode()
    async with world.gateway() as gateway:
        url = "http://gateway/access/v1/evaluation"
        transport = httpx.ASGITransport(create_app(gateway))

        async def post() -> httpx.Response:
            headers = sign(parties.consumer.department, "POST", url, body) | {"Content-Type": "application/json"}
            async with httpx.AsyncClient(transport=transport) as client:
                return await client.post(url, content=body, headers=headers)

        async def away(_: Sequence[bytes]) -> None:
            raise Unavailable(Code.KAFKA_UNAVAILABLE, "writing the audit entry: no answer")

        with monkeypatch.context() as patched:
            patched.setattr(gateway.releases, "append", away)
            answer = await post()
        assert (answer.status_code, answer.text.partition(":")[0]) == (503, Code.KAFKA_UNAVAILABLE)
        assert (await post()).json()["decision"]
        assert gateway._pool is not None
        gateway._pool.terminate()
        answer = await post()
        assert (answer.status_code, answer.text.partition(":")[0]) == (503, Code.POSTGRES_UNAVAILABLE)
    entries = [one.body for one in await world.logged("Evaluation") if one.body["caller"] == parties.consumer.uscc]
    assert [(one["answers"][0]["code"], one["returned"]) for one in entries] == [(Code.PERMIT, 1)]
