"""Consents, powers and mandates on real gateways: what each act does to the very next release, on the other gateway."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from bus.identity import Identity
from bus.outbox import Sealed
from consent.decide import CHINA
from schemas.errors import Code
from tests.integration.bus import (
    LICENCE,
    PURPOSE,
    REGION,
    TAX,
    Parties,
    World,
    citizen_number,
    draft,
    fresh_firm,
    tax_draft,
)

BY_CONSENT: dict[str, Any] = {"ground": "CONSENT", "citation": ""}
PROPERTY = "real-estate-certificate"
EVIDENCE = "ab" * 32
TODAY = datetime.now(CHINA).date()
LATER = str(TODAY + timedelta(days=30))


def firm_of(values: Mapping[str, Any]) -> dict[str, str]:
    return {"kind": "ORGANISATION", "id": values["uscc"]}


async def refused(world: World, who: Identity, path: str, body: Any) -> tuple[int, str]:
    answer = await world.send_json(who, path, body)
    return answer.status_code, answer.json()["code"]


async def test_a_consent_is_asked_for_given_paused_resumed_and_withdrawn(world: World) -> None:
    """Each act counts at the other gateway in the very next release. What was opened is counted, and told."""
    parties, hall = await world.parties(), await world.join()
    (sealed,), (values,) = await world.firms(parties.provider)
    asked = {
        "subject": firm_of(values),
        "recipient": parties.consumer.uscc,
        "purposes": [PURPOSE],
        "scopes": [{"item": LICENCE, "sections": ["identity"]}],
        "valid_from": "2020-01-01",
        "requested": True,
        "through": hall.uscc,
    }
    (consent,) = await world.post(parties.consumer, "/v1/consents", {"consents": [asked]})
    assert consent["state"] == "REQUESTED"

    async def code(gateway: int) -> str:
        (found,) = await world.codes(parties.consumer, sealed, gateway, **BY_CONSENT)
        return found

    assert await code(1) == Code.CONSENT_PENDING
    # Nobody but the department where the subject answers says what the answer is.
    for who in (parties.consumer, parties.provider):
        act = {"id": consent["id"], "act": "GIVE"}
        assert await refused(world, who, "/v1/consents:act", act) == (403, Code.REQUEST_FORBIDDEN)
    steps: tuple[tuple[Identity, str, Code], ...] = (
        (hall, "GIVE", Code.PERMIT),
        (parties.consumer, "PAUSE", Code.CONSENT_PAUSED),
        (hall, "RESUME", Code.PERMIT),
        (parties.provider, "WITHDRAW", Code.CONSENT_WITHDRAWN),
    )
    for number, (who, what, then) in enumerate(steps):
        await world.act(who, "consents", consent, what, gateway=number % 2)
        assert await code(1 - number % 2) == then
    assert await refused(world, hall, "/v1/consents:act", {"id": consent["id"], "act": "RESUME"}) == (
        409,
        Code.STATE_INVALID,
    )
    await world.covered()
    shown = await world.post(hall, "/v1/consents:show", {"id": consent["id"]})
    assert [one["act"] for one in shown["acts"]] == ["REQUEST", *(what for _, what, _ in steps)]
    assert shown["uses"] == {"count": 2, "last": str(TODAY)}
    nobody = {"id": consent["id"], "subject": {"kind": "ORGANISATION", "id": consent["id"]}}
    assert await refused(world, parties.consumer, "/v1/consents:receipt", nobody) == (400, Code.USCC_FORM)
    receipt = await world.post(parties.consumer, "/v1/consents:receipt", {"id": consent["id"]})
    record = receipt["dpv:hasRecordOfActivity"]
    assert [one["@type"][0] for one in record["dpv:hasConsentStatus"]] == [
        "dpv:ConsentRequested",
        "dpv:ConsentGiven",
        "dpv:ConsentStatusInvalidForProcessing",
        "dpv:RenewedConsentGiven",
        "dpv:ConsentWithdrawn",
    ]
    assert values["uscc"] not in str(receipt)
    assert {one["dpv:hasIdentifier"]: one["dpv:hasName"] for one in record["dpv:hasEntity"]} == {
        one.uscc: one.name for one in (hall, parties.consumer, parties.provider)
    }


async def test_a_declined_consent_stays_declined(world: World) -> None:
    """And one whose days have not come, or are over, opens nothing."""
    parties, hall = await world.parties(), await world.join()
    sealed, firms = await world.firms(parties.provider, 3)
    requested = {"requested": True, "through": hall.uscc}
    asking = Parties(parties.consumer, parties.consumer)  # the recipient asks
    consent = await world.consent(asking, firms[0], **requested)
    await world.act(hall, "consents", consent, "DECLINE")
    await world.consent(parties, firms[1], valid_until=str(TODAY - timedelta(days=1)))
    await world.consent(parties, firms[2], valid_from=LATER)
    codes = [(await world.codes(parties.consumer, one, **BY_CONSENT))[0] for one in sealed]
    assert codes == [Code.CONSENT_DECLINED, Code.CONSENT_EXPIRED, Code.CONSENT_EXPIRED]
    act = {"id": consent["id"], "act": "GIVE"}
    assert await refused(world, hall, "/v1/consents:act", act) == (409, Code.STATE_INVALID)
    # The recipient neither records its own, nor asks through itself.
    for changed in ({}, {"requested": True}):
        body = {"consents": [_body(parties, firms[0]) | changed]}
        assert await refused(world, parties.consumer, "/v1/consents", body) == (403, Code.REQUEST_FORBIDDEN)


def _body(parties: Parties, values: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    return {
        "subject": firm_of(values),
        "recipient": parties.consumer.uscc,
        "purposes": [PURPOSE],
        "scopes": [{"item": LICENCE, "sections": ["identity"]}],
        "valid_from": "2020-01-01",
        **changed,
    }


async def test_whoever_recorded_receives_or_issues_withdraws_and_nobody_else(world: World) -> None:
    """As easily as it was given: one call, no reason. To a stranger there is nothing of that id."""
    parties, hall, stranger = await world.parties(), await world.join(), await world.join()
    (sealed,), (values,) = await world.firms(parties.provider)
    for who in (hall, parties.consumer, parties.provider):
        (consent,) = await world.post(hall, "/v1/consents", {"consents": [_body(parties, values)]})
        assert await world.codes(parties.consumer, sealed, **BY_CONSENT) == [Code.PERMIT]
        for path, body in (
            ("show", {}),
            ("receipt", {}),
            ("receipt", {"subject": firm_of(values)}),
            ("act", {"act": "WITHDRAW"}),
        ):
            asked = {"id": consent["id"], **body}
            assert await refused(world, stranger, f"/v1/consents:{path}", asked) == (404, Code.NOT_FOUND)
        await world.act(who, "consents", consent, "WITHDRAW")
        assert await world.codes(parties.consumer, sealed, 1, **BY_CONSENT) == [Code.CONSENT_WITHDRAWN]
    assert await world.post(stranger, "/v1/consents:search", {"item": LICENCE, "subject": firm_of(values)}) == []


async def test_a_portal_sees_a_subjects_consents_for_the_subject(world: World) -> None:
    """All of them, whoever the parties are; each look is in the log. For another subject there is none."""
    parties, asking = await world.parties(), await world.join(portal=True)
    values, others = fresh_firm(), fresh_firm()
    consent = await world.consent(parties, values)
    found = await world.post(asking, "/v1/consents:search", {"item": LICENCE, "subject": firm_of(values)})
    assert [(one["id"], one["uses"]) for one in found] == [(consent["id"], {"count": 0, "last": None})]
    mine = {"id": consent["id"], "subject": firm_of(values)}
    receipt = await world.post(asking, "/v1/consents:receipt", mine)
    assert receipt["dpv:hasRecordOfActivity"]["dct:identifier"] == consent["id"]
    for body in ({"id": consent["id"]}, mine | {"subject": firm_of(others)}):
        assert await refused(world, asking, "/v1/consents:receipt", body) == (404, Code.NOT_FOUND)
    readings = await world.found(("kind", "Reading"), ("consumer", asking.uscc), count=3)
    assert [(one.entry.body["what"], one.entry.body["returned"]) for one in readings] == [
        ("consents:search", 1),
        ("consents:receipt", 1),
        ("consents:receipt", 0),
    ]


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ({"max_uses": 2}, Code.CONSENT_USED_UP),
        ({"frequency": {"uses": 2, "every": "YEAR"}}, Code.CONSENT_FREQUENCY),
    ],
)
async def test_no_use_beyond_what_was_consented_to(world: World, limit: dict[str, Any], code: Code) -> None:
    """However it is counted, and whichever gateway is asked."""
    parties = await world.parties()
    (sealed,), (values,) = await world.firms(parties.provider)
    await world.consent(parties, values, **limit)
    codes = [(await world.codes(parties.consumer, sealed, at % 2, **BY_CONSENT))[0] for at in range(4)]
    assert codes == [Code.PERMIT, Code.PERMIT, code, code]


async def test_a_new_agreement_needs_a_new_consent(world: World) -> None:
    """PIPL art. 14: it was given under the terms that were then."""
    parties = await world.parties()
    (sealed,), (values,) = await world.firms(parties.provider)
    consent = await world.consent(parties, values)
    await world.act(parties.consumer, "agreements", parties.agreement, "END")
    agreed = await world.agree(parties.provider, parties.consumer)
    assert await world.codes(parties.consumer, sealed, **BY_CONSENT) == [Code.CONSENT_AGREEMENT]
    body = {"consents": [_body(parties, values, agreements=consent["agreements"])]}
    assert await refused(world, parties.provider, "/v1/consents", body) == (403, Code.AGREEMENT_NONE)
    anew = await world.consent(parties, values)
    assert anew["agreements"] == [agreed["hash"]]
    assert await world.codes(parties.consumer, sealed, **BY_CONSENT) == [Code.PERMIT]


async def test_one_consent_over_two_items_has_a_pseudonym_for_each(world: World) -> None:
    """Given once, withdrawn once; nobody else can tell that both are one firm's."""
    parties, tax = await world.parties(), await world.join(issues=[(TAX, "")])
    registered = {"item": TAX, "sections": ["registration"]}
    await world.agree(tax, parties.consumer, **registered)
    (licence,), (values,) = await world.firms(parties.provider)
    (certificate,) = await world.publish(tax, tax_draft(values, licence.leaf_hash))
    consent = await world.consent(parties, values, scopes=[{"item": LICENCE, "sections": ["identity"]}, registered])
    assert len({scope["subject"] for scope in consent["scopes"]}) == len(consent["agreements"]) == 2

    async def codes() -> list[str]:
        first = await world.codes(parties.consumer, licence, **BY_CONSENT)
        return first + await world.codes(parties.consumer, certificate, 1, sections=("registration",), **BY_CONSENT)

    assert await codes() == [Code.PERMIT, Code.PERMIT]
    for item in (LICENCE, TAX):
        query = {"item": item, "subject": firm_of(values)}
        (found,) = await world.post(tax, "/v1/consents:search", query)  # it issues one of them
        assert found["id"] == consent["id"]
    await world.act(tax, "consents", consent, "WITHDRAW")
    assert await codes() == [Code.CONSENT_WITHDRAWN, Code.CONSENT_WITHDRAWN]


def house(owner: str) -> dict[str, Any]:
    return {
        "licence_number": f"浙(2026)嘉兴不动产权第{secrets.token_hex(8)}号",
        "issued_on": date(2026, 1, 1),
        "region": REGION,
        "unit_number": "330411001001GB00001F00010001",
        "location": "秀洲区",
        "right_kind": "国有建设用地使用权/房屋所有权",
        "area": Decimal("89.50"),
        "co_ownership": "SOLE",
        "owners": [{"name": "某", "id_number": owner, "id_type": "111", "share": "1/1"}],
    }


async def test_for_a_child_a_guardian_consents_and_to_each_section_separately(world: World) -> None:
    """PIPL art. 28 and 31: under 14 until the birthday that the citizen number says, and not on it."""
    provider, consumer = await world.join(issues=[(PROPERTY, "")]), await world.join(receives=[PROPERTY])
    await world.agree(provider, consumer, item=PROPERTY, sections=["certificate"], purposes=["utility-service"])
    turns = {"tomorrow": _fourteen(TODAY + timedelta(days=1), 1), "today": _fourteen(TODAY, -1)}
    owners = {name: citizen_number(day.replace(year=day.year - 14)) for name, day in turns.items()}
    houses = await world.publish(provider, *(draft(house(one), item=PROPERTY) for one in owners.values()))
    sealed: dict[str, Sealed] = dict(zip(owners, houses, strict=True))

    async def consents(owner: str, sensitive: bool = False, **changed: Any) -> str | None:
        scope = {"item": PROPERTY, "sections": ["certificate"], "sensitive": ["certificate"] if sensitive else []}
        body = {
            "subject": {"kind": "PERSON", "id": owners[owner]},
            "recipient": consumer.uscc,
            "purposes": ["utility-service"],
            "scopes": [scope],
            "valid_from": "2020-01-01",
        }
        (made,) = await world.post(provider, "/v1/consents", {"consents": [body | changed]})
        until: str | None = made["minor_until"]
        return until

    async def code(owner: str) -> str:
        words = {"purpose": "utility-service", **BY_CONSENT}
        (found,) = await world.codes(consumer, sealed[owner], sections=("certificate",), **words)
        return found

    assert await consents("today") is None
    assert await code("today") == Code.PERMIT
    guardian: dict[str, Any] = {"given_by": "GUARDIAN", "evidence": EVIDENCE}
    assert await consents("tomorrow", sensitive=True) == str(turns["tomorrow"])
    assert await code("tomorrow") == Code.CONSENT_GUARDIAN
    await consents("tomorrow", **guardian)
    assert await code("tomorrow") == Code.CONSENT_SENSITIVE
    await consents("tomorrow", sensitive=True, **guardian)
    assert await code("tomorrow") == Code.PERMIT
    body = {
        "subject": {"kind": "PERSON", "id": owners["tomorrow"]},
        "recipient": consumer.uscc,
        "purposes": ["utility-service"],
        "scopes": [{"item": PROPERTY, "sections": ["certificate"]}],
        "valid_from": "2020-01-01",
        "given_by": "GUARDIAN",
    }
    assert await refused(world, provider, "/v1/consents", {"consents": [body]}) == (400, Code.REQUEST_MALFORMED)


def _fourteen(day: date, step: int) -> date:
    """That day, on which somebody can turn 14: not 29 February, since 14 years before there is none."""
    return day if (day.month, day.day) != (2, 29) else day + timedelta(days=step)


async def test_a_window_opens_under_a_delegated_power(world: World) -> None:
    """With its own keys, for what its grantor's agreement shares; the entry names the power and the operator."""
    parties, window, stranger = await world.parties(), await world.join(receives=[LICENCE]), await world.join()
    (sealed,), (values,) = await world.firms(parties.provider)
    assert await world.codes(window, sealed) == [Code.AGREEMENT_NONE]
    body = {
        "right": "OPEN",
        "grantee": window.uscc,
        "items": [LICENCE],
        "purposes": [PURPOSE],
        "regions": [REGION[:4]],
        "valid_from": "2020-01-01",
        "basis": "授权确认书 2026-7",
    }
    power = await world.post(parties.consumer, "/v1/powers", body)
    grant, keys = await world.keys(window, [sealed], 1, operator="window-3")
    assert world.open(sealed, keys)["uscc"] == values["uscc"]
    (found,) = await world.found(("entry", grant.results[0].entry.hex()))
    said = found.entry.body
    assert (said["consumer"], said["operator"]) == (window.uscc, "window-3")
    agreement = parties.agreement
    assert said["sections"][0]["rule"].split() == [
        f"agreement:{agreement['id']}@{agreement['revision']}",
        f"power:{power['id']}@1",
    ]
    assert [one.hex() for one in said["hashes"]] == [agreement["hash"], power["hash"]]
    # Its subjects consent to the grantor, which answers for the window.
    assert await world.codes(window, sealed, **BY_CONSENT) == [Code.CONSENT_NONE]
    await world.consent(parties, values)
    assert await world.codes(window, sealed, **BY_CONSENT) == [Code.PERMIT]
    assert await world.codes(window, sealed, purpose="seal-registration") == [Code.POWER_SCOPE]
    for path, asked in (("show", {}), ("act", {"act": "END"})):
        answer = await refused(world, stranger, f"/v1/powers:{path}", {"id": power["id"], **asked})
        assert answer == (404, Code.NOT_FOUND)
    for who in (window, parties.consumer):
        assert [one["id"] for one in await world.post(who, "/v1/powers:list", {})][-1] == power["id"]
    await world.act(window, "powers", power, "END")  # either side
    assert await world.codes(window, sealed, 1) == [Code.POWER_ENDED]
    shown = await world.post(parties.consumer, "/v1/powers:show", {"id": power["id"]})
    assert [(one["act"], one["author"]) for one in shown["acts"]] == [
        ("GIVE", parties.consumer.uscc),
        ("END", window.uscc),
    ]


async def test_only_its_holder_delegates_the_power_to_issue(world: World) -> None:
    """There, and no wider; nor is a power given to oneself, without its deed, or to nobody."""
    issuer, window, other = await world.join(issues=[(LICENCE, "3304")]), await world.join(), await world.join()
    body = {
        "right": "ISSUE",
        "grantee": window.uscc,
        "items": [LICENCE],
        "regions": ["330411"],
        "valid_from": "2020-01-01",
        "basis": "授权确认书",
    }
    forbidden, malformed = (403, Code.REQUEST_FORBIDDEN), (400, Code.REQUEST_MALFORMED)
    for who, changed, answer in (
        (other, {}, forbidden),
        (issuer, {"regions": []}, forbidden),
        (issuer, {"regions": ["33"]}, forbidden),
        (issuer, {"regions": ["330411", "3305"]}, forbidden),
        (issuer, {"items": [TAX]}, forbidden),
        (issuer, {"grantee": issuer.uscc}, forbidden),
        (issuer, {"grantee": fresh_firm()["uscc"]}, (403, Code.CONSUMER_UNKNOWN)),
        (issuer, {"basis": ""}, malformed),
        (issuer, {"purposes": [PURPOSE]}, malformed),
        (issuer, {"right": "OPEN"}, malformed),
        (issuer, {"items": [LICENCE, LICENCE]}, malformed),
        (issuer, {"valid_until": "2019-12-31"}, malformed),
    ):
        assert await refused(world, who, "/v1/powers", body | changed) == answer, changed
    made = await world.post(issuer, "/v1/powers", body)
    assert (made["grantor"], made["grantee"], made["state"]) == (issuer.uscc, window.uscc, "ACTIVE")


async def test_an_agent_needs_the_subjects_mandate(world: World) -> None:
    """With a scope and an end; the entry names agent and mandate. Nobody's own invention, and no citizen number."""
    parties, hall, stranger = await world.parties(), await world.join(), await world.join()
    (sealed, other), (values, _) = await world.firms(parties.provider, 2)
    agent = f"agent-{secrets.token_hex(4)}"
    assert await world.codes(parties.consumer, sealed, agent=agent) == [Code.MANDATE_NONE]
    body = {
        "agent": agent,
        "subject": firm_of(values),
        "items": [LICENCE],
        "purposes": [PURPOSE],
        "valid_from": "2020-01-01",
        "valid_until": LATER,
        "evidence": EVIDENCE,
    }
    for changed, answer in (
        ({"evidence": ""}, (400, Code.REQUEST_MALFORMED)),
        ({"agent": ""}, (400, Code.REQUEST_MALFORMED)),
        ({"agent": citizen_number()}, (403, Code.PERSONAL_ID)),
        ({"agent": hall.uscc}, (403, Code.REQUEST_FORBIDDEN)),
        ({"purposes": []}, (400, Code.REQUEST_MALFORMED)),
    ):
        assert await refused(world, hall, "/v1/mandates", body | changed) == answer, changed
    mandate = await world.post(hall, "/v1/mandates", body)
    grant, keys = await world.keys(parties.consumer, [sealed], 1, agent=agent)
    assert keys
    (found,) = await world.found(("entry", grant.results[0].entry.hex()), ("agent", agent))
    assert f"mandate:{mandate['id']}@1" in found.entry.body["sections"][0]["rule"].split()
    assert await world.codes(parties.consumer, other, agent=agent) == [Code.MANDATE_NONE]
    assert await world.codes(parties.consumer, sealed, agent=agent, purpose="statistics") == [Code.MANDATE_SCOPE]
    assert await world.codes(parties.consumer, sealed, agent="agent-of-others") == [Code.MANDATE_NONE]
    query = {"item": LICENCE, "subject": firm_of(values)}
    assert [one["id"] for one in await world.post(hall, "/v1/mandates:search", query)] == [mandate["id"]]
    assert await world.post(stranger, "/v1/mandates:search", query) == []
    assert await refused(world, stranger, "/v1/mandates:show", {"id": mandate["id"]}) == (404, Code.NOT_FOUND)
    assert [one["id"] for one in await world.post(hall, "/v1/mandates:list", {})] == [mandate["id"]]
    await world.act(hall, "mandates", mandate, "END")
    assert await world.codes(parties.consumer, sealed, agent=agent) == [Code.MANDATE_ENDED]
    shown = await world.post(hall, "/v1/mandates:show", {"id": mandate["id"]})
    assert [one["act"] for one in shown["acts"]] == ["GIVE", "END"]
    assert await world.codes(parties.consumer, sealed) == [Code.PERMIT]  # the firm itself
