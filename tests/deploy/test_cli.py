"""The command line: every command is found."""

from __future__ import annotations

import re
from importlib import import_module

import pytest
import typer
from typer.main import get_group
from typer.testing import CliRunner

from deploy.cli import app
from deploy.commands import COMMANDS


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
