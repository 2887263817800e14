"""What `make chaos` will try is what it promises, whatever the seed."""

from __future__ import annotations

import tomllib
from collections import Counter

import pytest

from tests.chaos import defects
from tests.chaos.__main__ import Course, Harm
from tests.chaos.faults import KINDS, course
from tests.controls.threats import Patch, patched
from tests.report import ROOT


@pytest.mark.parametrize("seed", range(20))
def test_a_course_has_enough_of_each(seed: int) -> None:
    """200 faults, ten or more of each kind, twenty pairs or more at once; and the same again from its seed."""
    rounds = list(course(seed))
    kinds = Counter(fault.kind for faults in rounds for fault in faults)
    assert kinds.total() >= 200
    assert {name for name in KINDS if kinds[name] < 10} == set()
    assert sum(len(faults) == 2 for faults in rounds) >= 20
    assert all(len({fault.target for fault in faults}) == len(faults) for faults in rounds)
    assert list(course(seed)) == rounds


def test_a_full_run_below_a_floor_is_none() -> None:
    """Too few faults, of one kind, at once, or too little load; each is named."""
    rounds = list(course(1))
    whole = [
        Harm(
            t=0.0,
            kind=fault.kind,
            target=fault.target,
            way=fault.way,
            seconds=fault.seconds,
            pair=number if len(faults) > 1 else None,
            recovered_s=1.0,
            invariant_breaks=[],
        )
        for number, faults in enumerate(rounds)
        for fault in faults
    ]

    def missed(faults: list[Harm], acknowledged: int = 2_000) -> str:
        return " ".join(Course(faults=faults, acknowledged=acknowledged, load_seconds=10.0).missed)

    assert missed(whole) == ""
    assert missed(whole, 1_999).startswith("records acknowledged a second: 199.9")
    assert "faults of kind clock: 0," in missed([one for one in whole if one.kind != "clock"])
    assert "pairs at once: 0," in missed([one for one in whole if one.pair is None])
    assert "faults: 199," in missed(whole[:199])


@pytest.mark.parametrize(
    "defect", tomllib.loads(defects.FILE.read_text("utf-8"))["defect"], ids=lambda one: one["name"]
)
def test_a_defect_can_be_planted(defect: dict[str, object]) -> None:
    assert any(defects.course(str(defect["course"])))
    for one in defect["patch"]:  # type: ignore[attr-defined]
        patch = Patch(**one)
        patched((ROOT / patch.file).read_text("utf-8"), patch)
