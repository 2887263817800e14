"""The audit log's filters as options, the same for every command that looks for entries."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from inspect import Parameter
from typing import Annotated, Any

import typer

from bus.terms import CHOICES, asked
from consent.decide import CHINA
from deploy.commands.options import SUBJECT_HELP, subject
from deploy.home import Home
from schemas.errors import Code, Misuse

_DEPARTMENTS = ("consumer", "provider", "party")
_TIMES = ("since", "until")
_HELP = {
    "subject": SUBJECT_HELP,
    "kind": f"One of {', '.join(CHOICES['kind'])}.",
    "consumer": "Who opened: a name or a credit code.",
    "provider": "Whose record: a name or a credit code.",
    "party": "A department on either side: a name or a credit code.",
    "item": "A catalogue item, such as business-licence.",
    "section": "A section of the item.",
    "purpose": "What for.",
    "ground": f"{' or '.join(CHOICES['ground'])}.",
    "operator": "The clerk's id.",
    "agent": "Who acted for the subject.",
    "case": "The case (案号).",
    "decision": "PERMIT: a section was opened; REFUSE: one was refused.",
    "code": "PERMIT, or what a section was refused with.",
    "rule": "What decided: agreement:<id>@<revision>, consent:<id>@<revision>, catalogue:<item>, supervision:<rule>.",
    "region": "The first 2, 4 or 6 digits of a division's code.",
    "record": "A record's leaf hash.",
    "licence": "A licence's reference: all its versions.",
    "request": "A request's id: the entries of one call.",
    "entry": "An entry's leaf hash.",
    "about": "The entry that others are about: what took it back, what ruled on it.",
    "since": "The log's time, inclusive: a day (from its midnight, UTC+8), or a time with its offset.",
    "until": "The same, exclusive.",
}
_READER = {
    "reader": "Who of the auditor's reads: your own id. It stays in the log.",
    "investigation": "What you read for: departments see that you read when its embargo is over.",
}

Reader = Annotated[str | None, typer.Option("--reader", help=_READER["reader"])]
Investigation = Annotated[str | None, typer.Option("--investigation", help=_READER["investigation"])]


def filtered(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose `**given` are the filters' options."""
    signature = inspect.signature(function, eval_str=True)
    own = [one for one in signature.parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
    options = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, typer.Option(f"--{name}", help=text)],
        )
        for name, text in (_HELP | _READER).items()
    ]
    ordered = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in own]
    function.__signature__ = signature.replace(parameters=[*ordered, *options])  # type: ignore[attr-defined]
    function.__annotations__ = {one.name: one.annotation for one in (*ordered, *options)}
    return function


def body_of(home: Home, given: Mapping[str, str | None]) -> dict[str, Any]:
    """The request's filters. Raises `Misuse` or `Malformed` for what no entry can have, before anybody is asked."""
    body: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or name in _READER:
            continue
        if name == "subject":
            body[name] = subject(value)
        elif name in _TIMES:
            body[name] = time_of(name, value).isoformat()
        else:
            body[name] = asked(name, home.uscc_of(value) if name in _DEPARTMENTS else value)[1]
    return body | reader_of(given.get("reader"), given.get("investigation"))


def reader_of(operator: str | None, investigation: str | None) -> dict[str, Any]:
    """Who reads and what for, if it was said."""
    said = {"operator": operator, "investigation": investigation}
    reader = {name: text for name, text in said.items() if text is not None}
    return {"reader": reader} if reader else {}


def described(body: Mapping[str, Any]) -> str:
    """The filters in a line, without the id of a person or a firm: that is nobody's business who reads the table."""
    shown = {name: body[name] for name in _HELP if name in body and name != "subject"}
    words = [f"{name}={value}" for name, value in shown.items()]
    return "; ".join(words + ["subject=***"] * ("subject" in body))


def time_of(name: str, text: str) -> datetime:
    """A day's midnight (UTC+8), or a time with its offset. Raises `Misuse` (REQUEST_MALFORMED)."""
    try:
        if len(text) == len("2026-03-01"):
            return datetime.combine(date.fromisoformat(text), time.min, CHINA)
        made = datetime.fromisoformat(text)
    except ValueError:
        made = datetime.min
    if made.tzinfo is None:
        raise Misuse(
            Code.REQUEST_MALFORMED,
            f"--{name} is a day, 2026-03-01, or a time with its offset, 2026-03-01T08:00:00+08:00",
        )
    return made
