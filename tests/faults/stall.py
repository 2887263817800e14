"""SIGSTOP of the recorder while a client asks two gateways for keys: how long they go on releasing."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from bus.outbox import Sealed
from deploy.stack.child import free_ports
from schemas.errors import Code
from tests.faults.plant import Plant, gateway, until_ready
from tests.integration.bus import Parties, World, place_of

PROMISE_SECONDS = 31.0
WATCH_SECONDS = 36.0
BACK_SECONDS = 20.0
ASK_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """What two gateways said after the recorder was stopped: seconds since then, a value each.

    The recorder's heartbeat may be a moment older than its checkpoint: then INDEX_STALE comes a moment before the rest.
    """

    last_permit: tuple[float, float]
    first_refusal: tuple[float, float]
    codes: tuple[str, ...]  # all that is answered once the promise is due
    countdown: tuple[float, ...]  # the metric, once a second, on the first gateway
    back: float  # from SIGCONT to the last gateway's next permit

    @property
    def good(self) -> bool:
        """In time on both, for this reason alone, announced by the metric, and over by itself."""
        falls = all(later <= earlier for earlier, later in zip(self.countdown, self.countdown[1:], strict=False))
        announced = falls and self.countdown[0] > 20 and self.countdown[-1] == 0
        in_time = max(self.last_permit) <= PROMISE_SECONDS and min(self.last_permit) > 20
        return in_time and self.codes == (Code.AUDIT_STALLED,) and announced and self.back < BACK_SECONDS


@asynccontextmanager
async def two_gateways(plant: Plant, dsn_file: Path | None = None) -> AsyncIterator[World]:
    """The plant's and another one beside it: same keys, same engines, PostgreSQL by another way if one is given."""
    port = free_ports(1)[0]
    log, dsn = plant.folder / "logs" / "gateway-second.log", dsn_file or plant.folder / "dsn"
    with gateway(plant.folder / "bus", plant.kafka, dsn, port, plant.certificate, log) as probes:
        await until_ready(probes)
        first = place_of(plant)
        gateways, metrics = (*first.gateways, f"https://127.0.0.1:{port}"), (*first.metrics, f"{probes}/metrics")
        async with World(replace(first, gateways=gateways, metrics=metrics)) as world:
            yield world


async def stall(plant: Plant, seconds: float = WATCH_SECONDS) -> Stall:
    """Stops the recorder, asks all the time, lets it go on."""
    async with two_gateways(plant) as world:
        parties = await world.parties()
        (sealed,), _ = await world.firms(parties.provider)
        recorder = plant.children["recorder"].process
        recorder.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        try:
            asking = asyncio.gather(*(_ask(world, parties, sealed, gateway, begun, seconds) for gateway in (0, 1)))
            counted = await _countdown(world, begun, seconds)
            answers = await asking
        finally:
            recorder.send_signal(signal.SIGCONT)
        resumed = time.monotonic()
        for gateway in (0, 1):
            await world.until(lambda gateway=gateway: _permits(world, parties, sealed, gateway), BACK_SECONDS)  # type: ignore[misc]
        back = time.monotonic() - resumed
    permits = [[at for at, code in answer if code == Code.PERMIT] for answer in answers]
    refusals = [[at for at, code in answer if code != Code.PERMIT] or [seconds] for answer in answers]
    codes = {code for answer in answers for at, code in answer if at > PROMISE_SECONDS}
    return Stall(
        last_permit=(permits[0][-1], permits[1][-1]),
        first_refusal=(refusals[0][0], refusals[1][0]),
        codes=tuple(sorted(codes)),
        countdown=counted,
        back=round(back, 1),
    )


async def _ask(
    world: World, parties: Parties, sealed: Sealed, gateway: int, begun: float, seconds: float
) -> list[tuple[float, str]]:
    """(when the answer was there, its code), again and again."""
    answers = []
    while time.monotonic() < begun + seconds:
        (code,) = await world.codes(parties.consumer, sealed, gateway)
        answers.append((round(time.monotonic() - begun, 2), code))
        await asyncio.sleep(ASK_SECONDS)
    return answers


async def _permits(world: World, parties: Parties, sealed: Sealed, gateway: int) -> bool:
    return await world.codes(parties.consumer, sealed, gateway) == [Code.PERMIT]


async def _countdown(world: World, begun: float, seconds: float) -> tuple[float, ...]:
    found = []
    await asyncio.sleep(2.0)  # the gateway looks once a second
    while time.monotonic() < begun + seconds:
        found.append(await countdown(world))
        await asyncio.sleep(1.0)
    return tuple(found)


async def countdown(world: World) -> float:
    """`bus_audit_stall_countdown_seconds` of the first gateway."""
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(world.place.metrics[0])).text
    (line,) = [line for line in text.splitlines() if line.startswith("bus_audit_stall_countdown_seconds ")]
    return float(line.rpartition(" ")[2])
