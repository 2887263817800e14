"""The kinds of faults, and a course of them: drawn from a seed, so that the same one can be run again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from tests.chaos.ground import BROKERS, FAKETIME, SIDES, Ground, can_mount

CLOCK_SECONDS = 300
WIPED_SECONDS = 2.0  # without a disk
APART = 7  # rounds from one with two faults at once to the next
ROUNDS = 185  # so that a course has 200 faults
_BROKERS = tuple(f"broker-{n}" for n in BROKERS)
_OURS = tuple(f"{what}-{side}" for what in ("gateway", "recorder") for side in SIDES)
_LOAD = ("publisher-a", "publisher-b", "subscriber")
_PROCESSES = (*_BROKERS, "postgres", *_OURS, "access", *_LOAD)
_LINES = (
    *(f"{listener}-{n}" for listener in ("client", "internal") for n in BROKERS),
    *(f"postgres-{name}" for name in _OURS),
    *(f"http-{side}" for side in SIDES),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """It begins `after` seconds and lasts `seconds`; then what it harmed is as before. The rest is the bus's own."""

    kind: str
    target: str
    way: str = ""
    after: float = 0.0
    seconds: float = 0.0

    async def run(self, ground: Ground) -> None:
        """From its beginning to its end."""
        await asyncio.sleep(self.after)
        await KINDS[self.kind].harm(ground, self)


async def _kill(ground: Ground, fault: Fault) -> None:
    ground.units[fault.target].kill()


async def _stop(ground: Ground, fault: Fault) -> None:
    unit = ground.units[fault.target]
    unit.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        unit.signal(signal.SIGCONT)


async def _lost(ground: Ground, fault: Fault) -> None:
    line = ground.lines[fault.target]
    (line.silence if fault.way == "silence" else line.reset)()
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        line.mend()


async def _slow(ground: Ground, fault: Fault) -> None:
    line = ground.lines[fault.target]
    line.slow(float(fault.way))
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        line.slow(0)


async def _full(ground: Ground, fault: Fault) -> None:
    disk = ground.disks[fault.target]
    try:
        await asyncio.to_thread(disk.fill)
        await asyncio.sleep(fault.seconds)
    finally:
        await asyncio.to_thread(disk.empty)


async def _clock(ground: Ground, fault: Fault) -> None:
    clock = ground.clocks[fault.target]
    clock.write_text(f"{fault.way}{CLOCK_SECONDS}\n", "ascii")
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        clock.write_text("+0\n", "ascii")


async def _wiped(ground: Ground, fault: Fault) -> None:
    """For good: it comes back empty, under the same id. That is one copy less, and so the others have to be there."""
    unit = ground.units[fault.target]
    unit.held = True
    try:
        unit.kill()
        await asyncio.to_thread(ground.lose, fault.target)
        await asyncio.sleep(WIPED_SECONDS)
    finally:
        unit.held = False


async def _all(ground: Ground, fault: Fault) -> None:
    for unit in ground.units.values():
        if unit.name != "citizen":
            with suppress(ProcessLookupError):
                unit.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What it harms and how, how often of 100 faults, how long, in which ways."""

    harm: Callable[[Ground, Fault], Awaitable[None]]
    targets: Sequence[str]
    share: int
    seconds: tuple[float, float] = (0.0, 0.0)
    ways: Sequence[str] = ("",)
    paired: bool = True


KINDS = {
    "kill": Kind(harm=_kill, targets=_PROCESSES, share=28),
    "stop": Kind(harm=_stop, targets=_PROCESSES, share=19, seconds=(1, 8)),
    "lost": Kind(harm=_lost, targets=_LINES, share=15, seconds=(1, 8), ways=("silence", "reset")),
    "slow": Kind(harm=_slow, targets=_LINES, share=10, seconds=(2, 6), ways=("0.05", "0.2", "0.5")),
    "full": Kind(harm=_full, targets=(*_BROKERS, "postgres"), share=8, seconds=(2, 5)),
    "clock": Kind(harm=_clock, targets=(*_OURS, *_LOAD), share=9, seconds=(2, 6), ways=("+", "-")),
    # Three copies, of which two must be there: who loses one disk for good must not lose a second one meanwhile.
    "wiped": Kind(harm=_wiped, targets=_BROKERS, share=6, paired=False),
    "all": Kind(harm=_all, targets=("everything",), share=6, paired=False),
}


def missing() -> dict[str, str]:
    """The kinds that cannot be had on this machine, and why."""
    found = {}
    if not can_mount():
        found["full"] = "no disk of a size of its own can be mounted here (root, loop devices and mkfs.ext4 are needed)"
    if not FAKETIME.exists():
        found["clock"] = f"{FAKETIME} is not there (Debian's package `faketime`)"
    return found


def course(seed: int, rounds: int = ROUNDS, *, without: Sequence[str] = ()) -> Iterator[list[Fault]]:
    """One fault a round, or two at once. Kinds come by their shares, targets and ways of a kind in turn."""
    random = Random(seed)
    kinds = [name for name in KINDS if name not in without]
    weights = [KINDS[name].share for name in kinds]
    turns = {name: _turns(random, KINDS[name]) for name in kinds}
    # Drawn without putting back: each kind comes as often as its share says.
    bag: list[str] = []
    alone = 0
    for _round in range(rounds):
        alone += 1
        if not bag:
            bag = [name for name, weight in zip(kinds, weights, strict=True) for _ in range(weight)]
            random.shuffle(bag)
        first = bag.pop()
        faults = [_fault(random, first, *next(turns[first]))]
        if KINDS[first].paired and alone >= APART:
            second = next((name for name in reversed(bag) if KINDS[name].paired), None)
            if second is not None:
                bag.remove(second)
                alone = 0
                target, way = next(one for one in turns[second] if one[0] != faults[0].target)
                faults.append(_fault(random, second, target, way, after=random.uniform(0, 1.5)))
        yield faults


def _turns(random: Random, kind: Kind) -> Iterator[tuple[str, str]]:
    """Every target before the first comes again."""
    while True:
        targets = list(kind.targets)
        random.shuffle(targets)
        for target in targets:
            yield target, random.choice(kind.ways)


def _fault(random: Random, kind: str, target: str, way: str, after: float = 0.0) -> Fault:
    return Fault(
        kind=kind,
        target=target,
        way=way,
        after=round(after, 1),
        seconds=round(random.uniform(*KINDS[kind].seconds), 1),
    )
