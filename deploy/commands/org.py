"""`deptbus org`: departments join, and are listed."""

from __future__ import annotations

from typing import Annotated

import typer

from bus import db
from bus.gateway import control
from deploy import bootstrap
from deploy.commands.keys import Officer, opened
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, table
from schemas.errors import Code, Misuse

_REMARKS = ("operator", "auditor", "portal", "suspended")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    org = typer.Typer(help="Departments (部门): join the bus, list who has.", no_args_is_help=True)
    app.add_typer(org, name="org")

    @command(org)
    async def add(
        name: Annotated[str, typer.Argument(help="A short name: letters, digits and hyphens; also its folder's.")],
        uscc: Annotated[str, typer.Option("--uscc", help="Its unified social credit code (统一社会信用代码).")],
        issues: Annotated[
            list[str] | None, typer.Option("--issues", help="ITEM or ITEM:DIVISION that it issues; may be repeated.")
        ] = None,
        receives: Annotated[
            list[str] | None, typer.Option("--receives", help="ITEM that it may receive; may be repeated.")
        ] = None,
        auditor: Annotated[bool, typer.Option("--auditor", help="May read the whole audit trail (审计).")] = False,
        portal: Annotated[
            bool, typer.Option("--portal", help="Persons and firms ask through it who has opened their data.")
        ] = False,
        officer: Officer = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Make a department's keys and certificates under the bus CA. Done again it adds items and keeps the keys."""
        if not name.replace("-", "").isalnum() or not name.isascii():
            raise Misuse(Code.CONFIG_INVALID, f"{name!r:.80} is no name: use letters, digits and hyphens")
        where = Home.find(home)
        stack = where.stack()
        identity = await bootstrap.add_org(
            where.load_bus(),
            where.org_folder(name),
            stack.administrator,
            stack.postgres,
            name=name,
            uscc=uscc,
            issues=[_issued(text) for text in issues or ()],
            receives=receives or (),
            auditor=auditor,
            portal=portal,
            keyring=opened(where, officer),
        )
        document = {
            "name": identity.name,
            "uscc": identity.uscc,
            "folder": str(where.org_folder(name)),
            "items": sorted(identity.pseudonym_keys),
            "record_certificate": identity.record.id.hex(),
            "department_certificate": identity.department.id.hex(),
            "kem_key": identity.kem.id.hex(),
        }
        emit(
            document, as_json=json, human=lambda: err.print(f"{name} has joined: its keys are in {document['folder']}")
        )

    @command(org)
    async def login(
        name: Annotated[str, typer.Argument(help="A department that has joined.")],
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Give a department a new password at Kafka, in its folder.

        Who is connected stays so. A process that connects again reads the folder when it starts: start it anew; its
        outbox and its offsets lose nothing by that. The old password is worth nothing from now on.
        """
        where = Home.find(home)
        identity = where.identity(name)
        await bootstrap.renew_login(where.org_folder(name), where.stack().administrator, identity.uscc)
        document = {"name": name, "folder": str(where.org_folder(name))}
        emit(document, as_json=json, human=lambda: err.print(f"{name} has a new password: start its processes anew"))

    @command(org, name="list")
    async def list_(home: HomeOption = None, json: Json = False) -> None:
        """Show who has joined, what they issue and where."""
        connection = await db.connect(Home.find(home).stack().postgres)
        try:
            orgs = await control.orgs(connection)
        finally:
            await connection.close()
        rows = [
            (o["name"], o["uscc"], ", ".join(o["issues"]), ", ".join(one for one in _REMARKS if o[one])) for o in orgs
        ]
        emit(orgs, as_json=json, human=lambda: table("Departments", ("name", "credit code", "issues", ""), rows))


def _issued(text: str) -> tuple[str, str]:
    item, _, region = text.partition(":")
    return item, region
