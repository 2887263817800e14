"""`deptbus audit export|verify|proof|incept`: the audit log itself, apart from what is asked of it."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bus import db, logexport, merkle
from bus.client import Asker
from bus.gateway import trail
from bus.logexport import VKEY
from bus.pki import write_private
from bus.recorder.guard import Guard, Signed
from bus.tlog import policy, proof, verify
from bus.tlog.note import NoteSigner
from bus.tlog.verify import Advance
from deploy.commands.options import Caller, asking, log_key, verifier_key
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, facts
from schemas.errors import Code, Misuse, Refused, Unavailable

if TYPE_CHECKING:
    from deploy.bootstrap import Bus

_LEAF_HASH = re.compile("[0-9a-fA-F]{64}")

Key = Annotated[
    str | None, typer.Option("--key", help="The log's vkey, or a file of it (default: the one in the bus's folder).")
]


def register_log(audit: typer.Typer) -> None:
    """Adds the commands to the `audit` group."""

    @command(audit, name="export")
    async def export_(
        folder: Annotated[Path, typer.Argument(help="The folder; what is in it of an earlier export is used.")],
        department: Caller = None,
        key: Key = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Copy the whole log into a folder, as other projects' tools read it (C2SP tlog-tiles), verified on the way.

        An export that was cut off goes on where it was; an older one is brought up to date. The reading is logged.
        """
        where = Home.find(home)
        log = log_key(where, key)
        async with asking(where, department) as client:
            with _progress("bundles", json) as advance:
                try:
                    done = await logexport.export(folder, _Gateways(client, log.name), log, advance)
                except OSError as exc:
                    raise Misuse(Code.CONFIG_INVALID, f"{folder}: cannot be used ({exc.strerror})") from exc
        document = done.checkpoint.to_json() | {
            "folder": str(folder),
            "fetched": done.fetched,
            "key": str(folder / VKEY),
        }
        emit(document, as_json=json, human=lambda: facts("Export", document))

    @command(audit, name="verify")
    def verify_(
        path: Annotated[Path, typer.Argument(help="The folder of an export, or a .tlog-proof file.")],
        key: Annotated[str, typer.Option("--key", help="The log's vkey, or a file of it, from somebody you trust.")],
        entry: Annotated[
            str | None,
            typer.Option("--entry", help="Of a proof: the entry it must be about, as a file or its leaf hash in hex."),
        ] = None,
        whom: Annotated[
            Path | None, typer.Option("--policy", help="A C2SP tlog-policy: whose cosignatures there must be.")
        ] = None,
        since: Annotated[
            Path | None, typer.Option("--since", help="Of an export: an older checkpoint that it must go on from.")
        ] = None,
        json: Json = False,
    ) -> None:
        """Check an export or a proof offline: 0 good, 1 tampered with (one sentence says where), 2 wrong usage."""
        log = verifier_key(key)
        quorum = None if whom is None else policy.parse(_file(whom))
        if path.is_dir():
            if entry is not None:
                raise Misuse(Code.CONFIG_INVALID, "--entry is for a proof: an export has all entries")
            older = None if since is None else _file(since)
            with _progress("bundles", json) as advance:
                at = verify.verify_tree(_reader(path), log, whom=quorum, since=older, advance=advance)
            what = f"all {at.size} entries"
        else:
            if since is not None:
                raise Misuse(Code.CONFIG_INVALID, "--since is for an export: a proof has no tiles to go on from")
            data = _file(path)
            at = verify.verify_proof(data, log, None if entry is None else _leaf(entry), quorum)
            what = f"entry {proof.parse(data).index}"
        document = {"good": True, "what": what} | at.to_json()
        emit(document, as_json=json, human=lambda: facts("Verified", document))

    @command(audit, name="proof")
    async def proof_(
        entry: Annotated[str, typer.Argument(help="The entry's leaf hash in hex: a grant and the trail name it.")],
        department: Caller = None,
        out: Annotated[Path | None, typer.Option("--out", help="Write the .tlog-proof file there.")] = None,
        key: Key = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Get the proof that the log has an entry, verified: a receipt that anybody can check offline.

        It carries the entry for its parties and for auditors.
        """
        where = Home.find(home)
        log = log_key(where, key)
        leaf = _leaf_hash(entry)
        if leaf is None:
            raise Misuse(Code.REQUEST_MALFORMED, "ENTRY is a leaf hash: 64 hex digits")
        async with asking(where, department) as client:
            data = await client.proof(leaf)
        at = verify.verify_proof(data, log, leaf)
        found = proof.parse(data)
        document: dict[str, Any] = {"entry": entry, "index": found.index} | at.to_json()
        document["carries_entry"] = found.extra is not None
        if out is None:
            emit(document | {"proof": data.decode()}, as_json=json, human=lambda: _print(data))
            return
        write_private(out, data)
        document["file"] = str(out)
        emit(document, as_json=json, human=lambda: facts("Proof", document))

    @command(audit)
    async def incept(
        origin: Annotated[str, typer.Option("--origin", help="The log's origin, to the letter: it is meant.")],
        at: Annotated[
            Path | None,
            typer.Option("--at", help="The newest checkpoint that anybody has: the guard that was lost begins there."),
        ] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Begin a bus's log: its key, its verifier key, its guard at nothing. Once, and never by accident.

        With --at: make a guard that was lost again, from a checkpoint that the log's own key has signed.
        """
        where = Home.find(home)
        bus = where.load_bus()
        if origin != bus.log_origin:
            raise Misuse(Code.CONFIG_INVALID, f"the log of the bus in {where.bus} is {bus.log_origin}: type it exactly")
        if bus.guard_file.exists():
            raise Misuse(Code.STATE_INVALID, f"{bus.guard_file}: this log has its guard; nothing is to be begun")
        published = await _published(where, bus)
        if at is None:
            if published:
                raise Refused(
                    Code.STATE_INVALID,
                    f"the database has a signed checkpoint of {published} entries: this log was begun, and its guard "
                    "is lost. Bring it back, or say --at with the newest checkpoint that anybody has",
                )
            bus.begin_log()
            size = 0
        else:
            own = NoteSigner.load(_own_key(bus)).verifier
            last = verify.signed(_file(at), own, name=str(at))
            if last.size < published:
                raise Refused(
                    Code.STATE_INVALID,
                    f"{at} states {last.size} entries, and {published} were signed: a newer one is needed",
                )
            Guard.create(bus.guard_file, origin, Signed(last.size, last.root))
            size = last.size
        vkey = log_key(where, None).vkey
        document = {"origin": origin, "vkey": vkey, "guard": str(bus.guard_file), "size": size}
        emit(document, as_json=json, human=lambda: facts("Log", document))


def _print(text: bytes) -> None:
    sys.stdout.write(text.decode())


class _Gateways:
    """The log over HTTP, with a token for its entries: asked for when the first are, and anew when its hour is over."""

    def __init__(self, client: Asker, origin: str) -> None:
        self._client = client
        self._log = f"/log/{origin.rpartition('/log/')[2]}"
        self._token = ""
        self._asking = asyncio.Lock()

    async def checkpoint(self) -> bytes:
        return await self._client.fetch(f"{self._log}/checkpoint")

    async def tile(self, path: str) -> bytes:
        if not path.startswith("tile/entries/"):
            return await self._client.fetch(f"{self._log}/{path}")
        token = self._token or await self._another("")
        try:
            return await self._client.fetch(f"{self._log}/{path}", token)
        except Refused as exc:
            if exc.code is not Code.REQUEST_EXPIRED:
                raise
        return await self._client.fetch(f"{self._log}/{path}", await self._another(token))

    async def _another(self, used: str) -> str:
        async with self._asking:  # many fetches find at once that it is over, and one asks
            if self._token == used:
                self._token = (await self._client.post_json("/v1/audit/tokens", {}))["token"]
            return self._token


async def _published(home: Home, bus: Bus) -> int:
    """How many entries the database's newest checkpoint states. A bus without a log key was never up with a log."""
    try:
        dsn = home.stack().postgres
    except Unavailable:
        if _own_key(bus).exists():
            raise
        return 0
    connection = await db.connect(dsn)
    try:
        async with db.postgres_errors("reading the checkpoint"):
            return (await trail.published(connection)).size
    except Unavailable as exc:
        if exc.code is not Code.AUDIT_STALLED:
            raise
        return 0  # none was ever published
    finally:
        await connection.close()


def _own_key(bus: Bus) -> Path:
    return bus.folder / "log" / "log.key"


@contextmanager
def _progress(what: str, quiet: bool) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def _reader(folder: Path) -> Callable[[str], bytes | None]:
    def read(path: str) -> bytes | None:
        file = folder / path
        return _file(file) if file.is_file() else None

    return read


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise Misuse(Code.CONFIG_INVALID, f"{path}: cannot be read ({exc.strerror})") from exc


def _leaf(text: str) -> bytes:
    """The leaf hash that an option says, in hex or by a file of the entry's bytes."""
    return leaf if (leaf := _leaf_hash(text)) is not None else merkle.leaf_hash(_file(Path(text)))


def _leaf_hash(text: str) -> bytes | None:
    return bytes.fromhex(text) if _LEAF_HASH.fullmatch(text) else None
