"""`deptbus consent`: what a subject allows a recipient."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from consent.lifecycle import Act
from consent.model import Every, Giver, Mode, Notice
from deploy.commands import documents
from deploy.commands.options import As, Item, Purposes, Subject, acting, subject
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, table
from schemas.errors import Code, Misuse

Id = Annotated[str, typer.Argument(help="The consent's id.")]
ANSWERS = (Act.GIVE, Act.DECLINE, Act.PAUSE, Act.RESUME)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    consent = typer.Typer(help="Consents (授权同意) of citizens and firms.", no_args_is_help=True)
    app.add_typer(consent, name="consent")

    @command(consent)
    async def add(
        department: As,
        about: Subject,
        recipient: Annotated[str, typer.Option("--recipient", help="Who may open: a name or a credit code.")],
        item: Annotated[list[str], typer.Option("--item", help="A catalogue item; may be repeated.")],
        section: Annotated[
            list[str],
            typer.Option("--section", help="A section: of every item named, or <item>/<section>; may be repeated."),
        ],
        purpose: Purposes,
        valid_from: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD.")],
        valid_until: Annotated[str | None, typer.Option("--until", help="Last day, inclusive.")] = None,
        sensitive: Annotated[
            list[str] | None,
            typer.Option("--sensitive", help="A section separately consented to (单独同意), named as in --section."),
        ] = None,
        agreement: Annotated[
            list[str] | None,
            typer.Option("--agreement", help="The hash of one that it is given under; by default all there are."),
        ] = None,
        mode: Annotated[Mode, typer.Option(help="QUERY: one at a time; STREAM: as they are published, too.")] = (
            Mode.STREAM
        ),
        max_uses: Annotated[int | None, typer.Option(help="At most so many openings.")] = None,
        uses: Annotated[int | None, typer.Option(help="At most so many openings in each period of --every.")] = None,
        every: Annotated[Every | None, typer.Option(help="The period of --uses.")] = None,
        data_life: Annotated[int | None, typer.Option(help="Days that opened data may be kept.")] = None,
        notice: Annotated[Notice, typer.Option(help="How the subject was told (告知).")] = Notice.GIVEN,
        given_by: Annotated[Giver, typer.Option(help="GUARDIAN (监护人): with --evidence.")] = Giver.SUBJECT,
        evidence: Annotated[str, typer.Option(help="SHA-256 of the signed form, in hex.")] = "",
        through: Annotated[
            str | None,
            typer.Option(help="The recipient asks; the subject answers at this department, a name or a credit code."),
        ] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Record a consent that was given to the department that acts, or ask for one (--through).

        The recipient can't record its own.
        """
        if (uses is None) is not (every is None):
            raise Misuse(Code.REQUEST_MALFORMED, "--uses and --every go together")
        where = Home.find(home)
        body = {
            "subject": subject(about),
            "recipient": where.uscc_of(recipient),
            "purposes": purpose,
            "scopes": [
                {"item": one, "sections": _of(one, section), "sensitive": _of(one, sensitive or [])} for one in item
            ],
            "valid_from": valid_from,
            "valid_until": valid_until,
            "agreements": agreement or [],
            "mode": mode,
            "frequency": None if every is None else {"uses": uses, "every": every},
            "max_uses": max_uses,
            "data_life": data_life,
            "notice": notice,
            "given_by": given_by,
            "evidence": evidence,
            "requested": through is not None,
            "through": "" if through is None else where.uscc_of(through),
        }
        async with acting(where, department) as client:
            (made,) = await client.post_json("/v1/consents", {"consents": [body]})
        emit(made, as_json=json, human=lambda: documents.show("Consent", made))

    @command(consent)
    async def show(identifier: Id, department: As, home: HomeOption = None, json: Json = False) -> None:
        """Show one whole, with every act on it and how often it was used."""
        body = {"id": identifier}
        await documents.ask(Home.find(home), department, "/v1/consents:show", body, "Consent", as_json=json)

    @command(consent, name="list")
    async def list_(department: As, about: Subject, item: Item, home: HomeOption = None, json: Json = False) -> None:
        """Show a subject's consents over an item that the department is a party to; all of them for a portal."""
        async with acting(Home.find(home), department) as client:
            found = await client.post_json("/v1/consents:search", {"item": item, "subject": subject(about)})
        columns = ("id", "recipient", "purposes", "sections", "state", "used")
        rows = [
            [
                one["id"],
                one["recipient"],
                one["purposes"],
                [f"{scope['item']}/{section}" for scope in one["scopes"] for section in scope["sections"]],
                one["state"],
                "" if one["uses"] is None else one["uses"]["count"],
            ]
            for one in found
        ]
        emit(found, as_json=json, human=lambda: table("Consents", columns, rows))

    @command(consent)
    async def act(
        identifier: Id,
        what: Annotated[Act, typer.Argument(help="GIVE or DECLINE what was requested; PAUSE; RESUME.")],
        department: As,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Record the subject's answer, a pause, or its end."""
        if what not in ANSWERS:
            raise Misuse(Code.REQUEST_MALFORMED, f"one of {', '.join(ANSWERS)}; `consent end` withdraws")
        await documents.act(Home.find(home), department, "consent", identifier, [what], "", as_json=json)

    @command(consent)
    async def end(identifier: Id, department: As, home: HomeOption = None, json: Json = False) -> None:
        """Withdraw one (撤回): the next release under it is refused, on every gateway."""
        await documents.act(Home.find(home), department, "consent", identifier, [Act.WITHDRAW], "", as_json=json)

    @command(consent)
    async def receipt(
        identifier: Id,
        department: As,
        about: Annotated[
            str | None, typer.Option("--subject", help="For a portal: whom it asks for, as in `consent list`.")
        ] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Print one as ISO/IEC TS 27560 has it: JSON-LD in the terms of the W3C Data Privacy Vocabulary."""
        body: dict[str, Any] = {"id": identifier}
        if about is not None:
            body["subject"] = subject(about)
        async with acting(Home.find(home), department) as client:
            made = await client.post_json("/v1/consents:receipt", body)
        emit(made, as_json=json)


def _of(item: str, sections: list[str]) -> list[str]:
    """Those of an item: named with it, or for every item."""
    named = [one.rpartition("/") for one in sections]
    return [section for owner, _, section in named if owner in ("", item)]
