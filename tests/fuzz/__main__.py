"""`make fuzz`: every parser and every endpoint, for half an hour. `build/fuzz.json`; a finding exits 1.

Parsers (`tests.fuzz.targets`): half of the time coverage-guided (atheris), some with documents that hypothesis draws;
each target gets the same. Endpoints: schemathesis, all checks, against a gateway of a bus of its own. `answered` are
the statuses that well-formed requests of each operation got, and how often: where there is no 200, nothing was tried
but refusals. The inputs that were found are put into `build/fuzz/`; mended, they move to `tests/fuzz/regressions/`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bus.logs import configure
from tests.faults.plant import Plant
from tests.fuzz import guided
from tests.fuzz.drawn import Tally, at_random, by_hypothesis, known
from tests.fuzz.known import make
from tests.fuzz.limits import Limits
from tests.fuzz.running import Run, fuzz
from tests.fuzz.target import ROOT
from tests.fuzz.targets import TARGETS
from tests.integration.bus import World, place_of
from tests.report import write_report

SECONDS = 1_620  # of the half an hour that there is: engines start, and what is found is made small
GUIDED, DRAWN = 0.5, 0.15  # of it; the endpoints have the rest
FOUND = ROOT / "build/fuzz"

Advance = Callable[[str, float], None]  # what is done, for so many seconds
Tallies = dict[str, Tally]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    configure("fuzz", logging.WARNING)
    warnings.simplefilter("ignore")  # libraries say what they think of the inputs
    begun = time.monotonic()
    tallies: Tallies = {name: Tally() for name in TARGETS}
    with (
        tempfile.TemporaryDirectory(prefix="deptbus-fuzz-", ignore_cleanup_errors=True) as name,
        _progress(given.seconds) as advance,
    ):
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as another user, who passes through
        _guided(tallies, folder / "guided", given.seconds * GUIDED, given.seed, advance)
        _drawn(tallies, given.seconds * DRAWN, given.seed, advance)
        advance("endpoints", 0)
        _keep(tallies)
        _report(tallies, None, given.seed, begun)  # what was found so far, if the bus does not even start
        run = asyncio.run(_endpoints(folder, int(given.seconds * (1 - GUIDED - DRAWN)), given.seed))
    document = _report(tallies, run, given.seed, begun)
    if given.json:
        print(json.dumps(document, ensure_ascii=False))
    for one in document["findings"]:
        print(f"{one['target']}: {one['what']}", file=sys.stderr)
    if run.exit_code:
        print(run.output, file=sys.stderr)
    sys.exit(1 if run.exit_code or document["findings"] else 0)


def _report(tallies: Tallies, run: Run | None, seed: int, begun: float) -> dict[str, Any]:
    said = run.report if run else {}
    cases: int = said.get("test_cases", {}).get("generated", 0)
    found = [one for tally in tallies.values() for one in tally.findings.values()]
    return write_report(
        "fuzz",
        seconds=time.monotonic() - begun,
        seed=seed,
        inputs=sum(tally.inputs for tally in tallies.values()) + cases,
        atheris=version("atheris") if guided.available() else None,
        targets={name: tally.to_json() for name, tally in tallies.items()},
        findings=[{"target": one.target, "what": one.what, "bytes": len(one.data)} for one in found],
        endpoints={
            "schemathesis": said.get("schemathesis_version"),
            "operations": said.get("operations"),
            "cases": said.get("test_cases"),
            "answered": run.answered if run else None,
            "failures": said.get("failures"),
            "errors": said.get("errors"),
            "exit_code": run.exit_code if run else None,
        },
    )


def _guided(tallies: Tallies, folder: Path, seconds: float, seed: int, advance: Advance) -> None:
    """In a process of its own: what it imports is made to count where it goes."""
    if not guided.available():
        print("atheris has no wheel for this machine: inputs are changed at random, without a guide", file=sys.stderr)
        _each(tallies, seconds, advance, lambda name, limits, share: _changed(name, limits, share, seed))
        return
    folder.mkdir()
    command = [sys.executable, "-m", "tests.fuzz.guided", "--seconds", str(seconds), "--seed", str(seed)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--folder", str(folder)], cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert process.stdout is not None
        with process:
            for line in process.stdout:
                said = json.loads(line)
                tally = Tally(inputs=said["inputs"], seconds=said["seconds"], edges=said["edges"])
                tally.findings = guided.findings(said)
                tallies[said["target"]].merge(tally)
                advance(said["target"], said["seconds"])
    if process.returncode:
        raise RuntimeError(
            f"the guided fuzzer ended with {process.returncode}:\n{(folder / 'log').read_text()[-2000:]}"
        )


def _drawn(tallies: Tallies, seconds: float, seed: int, advance: Advance) -> None:
    shaped = [name for name, target in TARGETS.items() if target.drawn is not None]
    _each(
        {name: tallies[name] for name in shaped},
        seconds,
        advance,
        lambda name, limits, share: by_hypothesis(TARGETS[name], limits, seconds=share, number=seed),
    )


def _changed(name: str, limits: Limits, seconds: float, seed: int) -> Tally:
    tally = known(TARGETS[name], limits)
    tally.merge(at_random(TARGETS[name], limits, seconds=seconds, chance=random.Random(seed)))
    return tally


def _each(tallies: Tallies, seconds: float, advance: Advance, run: Callable[[str, Limits, float], Tally]) -> None:
    with Limits() as limits:
        for name, tally in tallies.items():
            tally.merge(run(name, limits, seconds / len(tallies)))
            advance(name, seconds / len(tallies))


async def _endpoints(folder: Path, seconds: int, seed: int) -> Run:
    plant = Plant(folder)
    try:
        await plant.up()
        async with World(place_of(plant)) as world:
            there = await make(world)
            return await fuzz(
                plant.gateway, plant.tls.file, there, folder, seed=seed, options=[f"--max-time={seconds}"]
            )
    finally:
        plant.down()


def _keep(tallies: Tallies) -> None:
    """The inputs of this run's findings, and of no other's."""
    shutil.rmtree(FOUND, ignore_errors=True)
    for name, tally in tallies.items():
        for number, found in enumerate(tally.findings.values()):
            (FOUND / name).mkdir(parents=True, exist_ok=True)
            (FOUND / name / str(number)).write_bytes(found.data)


@contextmanager
def _progress(seconds: int) -> Iterator[Advance]:
    """A line on a terminal, nothing elsewhere."""
    columns: tuple[Any, ...] = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("fuzzing", total=seconds)

        def advance(what: str, done: float) -> None:
            progress.update(task, description=f"fuzzing: {what}", advance=done)

        yield advance


if __name__ == "__main__":
    main()
