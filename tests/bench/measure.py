"""Two sides in turn, round by round, and what comes of it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

ROUNDS = 5  # odd, so that the median is a round that happened

Side = Callable[[int], float]  # a round's number in, records a second out
Said = Callable[[str], None]


class Absent(Exception):
    """Why a case cannot be measured on this machine: its peer is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A case's figures. `ours` and `peer` are medians in `unit`; `ratio` is the median of the rounds' own ratios and
    `spread` the width of those ratios over it. Without a peer, ratio and spread are of `ours` to `floor`.
    """

    unit: str
    ours: float
    peer: float | None
    ratio: float
    floor: float
    spread: float
    rounds: int
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether `ratio` reaches the floor: the floor itself is relative only where there is a peer."""
        return self.ratio >= (self.floor if self.peer is not None else 1)

    def to_json(self) -> dict[str, Any]:
        return {
            "ours": round(self.ours, 1),
            "peer": None if self.peer is None else round(self.peer, 1),
            "ratio": round(self.ratio, 3),
            "floor": self.floor,
            "spread": round(self.spread, 3),
            "rounds": self.rounds,
            "unit": self.unit,
            **self.more,
        }


def compare(
    ours: Side, peer: Side, *, floor: float, said: Said, rounds: int = ROUNDS, unit: str = "records/s"
) -> Outcome:
    """Round 0 warms both up and is not counted. Who begins changes with each round: neither is always second."""
    rates: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        measured = {}
        for name, side in (("ours", ours), ("peer", peer)) if number % 2 else (("peer", peer), ("ours", ours)):
            gc.collect()
            measured[name] = side(number)
        said(f"round {number}: ours {measured['ours']:,.0f}/s, peer {measured['peer']:,.0f}/s")
        rates.append((measured["ours"], measured["peer"]))
    ratios = [our / other for our, other in rates[1:]]
    return Outcome(
        unit=unit,
        ours=median(our for our, _ in rates[1:]),
        peer=median(other for _, other in rates[1:]),
        ratio=median(ratios),
        floor=floor,
        spread=(max(ratios) - min(ratios)) / median(ratios),
        rounds=rounds,
    )


def reach(rates: list[float], *, floor: float, more: dict[str, Any]) -> Outcome:
    """The outcome of a case with an absolute floor."""
    return Outcome(
        unit="records/s",
        ours=median(rates),
        peer=None,
        ratio=median(rates) / floor,
        floor=floor,
        spread=(max(rates) - min(rates)) / median(rates),
        rounds=len(rates),
        more=more,
    )
