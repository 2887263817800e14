"""The catalogue's life, and the power to issue: what is not published, or not one's to issue, never counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from bus import cataloguefeed
from bus.cataloguefeed import standing_value
from bus.identity import Identity
from bus.outbox import Outbox, Sealed
from bus.publisher import Publisher
from bus.sealer import Draft
from consent.decide import CHINA
from deploy import bootstrap
from deploy.cli import app
from deploy.home import Home
from schemas.errors import Code, Refused
from tests.consent.test_issuing import BY_LAW
from tests.integration.bus import LICENCE, PURPOSE, REGION, World, draft, fresh_firm
from tests.integration.test_admission import ruled

SEAL = "seal-registration"  # no other test's: here it is retired, and published again
TODAY = datetime.now(CHINA).date()
ENTRY = {
    "item": SEAL,
    "format": "Avro",
    "update": "REALTIME",
    "data_class": "IMPORTANT",
    "valid_from": "2020-01-01",
}
PIECE = {"right": "ISSUE", "items": [LICENCE], "basis": "授权确认书 1", "valid_from": "2020-01-01"}


def seal(region: str = REGION) -> Draft:
    firm = fresh_firm()
    values = {
        "name": firm["name"],
        "uscc": firm["uscc"],
        "issued_on": date(2025, 1, 1),
        "region": region,
        "seal_code": f"{firm['uscc']}01",
        "seal_name": firm["name"],
        "seal_type": "OFFICIAL",
    }
    return draft(values, item=SEAL, region=region)


async def published(world: World, identity: Identity, *drafts: Draft) -> list[str]:
    """What the SDK says of each, and how the recorder rules what is sealed without asking it."""
    said: list[str] = []
    async with Publisher(identity, world.place.servers, world.catalogue) as publisher:
        for one in drafts:
            try:
                await publisher.seal([one])
            except Refused as exc:
                said.append(exc.code)
            else:
                said.append("SEALED")
    sealer = await world.sealer(identity, drafts[0].item)
    return [*said, *await ruled(world, *sealer.seal(drafts))]


async def current(world: World, asker: Identity) -> dict[str, Any]:
    """The published entry of the item, as every department sees it."""
    entries = await world.post(asker, "/v1/catalogue:list", {})
    (found,) = [one for one in entries if one["item"] == SEAL and one["state"] == "PUBLISHED"]
    return dict(found)


async def test_an_item_lives_in_the_catalogue(world: World, tmp_path: Path) -> None:
    """Retired: refused before it is sealed, nothing staged, not admitted; a new entry opens it again, and one that
    replaces another leaves no moment without one.
    """
    operator, police = await world.operator(), await world.join(issues=[(SEAL, "3304")])
    first = await current(world, police)
    assert first["defined"]["zh"] == "印章刻制备案"
    assert {"uscc": police.uscc, "region": "3304", "by_law": True}.items() <= max(
        first["providers"], key=lambda one: one["uscc"] == police.uscc
    ).items()
    (before,) = await world.publish(police, seal())

    await world.act(operator, "catalogue", first, "RETIRE", reason="now with another item")
    assert await published(world, police, seal()) == [Code.ITEM_RETIRED, Code.ITEM_RETIRED]
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        async with Publisher(police, world.place.servers, world.catalogue, outbox=outbox) as publisher:
            with pytest.raises(Refused):
                await publisher.publish([seal()])
        assert outbox.pending() == []
    assert await ruled(world, before) == ["ADMITTED"]  # what counted goes on counting

    made = await world.post(police, "/v1/catalogue", ENTRY)
    twice = await world.send_json(police, "/v1/catalogue", ENTRY)
    assert (twice.status_code, twice.json()["code"]) == (409, Code.STATE_INVALID)
    body = {"id": made["id"], "act": "REVIEW", "reason": ""}
    assert (await world.send_json(police, "/v1/catalogue:act", body)).json()["code"] == Code.REQUEST_FORBIDDEN
    assert await published(world, police, seal()) == [Code.ITEM_RETIRED, Code.ITEM_RETIRED]
    for act in ("REVIEW", "PUBLISH"):
        await world.act(operator, "catalogue", made, act)
    assert await published(world, police, seal()) == ["SEALED", "ADMITTED"]

    second = await world.post(operator, "/v1/catalogue", ENTRY | {"update": "DAILY"})
    for act in ("REVIEW", "PUBLISH"):
        await world.act(operator, "catalogue", second, act, gateway=1)
    assert await published(world, police, seal()) == ["SEALED", "ADMITTED"]
    assert (await current(world, police))["id"] == second["id"]
    shown = await world.post(police, "/v1/catalogue:show", {"id": made["id"]})
    assert [(one["act"], one["author"]) for one in shown["acts"]] == [
        ("DRAFT", police.uscc),
        *((act, operator.uscc) for act in ("REVIEW", "PUBLISH", "RETIRE")),
    ]
    (retired,) = await world.found(("rule", f"item:{made['id']}@4"))
    assert (retired.entry.body["act"], retired.entry.body["reason"]) == ("RETIRE", f"item:{second['id']}@3")


async def test_the_operator_publishes_by_command(world: World, home: Home) -> None:
    """An item's name is enough; a step out of turn is refused with its exit code; tables say where it stands."""

    async def deptbus(*line: str) -> tuple[int, str]:
        arguments = ["catalogue", *line, "--as", bootstrap.OPERATOR, "--home", str(home.path)]
        done = await asyncio.wait_for(asyncio.to_thread(CliRunner().invoke, app, arguments), 30)
        return done.exit_code, done.stdout

    assert (await deptbus("publish", SEAL))[0] == 2  # no entry of it is reviewed
    code, said = await deptbus("add", SEAL, "--update", "MONTHLY", "--from", "2020-01-01", "--json")
    made = json.loads(said)
    assert (code, made["state"]) == (0, "DRAFT")
    assert (await deptbus("review", SEAL))[0] == 0
    assert (await deptbus("return", SEAL, "--reason", "the update is wrong"))[0] == 0
    assert (await deptbus("review", made["id"]))[0] == 0
    assert (await deptbus("review", made["id"]))[0] == 1  # refused by the gateway
    assert (await deptbus("publish", SEAL))[0] == 0
    assert (await deptbus("end", SEAL))[0] == 1  # without a reason
    _, shown = await deptbus("show", SEAL)
    assert all(word in shown for word in (made["id"], "MONTHLY", "印章编码", "the update is wrong", "handler"))
    _, listed = await deptbus("list", "--json")
    assert [one["id"] for one in json.loads(listed) if (one["item"], one["state"]) == (SEAL, "PUBLISHED")] == [
        made["id"]
    ]


async def test_what_the_software_does_not_have_is_not_drafted(world: World) -> None:
    """An item is a file of the software before it is an entry; a period ends after it begins."""
    office = await world.join()
    for changed, code in (
        ({"item": "dog-licence"}, Code.ITEM_UNKNOWN),
        ({"valid_until": "2019-12-31"}, Code.REQUEST_MALFORMED),
        ({"format": ""}, Code.REQUEST_MALFORMED),
    ):
        answer = await world.send_json(office, "/v1/catalogue", ENTRY | changed)
        assert answer.json()["code"] == code


async def test_a_window_issues_in_its_grantors_power(world: World) -> None:
    """In its region and days; its grantor's agreement opens it, its own has none; either goes on with the licence; and
    from the power's end on it is refused.
    """
    bureau, consumer = await world.join(issues=[(LICENCE, "3304")]), await world.join(receives=[LICENCE])
    window = await world.join(receives=[LICENCE])
    await world.agree(bureau, consumer)
    assert await published(world, window, draft(fresh_firm())) == [Code.ISSUER_NOT_ENTITLED] * 2
    power = await world.post(bureau, "/v1/powers", PIECE | {"grantee": window.uscc, "regions": [REGION]})
    over = {"grantee": window.uscc, "regions": ["330402"], "valid_until": str(TODAY - timedelta(days=1))}
    await world.post(bureau, "/v1/powers", PIECE | over)

    values = fresh_firm()
    elsewhere = draft(fresh_firm(), region="330402")
    assert await published(world, window, draft(values), elsewhere) == [
        *("SEALED", Code.ISSUER_NOT_ENTITLED),
        *("ADMITTED", Code.ISSUER_NOT_ENTITLED),
    ]
    (second,) = await world.publish(bureau, draft(values, 2))
    (third,) = await world.publish(window, draft(values, 3))
    stranger = await world.join(issues=[(LICENCE, "")])
    assert await published(world, stranger, draft(values, 4)) == ["SEALED", Code.ISSUER_NOT_ENTITLED]
    assert await world.codes(consumer, third) == [Code.PERMIT]
    await world.found(("record", third.leaf_hash.hex()), ("kind", "Decision"), ("provider", bureau.uscc))
    application = {
        "provider": window.uscc,
        "item": LICENCE,
        "sections": ["identity"],
        "purposes": [PURPOSE],
        "grounds": ["CONSENT"],
        "valid_from": "2020-01-01",
    }
    refused = await world.send_json(consumer, "/v1/agreements", application)
    assert refused.json()["code"] == Code.REQUEST_FORBIDDEN

    await world.act(bureau, "powers", power, "END")
    assert await published(world, window, draft(values, 4)) == [Code.ISSUER_NOT_ENTITLED] * 2
    assert await world.codes(consumer, third) == [Code.PERMIT]
    assert await states(world, second, third) == [None, bureau.uscc]


async def states(world: World, *sealed: Sealed) -> Sequence[str | None]:
    """Whose power each was issued in, where it is not the issuer's."""
    return [
        await world.db.fetchval("SELECT authority FROM record WHERE leaf_hash = $1", one.leaf_hash) for one in sealed
    ]


async def test_the_operator_ends_a_power_by_law(world: World) -> None:
    """With it ends what was delegated on it; a department cannot take it up again by itself."""
    operator, bureau = await world.operator(), await world.join(issues=[(LICENCE, "3304")])
    window = await world.join(receives=[LICENCE])
    await world.post(bureau, "/v1/powers", PIECE | {"grantee": window.uscc, "regions": [REGION]})
    assert await published(world, window, draft(fresh_firm())) == ["SEALED", "ADMITTED"]
    (law,) = [one for one in await world.post(bureau, "/v1/powers:list", {}) if one["grantor"] == operator.uscc]
    await world.act(operator, "powers", law, "END")
    for who in (bureau, window):
        assert await published(world, who, draft(fresh_firm())) == [Code.ISSUER_NOT_ENTITLED] * 2
    answer = await world.send_json(bureau, "/v1/powers", PIECE | {"grantee": window.uscc, "regions": [REGION]})
    assert answer.json()["code"] == Code.REQUEST_FORBIDDEN


async def test_a_power_that_nobody_gave_does_not_count(world: World) -> None:
    """A department that writes a power of its own onto the topic, in the operator's name, is refused as before."""
    thief = await world.join(receives=[LICENCE])
    forged = replace(
        BY_LAW, id=uuid4(), grantor=world.place.bus.operator, grantee=thief.uscc, items=frozenset({LICENCE})
    )
    value = standing_value(forged, datetime.now(UTC), thief.department)
    await world.produce((cataloguefeed.TOPIC, forged.id.bytes, value))
    assert await published(world, thief, draft(fresh_firm())) == [Code.ISSUER_NOT_ENTITLED] * 2
