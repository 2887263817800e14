"""Set grants: one entry over the exact set, keys for its members alone, and every subject finds it with a proof."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from adapters.tracker import create_app
from bus import envelope, merkle
from bus.client import GatewayClient
from bus.identity import Identity
from bus.outbox import Sealed
from bus.sets import Member
from bus.subscriber import Wanted
from deploy.cli import app
from deploy.home import Home, Stack
from schemas.errors import Code, Refused
from schemas.operations import Operation
from tests.integration.bus import DUTY, LICENCE, PURPOSE, World, draft, reads

FIRMS = 30
SECONDS = 60
ASK = {"purpose": PURPOSE, "ground": "STATUTORY_DUTY", "citation": DUTY, "operator": "matcher"}


def body(provider: Identity, sealed: list[Sealed], **changed: Any) -> dict[str, Any]:
    return {
        "request": secrets.token_hex(16),
        "item": LICENCE,
        "provider": provider.uscc,
        "sections": ["identity"],
        "records": sorted(one.leaf_hash.hex() for one in sealed),
        **ASK,
    } | changed


async def code_of(world: World, who: Identity, asked: dict[str, Any]) -> str:
    answer = await world.send_json(who, "/v1/sets", asked)
    said: str = answer.json().get("code", "")
    return said


async def test_one_entry_opens_the_set_and_each_subject_finds_it(world: World) -> None:
    """Thirty firms, one cancelled meanwhile: a set of 29 with one entry, one refusal with its own, keys, proofs."""
    parties = await world.parties(set_limit=FIRMS, set_until="2099-12-31")
    provider, consumer = parties.provider, parties.consumer
    sealed, values = await world.firms(provider, FIRMS)
    await world.publish(provider, draft(values[0], 2, operation=Operation.CANCELLED))
    granted = await world.post(consumer, "/v1/sets", body(provider, sealed))
    assert granted["count"] == FIRMS - 1
    (refused,) = granted["refused"]
    assert (refused["record"], refused["code"]) == (sealed[0].leaf_hash.hex(), Code.SUPERSEDED)
    (found,) = await world.found(("entry", granted["entry"]))
    assert (found.entry.kind, found.entry.body["count"]) == ("SetDecision", FIRMS - 1)
    assert found.entry.body["root"].hex() == granted["root"]
    (own,) = await world.found(("entry", refused["entry"]))
    assert own.entry.kind == "Decision"

    async with GatewayClient(consumer, world.place.gateways) as client:
        wanted = Wanted(
            sections=("identity",), purpose=PURPOSE, ground="STATUTORY_DUTY", operator="matcher", citation=DUTY
        )
        grant, keys = await client.keys(world.trust, reads(sealed[1:]), wanted, granted["entry"])
        assert {dict(one.sections)["identity"] for one in grant.results} == {Code.PERMIT}
        assert {one.entry.hex() for one in grant.results} == {granted["entry"]}
        assert world.open(sealed[5], keys)["uscc"] == values[5]["uscc"]
        with pytest.raises(Refused) as strange:
            await client.keys(world.trust, reads(sealed[:2]), wanted, granted["entry"])
        assert strange.value.code is Code.NOT_FOUND

    portal = await world.join(auditor=True)
    subject = {"kind": "ORGANISATION", "id": values[7]["uscc"]}
    (usage,) = (await world.post(portal, "/v1/subjects/usages:query", {"subject": subject}))["usages"]
    assert (usage["receiver"], usage["entry"], usage["sections"]) == (consumer.uscc, granted["entry"], ["identity"])
    assert usage["set"] == {"root": granted["root"], "size": FIRMS - 1, "records": [sealed[7].leaf_hash.hex()]}
    proof = await world.post(portal, "/v1/sets:prove", {"entry": granted["entry"], "record": sealed[7].leaf_hash.hex()})
    holders = envelope.parse(sealed[7].value).claims.holders
    assert proof["subjects"] == [one.hex() for one in holders]
    leaf = merkle.leaf_hash(sealed[7].leaf_hash + b"".join(holders))
    path = [bytes.fromhex(one) for one in proof["path"]]
    assert merkle.root_from_path(leaf, proof["position"], proof["size"], path).hex() == granted["root"]
    told = await world.post(provider, "/v1/records:impact", {"record": sealed[7].leaf_hash.hex()})
    assert [(one["consumer"], one["first_entry"]) for one in told["openers"]] == [(consumer.uscc, granted["entry"])]
    story = await world.post(portal, "/v1/audit/stories:show", {"record": sealed[7].leaf_hash.hex()})
    assert "opened in a set" in [event["what"] for event in story["events"]]

    await world.db.execute(
        "DELETE FROM set_member WHERE entry = $1 AND record = $2",
        bytes.fromhex(granted["entry"]),
        sealed[9].leaf_hash,
    )
    bent = await world.send_json(
        portal, "/v1/sets:prove", {"entry": granted["entry"], "record": sealed[7].leaf_hash.hex()}
    )
    assert bent.json()["code"] == Code.LOG_TAMPERED

    await world.act(provider, "agreements", parties.agreement, "SUSPEND", "under review")
    async with GatewayClient(consumer, world.place.gateways) as client:
        grant, keys = await client.keys(world.trust, reads(sealed[1:3]), wanted, granted["entry"])
    assert {dict(one.sections)["identity"] for one in grant.results} == {Code.AGREEMENT_SUSPENDED}
    assert keys == {}


async def test_a_set_has_a_cap_an_end_a_region_and_a_duty(world: World) -> None:
    """What the agreement does not allow is refused whole, or record by record with its code."""
    capped = await world.parties(set_limit=2)
    sealed, _ = await world.firms(capped.provider, 3)
    asked = body(capped.provider, sealed)
    answer = await world.post(capped.consumer, "/v1/sets", asked)
    assert (answer["entry"], {one["code"] for one in answer["refused"]}) == (None, {Code.SET_TOO_LARGE})
    two = await world.post(capped.consumer, "/v1/sets", body(capped.provider, sealed[:2]))
    assert two["count"] == 2
    assert await code_of(world, capped.consumer, body(capped.provider, sealed, region="110000")) == Code.NOT_FOUND
    turned = body(capped.provider, sealed) | {"records": sorted(asked["records"], reverse=True)}
    assert await code_of(world, capped.consumer, turned) == Code.REQUEST_MALFORMED

    async def only_code(**changed: Any) -> str:
        made = await world.parties(**changed)
        (one,), (firm,) = await world.firms(made.provider)
        await world.consent(made, firm)
        ground = {"ground": "CONSENT", "citation": ""} if changed.get("grounds") == ["CONSENT"] else {}
        (refused,) = (await world.post(made.consumer, "/v1/sets", body(made.provider, [one], **ground)))["refused"]
        code: str = refused["code"]
        return code

    assert await only_code() == Code.SET_NOT_AGREED
    assert await only_code(set_limit=5, set_until="2025-01-01") == Code.SET_ENDED
    assert await only_code(set_limit=5, grounds=["CONSENT"], duties=[]) == Code.SET_NOT_AGREED
    candidates = await world.post(
        capped.consumer, "/v1/sets:candidates", {"item": LICENCE, "provider": capped.provider.uscc, "region": "33"}
    )
    assert candidates == {"records": sorted(one.leaf_hash.hex() for one in sealed), "next": None}


async def test_on_the_command_line_a_set_is_asked_for_and_nobody_bends_it(
    world: World, home: Home, stack: Stack, tmp_path: Path
) -> None:
    """All candidates, or those of a file; a portal's tables show it; a set rewritten as a whole is not the log's."""
    parties, portal = await world.parties(set_limit=3, set_until="2099-12-31"), await world.join(portal=True)
    sealed, values = await world.firms(parties.provider, 3)
    await world.publish(parties.provider, draft(values[0], 2, operation=Operation.CANCELLED))
    where = Home(world.place.folder)
    where.write_stack(stack)
    key = ("--key", str(home.bus / "log" / "log.vkey"))

    async def deptbus(*line: str, who: Identity = parties.consumer) -> tuple[int, str]:
        command = [*line, "--as", who.name, "--home", str(where.path)]
        done = await asyncio.wait_for(asyncio.to_thread(CliRunner().invoke, app, command), SECONDS)
        return done.exit_code, done.stdout + done.stderr

    ask = ["set", "open", "--item", LICENCE, "--provider", parties.provider.name, "--section", "identity", "--region"]
    ask += ("33", *(text for name, value in ASK.items() for text in (f"--{name}", value)))
    code, said = await deptbus(*ask, "--json")
    granted = json.loads(said)
    assert (code, granted["count"], granted["refused"]) == (0, 2, [])
    file = tmp_path / "records"
    file.write_text("\n".join(one.leaf_hash.hex().upper() for one in (*sealed, sealed[0])), "ascii")
    code, said = await deptbus(*ask, "--records", str(file))
    assert (code, Code.SUPERSEDED in said, "1 refused" in said) == (0, True, True)
    file.write_text(sealed[0].leaf_hash.hex(), "ascii")
    assert (await deptbus(*ask, "--records", str(file)))[0] == 1
    file.write_text("not a hash", "ascii")
    assert (await deptbus(*ask, "--records", str(file)))[0] == 2

    entry, record = bytes.fromhex(granted["entry"]), sealed[1].leaf_hash.hex()
    for who, carried in ((parties.consumer, True), (portal, False)):
        code, said = await deptbus("set", "prove", entry.hex(), record, *key, "--json", who=who)
        proven = json.loads(said)
        assert (code, proven["root"], proven["root_in_entry"]) == (0, granted["root"], carried)
    code, said = await deptbus("audit", "subject", "--subject", f"ORGANISATION:{values[1]['uscc']}", who=portal)
    assert (code, "批量" in said) == (0, True)
    async with GatewayClient(portal, world.place.gateways) as client:
        transport = httpx.ASGITransport(create_app(client))
        async with httpx.AsyncClient(transport=transport, base_url="http://tracker") as http:
            answer = await http.get(f"/v2/findUsage?userCode={values[1]['uscc']}", headers={"X-Road-UserId": "CN1"})
    usages = answer.json()["usages"]
    assert usages[0]["action"] == "税务登记: 营业执照（批量使用决定，共 2 条）"
    for line in (("audit", "query", "--kind", "SetDecision"), ("audit", "story", record)):
        code, said = await deptbus(*line)
        assert (code, "identity" in said) == (0, True)

    assert (await deptbus("set", "prove", entry.hex(), sealed[0].leaf_hash.hex(), *key))[0] == 1
    # Whoever has the database takes one out and makes the rest a set again: the log has another root.
    alone = envelope.parse(sealed[1].value).claims.holders
    root = merkle.root([Member(record=sealed[1].leaf_hash, subjects=alone).leaf])
    await world.db.execute("DELETE FROM set_member WHERE entry = $1 AND record <> $2", entry, sealed[1].leaf_hash)
    await world.db.execute("UPDATE set_member SET position = 0 WHERE entry = $1", entry)
    await world.db.execute("UPDATE set_grant SET root = $2, size = 1 WHERE entry = $1", entry, root)
    code, said = await deptbus("set", "prove", entry.hex(), record, *key)
    assert (code, Code.PROOF_INVALID in said) == (1, True)
