"""Inputs without a look at what they reach: good ones changed at random, and those that hypothesis draws."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.limits import Finding, Limits
from tests.fuzz.target import Target

MOST_FINDINGS = 20  # of a target: one defect in the wrong place makes thousands
ROUND = 50  # draws between two looks at the clock
_TOKENS = (b"\x00", b"\x7f", b"\x80", b"\xff", b"\xff" * 9, b'"', b"[" * 2_000, b"{", b"-1", b"9" * 40, b"\xef\xbf\xbd")


@dataclass(slots=True)
class Tally:
    """What came of a target. `findings` are by what they do; `edges` is None where nothing looked."""

    inputs: int = 0
    seconds: float = 0.0
    edges: int | None = None
    findings: dict[str, Finding] = field(default_factory=dict)

    def add(self, found: Finding | None) -> None:
        """An input was run."""
        self.inputs += 1
        if found is not None and len(self.findings) < MOST_FINDINGS:
            self.findings.setdefault(found.what, found)

    def merge(self, other: Tally) -> None:
        """Of the same target."""
        self.inputs += other.inputs
        self.seconds += other.seconds
        self.edges = other.edges if self.edges is None else self.edges
        self.findings |= other.findings

    def to_json(self) -> dict[str, Any]:
        """For the report; the inputs that were found are said beside it."""
        return {
            "inputs": self.inputs,
            "seconds": round(self.seconds, 1),
            "edges": self.edges,
            "findings": len(self.findings),
        }


def known(target: Target, limits: Limits) -> Tally:
    """Everything that a target begins with, and what was found before."""
    tally = Tally()
    for data in (*target.seeds(), *target.regressions().values()):
        tally.add(limits.run(target.name, target.run, data))
    return tally


def at_random(target: Target, limits: Limits, *, seconds: float, chance: random.Random) -> Tally:
    """Good inputs with bits flipped, bytes put in, taken out, doubled, and joined with one another."""
    tally, begun = Tally(), time.monotonic()
    seeds = list(target.seeds())
    while time.monotonic() < begun + seconds:
        tally.add(limits.run(target.name, target.run, _changed(seeds, chance)))
    tally.seconds = time.monotonic() - begun
    return tally


def _changed(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0:
                data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ 1 << chance.randrange(8)])
            case 1:
                data[at : at + chance.randrange(2)] = chance.choice(_TOKENS)
            case 2:
                del data[at : at + chance.randrange(1, 40)]
            case 3:
                data[at:at] = data[at : at + chance.randrange(1, 200)]
            case 4:
                data[at : at + chance.randrange(9)] = chance.randbytes(chance.randrange(9))
            case _:
                other = chance.choice(seeds)
                data[at:] = other[chance.randrange(len(other) + 1) :]
    return bytes(data)


def by_hypothesis(target: Target, limits: Limits, *, seconds: float, number: int) -> Tally:
    """Inputs of the right shape. A target that has none gets nothing."""
    tally, begun = Tally(), time.monotonic()
    while target.drawn is not None and time.monotonic() < begun + seconds:
        number += 1

        @seed(number)
        @settings(
            max_examples=ROUND,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=[*HealthCheck],
        )
        @given(target.drawn())
        def draw(data: bytes) -> None:
            if time.monotonic() < begun + seconds:
                tally.add(limits.run(target.name, target.run, data))

        draw()
    tally.seconds = time.monotonic() - begun
    return tally
