"""`deptbus record`: one record, sealed or disclosed; and `deptbus licence search`, the clerk's once-only retrieval."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from bus import disclosure, envelope, lookup
from bus.client import Wanted
from bus.envelope import Claims
from bus.opening import OpenedRecord, schema_of
from bus.pki import Role
from deploy.commands import impact
from deploy.commands.options import (
    Agent,
    As,
    Case,
    Citation,
    Ground,
    Item,
    Operator,
    Purpose,
    Sections,
    Subject,
    acting,
    subject,
    trusting,
)
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, facts, out
from schemas.catalogue import Catalogue
from schemas.errors import Code, Malformed, Misuse, Refused

File = Annotated[Path, typer.Argument(help="A sealed record or a disclosure; '-' reads stdin.")]
Record = Annotated[str, typer.Argument(help="A record's leaf hash (64 hex digits), or a file that holds it sealed.")]
MAX_FILE = 8 * 1024 * 1024  # a disclosure has at most 4 MiB


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    record = typer.Typer(
        help="One record (证照): fetch, show, disclose a section, verify offline.", no_args_is_help=True
    )
    licence = typer.Typer(help="Licences in force of a subject (免提交).", no_args_is_help=True)
    app.add_typer(record, name="record")
    app.add_typer(licence, name="licence")
    impact.register(record)

    @command(record)
    async def fetch(record_: Record, department: As, home: HomeOption = None, json: Json = False) -> None:
        """Write a sealed record to stdout, as it travels."""
        async with acting(Home.find(home), department) as client:
            value = await lookup.fetch(client, record_)
        _write(value, {"record": record_}, as_json=json)

    @command(record)
    def show(file: File, json: Json = False) -> None:
        """Show what a sealed record or a disclosure claims. Checks its form, not its signature."""
        data = _read(file)
        claims = envelope.parse(data).claims if _is_sealed(data) else disclosure.claims_of(data)
        document = {"kind": "sealed" if _is_sealed(data) else "disclosure", **_claims(claims)}
        emit(document, as_json=json, human=lambda: facts("Record, not verified", document))

    @command(record)
    async def disclose(
        record_: Record,
        department: As,
        section: Sections,
        to: Annotated[str, typer.Option("--to", help="Who gets it: a department's name, or a credit code.")],
        purpose: Purpose,
        ground: Ground,
        operator: Operator,
        citation: Citation = "",
        case: Case = "",
        agent: Agent = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Open sections of a record and write them to stdout as a disclosure that a third party verifies offline.

        Refused unless the provider agreed that they go on to that party (转提供). The answer is in the log either way:
        a copy that has left cannot be stopped, but it can be proven who was allowed to pass it on.
        """
        where = Home.find(home)
        wanted = Wanted(
            sections=tuple(section),
            purpose=purpose,
            ground=ground,
            operator=operator,
            citation=citation,
            case=case,
            agent=agent,
        )
        async with acting(where, department) as client, trusting(where, department) as trust:
            value = _given(record_) or await lookup.fetch(client, record_)
            allowed = await lookup.may_pass_on(client, envelope.parse(value), where.uscc_of(to), wanted)
            _refuse_onward(allowed)
            opened = await lookup.open_one(client, trust, Catalogue.load(), value, wanted)
            _refuse_unopened(section, opened)
            signer = opened.record.proof.signer
            trust.certificate(signer, Role.RECORD, envelope.made_at(opened.claims), opened.claims.issuer)
            certificates = trust.chain(signer)
        shown = [(name, opened.salts[name], opened.plains[name]) for name in section]
        schema = schema_of(Catalogue.load(), opened.record)
        made = disclosure.disclose(opened.record, schema, shown, certificates)
        _write(made, {"record": opened.leaf_hash.hex(), "sections": section}, as_json=json)

    @command(record)
    def verify(
        file: File,
        ca: Annotated[Path | None, typer.Option("--ca", help="The bus CA's certificate (PEM or DER).")] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Verify a disclosure offline, with the CA's certificate alone. Exit 1 if anything in it was changed."""
        data = _read(file)
        if _is_sealed(data):
            raise Misuse(
                Code.REQUEST_MALFORMED,
                "a sealed record shows no section: `deptbus record disclose` makes what can be verified offline",
            )
        authority = ca or Home.find(home).bus / "ca" / "ca.pem"
        found = disclosure.verify(data, _read(authority))
        document = {
            "valid": True,
            "issuer": {"uscc": found.issuer.uscc, "name": found.issuer.name},
            "time_proven": found.signed_at_proven,
            "sections": {name: dict(values) for name, values in found.sections.items()},
            **_claims(found.claims),
        }
        emit(document, as_json=json, human=lambda: _show_verified(document))

    @command(licence)
    async def search(
        department: As,
        about: Subject,
        item: Item,
        section: Sections,
        purpose: Purpose,
        ground: Ground,
        operator: Operator,
        citation: Citation = "",
        case: Case = "",
        agent: Agent = None,
        as_of: Annotated[str | None, typer.Option(help="As it stood at the end of that day, YYYY-MM-DD.")] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Find a subject's licences in force and open what the law lets you. Exit 1 if none of it may be opened."""
        where = Home.find(home)
        wanted = Wanted(
            sections=tuple(section),
            purpose=purpose,
            ground=ground,
            operator=operator,
            citation=citation,
            case=case,
            agent=agent,
        )
        day = None if as_of is None else _day(as_of)
        async with acting(where, department) as client, trusting(where, department) as trust:
            found = await lookup.search(client, trust, Catalogue.load(), item, subject(about), wanted, day)
        document = [_opened(one) for one in found]
        emit(document, as_json=json, human=lambda: _show_opened(document))
        raise typer.Exit(1 if found and not any(one.sections for one in found) else 0)


def _given(record: str) -> bytes | None:
    """The bytes of a file, if it is one and no leaf hash."""
    return _read(Path(record)) if Path(record).is_file() else None


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as exc:
        raise Misuse(Code.REQUEST_MALFORMED, "--as-of is a day, YYYY-MM-DD") from exc


def _read(file: Path) -> bytes:
    """Raises `Misuse` (SOURCE_INVALID)."""
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(MAX_FILE + 1)
        with file.open("rb") as source:
            data = source.read(MAX_FILE + 1)
    except OSError as exc:
        raise Misuse(Code.SOURCE_INVALID, f"{file} cannot be read ({exc.strerror})") from exc
    if len(data) > MAX_FILE:
        raise Malformed(Code.RECORD_TOO_LARGE, f"{file} has more than {MAX_FILE} bytes")
    return data


def _is_sealed(data: bytes) -> bool:
    """A Kafka value begins with 00 and a schema id; a disclosure with the length of its claims, which is never 0."""
    return data[:1] == b"\x00"


def _write(data: bytes, about: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit({**about, "data": b64encode(data).decode()}, as_json=True)
        return
    if sys.stdout.isatty():
        err.print("These are bytes: send them to a file with >")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _refuse_onward(allowed: Mapping[str, Code]) -> None:
    for name, code in allowed.items():
        if code is not Code.PERMIT:
            raise Refused(code, f"section {name} may not be passed on: the gateway's answer is {code}")


def _refuse_unopened(sections: list[str], opened: OpenedRecord) -> None:
    for name in sections:
        if name not in opened.sections:
            code = opened.refused.get(name, Code.SECTION_UNKNOWN)
            raise Refused(code, f"section {name} was not opened: the gateway's answer is {code}")


def _claims(claims: Claims) -> dict[str, Any]:
    return {
        "record": str(claims.record),
        "item": claims.item,
        "operation": claims.operation,
        "issuer_uscc": claims.issuer,
        "licence": claims.licence.hex(),
        "sequence": claims.sequence,
        "occurred_at": claims.occurred_at.isoformat(),
        "valid_from": claims.valid_from and claims.valid_from.isoformat(),
        "valid_until": claims.valid_until and claims.valid_until.isoformat(),
        "region": claims.region,
        "parents": [parent.hex() for parent in claims.parents],
        "subjects": [{"role": s.role, "kind": s.kind, "pseudonym": s.pseudonym.hex()} for s in claims.subjects],
        "committed_sections": [name for name, _ in claims.sections],
    }


def _opened(one: OpenedRecord) -> dict[str, Any]:
    return {
        "leaf_hash": one.leaf_hash.hex(),
        **_claims(one.claims),
        "sections": {name: dict(values) for name, values in one.sections.items()},
        "refused": {name: code.value for name, code in one.refused.items()},
        "entry": one.entry.hex(),
    }


def _show_verified(document: dict[str, Any]) -> None:
    for name, values in document["sections"].items():
        facts(f"Section {name}", values)
    issuer = document["issuer"]
    out.print(f"[bold green]Genuine[/]: signed by {escape(issuer['name'])} ({issuer['uscc']}), unchanged since.")
    out.print("When it was signed is the issuer's word: no proof from the audit log came with it.")


def _show_opened(document: list[dict[str, Any]]) -> None:
    if not document:
        out.print("No licence in force. That somebody looked is in the audit trail.")
    for one in document:
        values = {name: value for section in one["sections"].values() for name, value in section.items()}
        values |= {f"refused: {name}": code for name, code in one["refused"].items()}
        facts(f"{one['item']}, version {one['sequence']}, record {one['leaf_hash']}", values)
