"""`deptbus audit`: who opened what, when and why."""

from __future__ import annotations

from typing import Annotated

import typer

from bus.supervision import Rules
from deploy.commands.auditlog import register_log
from deploy.commands.embargo import register_embargo
from deploy.commands.evidence import register_evidence
from deploy.commands.options import Caller, asking
from deploy.commands.scorecard import register_scorecard
from deploy.commands.trail import register_trail
from deploy.commands.usages import register_usages
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, table

_FINDINGS = ("when (UTC)", "severity", "rule", "who", "operator", "what", "entries")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    audit = typer.Typer(help="The audit trail (审计).", no_args_is_help=True)
    app.add_typer(audit, name="audit")
    register_trail(audit)
    register_embargo(audit)
    register_log(audit)
    register_evidence(audit)
    register_scorecard(audit)
    register_usages(audit)

    @command(audit)
    async def findings(
        department: Caller = None,
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
        async with asking(where, department) as client:
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
