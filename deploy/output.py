"""How every command speaks: `--json` is one document on stdout; people get tables; logs and progress go to stderr.

Exit codes: 0 good, 1 found wrong or refused, 2 usage, 3 an engine or peer is away.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bus.logs import json_line, shown
from schemas.errors import DeptbusError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]

_WIDTH = 160  # where no terminal says how wide it is: a log or a pipe


class _Console(Console):
    """Texts of others are printed in many places: no terminal obeys what stands in one."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text), **options)


out = _Console(width=None if sys.stdout.isatty() else _WIDTH)
err = _Console(stderr=True, width=None if sys.stderr.isatty() else _WIDTH)


def command(app: typer.Typer, *args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function, async or not, as a command: its errors become a sentence and an exit code."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*a: Any, **k: Any) -> None:
            try:
                result = function(*a, **k)
                if inspect.isawaitable(result):
                    asyncio.run(_awaited(result))
            except DeptbusError as exc:
                fail(exc)
            except BaseExceptionGroup as group:
                fail(_first(group))

        app.command(*args, **kwargs)(run)
        return function

    return register


async def _awaited(work: Any) -> Any:
    return await work


def _first(group: BaseExceptionGroup[BaseException]) -> DeptbusError:
    """The first of our own errors in a group of tasks; a group without one is a defect and stays what it is."""
    found: BaseException | None = group.subgroup(DeptbusError)
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    if not isinstance(found, DeptbusError):
        raise group
    return found


def fail(error: DeptbusError) -> None:
    """Says what is wrong, and ends with the error's exit code."""
    if "--json" in sys.argv:
        emit({"error": {"code": error.code.value, "detail": error.detail}}, as_json=True)
    else:
        err.print(f"[bold red]{error.code.value}[/]: ", end="")
        err.print(error.detail, markup=False, highlight=False)
    raise typer.Exit(error.exit_code)


def emit(document: Any, *, as_json: bool, human: Callable[[], None] | None = None) -> None:
    """One document for machines, or `human` for people (by default the document, laid out)."""
    if as_json:
        sys.stdout.write(json_line(document, default=str) + "\n")
        sys.stdout.flush()
    elif human is not None:
        human()
    else:
        out.print_json(json.dumps(document, ensure_ascii=False, default=str))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table for people."""
    made = Table(title=Text(shown(title)), title_justify="left")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*map(_cell, row))
    out.print(made)


def facts(title: str, values: Mapping[str, Any]) -> None:
    """Names and values for people."""
    made = Table(title=Text(shown(title)), title_justify="left", show_header=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in values.items():
        made.add_row(_cell(name), _cell(value))
    out.print(made)


def _cell(value: Any) -> Text:
    """Text, whatever stands in it: no markup either. What is made with its own style stays so."""
    return value if isinstance(value, Text) else Text(shown(plain(value)))


def plain(value: Any) -> str:
    """A value as a person reads it: nothing for None, lists and maps without their brackets."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case dict():
            return "\n".join(f"{key}: {plain(inner)}" for key, inner in value.items())
        case list() | tuple():
            return ("\n" if any(isinstance(one, dict) for one in value) else ", ").join(map(plain, value))
    return str(value)
