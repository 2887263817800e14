"""A log whose checkpoints stall, and whose recorder is killed: keys wait for a log that can be checked, not longer."""

from __future__ import annotations

import signal
import time
from dataclasses import replace

from schemas.errors import Code
from tests.faults.plant import Plant, _ready, _until, kill
from tests.faults.stall import countdown
from tests.integration.bus import World
from tests.integration.test_outages import active, recorder

TAKES_OVER_SECONDS = 10.0
_PUBLISHED = "UPDATE log_checkpoint SET published_at = now() - make_interval(secs => $1)"


async def test_without_a_new_checkpoint_no_key_is_released_until_there_is_one(killable: World, plant: Plant) -> None:
    """The recorder is stopped, and time is moved instead of waited for: `make faults` waits."""
    killable.place = replace(killable.place, metrics=(f"{plant.metrics('gateway')}/metrics",))
    parties = await killable.parties()
    (sealed,), _ = await killable.firms(parties.provider)
    process = plant.children["recorder"].process
    process.send_signal(signal.SIGSTOP)
    try:
        await killable.db.execute(_PUBLISHED, 20)
        assert await killable.codes(parties.consumer, sealed) == [Code.PERMIT]
        await killable.until(lambda: _counts(killable, 5, 10))
        await killable.db.execute(_PUBLISHED, 30)
        assert await killable.codes(parties.consumer, sealed) == [Code.AUDIT_STALLED]
        await killable.until(lambda: _counts(killable, 0, 0))
    finally:
        process.send_signal(signal.SIGCONT)

    async def again() -> bool:
        return await killable.codes(parties.consumer, sealed) == [Code.PERMIT]

    await killable.until(again)
    await killable.until(lambda: _counts(killable, 25, 30))


async def _counts(world: World, low: float, high: float) -> bool:
    return low <= await countdown(world) <= high


async def test_a_standby_signs_within_ten_seconds_of_the_others_death(killable: World, plant: Plant) -> None:
    with recorder(plant) as (standby, metrics):
        await _until(lambda: _ready(f"{metrics}/readyz"))
        assert not await active(metrics)
        killed = await killable.db.fetchval("SELECT now()")
        begun = time.monotonic()
        kill(plant.children["recorder"])
        try:

            async def signed() -> bool:
                published = "SELECT published_at > $1::timestamptz + interval '1 s' FROM log_checkpoint"
                return await active(metrics) and bool(await killable.db.fetchval(published, killed))

            await killable.until(signed, TAKES_OVER_SECONDS)
            print(f"a checkpoint of the standby after {time.monotonic() - begun:.1f} s")
        finally:
            kill(standby)
            await plant.start("recorder")
