"""`deptbus set`: a duty over many subjects (免申即享, 政策找人, 比对), decided once over the exact set of records."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

from bus import audit, sets
from bus.client import GatewayClient
from bus.gateway.sets import MAX_SET
from bus.gateway.shapes import from_hex
from bus.merkle import HASH_BYTES
from bus.sets import Member
from bus.terms import asked
from bus.tlog import proof, verify
from deploy.commands.options import As, Case, Citation, Ground, Item, Operator, Purpose, Sections, acting, log_key
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, facts, out, table
from schemas.errors import Code, Malformed, Misuse, Refused

COVERED_SECONDS = 10  # a checkpoint comes each second; where none comes for so long the log is stalled


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(help="Set grants (批量决定): one decision over many subjects' records.", no_args_is_help=True)
    app.add_typer(group, name="set")

    @command(group, name="open")
    async def open_(
        department: As,
        item: Item,
        provider: Annotated[str, typer.Option("--provider", help="Whose records: a name or a credit code.")],
        section: Sections,
        purpose: Purpose,
        ground: Ground,
        operator: Operator,
        citation: Citation = "",
        case: Case = "",
        region: Annotated[str, typer.Option("--region", help="A division prefix; none means everywhere.")] = "",
        records: Annotated[
            Path | None,
            typer.Option("--records", help="A file of leaf hashes, one a line (default: every valid record there)."),
        ] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Ask for a set: one entry of the log over all records that are permitted, one each for those that are not.

        Exit 1 if none is permitted. Each call asks for another set, and takes from the limits again.
        """
        where = Home.find(home)
        whose = where.uscc_of(provider)
        about = {"item": item, "provider": whose, "region": region}
        given = None if records is None else _read(records)
        async with acting(where, department) as client:
            wanted = await _candidates(client, about, quiet=json) if given is None else given
            body = about | {
                "request": secrets.token_hex(16),
                "sections": section,
                "records": wanted,
                "purpose": purpose,
                "ground": ground,
                "citation": citation,
                "operator": operator,
                "case": case,
            }
            answer = await client.post_json("/v1/sets", body)
        emit(answer, as_json=json, human=lambda: _show(answer, len(wanted)))
        raise typer.Exit(0 if answer["entry"] else 1)

    @command(group)
    async def prove(
        entry: Annotated[str, typer.Argument(help="The set's entry, 64 hex digits: `set open` and usages name it.")],
        record: Annotated[str, typer.Argument(help="The record's leaf hash, 64 hex digits.")],
        department: As,
        key: Annotated[
            str | None, typer.Option("--key", help="The log's vkey, or a file of it (default: the bus's folder's).")
        ] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Prove that a record is in a set: its path to the set's root, and the entry of that root in the log.

        Exit 1 if it is not, or if a member was removed or changed. For the consumer, portals and auditors.
        """
        where = Home.find(home)
        log = log_key(where, key)
        leaf = bytes.fromhex(asked("entry", entry)[1])
        wanted = {"entry": leaf.hex(), "record": asked("record", record)[1]}
        async with acting(where, department) as client:
            answer = await client.post_json("/v1/sets:prove", wanted)
            root = _proven(answer, wanted["record"])
            data = await _covered(client, leaf)
        at = verify.verify_proof(data, log, leaf)
        found = proof.parse(data)
        if found.extra is not None:
            _check_entry(found.extra, root, answer["size"])
        document = {"proven": True, **wanted} | {
            name: answer[name] for name in ("root", "size", "position", "subjects")
        }
        document |= {"root_in_entry": found.extra is not None, "index": found.index, "checkpoint": at.to_json()}
        emit(document, as_json=json, human=lambda: _show_proven(document))


async def _candidates(client: GatewayClient, about: Mapping[str, str], *, quiet: bool) -> list[str]:
    """Every record that a set may be made of. Raises `Refused` (NOT_FOUND) for none, `Malformed` for too many."""
    found: list[str] = []
    after: str | None = ""
    columns = (TextColumn("candidates"), BarColumn(), TextColumn("{task.completed}"))
    with Progress(*columns, console=err, transient=True, disable=quiet) as progress:
        task = progress.add_task("", total=None)
        while after is not None:
            page = await client.post_json("/v1/sets:candidates", {**about, "after": after})
            found += page["records"]
            after = page["next"]
            progress.update(task, completed=len(found))
            if len(found) > MAX_SET:
                raise Malformed(
                    Code.REQUEST_TOO_LARGE, f"more than {MAX_SET} records: a set for each --region, or name --records"
                )
    if not found:
        raise Refused(Code.NOT_FOUND, "no valid record of this item and provider is there: nothing to ask for")
    return found


def _read(file: Path) -> list[str]:
    """Leaf hashes as a set names them: in order, once each. Raises `Misuse` naming the file."""
    try:
        lines = file.read_text("ascii").split()
    except (OSError, UnicodeDecodeError) as exc:
        raise Misuse(Code.SOURCE_INVALID, f"--records {file}: cannot be read ({type(exc).__name__})") from exc
    try:
        return sorted({asked("record", line)[1] for line in lines})
    except Misuse as exc:
        raise Misuse(Code.SOURCE_INVALID, f"--records {file}: a line is no leaf hash of 64 hex digits") from exc


def _proven(answer: Mapping[str, Any], record: str) -> bytes:
    """The root that the answer's path leads to. Raises `Malformed` or `Refused` (mostly PROOF_INVALID)."""
    root, *path = (from_hex(one, HASH_BYTES) for one in (answer["root"], *answer["path"]))
    subjects = tuple(from_hex(one, HASH_BYTES) for one in answer["subjects"])
    member = Member(record=bytes.fromhex(record), subjects=subjects)
    sets.verify(member, answer["position"], answer["size"], path, root)
    return root


async def _covered(client: GatewayClient, leaf: bytes) -> bytes:
    """The entry's proof, as soon as a checkpoint covers it. Raises `Refused` (NOT_FOUND) if none does."""
    for _ in range(COVERED_SECONDS):
        try:
            return await client.proof(leaf)
        except Refused as exc:
            if exc.code is not Code.NOT_FOUND:
                raise
        await asyncio.sleep(1)
    return await client.proof(leaf)


def _check_entry(value: bytes, root: bytes, size: int) -> None:
    """The bytes are the log's: their leaf hash was proven to be in it."""
    entry = audit.parse(value)[0]
    if entry.kind != "SetDecision" or (entry.body["root"], entry.body["count"]) != (root, size):
        raise Refused(Code.PROOF_INVALID, "the entry in the log is of another set: its root or its count differ")


def _show(answer: Mapping[str, Any], wanted: int) -> None:
    facts("Set", {"asked for": wanted, "granted": answer["count"], "root": answer["root"], "entry": answer["entry"]})
    refused = answer["refused"]
    if refused:
        counts = Counter(one["code"] for one in refused)
        first = {one["code"]: one for one in reversed(refused)}
        rows = [[code, count, first[code]["record"], first[code]["entry"]] for code, count in counts.most_common()]
        table(f"{len(refused)} refused", ("code", "records", "the first", "its entry"), rows)


def _show_proven(document: Mapping[str, Any]) -> None:
    facts("Proven", {name: document[name] for name in ("record", "entry", "root", "size", "position", "index")})
    if not document["root_in_entry"]:
        out.print(
            "The entry is shown to its parties and auditors: that its root is this one is the gateway's word here."
        )
