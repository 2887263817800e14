"""`deptbus cert`: certificates from request to revocation (证书), and departments' own CAs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bus import pki
from bus.disclosure import der
from bus.pki import CertificateAuthority, write_public
from deploy import certificates
from deploy.certificates import Holder, Kind
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, facts, table
from schemas.errors import Code, Malformed, Misuse

Key = Annotated[Kind, typer.Argument(help="Whose key: record, department, kem, ca (of --as); gateway, recorder.")]
Whose = Annotated[str | None, typer.Option("--as", help="The department: a name of `deptbus org list`.")]
By = Annotated[str | None, typer.Option("--by", help="The department whose own CA does it (default: the bus CA).")]
Owner = Annotated[str, typer.Option("--for", help="Whose key it is: the department's name here, or its credit code.")]
File = Annotated[Path, typer.Argument(help="A file in PEM.", exists=True, dir_okay=False)]
Out = Annotated[Path, typer.Option("--out", help="The file to write (PEM).")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    cert = typer.Typer(help="Certificates (证书) and departments' own CAs.", no_args_is_help=True)
    app.add_typer(cert, name="cert")

    @command(cert)
    def request(key: Key, out: Out, department: Whose = None, home: HomeOption = None, json: Json = False) -> None:
        """Make a new key and ask for its certificate. The key stays in its folder and is not used yet."""
        holder = _holder(Home.find(home), key, department)
        out.write_bytes(holder.request())
        document = {"request": str(out), "key": key.value, "owner": holder.uscc}
        emit(document, as_json=json, human=lambda: err.print(f"{out} is for the CA", markup=False))

    @command(cert)
    async def issue(
        key: Key, file: File, owner: Owner, out: Out, by: By = None, home: HomeOption = None, json: Json = False
    ) -> None:
        """Certify the key of a request, and publish the certificate. Refused if it asks for another key or owner."""
        if key is Kind.CA:
            raise Misuse(Code.CONFIG_INVALID, "`deptbus cert cross` certifies a department's CA")
        await _issue(Home.find(home), key, file, owner, by, out, json)

    @command(cert)
    async def cross(file: File, owner: Owner, out: Out, home: HomeOption = None, json: Json = False) -> None:
        """Certify a department's own CA: it issues that department's record and request keys from then on."""
        await _issue(Home.find(home), Kind.CA, file, owner, None, out, json)

    @command(cert)
    def install(key: Key, file: File, department: Whose = None, home: HomeOption = None, json: Json = False) -> None:
        """Put the key that waits, and its certificate, in the place of the one before: who runs takes it up."""
        made = _holder(Home.find(home), key, department).install(der(file.read_bytes()))
        document = _shown(made)
        emit(document, as_json=json, human=lambda: facts(f"{key} is renewed", document))

    @command(cert)
    async def renew(
        key: Key, department: Whose = None, by: By = None, home: HomeOption = None, json: Json = False
    ) -> None:
        """Request, issue and install in one, where key and CA are at hand. The old key counts until it ends."""
        where = Home.find(home)
        bus, kafka = where.load_bus(), where.stack().administrator
        if key is Kind.KEM:
            if department is None:
                raise Misuse(Code.CONFIG_INVALID, "a kem key is a department's: say whose with --as")
            identity = where.identity(department)
            kem = await certificates.renew_kem(identity, where.org_folder(department), kafka)
            document: dict[str, Any] = {"certificate": kem.hex(), "owner": identity.uscc}
        else:
            holder = _holder(where, key, department)
            made = await certificates.renew(holder, _authority(where, by), bus.authority_der, kafka)
            document = _shown(made)
        emit(document, as_json=json, human=lambda: facts(f"{key} is renewed", document))

    @command(cert)
    async def revoke(
        certificate: Annotated[str, typer.Argument(help="Its id in hex (`deptbus cert list`), or a file of it.")],
        by: By = None,
        since: Annotated[
            str | None,
            typer.Option("--compromised-since", help="From when the key may have been a thief's (ISO 8601)."),
        ] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """End a certificate now; with a CA's, everything below it. Says which records are in doubt."""
        where, compromised = Home.find(home), _moment(since)
        bus, stack, id_ = where.load_bus(), where.stack(), _id(certificate)
        authority = bus.authority_der
        found = await certificates.revoke(_authority(where, by), authority, id_, compromised, stack.administrator)
        doubted: list[str] = []
        if compromised is not None:
            async with certificates.knowing(authority, stack.administrator) as trust:
                doubted = await certificates.in_doubt(trust, found.uscc, compromised, stack.postgres)
        document = {"certificate": id_.hex(), "owner": found.uscc, "records_in_doubt": doubted}
        human = {"certificate": id_.hex(), "owner": found.uscc, "records in doubt": len(doubted)}
        emit(document, as_json=json, human=lambda: facts("Revoked", human))

    @command(cert, name="list")
    async def list_(
        ended: Annotated[bool, typer.Option("--ended", help="Also what has ended or was revoked.")] = False,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Show every certificate and KEM key of the bus and the days that it has left."""
        where = Home.find(home)
        authority, kafka = where.load_bus().authority_der, where.stack().administrator
        async with certificates.knowing(authority, kafka) as trust:
            rows = certificates.listed(trust, where.names(), datetime.now(UTC), ended=ended)
        columns = ("owner", "role", "by", "days left", "state", "id")
        shown = [
            (one["name"] or one["owner"], one["role"], one["issuer"], one["days_left"], one["state"], one["id"][:16])
            for one in rows
        ]
        emit(rows, as_json=json, human=lambda: table(f"{len(rows)} certificates", columns, shown))


async def _issue(where: Home, key: Kind, file: Path, owner: str, by: str | None, out: Path, as_json: bool) -> None:
    """What is asked for is whoever sent the file's word: the officer says for whom, and what for."""
    asked = certificates.expected(pki.parse_request(_bytes(file)), key, where.uscc_of(owner))
    named = replace(asked, name=where.names().get(asked.uscc, asked.name))
    authority = where.load_bus().authority_der
    made = await certificates.issue(_authority(where, by), authority, named, where.stack().administrator)
    write_public(out, certificates.pem(made))
    document = {"certificate": certificates.id_of(made), "owner": asked.uscc, "file": str(out)}
    emit(document, as_json=as_json, human=lambda: facts("Issued and published", document))


def _bytes(file: Path) -> bytes:
    return file.read_bytes()


def _authority(where: Home, by: str | None) -> CertificateAuthority:
    return where.load_bus().authority if by is None else CertificateAuthority(where.org_folder(by) / "ca")


def _holder(where: Home, key: Kind, department: str | None) -> Holder:
    if department is None:
        return Holder.of(key, where.load_bus(), None, None)
    return Holder.of(key, where.load_bus(), where.identity(department), where.org_folder(department))


def _shown(made: pki.Signer) -> dict[str, Any]:
    end = made.certificate.not_valid_after_utc
    return {"certificate": made.id.hex(), "owner": made.uscc, "not_after": end.isoformat()}


def _id(text: str) -> bytes:
    """A certificate's id, said in hex or by the certificate itself. Raises `Misuse` (CONFIG_INVALID)."""
    try:
        if Path(text).is_file():
            return bytes.fromhex(certificates.id_of(der(Path(text).read_bytes())))
        id_ = bytes.fromhex(text)
    except (OSError, ValueError):  # no name that a file can have
        id_ = b""
    if len(id_) != 32:
        raise Misuse(Code.CONFIG_INVALID, f"{text!r:.80} is neither a file nor 64 hex digits")
    return id_


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = datetime.min
    if at.tzinfo is None:
        raise Malformed(Code.REQUEST_MALFORMED, f"{text!r:.80} is no moment with a zone: 2026-01-31T08:00+08:00")
    return at.astimezone(UTC)
