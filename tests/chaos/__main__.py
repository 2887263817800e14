"""`make chaos`: an hour of faults on hostile ground, then three defects that must be found. `build/chaos.json`.

Round after round: one fault, or two at once, while the load goes on; then everything must be well again by itself
(every process answers, every copy is in step), and the checker looks. A round is recovered when recorder and sink are
at the ends that the topics had by then.

A full run, one for which nothing was left out or shortened, has floors. What it missed stands in the report, and it
exits 1: also for kinds of faults that this machine can't have.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bus.logs import configure
from tests.chaos import defects
from tests.chaos.faults import KINDS, ROUNDS, Fault, course, missing
from tests.chaos.ground import Ground
from tests.report import write_report

MINUTES = 65.0  # of faults at most: with the start, the end and the defects it stays below 75
RECOVER_SECONDS = 300.0  # a broker that lost its disk copies everything again, beside the load
FAULTS, OF_A_KIND, PAIRS, A_SECOND = 200, 10, 20, 200.0  # the floors; of records acknowledged, the last
WARM_SECONDS = 10.0
CALM_SECONDS = 1.0  # of load between two rounds
DEFECT_SECONDS = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """One fault and what became of it. `t` and `recovered_s` in seconds: since the first, and since its end."""

    t: float
    kind: str
    target: str
    way: str
    seconds: float
    pair: int | None  # the same number: at once
    recovered_s: float | None
    invariant_breaks: list[str]


@dataclass(slots=True)
class Course:
    """What was tried so far."""

    faults: list[Harm] = field(default_factory=list)
    breaks: list[str] = field(default_factory=list)
    acknowledged: int = 0
    released: int = 0
    withdrawn: int = 0
    checkpoints: int = 0
    looks: int = 0
    load_seconds: float = 0.0
    ends: dict[str, list[str]] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)

    @property
    def a_second(self) -> float:
        """Records acknowledged a second, from before the first fault to after the last."""
        return round(self.acknowledged / self.load_seconds, 1) if self.load_seconds else 0.0

    @property
    def kinds(self) -> dict[str, int]:
        """How many faults of each kind."""
        return dict(Counter(harm.kind for harm in self.faults))

    @property
    def pairs(self) -> int:
        """How many rounds had two at once."""
        return len({harm.pair for harm in self.faults if harm.pair is not None})

    @property
    def missed(self) -> list[str]:
        """The floors of a full run that this is below."""
        figures = [
            ("records acknowledged a second", self.a_second, A_SECOND),
            ("faults", len(self.faults), FAULTS),
            ("pairs at once", self.pairs, PAIRS),
            *((f"faults of kind {kind}", self.kinds.get(kind, 0), OF_A_KIND) for kind in KINDS),
        ]
        return [f"{what}: {found:g}, and {floor:g} are the least" for what, found, floor in figures if found < floor]


async def run(
    folder: Path,
    rounds: Iterable[list[Fault]],
    seconds: float,
    said: Callable[[Harm], None],
    *,
    until_broken: bool = False,
) -> Course:
    """Rounds until they or the time are over; `until_broken`, until the first look that finds something."""
    done = Course()
    async with Ground(folder) as ground:
        await asyncio.sleep(WARM_SECONDS)
        done.breaks += await _look(ground)
        begun = time.monotonic()
        already = ground.checker.acknowledged
        for number, faults in enumerate(rounds):
            if time.monotonic() - begun > seconds or (until_broken and done.breaks):
                break
            for harm in await _round(ground, faults, number, begun):
                done.faults.append(harm)
                done.breaks += harm.invariant_breaks
                said(harm)
            await asyncio.sleep(CALM_SECONDS)
        done.load_seconds = time.monotonic() - begun
        done.breaks += await _look(ground)
        done.acknowledged = ground.checker.acknowledged - already
        if not until_broken:
            done.breaks += await _end(ground)
        checker = ground.checker
        done.released, done.withdrawn, done.looks = checker.released, checker.withdrawn, checker.looks
        done.checkpoints = checker.log.checkpoints
        done.ends = {unit.name: unit.ends for unit in ground.units.values() if unit.ends}
        done.starts = {unit.name: unit.starts for unit in ground.units.values()}
    return done


async def _round(ground: Ground, faults: list[Fault], number: int, begun: float) -> list[Harm]:
    started = time.monotonic()
    await asyncio.gather(*(fault.run(ground) for fault in faults))
    ended = time.monotonic()
    recovered: float | None = None
    try:
        await ground.until("not recovered", ground.well, RECOVER_SECONDS)
        breaks = await _look(ground)
        recovered = round(time.monotonic() - ended, 2)
    except TimeoutError as exc:
        breaks = [str(exc)]
    return [
        Harm(
            t=round(started + fault.after - begun, 1),
            kind=fault.kind,
            target=fault.target,
            way=fault.way,
            seconds=fault.seconds,
            pair=number if len(faults) > 1 else None,
            recovered_s=recovered,
            invariant_breaks=breaks if fault is faults[-1] else [],
        )
        for fault in faults
    ]


async def _look(ground: Ground) -> list[str]:
    try:
        return await ground.checker.look()
    except TimeoutError as exc:
        return [str(exc)]


async def _end(ground: Ground) -> list[str]:
    """Nothing is published any more, everything is read: then there must be nothing more either."""
    for name in ("publisher-a", "publisher-b", "citizen"):
        ground.units[name].held = True
        ground.units[name].kill()
    try:
        return await ground.checker.look(last=True)
    except TimeoutError as exc:
        return [str(exc)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, help=f"of faults at most, {MINUTES:g} if not given")
    parser.add_argument("--rounds", type=int, help=f"of one or two faults, {ROUNDS} if not given")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument("--only", action="append", choices=sorted(KINDS), help="kinds of faults")
    parser.add_argument("--defects", action="store_true", help="only the planted defects")
    parser.add_argument("--course", help="what shows that publisher, gateway or subscriber says yes too early")
    parser.add_argument("--folder", type=Path, help="where everything is, and stays (default: gone afterwards)")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    configure("chaos", logging.ERROR)
    begun = time.monotonic()
    full = not (given.defects or given.course or given.only or given.minutes or given.rounds)
    without = missing()
    for kind, why in without.items():
        print(f"skipped: {kind}: {why}{'; a full run misses its floor by that' if full else ''}", file=sys.stderr)
    leave_out = [*without, *(kind for kind in KINDS if given.only and kind not in given.only)]
    done = Course()
    if not given.defects:
        drawn = course(given.seed, given.rounds or ROUNDS, without=leave_out)
        rounds = defects.course(given.course) if given.course else drawn
        with tempfile.TemporaryDirectory(prefix="deptbus-chaos-") as temporary:
            done = asyncio.run(_run(given, Path(temporary), rounds))
    found = defects.all_found() if given.defects or not (given.only or given.course) else []
    missed = done.missed if full else []
    document = write_report(
        "chaos",
        seconds=time.monotonic() - begun,
        seed=given.seed,
        skipped=without,
        **{name: value for name, value in asdict(done).items() if name != "faults"},
        a_second=done.a_second,
        kinds=done.kinds,
        pairs=done.pairs,
        full=full,
        missed=missed,
        defects=[asdict(one) for one in found],
        faults=[asdict(harm) for harm in done.faults],
    )
    if given.json:
        print(json.dumps(document, ensure_ascii=False))
    for one in done.breaks:
        print(f"broken: {one}", file=sys.stderr)
    for floor in missed:
        print(f"missed: {floor}", file=sys.stderr)
    for defect in found:
        print(f"defect {defect.name}: {'found' if defect.found else 'NOT FOUND'}", file=sys.stderr)
    sys.exit(1 if done.breaks or missed or not all(one.found for one in found) else 0)


async def _run(given: argparse.Namespace, folder: Path, rounds: Iterable[list[Fault]]) -> Course:
    seconds, once = (given.minutes or MINUTES) * 60, given.course is not None
    return await run(given.folder or folder, rounds, seconds, _said, until_broken=once)


def _said(harm: Any) -> None:
    print(json.dumps(asdict(harm), ensure_ascii=False), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
