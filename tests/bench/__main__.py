"""`python -m tests.bench`: every case, `build/bench.json`, exit 1 if one is below its floor."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from tests.bench.crypto import open_records, seal
from tests.bench.measure import Outcome, Said
from tests.bench.publish import publish
from tests.bench.release import release
from tests.bench.sample import SEED
from tests.bench.world import quiet

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "build" / "bench.json"
CASES: Mapping[str, Callable[[Said], Outcome]] = {
    "seal": seal,
    "publish": publish,
    "open": open_records,
    "release": release,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--case", choices=sorted(CASES), help="only this one")
    parser.add_argument("--json", action="store_true", help="print the document on stdout")
    arguments = parser.parse_args()
    quiet()
    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    outcomes = {name: _run(console, name) for name in ([arguments.case] if arguments.case else CASES)}
    document = {
        "commit": commit(),
        "machine": machine(),
        "seed": SEED,
        "seconds": round(time.monotonic() - began, 1),
        "cases": {name: outcome.to_json() for name, outcome in outcomes.items()},
    }
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    if arguments.json:
        print(json.dumps(document))
    return 0 if all(outcome.good for outcome in outcomes.values()) else 1


def _run(console: Console, name: str) -> Outcome:
    with console.status(f"[bold]{name}[/]: starting") as status:
        outcome = CASES[name](lambda text: status.update(f"[bold]{name}[/]: {text}"))
    beside = "" if outcome.peer is None else f", peer {outcome.peer:,.0f}"
    colour = "green" if outcome.good else "red"
    floor = f"{outcome.floor:g} of the peer" if outcome.peer is not None else f"{outcome.floor:,.0f} {outcome.unit}"
    console.print(
        f"[bold]{name:8}[/] {outcome.ours:,.0f} {outcome.unit}{beside}: [{colour}]{outcome.ratio:.2f}[/]"
        f" (floor {floor}, spread {outcome.spread:.0%})"
    )
    for key, value in outcome.more.items():
        console.print(f"{'':8} {key} {value}")
    return outcome


def commit() -> str | None:
    """The commit that is measured, `-dirty` with changes; none outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def machine() -> dict[str, Any]:
    """What the figures are of."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    sys.exit(main())
