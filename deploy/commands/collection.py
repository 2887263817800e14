"""`deptbus collection`: what a form may ask for."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from bus.gateway.collections import CollectionBody
from deploy.commands.options import As, acting
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, out
from schemas.errors import Code, Misuse

FOUND_WRONG = 1
_VERDICTS = {
    "ON_BUS": "[red]on the bus 可共享获取[/]",
    "KEPT": "[green]kept proof 保留证明[/]",
    "CANCELLED": "[red]cancelled proof 取消证明[/]",
}
_UNLISTED = {"PROOF": "[red]on no list 清单之外[/]", "DATA": "[green]not shared 未共享[/]"}


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    collection = typer.Typer(help="Forms (只提交一次): what may be asked for.", no_args_is_help=True)
    app.add_typer(collection, name="collection")

    @command(collection)
    async def check(
        department: As,
        form: Annotated[str | None, typer.Option("--form", help="The form's name.")] = None,
        purpose: Annotated[
            str | None, typer.Option("--purpose", help="What the form is for: a purpose of consent/purposes.toml.")
        ] = None,
        element: Annotated[
            list[str] | None,
            typer.Option(
                "--element", help="Data to be filled in: standard key, field or Chinese name; may be repeated."
            ),
        ] = None,
        proof: Annotated[
            list[str] | None, typer.Option("--proof", help="A proof (证明) to be brought along; may be repeated.")
        ] = None,
        holder: Annotated[
            str, typer.Option("--holder", help="Whom it is about: PERSON or ORGANISATION.")
        ] = "ORGANISATION",
        region: Annotated[str, typer.Option("--region", help="The division whose holders it is for.")] = "",
        file: Annotated[
            Path | None,
            typer.Option("--file", help="The form as TOML: form, purpose, holder, elements, proofs, region."),
        ] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Say what a form may ask for, and what the bus has already, from whom. Exit code 1 if it asks for too much."""
        said = form or purpose or element or proof or region
        if said if file is not None else not (form and purpose):
            raise Misuse(Code.REQUEST_MALFORMED, "name the form with --form and --purpose, or with --file alone")
        body = CollectionBody(
            form=form or "",
            purpose=purpose or "",
            holder=holder,
            elements=element or [],
            proofs=proof or [],
            region=region,
        )
        asked = msgspec.to_builtins(body if file is None else _read(file))
        where = Home.find(home)
        async with acting(where, department) as client:
            answer = await client.post_json("/v1/collections:check", asked)
        emit(answer, as_json=json, human=lambda: _show(answer, where.names()))
        if not answer["allowed"]:
            raise typer.Exit(FOUND_WRONG)


def _read(file: Path) -> CollectionBody:
    """Strict here, so that the sentence names the file and not a request."""
    try:
        return msgspec.convert(tomllib.loads(file.read_text("utf-8")), CollectionBody)
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as exc:
        raise Misuse(Code.CONFIG_INVALID, f"--file {file}: {exc}") from exc


def _show(answer: Mapping[str, Any], names: Mapping[str, str]) -> None:
    made = Table(title=escape(answer["form"]), title_justify="left")
    for column in ("element", "may ask", "found", "from", "basis"):
        made.add_column(column, overflow="fold")
    for one in answer["elements"]:
        verdict = _VERDICTS.get(one["verdict"]) or _UNLISTED[one["kind"]]
        may = "[green]yes[/]" if one["may_ask"] else f"[bold red]no[/] {one['code']}"
        made.add_row(
            escape(one["element"]), may, verdict, "\n".join(map(_source, one["sources"])), escape(_basis(one["proof"]))
        )
    out.print(made)
    for item, providers in answer["providers"].items():
        said = (f"{names.get(p['department'], p['department'])} ({p['region'] or 'everywhere'})" for p in providers)
        out.print(f"{item}: {', '.join(said)}", markup=False, highlight=False)


def _source(source: Mapping[str, Any]) -> str:
    place = source["place"]
    at = ".".join(filter(None, (place["item"], place["section"], place["field"])))
    return f"{at} ({place['share']}: {source['how']})"


def _basis(proof: Mapping[str, Any] | None) -> str:
    if proof is None:
        return ""
    said = proof["basis"] + ("" if proof["verified"] else " (not verified)")
    return f"{said}\ninstead: {proof['instead']}" if proof["instead"] else said
