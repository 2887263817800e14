"""`deptbus`: the command line. Each file of `deploy/commands` registers its own."""

from __future__ import annotations

import logging
import sys

import typer

from bus.logs import configure
from deploy.commands import COMMANDS

app = typer.Typer(
    name="deptbus",
    help="A bus on which departments share e-licences: sealed, signed, with consent, and audited.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for register in COMMANDS:
    register(app)


def main() -> None:
    # A person at a terminal sees tables and progress; whoever collects stderr gets every line.
    """The `deptbus` command."""
    configure("deptbus", logging.WARNING if sys.stderr.isatty() else logging.INFO)
    app()


if __name__ == "__main__":
    main()
