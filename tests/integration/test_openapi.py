"""The gateway does what its own description says: schemathesis finds nothing that differs."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from deploy.cli import app
from deploy.home import Home
from tests.fuzz.known import make
from tests.fuzz.running import fuzz
from tests.integration.bus import World
from tests.integration.described import described

SEED = 20261127


async def test_schemathesis_finds_nothing(world: World, tmp_path: Path) -> None:
    """All checks, every route, few examples of each: `make fuzz` goes on for longer."""
    known = await make(world)
    run = await fuzz(
        world.place.gateways[-1],
        world.place.bus.folder / "tls" / "ca.pem",
        known,
        tmp_path,
        seed=SEED,
        options=["--max-examples=2", "--no-shrink"],
    )
    assert run.exit_code == 0, run.output
    reached = {name for name, statuses in run.answered.items() if "200" in statuses}
    assert len(reached) > len(run.answered) / 2, run.answered


def test_the_command_prints_what_the_gateway_says(home: Home) -> None:
    said = CliRunner().invoke(app, ["openapi", "--json", "--home", str(home.path)])
    assert said.exit_code == 0
    assert json.loads(said.stdout) == described(home.stack().gateways[0], home.load_bus().tls_authority).document
