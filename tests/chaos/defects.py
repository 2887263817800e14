"""Three defects, planted in a copy: who does not find them would not find ours either."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.faults import Fault
from tests.chaos.ground import BROKERS
from tests.controls.copying import copied
from tests.controls.threats import Patch, patched

FILE = Path(__file__).with_name("defects.toml")
SECONDS = 420.0  # the start, and rounds until the first look that finds something
ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A defect, and what the checker said of it."""

    name: str
    found: bool
    said: list[str]
    seconds: float


def all_found() -> list[Found]:
    """Each in a copy of its own, one after the other."""
    return [_search(one) for one in tomllib.loads(FILE.read_text("utf-8"))["defect"]]


def course(victim: str) -> Iterator[list[Fault]]:
    """What shows that `victim` said yes too early: it is killed while somebody does not answer it."""
    targets: Mapping[str, Sequence[str]] = {
        "publisher": ("publisher-a", "publisher-b"),
        "gateway": ("gateway-a", "gateway-b"),
        "subscriber": ("subscriber",),
    }
    for _ in range(ROUNDS):
        for broker in BROKERS:
            yield [
                Fault(kind="stop", target=f"broker-{broker}", seconds=4.0),
                *(Fault(kind="kill", target=target, after=2.5) for target in targets[victim]),
            ]


def _search(defect: Mapping[str, object]) -> Found:
    begun = time.monotonic()
    name, patches = str(defect["name"]), [Patch(**one) for one in defect["patch"]]  # type: ignore[attr-defined]
    with copied() as tree:
        for patch in patches:
            file = tree / patch.file
            file.write_text(patched(file.read_text("utf-8"), patch), "utf-8")
        command = [sys.executable, "-m", "tests.chaos", "--course", str(defect["course"]), "--seed", "1"]
        environment = os.environ | {"PYTHONPATH": str(tree)}
        try:
            done = subprocess.run(
                command, cwd=tree, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
            )
            said = [line for line in done.stderr.splitlines() if line.startswith("broken: ")]
            breaks = json.loads((tree / "build" / "chaos.json").read_text("utf-8"))["breaks"]
        except (subprocess.TimeoutExpired, OSError, ValueError) as exc:
            said, breaks = [f"no report: {type(exc).__name__}"], []
    found = bool(breaks) and not all("not recovered" in one for one in breaks)
    return Found(name=name, found=found, said=said[:5], seconds=round(time.monotonic() - begun, 1))
