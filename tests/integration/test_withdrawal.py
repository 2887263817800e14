"""Consent withdrawn under load, and a gateway that cannot look again: the short form of `make faults`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from bus import audit, merkle
from bus.gateway.app import create_app
from bus.httpsig import sign
from schemas.errors import Code
from tests.faults.cut import Line
from tests.faults.withdrawal import BY_CONSENT, CutOff, Withdrawals, withdrawals
from tests.integration.bus import World, key_request, reads


async def test_after_its_answer_a_withdrawn_consent_permits_nothing(world: World) -> None:
    """Two gateways release as much as they can, while one consent after the other is withdrawn."""
    found = await withdrawals(world, 10)
    assert found.good, found


async def test_what_cannot_be_looked_at_again_is_voided(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL goes away between the entry and the second look: no key, and the log takes the permit back."""
    parties = await world.parties()
    (sealed,), (values,) = await world.firms(parties.provider)
    await world.consent(parties, values)
    place = world.place
    address, _, database = place.dsn.rpartition("/")
    host, _, port = address.rpartition(":")
    async with (
        Line(int(port)) as line,
        world.gateway(dsn=f"{host}:{line.port}/{database}") as gateway,
    ):
        append = gateway.releases.append
        calls: list[Sequence[bytes]] = []

        async def append_then_cut(log_values: Sequence[bytes]) -> None:
            await append(log_values)
            calls.append(log_values)
            line.reset()

        monkeypatch.setattr(gateway.releases, "append", append_then_cut)
        body = key_request(parties.consumer, reads([sealed]), **BY_CONSENT).encode()
        transport = httpx.ASGITransport(create_app(gateway))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            headers = sign(parties.consumer.department, "POST", "http://gateway/v1/keys", body)
            answer = await client.post("/v1/keys", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (503, Code.POSTGRES_UNAVAILABLE)
    decided, voided = (audit.parse(values[0])[0] for values in calls)
    assert [s["code"] for s in decided.body["sections"]] == [Code.PERMIT]
    assert (voided.kind, voided.body["entry"]) == ("Voided", merkle.leaf_hash(decided.value))


class TestJudgement:
    """The harness can say no."""

    LOAD = Withdrawals(
        withdrawn=9,
        opened_before=9,
        decisions_a_second=100,
        voided=0,
        late_keys=0,
        late_permits=0,
        codes=(Code.CONSENT_WITHDRAWN,),
    )
    CUT = CutOff(
        silent=True,
        answers=9,
        said=(f"503 {Code.POSTGRES_UNAVAILABLE}",),
        permits=0,
        seconds=30,
        back=(Code.CONSENT_WITHDRAWN, Code.PERMIT),
    )

    def test_good(self) -> None:
        assert self.LOAD.good
        assert self.CUT.good

    @pytest.mark.parametrize(
        "wrong",
        [
            {"late_keys": 1},
            {"late_permits": 1},
            {"opened_before": 8},
            {"withdrawn": 0, "opened_before": 0},
            {"codes": ()},
            {"codes": (Code.CONSENT_WITHDRAWN, Code.PERMIT)},
        ],
    )
    def test_bad_under_load(self, wrong: dict[str, Any]) -> None:
        assert not replace(self.LOAD, **wrong).good

    @pytest.mark.parametrize(
        "wrong",
        [
            {"answers": 0},
            {"permits": 1},
            {"said": ("200", f"503 {Code.POSTGRES_UNAVAILABLE}")},
            {"back": (Code.PERMIT,)},
        ],
    )
    def test_bad_without_postgres(self, wrong: dict[str, Any]) -> None:
        assert not replace(self.CUT, **wrong).good
