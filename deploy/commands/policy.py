"""`deptbus policy`: what the rules say, asked without opening anything."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    policy = typer.Typer(help="The rules of a decision (授权规则): tested, explained, compared.", no_args_is_help=True)
    app.add_typer(policy, name="policy")
