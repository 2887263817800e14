"""Rules in the trail: what opens is logged before it counts, what closes counts at once and is logged without fail."""

from __future__ import annotations

import time

from consent.model import Agreement, Consent
from schemas.errors import Code
from tests.faults.plant import Plant, kill
from tests.integration.bus import World, fresh_firm

BACK_SECONDS = 60.0


async def test_every_revision_is_in_the_trail_with_its_hash(world: World) -> None:
    """An agreement made and ended, a consent given and withdrawn: four entries, found by party and by subject."""
    parties = await world.parties()
    values = fresh_firm()
    consent = await world.consent(parties, values)
    await world.withdraw(parties, consent)
    ended = await world.act(parties.consumer, "agreements", parties.agreement, "END")
    found = await world.found(("kind", "Revision"), ("consumer", parties.consumer.uscc), count=8)
    bodies = [one.entry.body for one in found]
    assert [(b["kind"], b["revision"], b["act"], b["state"]) for b in bodies] == [
        ("agreement", 1, "SUBMIT", "SUBMITTED"),
        ("agreement", 2, "ACCEPT", "ACCEPTED"),
        ("agreement", 3, "APPROVE", "APPROVED"),
        ("agreement", 4, "PROVISION", "PROVISIONED"),
        ("agreement", 5, "ACTIVATE", "ACTIVE"),
        ("consent", 1, "GIVE", "ACTIVE"),
        ("consent", 2, "WITHDRAW", "WITHDRAWN"),
        ("agreement", 6, "END", "TERMINATED"),
    ]
    made, given = Agreement.from_json(ended), Consent.from_json(consent)
    assert {b["hash"] for b in bodies if b["kind"] == "agreement"} == {made.hash}
    assert {b["hash"] for b in bodies if b["kind"] == "consent"} == {given.hash}
    assert [b["author"] for b in bodies if b["kind"] == "agreement"] == [
        parties.consumer.uscc,
        *[parties.provider.uscc] * 3,
        *[parties.consumer.uscc] * 2,
    ]
    auditor = await world.join(auditor=True)
    query = {"subject": {"kind": "ORGANISATION", "id": values["uscc"]}, "kind": "Revision"}
    page = await world.post(auditor, "/v1/audit/entries:query", query)
    assert len(page["entries"]) == 2


async def test_without_the_log_nothing_is_given_and_everything_can_be_withdrawn(killable: World, plant: Plant) -> None:
    """Kafka is away: a consent can't be recorded, a withdrawal counts, and its entry follows when Kafka is back."""
    parties = await killable.parties()
    consent = await killable.consent(parties, fresh_firm())
    kill(plant.children["kafka"])
    try:
        body = {
            "subject": {"kind": "ORGANISATION", "id": fresh_firm()["uscc"]},
            "recipient": parties.consumer.uscc,
            "purposes": ["tax-registration"],
            "scopes": [{"item": "business-licence", "sections": ["identity"]}],
            "valid_from": "2020-01-01",
        }
        refused = await killable.send_json(parties.provider, "/v1/consents", {"consents": [body]})
        assert (refused.status_code, refused.json()["code"]) == (503, Code.KAFKA_UNAVAILABLE)
        begun = time.monotonic()
        answer = await killable.send_json(
            parties.provider, "/v1/consents:act", {"id": consent["id"], "act": "WITHDRAW"}
        )
        assert answer.status_code == 200
        assert time.monotonic() - begun < 30
        asked = "SELECT state FROM rule WHERE kind = 'consent' AND grantee = $1"
        stored = await killable.db.fetch(asked, parties.consumer.uscc)
        assert [row["state"] for row in stored] == ["WITHDRAWN"]
    finally:
        await plant.start("kafka")

    async def logged() -> bool:
        found = await killable.found(("kind", "Revision"), ("consumer", parties.consumer.uscc))
        return "WITHDRAWN" in {one.entry.body["state"] for one in found}

    async def forgotten() -> bool:
        return not await killable.db.fetchval("SELECT count(*) FROM revision_outbox")

    await killable.until(logged, BACK_SECONDS)
    await killable.until(forgotten, BACK_SECONDS)
