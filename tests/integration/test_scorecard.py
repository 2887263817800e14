"""The scorecard: its figures are those that a count of what was done gives, on both sides, and only they are told."""

from __future__ import annotations

import asyncio
import secrets
import sys
from datetime import UTC, date, datetime, timedelta
from typing import Any

from bus import audit
from consent.decide import CHINA
from deploy.commands.scorecard import bar
from deploy.home import Home, Stack
from schemas.errors import Code
from tests.integration.bus import LICENCE, TAX, World, fresh_firm, tax_draft

SCORECARD = "/v1/scorecards:show"


async def void(world: World, entry: bytes) -> None:
    """What a gateway logs when a rule changed between a decision and its key: no test can meet that moment."""
    body, bus = {"entry": entry, "code": Code.FACTS_CHANGED.value}, world.place.bus
    values = audit.log_values(
        bus.signer("gateway"), bus.origin, secrets.token_bytes(16), [("Voided", body)], datetime.now(UTC)
    )
    await world.produce((audit.TOPIC, None, values[0]))


def exchange(card: dict[str, Any], role: str, counterpart: str) -> dict[str, Any]:
    (found,) = [one for one in card["exchanges"] if (one["role"], one["counterpart"]) == (role, counterpart)]
    return {name: found[name] for name in ("item", "demanded", "granted", "refused", "voided", "codes")}


async def test_what_was_demanded_granted_and_refused_is_told_to_both_sides(world: World) -> None:
    """By counterpart: a decision that opens one section and refuses another is both, a voided one opened nothing."""
    parties = await world.parties()
    other = await world.join(receives=[LICENCE])
    auditor = await world.join(auditor=True)
    sealed, _ = await world.firms(parties.provider, 3)
    grant, _ = await world.keys(parties.consumer, sealed)
    await world.codes(parties.consumer, sealed[0], sections=("identity", "representative"))
    await world.codes(parties.consumer, sealed[0], purpose="statistics")
    await void(world, grant.results[0].entry)
    assert await world.codes(other, sealed[1]) == [Code.AGREEMENT_NONE]
    await world.covered()
    unanswered = await world.post(other, SCORECARD, {})
    await world.agree(parties.provider, other)
    await world.keys(other, sealed[1:])
    await world.covered()

    own = await world.post(parties.provider, SCORECARD, {})
    assert exchange(own, "provider", parties.consumer.uscc) == {
        "item": LICENCE,
        "demanded": 5,
        "granted": 3,
        "refused": 3,
        "voided": 1,
        "codes": {"FACTS_CHANGED": 1, "AGREEMENT_SECTION": 1, "AGREEMENT_PURPOSE": 1},
    }
    asked = exchange(own, "provider", other.uscc)
    assert (asked["demanded"], asked["granted"], asked["codes"]) == (3, 2, {"AGREEMENT_NONE": 1})
    theirs = await world.post(other, SCORECARD, {})
    assert exchange(theirs, "consumer", parties.provider.uscc) == asked
    assert [one["counterpart"] for one in theirs["exchanges"]] == [parties.provider.uscc]

    (before,), (after,) = ([one["answer"] for one in card["exchanges"]] for card in (unanswered, theirs))
    (refused,) = await world.found(("consumer", other.uscc), ("code", "AGREEMENT_NONE"))
    acts = await world.found(("consumer", other.uscc), ("kind", "Revision"), count=5)
    (agreed,) = [one for one in acts if one.entry.body["act"] == "ACTIVATE"]
    assert before == {"asked": refused.stored.logged_at.isoformat(), "agreed": None}
    assert after == {"asked": before["asked"], "agreed": agreed.stored.logged_at.isoformat()}
    logged = theirs["decided_to_logged_ms"]
    assert logged["decisions"] == 3
    assert -1_000 < logged["p50"] <= logged["p95"] < 10_000
    (fresh,) = theirs["freshness"]
    assert (fresh["issuer"], fresh["item"], fresh["records"]) == (parties.provider.uscc, LICENCE, 3)
    assert 0 <= fresh["occurred_to_admitted_s"]["p50"] <= fresh["occurred_to_admitted_s"]["p95"] < 20

    assert exchange(await world.post(auditor, SCORECARD, {"department": other.uscc}), "consumer", parties.provider.uscc)
    stranger = await world.send_json(parties.consumer, SCORECARD, {"department": other.uscc})
    assert (stranger.status_code, stranger.json()["code"]) == (403, Code.REQUEST_FORBIDDEN)
    today = datetime.now(CHINA).date()
    yesterday = (today - timedelta(days=1)).isoformat()
    assert (await world.post(other, SCORECARD, {"until": yesterday}))["exchanges"] == []
    for days in ({"since": "2026-01-01", "until": "2025-12-31"}, {"since": "2025-01-01", "until": "2025-12-31"}):
        assert (await world.send_json(other, SCORECARD, days)).status_code == 400
    (reading,) = await world.found(("kind", "Reading"), ("consumer", parties.provider.uscc))
    assert (reading.entry.body["what"], reading.entry.body["returned"]) == ("scorecards:show", 2)


async def test_what_was_collected_again_although_the_bus_had_it(world: World, home: Home, stack: Stack) -> None:
    """A source that was named and never opened; and, as a bound, no source named while there was an agreement."""
    parties = await world.parties()
    registrar = await world.join(issues=[(TAX, "")], receives=[LICENCE])
    (opened, copied), _ = await world.firms(parties.provider, 2)
    (early,) = await world.publish(registrar, tax_draft(fresh_firm()))  # before there was an agreement
    await world.agree(parties.provider, registrar, valid_from=date.today().isoformat())
    await world.keys(registrar, [opened])
    assert await world.codes(registrar, copied, purpose="statistics") != [Code.PERMIT]  # asked, not opened
    named, again, silent = await world.publish(
        registrar,
        tax_draft(fresh_firm(), opened.leaf_hash),
        tax_draft(fresh_firm(), opened.leaf_hash, copied.leaf_hash),
        tax_draft(fresh_firm()),
    )
    await world.publish(registrar, tax_draft(fresh_firm(), named.leaf_hash))  # its own: nothing to open
    await world.covered()

    found = (await world.post(registrar, SCORECARD, {}))["collected_again"]
    assert found == {
        "issued": 5,
        "with_source": 3,
        "source_unopened": {"records": 1, "examples": [again.leaf_hash.hex()]},
        "source_unnamed": {"records": 1, "examples": [silent.leaf_hash.hex()]},
        "complete": True,
    }
    assert early.leaf_hash.hex() not in str(found)

    where = Home(world.place.folder)
    where.write_stack(stack)
    shown = await _run(where, "scorecard", "--as", registrar.name)
    for text in ("需求", "重复采集", "营业执照", bar(1, 2), again.leaf_hash.hex()):
        assert text in shown


async def _run(home: Home, *arguments: str) -> str:
    command = [sys.executable, "-m", "deploy.cli", "audit", *arguments, "--home", str(home.path)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, wrong = await process.communicate()
    assert process.returncode == 0, wrong.decode()
    return said.decode()
