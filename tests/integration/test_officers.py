"""A bus whose master key three officers keep: what needs two of them, and what goes on without."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from typer.testing import CliRunner

from bus.gateway.master import Officers
from bus.identity import Identity
from deploy import bootstrap
from deploy.cli import app
from deploy.home import Home, Stack
from tests.faults.firms import credit_code
from tests.integration.bus import LICENCE, World, fresh_number

OFFICERS = {"li": "four red lanterns", "wang": "nine grey herons", "zhao": "two tin drums"}


async def test_a_department_joins_with_two_officers_and_a_bus_starts_without(
    world: World, home: Home, stack: Stack, tmp_path: Path
) -> None:
    """A copy of the session's bus, given to officers: its pseudonyms are the same, and locked."""
    shared = await world.add(receives=[LICENCE])
    other, uscc, name = Home.find(tmp_path), credit_code(fresh_number()), f"office-{secrets.token_hex(4)}"
    for folder in ("bus", "unlock"):
        shutil.copytree(home.path / folder, other.path / folder)
    other.write_stack(stack)
    keyring = other.load_bus().keyring()
    keyring.rotate_master(Officers.appoint(OFFICERS, cost=2))
    keyring.master.end_rotation()

    async def add(*more: str, said: Sequence[str] = (), code: int = 0) -> str:
        arguments = ["org", "add", name, "--uscc", uscc, "--receives", LICENCE, *more, "--home", str(other.path)]
        stdin = "\n".join(OFFICERS[one] for one in said)
        done = await asyncio.to_thread(CliRunner().invoke, app, arguments, input=stdin)
        assert done.exit_code == code, done.output
        return done.output

    await bootstrap.prepare(other.bus, stack.administrator, stack.postgres)
    await bootstrap.add_operator(other.load_bus(), other.org_folder("operator"), stack.administrator, stack.postgres)
    two = ("--officer", "zhao", "--officer", "li")
    assert "KEYS_LOCKED" in await add(code=3)
    assert "KEYS_UNOPENABLE" in await add(*two, said=["zhao", "wang"], code=1)
    assert not other.org_folder(name).exists()
    assert await world.db.fetchval("SELECT count(*) FROM org WHERE uscc = $1", uscc) == 0
    await add(*two, said=["zhao", "li"])
    assert Identity.load(other.org_folder(name)).pseudonym_keys == shared.pseudonym_keys
