"""`deptbus policy explain|simulate|diff|replay`: why, what if, what would change, what would be decided today."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from bus import db
from bus.gateway import policy as policies
from consent.changes import changed, parse, plain, published
from consent.diff import GROUNDS, PURPOSES, diff
from consent.model import Basis
from consent.ruleset import RuleSet
from deploy.commands.filters import Investigation, Reader, reader_of, time_of
from deploy.commands.options import As, Caller, Purpose, Sections, acting, asking, subject
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, out, table
from deploy.yamlfile import read_yaml
from schemas.catalogue import Catalogue
from schemas.errors import Code, Misuse

ASSUMED = (
    "A question counts as permitted if it is for some region and some citation that an agreement names, of a licence's "
    "newest and valid version, looked up at the counter, every holder consenting where the ground is consent."
)
_GROUP = ("who", "opens whose", "item", "sections", "for", "on ground of")
_EXPLAINED = ("section", "answer", "because", "article", "of")
_AGAIN = ("when (UTC)", "who", "whose", "item", "section", "was", "now", "because", "since then")

_OPTIONS: Mapping[str, Any] = {
    "record": Annotated[str | None, typer.Option(help="A record's leaf hash; or --item, --provider and --region.")],
    "item": Annotated[str | None, typer.Option(help="Of a licence that nobody need have: its item.")],
    "provider": Annotated[str | None, typer.Option(help="Whose it would be: a name or a credit code.")],
    "region": Annotated[str | None, typer.Option(help="Its division, six digits.")],
    "holder": Annotated[str | None, typer.Option("--subject", help="Whose licence; '-' reads the line from stdin.")],
    "consumer": Annotated[str | None, typer.Option(help="Who would open it, if not the department that asks.")],
    "ground": Annotated[str, typer.Option(help="STATUTORY_DUTY (法定职责), CONSENT (同意), ...")],
    "operator": Annotated[str, typer.Option(help="The clerk's id in your own system; it stays in the log.")],
    "citation": Annotated[str, typer.Option(help="What the request would rest on.")],
    "agent": Annotated[str | None, typer.Option(help="Who would act for the subject.")],
    "mode": Annotated[str, typer.Option(help="QUERY, a licence at the counter, or STREAM.")],
    "checks": Annotated[bool, typer.Option("--checks", help="Show every rule of every candidate.")],
}
_DEFAULTS: Mapping[str, Any] = {"operator": "", "citation": "", "mode": "QUERY", "checks": False}


def register(policy: typer.Typer) -> None:
    """Adds the commands to `deptbus policy`."""

    @command(policy)
    @_with_question
    async def explain(
        section: Sections,
        purpose: Purpose,
        department: Caller = None,
        home: HomeOption = None,
        json: Json = False,
        **given: Any,
    ) -> None:
        """Say why keys would be given or refused now: what decides, or which rule is not kept. Nothing is opened."""
        where = Home.find(home)
        async with asking(where, department) as client:
            answer = await client.post_json("/v1/policy:explain", _question(where, section, purpose, given))
        emit(answer, as_json=json, human=lambda: _explained("Why", answer["sections"]))

    @command(policy)
    @_with_question
    async def simulate(
        department: As,
        section: Sections,
        purpose: Purpose,
        changes: Annotated[Path, typer.Option("--changes", help="Rules to add, to change or to end: YAML or JSON.")],
        home: HomeOption = None,
        json: Json = False,
        **given: Any,
    ) -> None:
        """Ask the same before and after changes of the rules, as consent/changes.py says. Nothing is stored."""
        where = Home.find(home)
        body = _question(where, section, purpose, given) | {"changes": plain(read_yaml(changes))}
        async with acting(where, department) as client:
            answer = await client.post_json("/v1/policy:simulate", body)
        emit(answer, as_json=json, human=lambda: _simulated(answer))

    @command(policy, name="diff")
    async def diff_(
        before: Annotated[Path | None, typer.Argument(help="A set of rules: YAML or JSON.")] = None,
        after: Annotated[Path | None, typer.Argument(help="Another.")] = None,
        changes: Annotated[
            Path | None, typer.Option("--changes", help="Instead of files: changes of the bus's rules.")
        ] = None,
        department: Annotated[
            str | None, typer.Option("--as", help="Of those that this department is a party to: asked of a gateway.")
        ] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Say what a change of rules newly permits and what it takes away. Exit 1 if anything.

        Sets of rules are written as changes of nothing (consent/changes.py); items that they do not name are published.
        """
        where = Home.find(home)
        if changes is not None and before is None and department is not None:
            async with acting(where, department) as client:
                answer = await client.post_json("/v1/policy:diff", {"changes": plain(read_yaml(changes))})
        else:
            sets = await _sets(where, before, after, changes)
            answer = policies.diff_json(diff(*sets, Catalogue.load().items, datetime.now(UTC)))
        names = where.names()
        emit(answer, as_json=json, human=lambda: _compared(answer, names))
        raise typer.Exit(1 if answer["permits"] or answer["refuses"] else 0)

    @command(policy)
    async def replay(
        since: Annotated[str, typer.Option("--from", help="The log's time: a day, or a time with its offset.")],
        until: Annotated[str, typer.Option("--to", help="The same, exclusive.")],
        department: Caller = None,
        reader: Reader = None,
        investigation: Investigation = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Make the log's decisions again under the rules of today, for auditors. Exit 1 if any is another one."""
        where = Home.find(home)
        body = {"since": time_of("from", since).isoformat(), "until": time_of("to", until).isoformat()}
        answer: dict[str, Any] = {"decided": 0, "voided": 0, "differences": []}
        after: int | None = -1
        async with asking(where, department) as client:
            while after is not None:
                asked = body | {"after": after} | reader_of(reader, investigation)
                page = await client.post_json("/v1/policy:replay", asked)
                answer = {name: answer[name] + page[name] for name in ("decided", "voided", "differences")}
                after = page["next"]
        names = where.names()
        emit(answer, as_json=json, human=lambda: _replayed(answer, names))
        raise typer.Exit(1 if answer["differences"] else 0)


def _with_question(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose `**given` are a question's options."""
    signature = inspect.signature(function, eval_str=True)
    own = [one for one in signature.parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
    options = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if name == "ground" else _DEFAULTS.get(name),
            annotation=annotation,
        )
        for name, annotation in _OPTIONS.items()
    ]
    ordered = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in (*own, *options)]
    function.__signature__ = signature.replace(parameters=ordered)  # type: ignore[attr-defined]
    function.__annotations__ = {one.name: one.annotation for one in ordered}
    return function


def _question(home: Home, sections: Sequence[str], purpose: str, given: Mapping[str, Any]) -> dict[str, Any]:
    body = {name: value for name, value in given.items() if value is not None and name != "holder"}
    for name in ("consumer", "provider"):
        if name in body:
            body[name] = home.uscc_of(body[name])
    if given["holder"] is not None:
        body["subject"] = subject(given["holder"])
    return body | {"sections": list(sections), "purpose": purpose}


async def _sets(home: Home, before: Path | None, after: Path | None, changes: Path | None) -> tuple[RuleSet, RuleSet]:
    if before is not None and after is not None and changes is None:
        return _ruleset(before), _ruleset(after)
    if changes is None or before is not None:
        raise Misuse(Code.CONFIG_INVALID, "compare two files, or the bus's rules with --changes FILE")
    connection = await db.connect(home.stack().postgres)
    try:
        standing = await policies.standing_rules(connection)
    finally:
        await connection.close()
    return RuleSet(standing), RuleSet(changed(standing, parse(read_yaml(changes), None)))


def _ruleset(file: Path) -> RuleSet:
    documents: list[Basis] = changed([], parse(read_yaml(file), None))
    return RuleSet(published(Catalogue.load().items.values(), documents))


def _explained(title: str, sections: Sequence[Mapping[str, Any]]) -> None:
    rows = [[one["section"], one["code"], *_because(one["miss"], one["rests_on"])] for one in sections]
    table(title, _EXPLAINED, rows)
    for one in sections:
        for candidate in one["candidates"]:
            out.print(f"\n{one['section']}: {candidate[-1]['of'] if candidate else ''}", markup=False, highlight=False)
            for check in candidate:
                mark = "✓" if check["kept"] else "✗"
                said = "" if check["kept"] else f": {check['zh']} {check['en']}"
                out.print(f"  {mark} {check['rule']} ({_article(check)}){said}", markup=False, highlight=False)


def _because(miss: Mapping[str, Any] | None, rests_on: Sequence[str]) -> list[str]:
    if miss is None:
        return ["", "", "\n".join(rests_on)]
    return [f"{miss['zh']}\n{miss['en']}", _article(miss), miss["of"].replace(" ", "\n")]


def _article(check: Mapping[str, Any]) -> str:
    return check["basis"] if check["verified"] else f"{check['basis']} (not verified 未核对)"


def _simulated(answer: Mapping[str, Any]) -> None:
    _explained("Today", answer["before"])
    _explained("After the changes", answer["after"])
    out.print("The answer is another one." if answer["differs"] else "The answer is the same.")


def _compared(answer: Mapping[str, Any], names: Mapping[str, str]) -> None:
    for name, title in (("permits", "This change newly permits"), ("refuses", "It no longer permits")):
        rows = [_group(one, names) for one in answer[name]]
        if rows:
            table(title, _GROUP, rows)
    changed_ = [[one["before"], one["after"], one["fields"]] for one in answer["documents"]]
    table("Documents that differ", ("before", "after", "fields"), changed_)
    out.print(f"{answer['space']:,} questions. {ASSUMED}", highlight=False)


def _group(group: Mapping[str, Any], names: Mapping[str, str]) -> list[Any]:
    return [
        [names.get(one, one) for one in group["consumers"]],
        names.get(group["provider"], group["provider"]),
        group["item"],
        group["sections"],
        "everything" if len(group["purposes"]) == len(PURPOSES) else group["purposes"],
        "any" if len(group["grounds"]) == len(GROUNDS) else group["grounds"],
    ]


def _replayed(answer: Mapping[str, Any], names: Mapping[str, str]) -> None:
    rows = [
        [
            one["time"][:19].replace("T", " "),
            names.get(one["consumer"], one["consumer"]),
            names.get(one["provider"], one["provider"]),
            one["item"],
            section["section"],
            section["was"],
            section["now"],
            section["rests_on"] if section["miss"] is None else f"{section['miss']['zh']}\n{section['miss']['en']}",
            [f"{act['act']} {act['at'][:19].replace('T', ' ')} {act['rule']}" for act in one["acts"]],
        ]
        for one in answer["differences"]
        for section in one["sections"]
    ]
    if rows:
        table("Decided otherwise today", _AGAIN, rows)
    out.print(
        f"{answer['decided']:,} decisions made again, {len(answer['differences']):,} would be others"
        f" ({answer['voided']:,} were taken back at once)",
        highlight=False,
    )
