"""The command line: every command is found, and starts without what it does not need."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module

import pytest
import typer
from typer.main import get_group
from typer.testing import CliRunner

from deploy.cli import app
from deploy.commands import COMMANDS

# Servers, their documents, what sets a bus up: each takes longer to load than most commands run.
HEAVY = ("bus.gateway.service", "deploy.bootstrap", "fastapi", "openpyxl", "pydantic", "uvicorn")
SERVING = {"cert", "demo", "down", "openapi", "org", "status", "up", "witness"}  # and those that set it up


@pytest.mark.parametrize("module", sorted(set(COMMANDS.values())))
def test_every_command_stands_in_the_table(module: str) -> None:
    """And under its module: what a table leaves out nobody can call."""
    made = typer.Typer()
    import_module(f"deploy.commands.{module}").register(made)
    assert set(get_group(made).commands) == {name for name, where in COMMANDS.items() if where == module}


def test_help_names_every_command_in_order() -> None:
    said = CliRunner().invoke(app, ["--help"]).stdout
    assert re.findall(r"^│ ([a-z]+)", said, re.MULTILINE) == list(COMMANDS)


def test_a_wrong_name_is_told_the_right_one() -> None:
    done = CliRunner().invoke(app, ["agrement", "list"])
    assert done.exit_code == 2
    assert "'agreement'" in done.stderr


def test_a_command_starts_without_servers() -> None:
    """A clerk waits for none of a gateway's libraries; nor does a recorder load them."""
    light = sorted(COMMANDS.keys() - SERVING)
    script = f"""if True:
        import json, sys
        from deploy.cli import app
        from typer.main import get_command
        commands = get_command(app).commands
        for name in {light}:
            commands[name]
        loaded = [name for name in {HEAVY} if name in sys.modules]
        import bus.recorder.service, deploy.probes
        print(json.dumps(loaded + ["a recorder's"] * ("fastapi" in sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
