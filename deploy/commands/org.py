"""`deptbus org`: departments join, and are listed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bus import db
from bus.gateway import control
from deploy import bootstrap
from deploy.commands.keys import Officer, opened
from deploy.commands.options import As, Caller, asking
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, facts, table
from schemas.errors import Code, Misuse

_REMARKS = ("operator", "auditor", "portal", "own gateway", "suspended")

Which = Annotated[str, typer.Argument(help="A department: a name of `deptbus org list`, or a credit code.")]
Reason = Annotated[str, typer.Option("--reason", help="Why: it stays in the log.")]


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

    @command(org)
    async def gateway(
        name: Annotated[str, typer.Argument(help="A department that has joined and issues licences.")],
        url: Annotated[
            list[str], typer.Option("--url", help="https://HOST:PORT where it is reached; up to four, may be repeated.")
        ],
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Give a department a gateway of its own (自建网关): the bus's gateways can't open its records from then on.

        Its certificate says where it is reached, and subscribers ask it there. `deptbus up` runs it if that is this
        machine. What the department published before, the bus's gateways open still. Start its publishers anew.
        """
        where = Home.find(home)
        stack, folder = where.stack(), where.org_folder(name)
        identity = where.identity(name)
        own = await bootstrap.add_gateway(
            where.load_bus(), folder, stack.administrator, stack.postgres, identity=identity, urls=url
        )
        document = {"name": name, "uscc": identity.uscc, "folder": str(own.folder), "urls": url}
        emit(document, as_json=json, human=lambda: err.print(f"{name} seals to its own gateway: {own.folder} has it"))

    @command(org)
    async def suspend(
        name: Which, reason: Reason, department: Caller = None, home: HomeOption = None, json: Json = False
    ) -> None:
        """Suspend a department (暂停) at once: no key, nothing at Kafka, no session of its people's.

        By who runs the bus: `--as operator`, or a person of that role in her session. What it opened before, it has.
        """
        await _act(home, department, "suspend", name, reason, as_json=json)

    @command(org)
    async def resume(name: Which, reason: Reason, department: As, home: HomeOption = None, json: Json = False) -> None:
        """Let a suspended department act again: `--as operator`, by that key and in no session."""
        await _act(home, department, "resume", name, reason, as_json=json)

    @command(org, name="list")
    async def list_(home: HomeOption = None, json: Json = False) -> None:
        """Show who has joined, what they issue and where."""
        connection = await db.connect(Home.find(home).stack().postgres)
        try:
            orgs = await control.orgs(connection)
        finally:
            await connection.close()
        rows = [
            (
                o["name"],
                o["uscc"],
                ", ".join(o["issues"]),
                ", ".join(one for one in _REMARKS if o[one.replace(" ", "_")]),
            )
            for o in orgs
        ]
        emit(orgs, as_json=json, human=lambda: table("Departments", ("name", "credit code", "issues", ""), rows))


async def _act(home: Path | None, department: str | None, what: str, name: str, reason: str, *, as_json: bool) -> None:
    where = Home.find(home)
    async with asking(where, department) as client:
        body = {"uscc": where.uscc_of(name), "reason": reason}
        made = await client.post_json(f"/v1/departments:{what}", body)
    emit(made, as_json=as_json, human=lambda: facts("Department", made))


def _issued(text: str) -> tuple[str, str]:
    item, _, region = text.partition(":")
    return item, region
