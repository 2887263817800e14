"""Erasure on a running bus: refused at once everywhere, its keys gone, its neighbour's still there."""

from __future__ import annotations

import pytest

from schemas.errors import Code, Refused
from tests.integration.bus import World


async def test_an_erased_record_is_refused_by_every_gateway_from_the_answer_on(world: World) -> None:
    """And only that one: a record of the same session opens as before. The log has said so, and who did it."""
    parties = await world.parties()
    (erased, neighbour), _ = await world.firms(parties.provider, 2)
    _, warm = await world.keys(parties.consumer, [erased, neighbour], gateway=1)
    assert len(warm) == 2  # both gateways have its session in memory
    body = {"records": [erased.leaf_hash.hex()], "basis": "个人信息保护法 第四十七条", "operator": "clerk"}
    with pytest.raises(Refused) as caught:
        await world.post(parties.consumer, "/v1/erasures", body)
    assert caught.value.code is Code.NOT_FOUND
    answer = await world.post(parties.provider, "/v1/erasures", body)
    assert answer["erasures"][0]["entry"]
    assert "can't be called back" in answer["note"]
    for gateway in (1, 0):
        assert await world.codes(parties.consumer, erased, gateway) == [Code.RECORD_ERASED]
        assert await world.codes(parties.consumer, neighbour, gateway) == [Code.PERMIT]
    (started,) = await world.found(("record", erased.leaf_hash.hex()), ("kind", "ErasureStarted"))
    assert (started.entry.body["by"], started.entry.body["basis"]) == (parties.provider.uscc, body["basis"])

    async def punctured() -> bool:
        shown = await world.post(parties.provider, "/v1/erasures:show", {"records": body["records"]})
        return bool(shown["erasures"][0]["state"] == "PUNCTURED")

    await world.until(punctured)
    for gateway in (1, 0):
        assert await world.codes(parties.consumer, neighbour, gateway) == [Code.PERMIT]
