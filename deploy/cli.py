"""`deptbus`: the command line. A command loads what it needs, not what the others do."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from bus.logs import configure
from deploy.commands import COMMANDS


class _Commands(Mapping[str, Any]):
    """Every command by its name: its module is imported when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        made = typer.Typer()
        import_module(f"deploy.commands.{COMMANDS[name]}").register(made)
        return get_group(made).commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes | {"commands": _Commands()})


app = typer.Typer(
    name="deptbus", cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)


@app.callback()
def _deptbus() -> None:
    """A bus on which departments share e-licences: sealed, signed, with consent, and audited."""


def main() -> None:
    """The `deptbus` command."""
    # A person at a terminal sees tables and progress; whoever collects stderr gets every line.
    configure("deptbus", logging.WARNING if sys.stderr.isatty() else logging.INFO)
    app()


if __name__ == "__main__":
    main()
