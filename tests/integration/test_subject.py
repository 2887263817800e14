"""Who opened a subject's data: a portal learns it for the subject, nobody else does; in the tracker's shape, too."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx

from adapters.tracker import create_app
from bus import audit
from bus.client import GatewayClient
from bus.identity import Identity
from bus.tlog import proof
from deploy.home import Home, Stack
from schemas.errors import Code
from tests.integration.bus import DUTY, LICENCE, PURPOSE, REGION, World, citizen_number, draft

USAGES = "/v1/subjects/usages:query"
PROPERTY = "real-estate-certificate"


async def void(world: World, entry: str) -> None:
    """What a gateway logs when a rule changed between a decision and its key: no test can meet that moment."""
    body = {"entry": bytes.fromhex(entry), "code": Code.FACTS_CHANGED.value}
    bus = world.place.bus
    values = audit.log_values(
        bus.signer("gateway"), bus.origin, secrets.token_bytes(16), [("Voided", body)], datetime.now(UTC)
    )
    await world.produce((audit.TOPIC, None, values[0]))


async def test_a_subject_learns_who_opened_its_data_and_why(world: World, home: Home, stack: Stack) -> None:
    """Openings alone, of all versions and by everybody; refusals and readings are none, what was voided is marked."""
    parties = await world.parties()
    other = await world.join(receives=[LICENCE])
    await world.agree(parties.provider, other, sections=["identity"])
    asking, auditor = await world.join(portal=True), await world.join(auditor=True)
    (sealed, unused), (values, _) = await world.firms(parties.provider, 2)
    subject = {"kind": "ORGANISATION", "id": values["uscc"]}
    await world.keys(parties.consumer, [sealed, unused])
    assert await world.codes(other, sealed, sections=("identity", "business")) == [Code.PERMIT, Code.AGREEMENT_SECTION]
    assert await world.codes(other, sealed, purpose="statistics") != [Code.PERMIT]
    await world.post(auditor, "/v1/audit/entries:query", {"subject": subject})
    await world.covered()

    body = {"subject": subject, "reader": {"operator": "counter-3"}}
    answer = await world.post(asking, USAGES, body)
    first, second = answer["usages"]
    assert {name: value for name, value in first.items() if name not in ("index", "entry", "logged_at")} == {
        "receiver": parties.consumer.uscc,
        "receiver_name": parties.consumer.name,
        "provider": parties.provider.uscc,
        "provider_name": parties.provider.name,
        "item": LICENCE,
        "item_zh": "营业执照",
        "sections": ["identity"],
        "purpose": PURPOSE,
        "purpose_zh": "税务登记",
        "ground": "STATUTORY_DUTY",
        "ground_zh": "法定职责",
        "citation": DUTY,
        "onward_to": None,
        "onward_to_name": "",
        "set": None,
        "voided": False,
    }
    assert (second["receiver"], second["sections"]) == (other.uscc, ["identity"])
    assert answer["next"] is None
    # The subject takes home a proof that does not show the entry.
    async with GatewayClient(asking, [world.place.gateways[0]]) as client:
        receipt = proof.parse(await client.proof(bytes.fromhex(first["entry"])))
    assert (receipt.index, receipt.extra) == (first["index"], None)

    await void(world, second["entry"])
    await world.covered()
    pages = [await world.post(asking, USAGES, body | {"limit": 1, "after": after}) for after in (-1, first["index"])]
    assert [[(one["entry"], one["voided"]) for one in page["usages"]] for page in pages] == [
        [(first["entry"], False)],
        [(second["entry"], True)],
    ]
    later = await world.post(asking, USAGES, body | {"since": second["logged_at"], "until": second["logged_at"]})
    assert later["usages"] == []

    for stranger in (parties.consumer, parties.provider):
        refused = await world.send_json(stranger, USAGES, body)
        assert (refused.status_code, refused.json()["code"]) == (403, Code.REQUEST_FORBIDDEN)
    seen = await world.post(auditor, USAGES, body)
    assert [one["entry"] for one in seen["usages"]] == [first["entry"], second["entry"]]
    for who, shown in ((auditor, ["subjects/usages:query"]), (parties.consumer, [])):  # whom it concerns, in time
        listed = (await world.post(who, "/v1/audit/readings:list", {}))["readings"]
        assert [one["what"] for one in listed if one["reader"] == auditor.uscc][:1] == shown
    readings = await world.found(("kind", "Reading"), ("consumer", asking.uscc), count=4)
    said = readings[0].entry.body
    assert (said["what"], said["operator"], said["returned"]) == ("subjects/usages:query", "counter-3", 2)
    assert len(said["subjects"]) == len(world.catalogue.items)

    where = Home(world.place.folder)
    where.write_stack(stack)
    text = await _run(where, "subject", "--as", asking.name, "--subject", f"ORGANISATION:{values['uscc']}")
    assert all(word in text for word in (parties.consumer.name, "营业执照", "税务登记", "法定职责", "已撤回"))


async def _run(home: Home, *arguments: str) -> str:
    command = [sys.executable, "-m", "deploy.cli", "audit", *arguments, "--home", str(home.path)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, wrong = await process.communicate()
    assert process.returncode == 0, wrong.decode()
    return said.decode()


@asynccontextmanager
async def tracker(world: World, identity: Identity) -> AsyncIterator[httpx.AsyncClient]:
    """What a portal's own systems talk to."""
    async with (
        GatewayClient(identity, [world.place.gateways[0]]) as client,
        httpx.AsyncClient(transport=httpx.ASGITransport(create_app(client)), base_url="http://tracker") as http,
    ):
        yield http


# What the document (e-gov/AJ, dumonitor-openapi.yaml 2.1.0) says of answers: required fields, optional ones, types.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)\Z")  # date-time, RFC 3339
_USAGE = ({"logtime", "action", "receiverCode", "receiverSystem"}, {"receiverName"})


def check_found(answer: httpx.Response) -> tuple[int, list[dict[str, Any]]]:
    """FindUsageResponse, its usages as the document wants each."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found = answer.json()
    assert found.keys() == {"totalUsages", "usages"}
    assert type(found["totalUsages"]) is int
    required, optional = _USAGE
    for one in found["usages"]:
        assert required <= one.keys() <= required | optional
        assert all(type(value) is str and value for value in one.values())
        assert _TIME.match(one["logtime"])
    return found["totalUsages"], found["usages"]


async def test_a_portals_own_systems_ask_in_the_data_trackers_shape(world: World) -> None:
    """Parameters, defaults, answers and statuses as the document has them; no URL reaches the bus."""
    parties, asking = await world.parties(), await world.join(portal=True)
    (sealed,), (values,) = await world.firms(parties.provider)
    for _ in range(3):
        await world.keys(parties.consumer, [sealed])
    await world.covered()
    code = values["uscc"]
    header = {"X-Road-UserId": f"CN{citizen_number()}"}
    async with tracker(world, asking) as http:

        async def ask(headers: dict[str, str] = header, **parameters: Any) -> httpx.Response:
            return await http.get("/v2/findUsage", params=parameters, headers=headers)

        total, usages = check_found(await ask(userCode=code))
        assert (total, len(usages)) == (3, 3)
        assert {one["receiverCode"] for one in usages} == {parties.consumer.uscc}
        assert {one["action"] for one in usages} == {"税务登记: 营业执照"}
        total, some = check_found(await ask(userCode=f"CN{code}", offset=1, limit=1))
        assert (total, some) == (3, usages[1:2])
        last = datetime.fromisoformat(usages[2]["logtime"])
        total, _ = check_found(await ask(userCode=code, periodStart=usages[2]["logtime"]))
        assert total == sum(one["logtime"] >= usages[2]["logtime"] for one in usages)
        ended = check_found(await ask(userCode=code, periodEnd=(last - timedelta(days=1)).isoformat()))
        assert ended == check_found(await ask(userCode=citizen_number())) == (0, [])

        wrong: list[dict[str, Any]] = [
            {},
            {"userCode": "12345678901"},
            {"userCode": code, "limit": "all"},
            {"userCode": code, "offset": -1},
            {"userCode": code, "periodStart": "2026-01-31"},
        ]
        answers = [await ask(**parameters) for parameters in wrong] + [await ask({}, userCode=code)]
        assert [answer.status_code for answer in answers] == [400] * 6
        assert not [answer.text for answer in answers if "12345678901" in answer.text or code in answer.text]

        period = (await http.get("/v2/usagePeriod")).json()
        assert period.keys() == {"periodStart"}  # no end: until now
        assert _TIME.match(period["periodStart"])
        assert period["periodStart"] <= usages[0]["logtime"]
        beat = (await http.get("/v2/heartbeat")).json()
        assert (beat["status"], type(beat["message"])) == ("OK", str)

    async with tracker(world, parties.consumer) as http:  # joined, but no portal
        assert (await http.get("/v2/heartbeat")).json()["status"] == "FAIL"
        refused = await http.get("/v2/findUsage", params={"userCode": code}, headers=header)
        assert (refused.status_code, json.loads(refused.text)["code"]) == (500, Code.REQUEST_FORBIDDEN)
    assert not [log for log in world.place.logs if code in log.read_text("utf-8", "replace")]


async def test_every_owner_of_a_property_learns_who_opened_it(world: World) -> None:
    """A person is asked for by citizen number, as a holder and as a co-holder; who owns nothing has no usage."""
    provider, consumer = await world.join(issues=[(PROPERTY, "")]), await world.join(receives=[PROPERTY])
    asking, owners = await world.join(portal=True), [citizen_number() for _ in range(2)]
    agreed = {"item": PROPERTY, "sections": ["certificate"], "purposes": ["utility-service"]}
    await world.agree(provider, consumer, **agreed)
    values = {
        "licence_number": f"浙(2026)嘉兴不动产权第{secrets.token_hex(8)}号",
        "issued_on": date(2026, 1, 1),
        "region": REGION,
        "unit_number": "330411001001GB00001F00010001",
        "location": "秀洲区",
        "right_kind": "国有建设用地使用权/房屋所有权",
        "area": Decimal("89.50"),
        "co_ownership": "SHARES",
        "owners": [{"name": "某", "id_number": one, "id_type": "111", "share": "1/2"} for one in owners],
    }
    (sealed,) = await world.publish(provider, draft(values, item=PROPERTY))
    assert await world.codes(consumer, sealed, sections=("certificate",), purpose="utility-service") == [Code.PERMIT]
    await world.covered()
    async with tracker(world, asking) as http:
        answers = [
            await http.get("/v2/findUsage", params={"userCode": one}, headers={"X-Road-UserId": one})
            for one in (*owners, citizen_number())
        ]
    (first, (usage,)), second, none = map(check_found, answers)
    assert (first, usage["action"]) == (1, "水电气等公共服务开通: 不动产权证书")
    assert (second, none) == ((1, [usage]), (0, []))
