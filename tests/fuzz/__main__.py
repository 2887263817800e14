"""`make fuzz`: schemathesis, all checks, against a gateway of a bus of its own, for half an hour. `build/fuzz.json`.

A finding exits 1. `answered` are the statuses that well-formed requests of each operation got, and how often: where
there is no 200, nothing was tried but refusals.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

from bus.logs import configure
from tests.faults.plant import Plant
from tests.fuzz.known import make
from tests.fuzz.running import Run, fuzz
from tests.integration.bus import Place, World
from tests.report import write_report

SECONDS = 1_500  # of the half an hour that there is: engines start, and what is found is made small


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    configure("fuzz", logging.WARNING)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="deptbus-fuzz-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # PostgreSQL may run as another user, who passes through
        run = asyncio.run(_run(Path(folder), given.seconds, given.seed))
    said = run.report
    document = write_report(
        "fuzz",
        seconds=time.monotonic() - begun,
        seed=given.seed,
        schemathesis=said.get("schemathesis_version"),
        operations=said.get("operations"),
        cases=said.get("test_cases"),
        answered=run.answered,
        failures=said.get("failures"),
        errors=said.get("errors"),
        exit_code=run.exit_code,
    )
    if given.json:
        print(json.dumps(document, ensure_ascii=False))
    if run.exit_code:
        print(run.output, file=sys.stderr)
    sys.exit(1 if run.exit_code else 0)


async def _run(folder: Path, seconds: int, seed: int) -> Run:
    plant = Plant(folder)
    try:
        await plant.up()
        place = Place(
            bus=plant.bus,
            kafka=plant.administrator,
            servers=plant.kafka,
            dsn=plant.dsn,
            gateways=(plant.gateway,),
            metrics=(),
            logs=(),
            folder=folder,
        )
        async with World(place) as world:
            known = await make(world)
            return await fuzz(plant.gateway, plant.tls.file, known, folder, seed=seed, options=[f"--max-time={seconds}"])
    finally:
        plant.down()


if __name__ == "__main__":
    main()
