"""What `make chaos` will try is what it promises, whatever the seed."""

from __future__ import annotations

import tomllib
from collections import Counter

import pytest

from tests.chaos import defects
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


@pytest.mark.parametrize(
    "defect", tomllib.loads(defects.FILE.read_text("utf-8"))["defect"], ids=lambda one: one["name"]
)
def test_a_defect_can_be_planted(defect: dict[str, object]) -> None:
    assert any(defects.course(str(defect["course"])))
    for one in defect["patch"]:  # type: ignore[attr-defined]
        patch = Patch(**one)
        patched((ROOT / patch.file).read_text("utf-8"), patch)
