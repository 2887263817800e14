"""The commands, in the order that `deptbus --help` shows them."""

from __future__ import annotations

from collections.abc import Callable

import typer

from deploy.commands import demo, stack

COMMANDS: tuple[Callable[[typer.Typer], None], ...] = (stack.register, demo.register)
