"""`deptbus policy`: what the rules say, asked without opening anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from consent.cases import Case, parse
from deploy.commands import deciding
from deploy.output import Json, command, emit, out, table
from deploy.yamlfile import read_yaml
from schemas.catalogue import Catalogue
from schemas.errors import Code, Misuse


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    policy = typer.Typer(help="The rules of a decision (授权规则): tested, explained, compared.", no_args_is_help=True)
    app.add_typer(policy, name="policy")

    @command(policy)
    def test(
        paths: Annotated[list[Path], typer.Argument(help="Files of cases, or folders of such (*.yaml).")],
        json: Json = False,
    ) -> None:
        """Run a lawyer's cases through the rules: who asks for what, what must come out. Nothing is opened.

        consent/cases.py says how to write them. Exit 1 if an answer is another than expected, 2 for a malformed file.
        """
        found = list(files(paths))
        catalogue = Catalogue.load()
        cases = [(file, case) for file in found for case in cases_of(file, catalogue)]
        wrong = [{"file": str(file), **one.to_json(case)} for file, case in cases for one in case.differences()]
        failed = len({(one["file"], one["case"]) for one in wrong})
        document = {"files": len(found), "cases": len(cases), "failed": failed, "differences": wrong}
        emit(document, as_json=json, human=lambda: _show(len(cases), failed, wrong))
        raise typer.Exit(1 if wrong else 0)

    deciding.register(policy)


def files(paths: Sequence[Path]) -> Iterator[Path]:
    """The files named, and those of folders. Raises `Misuse` for an empty folder: it would be green for nothing."""
    for path in paths:
        inside = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
        if not inside:
            raise Misuse(Code.CONFIG_INVALID, f"{path}: no *.yaml is in this folder")
        yield from inside


def cases_of(file: Path, catalogue: Catalogue) -> tuple[Case, ...]:
    """A file's cases. Raises `Misuse` (CONFIG_INVALID) naming file, case and key."""
    cases = parse(read_yaml(file), str(file), catalogue)
    if not cases:
        raise Misuse(Code.CONFIG_INVALID, f"{file}: it has no cases")
    return cases


def _show(count: int, failed: int, wrong: Sequence[dict[str, Any]]) -> None:
    if wrong:
        columns = ("case", "section", "expected", "got", "rule", "article")
        rows = [[one[name] for name in ("case", "section", "expected", "got", "rule", "basis")] for one in wrong]
        table("Other than expected", columns, rows)
    out.print(f"{count} cases, {failed} other than expected")
