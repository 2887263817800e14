"""A walk over calls: whoever does what in whatever order, a key leaves only while its ground is in force."""

from __future__ import annotations

import random

from consent.lifecycle import AGREEMENT, CONSENT, Act, Role
from consent.model import AgreementState, ConsentState
from schemas.errors import Code
from tests.integration.bus import DUTY, LICENCE, PURPOSE, World

STEPS = 70
SEED = 20261127
ENDS = (Act.END, Act.REFUSE, Act.WITHDRAW, Act.DECLINE)
BY_CONSENT = {"ground": "CONSENT", "citation": ""}


async def test_no_sequence_of_calls_ends_in_a_key_without_a_ground_in_force(world: World) -> None:
    """Acts drawn at random by provider, consumer and a stranger, each followed by both grounds at a drawn gateway.

    The answer of each act is what the tables say, the codes are PERMIT exactly while agreement (and consent) are
    ACTIVE, and a document that is at its end is followed by a new one.
    """
    draw = random.Random(SEED)
    parties = await world.parties()
    provider, consumer, stranger = parties.provider, parties.consumer, await world.join()
    (sealed,), (values,) = await world.firms(provider)
    application = {
        "provider": provider.uscc,
        "item": LICENCE,
        "sections": ["identity"],
        "purposes": [PURPOSE],
        "grounds": ["STATUTORY_DUTY", "CONSENT"],
        "duties": [DUTY],
        "valid_from": "2020-01-01",
    }
    await world.act(provider, "agreements", parties.agreement, "END")
    agreement = await world.post(consumer, "/v1/agreements", application)
    consent = await world.consent(parties, values)
    returned = False
    permitted = refused = 0
    for _ in range(STEPS):
        what, table = draw.choice((("agreements", AGREEMENT), ("consents", CONSENT)))
        document = agreement if what == "agreements" else consent
        kind = AgreementState if what == "agreements" else ConsentState
        state = kind(document["state"])
        possible = [act for from_, act in table if from_ is state and act is not Act.EXPIRE]
        # Mostly what is possible and no end, by who may: all at random would hardly ever come to an agreement in use.
        act = draw.choice([one for one in possible if one not in ENDS] or list(Act))
        if draw.random() < 0.25:
            act = draw.choice(list(Act))
        step = table.get((state, act))
        may = [provider] if step is not None and Role.PROVIDER in step.roles else [consumer]
        who = draw.choice((provider, consumer, stranger) if draw.random() < 0.2 else may)
        body = {"id": document["id"], "act": act.value, "reason": "drawn"}
        if what == "agreements" and act is Act.RESUBMIT:
            answer = await world.send_json(
                who, "/v1/agreements:resubmit", {"id": document["id"], "application": application}
            )
        else:
            answer = await world.send_json(who, f"/v1/{what}:act", body)
        role = {provider.uscc: "PROVIDER", consumer.uscc: "CONSUMER"}.get(who.uscc, "")
        roles = {role} | ({"ISSUER"} if what == "consents" and who is provider else set())
        allowed = step is not None and bool(roles & set(step.roles)) and not (act is Act.RETURN and returned)
        assert (answer.status_code == 200) is allowed, (SEED, what, state, act, role, answer.text)
        if allowed:
            document = answer.json()
            assert document["state"] == step.state  # type: ignore[union-attr]
            returned = returned or act is Act.RETURN
            if what == "agreements":
                agreement = document
            else:
                consent = document
        if agreement["state"] in ("REFUSED", "TERMINATED"):
            agreement, returned = await world.post(consumer, "/v1/agreements", application), False
            consent = await world.consent(parties, values)
        elif consent["state"] in ("DECLINED", "WITHDRAWN"):
            consent = await world.consent(parties, values)
        at = draw.randrange(2)
        in_use = agreement["state"] == "ACTIVE"
        by_duty = await world.codes(consumer, sealed, at)
        by_consent = await world.codes(consumer, sealed, 1 - at, **BY_CONSENT)
        assert (by_duty == [Code.PERMIT]) is in_use, (SEED, agreement["state"], by_duty)
        both = in_use and consent["state"] == "ACTIVE"
        assert (by_consent == [Code.PERMIT]) is both, (SEED, agreement["state"], consent["state"], by_consent)
        permitted, refused = permitted + both + in_use, refused + 2 - both - in_use
    assert min(permitted, refused) > STEPS / 5, (permitted, refused)
