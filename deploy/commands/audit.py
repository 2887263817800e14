"""`deptbus audit`: who opened what, when and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from bus.supervision import Rules
from consent.purposes import GROUNDS, PURPOSES
from deploy.commands.auditlog import register_log
from deploy.commands.evidence import register_evidence
from deploy.commands.options import As, Subject, acting, subject
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, table

_COLUMNS = ("when (UTC)", "kind", "who", "whose", "item", "what for", "ground", "operator", "opened", "refused")


_FINDINGS = ("when (UTC)", "severity", "rule", "who", "operator", "what", "entries")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    audit = typer.Typer(help="The audit trail (审计).", no_args_is_help=True)
    app.add_typer(audit, name="audit")
    register_log(audit)
    register_evidence(audit)

    @command(audit)
    async def query(
        department: As,
        about: Annotated[str | None, Subject.__metadata__[0]] = None,
        consumer: Annotated[str | None, typer.Option("--consumer", help="Who opened: a name or a credit code.")] = None,
        provider: Annotated[
            str | None, typer.Option("--provider", help="Whose record: a name or a credit code.")
        ] = None,
        item: Annotated[str | None, typer.Option("--item")] = None,
        purpose: Annotated[str | None, typer.Option("--purpose")] = None,
        kind: Annotated[str | None, typer.Option("--kind", help="Decision, Admitted, Voided, Reading, ...")] = None,
        case: Annotated[str | None, typer.Option("--case")] = None,
        since: Annotated[str | None, typer.Option("--since", help="RFC 3339, inclusive.")] = None,
        until: Annotated[str | None, typer.Option("--until", help="RFC 3339, exclusive.")] = None,
        after: Annotated[int, typer.Option("--after", help="Go on behind this position: the `next` of a page.")] = -1,
        limit: Annotated[int, typer.Option("--limit", help="At most so many entries, 1 to 1,000.")] = 100,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Ask the trail. An auditor reads everything, a department its own entries; the question is logged, too."""
        where = Home.find(home)
        body = {
            "subject": None if about is None else subject(about),
            "consumer": None if consumer is None else where.uscc_of(consumer),
            "provider": None if provider is None else where.uscc_of(provider),
            "item": item,
            "purpose": purpose,
            "kind": kind,
            "case": case,
            "since": since,
            "until": until,
            "after": after,
            "limit": limit,
        }
        async with acting(where, department) as client:
            page = await client.post_json("/v1/audit/entries:query", body)
        names = where.names()
        rows = [_row(entry, names) for entry in page["entries"]]
        title = f"{len(rows)} entries at checkpoint {page['checkpoint']['size']}" + (
            "" if page["next"] is None else f" (go on with --after {page['next']})"
        )
        emit(page, as_json=json, human=lambda: table(title, _COLUMNS, rows))

    @command(audit)
    async def findings(
        department: As,
        rule: Annotated[str | None, typer.Option("--rule", help="A rule's id: burst, off-hours, ...")] = None,
        consumer: Annotated[str | None, typer.Option("--consumer", help="Whose operator: a name or a code.")] = None,
        operator: Annotated[str | None, typer.Option("--operator")] = None,
        since: Annotated[str | None, typer.Option("--since", help="RFC 3339, inclusive.")] = None,
        until: Annotated[str | None, typer.Option("--until", help="RFC 3339, exclusive.")] = None,
        after: Annotated[int, typer.Option("--after", help="Go on behind a page: its `next`.")] = 0,
        limit: Annotated[int, typer.Option("--limit", help="At most so many findings, 1 to 1,000.")] = 100,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """What supervision (大数据监督) found: uses of data at which a person should look. For auditors."""
        where = Home.find(home)
        body = {
            "rule": rule,
            "consumer": None if consumer is None else where.uscc_of(consumer),
            "operator": operator,
            "since": since,
            "until": until,
            "after": after,
            "limit": limit,
        }
        async with acting(where, department) as client:
            page = await client.post_json("/v1/audit/findings:list", body)
        names, titles = where.names(), {one.id: one.zh for one in Rules.load().rules}
        rows = [
            [
                found["at"][:19].replace("T", " "),
                found["severity"],
                titles.get(found["rule"], found["rule"]),
                names.get(found["consumer"], found["consumer"]),
                found["operator"],
                found["detail"],
                f"{found['first']}-{found['last']}",
            ]
            for found in page["findings"]
        ]
        title = f"{len(rows)} findings" + ("" if page["next"] is None else f" (go on with --after {page['next']})")
        emit(page, as_json=json, human=lambda: table(title, _FINDINGS, rows))


def _row(entry: dict[str, Any], names: Mapping[str, str]) -> list[Any]:
    body = entry["body"]
    who = body.get("consumer") or body.get("reader") or body.get("recipient") or ""
    whose = body.get("provider") or body.get("author") or ""
    purpose, ground = (
        names_.get(body.get(key, ""), body.get(key, "")) for key, names_ in (("purpose", PURPOSES), ("ground", GROUNDS))
    )
    sections = body.get("sections", ())
    opened = [s["name"] for s in sections if s["code"] == "PERMIT"]
    refused = [f"{s['name']}={s['code']}" for s in sections if s["code"] != "PERMIT"]
    at = entry["time"][:19].replace("T", " ")
    rest = (body.get("item", ""), purpose, ground, body.get("operator", ""), opened, refused)
    return [at, entry["kind"], names.get(who, who), names.get(whose, whose), *rest]
