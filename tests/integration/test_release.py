"""How keys leave a gateway: only to who signed, only for claims as admitted, only while the rules say so."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest

from bus import audit, envelope, merkle, sealing
from bus.envelope import Claims
from bus.gateway.app import create_app
from bus.httpsig import sign
from bus.messages import Read, open_grant
from schemas.errors import Code, Refused
from tests.integration.bus import LICENCE, PURPOSE, World, draft, fresh_firm, key_request, reads

BY_CONSENT = {"ground": "CONSENT", "citation": ""}
YESTERDAY = (datetime.now(UTC) - timedelta(days=2)).date().isoformat()
ALTERED: dict[str, Callable[[Claims], Claims]] = {
    "region": lambda c: replace(c, region="330402"),
    "item": lambda c: replace(c, item="food-business-permit"),
    "valid_until": lambda c: replace(c, valid_until=date(2099, 1, 1)),
    "issuer": lambda c: replace(c, issuer="11330411MB2A00011E"),
    "subjects": lambda c: replace(c, subjects=(replace(c.subjects[0], pseudonym=bytes(32)),)),
    "sequence": lambda c: replace(c, sequence=c.sequence + 1),
    "operation": lambda c: replace(c, operation="RENEWED"),
    "commitment": lambda c: replace(c, sections=tuple((name, bytes(32)) for name, _ in c.sections)),
}


async def test_only_a_whole_fresh_signature_of_the_department_itself_is_answered(world: World) -> None:
    """An unsigned, changed, expired or differently signed request is refused before anything is decided."""
    parties = await world.parties()
    (sealed,), _ = await world.firms(parties.provider)
    consumer, url = parties.consumer, world.place.gateways[0] + "/v1/keys"
    body = key_request(consumer, reads([sealed])).encode()
    changed = key_request(consumer, reads([sealed]), purpose="supervision").encode()
    good = sign(consumer.department, "POST", url, body)
    other = sign(parties.provider.department, "POST", url, body)
    late = sign(consumer.department, "POST", url, body, datetime.now(UTC) - timedelta(minutes=2))
    digest = {"Content-Digest": sign(consumer.department, "POST", url, changed)["Content-Digest"]}

    async def answer(headers: dict[str, str], sent: bytes = body) -> tuple[int, str]:
        said = await world.send(consumer, sent, headers=headers)
        return said.status_code, said.json()["code"]

    assert await answer({}) == (401, Code.REQUEST_UNSIGNED)
    assert await answer(good, changed) == (401, Code.REQUEST_DIGEST)
    assert await answer(good | digest, changed) == (401, Code.REQUEST_SIGNATURE)
    assert await answer(late) == (401, Code.REQUEST_EXPIRED)
    assert await answer(sign(consumer.department, "POST", url + "x", body)) == (401, Code.REQUEST_SIGNATURE)
    assert await answer(other | {"Signature-Input": good["Signature-Input"]}) == (401, Code.REQUEST_SIGNATURE)
    assert await answer(sign(consumer.record, "POST", url, body)) == (401, Code.CERTIFICATE_ROLE)
    assert await answer(other) == (403, Code.RECIPIENT_INVALID)
    # The gateway's own KemKey is nobody's recipient either.
    foreign = key_request(consumer, reads([sealed]), recipient=parties.provider.kem.id).encode()
    assert await answer(sign(consumer.department, "POST", url, foreign), foreign) == (403, Code.RECIPIENT_INVALID)
    assert (await world.send(consumer, body, headers=good)).status_code == 200


async def test_altered_claims_give_nothing_that_opens_anything(world: World) -> None:
    """Whoever alters a claim is told that it is not admitted, and the key that follows from it would not open."""
    parties = await world.parties()
    sealer = await world.sealer(parties.provider)
    (sealed,) = sealer.seal([draft(fresh_firm())])
    await world.send_sealed(sealed)
    record = envelope.parse(sealed.value)
    (_, commitment), body = record.claims.sections[0], record.bodies[0]
    altered = {name: alter(record.claims) for name, alter in ALTERED.items()}
    shown = [
        Read(envelope.encode_prefix(claims) + envelope.encode_sections(claims.sections), ("identity",))
        for claims in altered.values()
    ]
    grant, keys = await world.ask(parties.consumer, key_request(parties.consumer, shown))
    assert keys == {}
    assert [r.sections for r in grant.results] == [(("identity", Code.NOT_ADMITTED),)] * len(ALTERED)

    node = sealer._leaves["identity"].node(record.claims.leaf)
    assert sealing.open_body(sealing.section_secret(node, record.prefix), commitment, body)
    for claims in altered.values():
        secret = sealing.section_secret(node, envelope.encode_prefix(claims))
        with pytest.raises(Refused) as refused:
            sealing.open_body(secret, claims.sections[0][1], body)
        assert refused.value.code is Code.BODY_UNOPENABLE


async def test_duty_and_consent_open_and_everything_else_is_refused_with_its_code_and_entry(world: World) -> None:
    """Each answer, permit or refusal, is logged and soon a row: who, what, why, and the publisher's trace."""
    parties = await world.parties()
    (sealed, other), (values, other_values) = await world.firms(parties.provider, 2)
    consumer = parties.consumer
    stranger = await world.join(receives=[LICENCE])
    past = await world.agree(parties.provider, stranger, valid_until=YESTERDAY)
    await world.consent(parties, values)
    await world.consent(parties, other_values, valid_until=YESTERDAY)
    trace = envelope.parse(sealed.value).claims.record.hex

    async def ask(of: Any, code: Code, what: Any = sealed, **changed: Any) -> None:
        asked = changed.pop("sections", ("identity",))
        grant, keys = await world.ask(of, key_request(of, reads([what], asked), **changed))
        assert dict(grant.results[0].sections) == dict.fromkeys(asked, code)
        assert bool(keys) is (code is Code.PERMIT)
        if keys:
            assert world.open(what, keys)["uscc"] == (values if what is sealed else other_values)["uscc"]
        (found,) = await world.found(("entry", grant.results[0].entry.hex()))
        body = found.entry.body
        assert (body["consumer"], body["provider"], body["item"]) == (of.uscc, parties.provider.uscc, LICENCE)
        assert (body["purpose"], body["ground"]) == (
            changed.get("purpose", PURPOSE),
            changed.get("ground", "STATUTORY_DUTY"),
        )
        assert [(s["name"], s["code"]) for s in body["sections"]] == [(name, code) for name in asked]
        assert body["record"] == what.leaf_hash
        if what is sealed:
            assert body["trace"] == trace

    await ask(consumer, Code.PERMIT)
    await ask(consumer, Code.PERMIT, **BY_CONSENT)
    await ask(consumer, Code.AGREEMENT_PURPOSE, purpose="statistics")
    await ask(consumer, Code.AGREEMENT_SECTION, sections=("representative",))
    await ask(consumer, Code.DUTY_NOT_NAMED, citation="刑法 第一条")
    await ask(consumer, Code.GROUND_UNKNOWN, ground="CURIOSITY")
    await ask(consumer, Code.CONSENT_SECTION, sections=("business",), **BY_CONSENT)
    await ask(consumer, Code.CONSENT_EXPIRED, other, **BY_CONSENT)
    await ask(stranger, Code.AGREEMENT_ENDED)
    await ask(parties.provider, Code.AGREEMENT_NONE)
    await world.act(parties.provider, "agreements", parties.agreement, "END")
    await ask(consumer, Code.AGREEMENT_ENDED)
    assert past["state"] == "ACTIVE"
    (sent,) = await world.on_topic(sealed.topic, sealed.key)
    assert dict(sent.headers)["traceparent"].split(b"-")[1] == trace.encode()


async def test_a_withdrawal_stops_the_next_release_on_every_gateway(world: World) -> None:
    """Withdrawn at one gateway, refused at the other in the very next request."""
    parties = await world.parties()
    for at in (0, 1):
        (sealed,), (values,) = await world.firms(parties.provider)
        consent = await world.consent(parties, values)
        for gateway in (0, 1):
            assert await world.codes(parties.consumer, sealed, gateway, **BY_CONSENT) == [Code.PERMIT]
        await world.withdraw(parties, consent, at)
        assert await world.codes(parties.consumer, sealed, 1 - at, **BY_CONSENT) == [Code.CONSENT_WITHDRAWN]


@pytest.mark.parametrize("change", ["consent", "agreement", "newer version"])
async def test_what_changes_between_decision_and_grant_voids_it(
    world: World, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules are read again after the entry is durable: a change then means VOIDED in the log and no key."""
    parties = await world.parties()
    (sealed,), (values,) = await world.firms(parties.provider)
    consent = await world.consent(parties, values)
    async with world.gateway() as gateway:
        append = gateway.releases.append
        calls: list[Sequence[bytes]] = []

        async def append_then_change(log_values: Sequence[bytes]) -> None:
            await append(log_values)
            calls.append(log_values)
            if len(calls) > 1:
                return
            match change:
                case "consent":
                    await world.withdraw(parties, consent)
                case "agreement":
                    await world.act(parties.provider, "agreements", parties.agreement, "END")
                case _:
                    await world.publish(parties.provider, draft(values, 2))

        monkeypatch.setattr(gateway.releases, "append", append_then_change)
        request = key_request(parties.consumer, reads([sealed]), **BY_CONSENT)
        transport = httpx.ASGITransport(create_app(gateway))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            body = request.encode()
            headers = sign(parties.consumer.department, "POST", "http://gateway/v1/keys", body)
            answer = await client.post("/v1/keys", content=body, headers=headers)
    grant, keys = open_grant(answer.content, request.request, parties.consumer.kem, world.trust, datetime.now(UTC))
    assert keys == {}
    assert grant.results[0].sections == (("identity", Code.FACTS_CHANGED),)
    decided, voided = (audit.parse(values[0])[0] for values in calls)
    assert [s["code"] for s in decided.body["sections"]] == [Code.PERMIT]
    assert (voided.kind, voided.body["entry"]) == ("Voided", grant.results[0].entry)
    assert voided.body["entry"] == merkle.leaf_hash(decided.value)


@pytest.mark.parametrize("limit", ["records_a_day", "max_uses"])
async def test_limits_are_never_exceeded_however_many_gateways_are_asked(world: World, limit: str) -> None:
    """Of many concurrent requests to two gateways exactly as many are permitted as the limit says."""
    allowed, asked = 3, 10
    by_day = limit == "records_a_day"
    parties = await world.parties(**({limit: allowed} if by_day else {}))
    sealed, (values, *_) = await world.firms(parties.provider, asked if by_day else 1)
    if not by_day:
        await world.consent(parties, values, max_uses=allowed)
        sealed = sealed * asked
    words = {} if by_day else BY_CONSENT
    answers = await asyncio.gather(
        *(world.codes(parties.consumer, one, at % 2, **words) for at, one in enumerate(sealed))
    )
    refusal = Code.VOLUME_EXCEEDED if by_day else Code.CONSENT_USED_UP
    assert Counter(code for codes in answers for code in codes) == {Code.PERMIT: allowed, refusal: asked - allowed}


async def test_a_repeated_request_takes_no_second_unit_and_is_logged_again(world: World) -> None:
    """A consumer that lost the answer asks again with the same id: the same keys, one unit, two entries."""
    parties = await world.parties(records_a_day=2)
    (sealed,), _ = await world.firms(parties.provider)
    request = key_request(parties.consumer, reads([sealed]))
    first, second = [await world.ask(parties.consumer, request, gateway) for gateway in (0, 1)]
    assert first[1] == second[1] != {}
    assert first[0].results[0].entry != second[0].results[0].entry
    assert await world.db.fetchval("SELECT sum(used) FROM usage WHERE rule = $1", parties.agreement["id"]) == 1
    await world.found(("request", request.request.hex()), count=2)


async def test_one_request_id_is_not_a_way_round_a_limit(world: World) -> None:
    """A request id that comes again with other records pays for them."""
    parties = await world.parties(records_a_day=2)
    sealed, _ = await world.firms(parties.provider, 6)
    request = secrets.token_bytes(16)
    codes = [code for one in sealed for code in await world.codes(parties.consumer, one, request=request)]
    assert Counter(codes) == {Code.PERMIT: 2, Code.VOLUME_EXCEEDED: 4}
