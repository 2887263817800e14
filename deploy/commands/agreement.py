"""`deptbus agreement`: a consumer applies to share a provider's data, the provider answers, both use and end it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from consent.lifecycle import Act
from consent.model import Mode, Notice
from deploy.commands import documents
from deploy.commands.documents import Reason
from deploy.commands.options import As, Caller, Item, Purposes, Sections
from deploy.home import Home, HomeOption
from deploy.output import Json, command

Id = Annotated[str, typer.Argument(help="The agreement's id.")]
COLUMNS = ("id", "provider", "consumer", "item", "sections", "purposes", "state")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    agreement = typer.Typer(help="Sharing agreements (共享协议) between departments.", no_args_is_help=True)
    app.add_typer(agreement, name="agreement")

    @command(agreement)
    async def add(
        department: As,
        provider: Annotated[str, typer.Option("--provider", help="Who issues the item: a name or a credit code.")],
        item: Item,
        section: Sections,
        purpose: Purposes,
        ground: Annotated[list[str], typer.Option("--ground", help="STATUTORY_DUTY, CONSENT, ...; may be repeated.")],
        valid_from: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD.")],
        valid_until: Annotated[str | None, typer.Option("--until", help="Last day, inclusive.")] = None,
        purpose_until: Annotated[str | None, typer.Option(help="The day on which the purpose is reached.")] = None,
        basis: Annotated[str, typer.Option(help="What the application rests on (使用依据).")] = "",
        scenario: Annotated[str, typer.Option(help="Where the data is used (应用场景).")] = "",
        mode: Annotated[Mode, typer.Option(help="QUERY: one at a time; STREAM: as they are published, too.")] = (
            Mode.STREAM
        ),
        notice: Annotated[Notice, typer.Option(help="How subjects are told (告知), or why not.")] = Notice.GIVEN,
        duty: Annotated[
            list[str] | None,
            typer.Option("--duty", help="What requests on other grounds than consent cite."),
        ] = None,
        region: Annotated[
            list[str] | None, typer.Option("--region", help="A division prefix; none means everywhere.")
        ] = None,
        requests_a_day: Annotated[int | None, typer.Option(help="At most so many requests a day.")] = None,
        records_a_day: Annotated[int | None, typer.Option(help="At most so many records a day.")] = None,
        max_age: Annotated[int | None, typer.Option(help="Seconds that a consumer may keep a key.")] = None,
        data_life: Annotated[int | None, typer.Option(help="Days that opened data may be kept.")] = None,
        status: Annotated[
            list[str] | None, typer.Option("--status", help="A licence state beside VALID that still opens.")
        ] = None,
        superseded: Annotated[bool, typer.Option("--superseded", help="Older versions open, too.")] = False,
        onward: Annotated[
            list[str] | None,
            typer.Option("--onward", help="A department that data may be passed on to (转提供): a name or a code."),
        ] = None,
        set_limit: Annotated[int | None, typer.Option(help="Records that one set grant may hold.")] = None,
        set_until: Annotated[str | None, typer.Option(help="The last day of set grants.")] = None,
        supplements: Annotated[
            str | None, typer.Option(help="The id of a returned application (补正) that this one takes the place of.")
        ] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Apply for an agreement. The department that acts is the consumer; `agreement act` does the rest."""
        where = Home.find(home)
        application: dict[str, Any] = {
            "provider": where.uscc_of(provider),
            "item": item,
            "sections": section,
            "purposes": purpose,
            "grounds": ground,
            "valid_from": valid_from,
            "valid_until": valid_until,
            "purpose_until": purpose_until,
            "basis": basis,
            "scenario": scenario,
            "mode": mode,
            "notice": notice,
            "duties": duty or [],
            "regions": region or [],
            "requests_a_day": requests_a_day,
            "records_a_day": records_a_day,
            "data_life": data_life,
            "statuses": status or [],
            "superseded": superseded,
            "onward": [where.uscc_of(one) for one in onward or []],
            "set_limit": set_limit,
            "set_until": set_until,
        }
        if max_age is not None:
            application["max_age"] = max_age
        path, body = "/v1/agreements", application
        if supplements is not None:
            path, body = "/v1/agreements:resubmit", {"id": supplements, "application": application}
        await documents.ask(where, department, path, body, "Application", as_json=json)

    @command(agreement)
    async def act(
        identifier: Id,
        acts: Annotated[
            list[Act],
            typer.Argument(
                help="ACCEPT, RETURN, APPROVE, REFUSE, PROVISION by the provider; ACTIVATE by the consumer; SUSPEND; "
                "RESUME. Several are done one after the other."
            ),
        ],
        department: Caller = None,
        reason: Reason = "",
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Answer an application, make its data ready, use it, suspend and resume it."""
        await documents.act(Home.find(home), department, "agreement", identifier, acts, reason, as_json=json)

    @command(agreement, name="list")
    async def list_(department: Caller = None, home: HomeOption = None, json: Json = False) -> None:
        """Show the department's agreements, on either side, with the deadlines that run."""
        await documents.list_all(Home.find(home), department, "agreement", COLUMNS, as_json=json)

    @command(agreement)
    async def show(identifier: Id, department: Caller = None, home: HomeOption = None, json: Json = False) -> None:
        """Show one whole, with its deadline and every act on it."""
        body = {"id": identifier}
        await documents.ask(Home.find(home), department, "/v1/agreements:show", body, "Agreement", as_json=json)

    @command(agreement)
    async def end(
        identifier: Id, department: Caller = None, reason: Reason = "", home: HomeOption = None, json: Json = False
    ) -> None:
        """End one, or take an application back: the next release under it is refused, on every gateway."""
        await documents.act(Home.find(home), department, "agreement", identifier, [Act.END], reason, as_json=json)
