"""`deptbus audit evidence`: a case's entries with their proofs, in one archive that anybody can check."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bus import audit, evidence
from bus.client import Asker
from bus.evidence import EvidenceItem
from bus.pki import Role, write_private
from bus.tables import Row
from bus.tlog import note, policy, proof, tiles
from bus.tlog.checkpoint import Checkpoint
from bus.tlog.checkpoint import parse as parse_checkpoint
from bus.tlog.note import Verifier
from bus.tlog.proof import TlogProof
from bus.tlog.tiles import HEIGHT, WIDTH, Tile
from bus.trust import Trust
from consent.law import GROUNDS
from consent.purposes import PURPOSES
from deploy.commands.options import Caller, asking, log_key, trusting
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, facts
from schemas.errors import Code, Malformed, Misuse, Refused

PAGE = 1_000
BATCH = 200  # proofs at once: each has an entry of up to 64 KiB in it
Advance = Callable[[int, int], None]  # so many of so many


def register_evidence(audit_app: typer.Typer) -> None:
    """Adds the command to the `audit` group."""

    @command(audit_app, name="evidence")
    async def evidence_(
        case: Annotated[str, typer.Option("--case", help="The case (案号), as the requests named it.")],
        out: Annotated[Path, typer.Option("--out", help="The archive to write: FILE.zip.")],
        department: Caller = None,
        key: Annotated[
            str | None,
            typer.Option("--key", help="The log's vkey (default: the one in the bus's folder)."),
        ] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Write a case's entries, each with its proof, and a page that checks them in a browser without a network.

        Everything is verified before it is written. With --as that is also against what Kafka says of revoked
        certificates, which a person does not read. The reading is logged.
        """
        where = Home.find(home)
        log = log_key(where, key)
        if not out.parent.is_dir():
            raise Misuse(Code.CONFIG_INVALID, f"{out.parent}: no such folder to write the archive into")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=err, transient=True, disable=json) as progress:
            task = progress.add_task("proofs")
            async with asking(where, department) as client:
                signed, items, certified = await collect(
                    client, log, case, lambda done, of: progress.update(task, completed=done, total=of)
                )
        async with trusting(where, department) as trust:
            for der in certified:
                trust.add_certificate(der)
            certificates = _certificates(trust, items)
        about = evidence.Case(
            case=case,
            made_at=datetime.now(UTC),
            log=log,
            checkpoint=signed,
            certificates=certificates,
            authority=trust.authority_der,
            witnesses=_witnesses(where),
            names={**where.names(), **PURPOSES, **GROUNDS},
        )
        write_private(out, evidence.build(about, items, _workbook))
        at = parse_checkpoint(note.parse(signed).text)
        document = {"file": str(out), "case": case, "entries": len(items), "origin": at.origin, "size": at.size}
        emit(document, as_json=json, human=lambda: facts("Evidence", document))


async def collect(
    client: Asker, log: Verifier, case: str, advance: Advance
) -> tuple[bytes, list[EvidenceItem], set[bytes]]:
    """The entries of a case and those that take one of them back, all under one checkpoint: its note, the entries, and
    the certificates (DER, not verified) of who signed them.

    Raises `Refused` (NOT_FOUND) if no entry names the case; `Malformed` or `Refused` if an answer does not verify.
    """
    found = await _entries(client, {"case": case})
    if not found:
        raise Refused(Code.NOT_FOUND, f"no entry of the log carries the case {case!r}: nothing to show")
    mine = {one["entry"] for one in found}
    taken_back = await _entries(client, {"kind": "Voided", "since": found[0]["logged_at"]})
    found += [one for one in taken_back if one["body"]["entry"] in mine]
    found = list({one["entry"]: one for one in reversed(found)}.values())  # bytes that stand twice: the first place
    proofs, certified = list[TlogProof](), set[bytes]()
    for begin in range(0, len(found), BATCH):
        advance(begin, len(found))
        batch = found[begin : begin + BATCH]
        answer = await client.post_json("/v1/audit/proofs", {"entries": [one["entry"] for one in batch]})
        certified |= set(map(_der, answer["certificates"]))
        given = [proof.parse(one["proof"].encode()) for one in answer["proofs"]]
        proofs += [_checked(one, entry, log) for one, entry in zip(given, batch, strict=True)]
    advance(len(found), len(found))
    newest = max((one.note for one in proofs), key=_size)
    paths = [one.path for one in proofs]
    if any(one.note != newest for one in proofs):  # the log grew from one batch to the next
        paths = await _paths(client, log.name, [one.index for one in proofs], _size(newest))
    items = [
        EvidenceItem(
            index=one.index, value=one.extra or b"", path=path, logged_at=datetime.fromisoformat(entry["logged_at"])
        )
        for one, path, entry in zip(proofs, paths, found, strict=True)
    ]
    return newest, sorted(items, key=lambda item: item.index), certified


async def _entries(client: Asker, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every entry that the trail finds, page after page."""
    found: list[dict[str, Any]] = []
    after: int | None = -1
    while after is not None:
        page = await client.post_json("/v1/audit/entries:query", {**wanted, "after": after, "limit": PAGE})
        found += page["entries"]
        after = page["next"]
    return found


def _checked(found: TlogProof, entry: Mapping[str, Any], log: Verifier) -> TlogProof:
    """A proof that is of the entry that was asked for."""
    proof.verify(found, bytes.fromhex(entry["entry"]), log)
    if found.extra is None or found.index != entry["index"]:
        raise Malformed(Code.PROOF_INVALID, f"the proof of entry {entry['index']} is another's, or lacks the entry")
    return found


def _der(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as exc:
        raise Malformed(Code.CERTIFICATE_INVALID, "the gateway's answer has a certificate that is no Base64") from exc


def _size(signed: bytes) -> int:
    return parse_checkpoint(note.parse(signed).text).size


async def _paths(client: Asker, origin: str, indices: Sequence[int], size: int) -> list[tuple[bytes, ...]]:
    """The entries' paths in the tree of one size, from its tiles."""
    ranges = [tiles.inclusion(index, size) for index in indices]
    wanted = sorted(tiles.tiles_for(one for of_entry in ranges for one in of_entry))
    there: dict[Tile, bytes] = {}
    for tile in wanted:
        width = min(WIDTH, (size >> (HEIGHT * tile.level)) - tile.number * WIDTH)
        path = f"/log/{origin.rpartition('/log/')[2]}/{tiles.path(tile, width)}"
        there[tile] = await client.send("GET", path, b"", "application/octet-stream")
    return [tuple(tiles.hashes(of_entry, there)) for of_entry in ranges]


def _certificates(trust: Trust, items: Sequence[EvidenceItem]) -> list[bytes]:
    """The certificates (DER) that the entries' signers had."""
    found: dict[bytes, bytes] = {}
    for item in items:
        entry = audit.parse(item.value)[0]
        if entry.signer not in found:
            found[entry.signer] = _certificate(trust, entry)
    return list(found.values())


def _certificate(trust: Trust, entry: audit.Entry) -> bytes:
    try:
        return trust.certificate(entry.signer, Role.GATEWAY, entry.time).der
    except Refused as exc:
        if exc.code is not Code.CERTIFICATE_ROLE:
            raise
        return trust.certificate(entry.signer, Role.RECORDER, entry.time).der


def _workbook(rows: Sequence[Row], at: Checkpoint) -> bytes:
    from deploy.workbook import TrailBook  # openpyxl comes with an extra

    book = TrailBook()
    for row in rows:
        book.add(row)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "table.xlsx"
        book.save(file, {"日志": at.origin, "检查点(条目数)": str(at.size), "条目": str(len(rows))})
        return file.read_bytes()


def _witnesses(home: Home) -> list[Verifier]:
    """The witnesses that the log's policy names: their cosignatures are shown where they are."""
    file = home.bus / "log" / "policy"
    return [one.verifier for one in policy.parse(file.read_bytes()).witnesses] if file.exists() else []
