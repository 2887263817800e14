"""Backup and restore of a bus: its database, and apart from it its keys.

Three things never lie together. The database's copy holds no secret key. The keys' copy holds neither what unlocks the
gateway's keys (`unlock/`, officers, a token) nor the fork guard, which is in no copy at all: it tells a restored
database from a current one. Topics are not copied: brokers hold them three times, and the recorder reads on in them
from where the restored database stood, so that nothing is lost which was on them.

A crash while a copy is made leaves none; one while it is put back leaves the database of before.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from bus import db
from bus.pki import write_private
from deploy.home import Home
from deploy.stack import lock, postgres
from deploy.stack.child import free_ports, log_tail, start
from schemas.errors import Code, Malformed, Misuse, Unavailable

FORMAT = 1
DUMP, ABOUT = "database.dump", "backup.json"
COPY_SECONDS = 6 * 3600.0  # a hundred million records; longer means that something is wrong
START_SECONDS = 60.0
_GUARD = "guard.sqlite*"
_BESIDE, _BEFORE = "restored", "before"  # what is put back until it is whole, and what it took the place of
_STATES = "SELECT (SELECT size FROM log_state), (SELECT max(version) FROM schema_version), pg_export_snapshot()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What lies in a folder. `entries` is how many the audit log had; what came later is read from the topics."""

    format: int
    taken_at: str
    entries: int
    schema: int
    sha256: str

    @classmethod
    def load(cls, folder: Path) -> Backup:
        """Raises `Misuse` (CONFIG_INVALID), `Malformed` (DATA_VERSION, DATA_CORRUPT)."""
        try:
            about = json.loads((folder / ABOUT).read_text("utf-8"))
            if about["format"] != FORMAT:
                raise Malformed(Code.DATA_VERSION, f"{folder} is a backup of format {about['format']}, not {FORMAT}")
            found = cls(**about)
            with (folder / DUMP).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as exc:
            raise Misuse(Code.CONFIG_INVALID, f"{folder} holds no whole backup: `deptbus backup` makes one") from exc
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
            raise Malformed(Code.DATA_CORRUPT, f"{folder / ABOUT} cannot be read: take another backup") from exc
        if digest != found.sha256:
            raise Malformed(Code.DATA_CORRUPT, f"{folder / DUMP} is not what was backed up: take another backup")
        return found


async def back_up(dsn: str, folder: Path) -> Backup:
    """Copies the database as of now, while everything runs, into a new folder. Raises `Misuse`, `Unavailable`."""
    _make_empty(folder)
    dump = folder / DUMP
    options = ("--format=custom", "--no-owner", "--no-privileges", f"--file={dump}")
    connection = await db.connect(dsn)
    try:
        # One snapshot: what is counted is what is copied.
        async with (
            db.postgres_errors("reading what there is"),
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            entries, schema, snapshot = await connection.fetchrow(_STATES)
            await _run("pg_dump", dsn, folder, *options, f"--snapshot={snapshot}")
    finally:
        await connection.close()
    dump.chmod(0o600)
    with dump.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    made = Backup(
        format=FORMAT,
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        entries=entries or 0,
        schema=schema,
        sha256=digest,
    )
    write_private(folder / ABOUT, json.dumps(asdict(made), indent=2).encode())  # last: without it there is no backup
    return made


def back_up_keys(home: Home, folder: Path, database: Path) -> None:
    """Copies the bus's folder and the departments' that joined here, without the guard. Raises `Misuse`."""
    one, other = folder.resolve(), database.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise Misuse(Code.CONFIG_INVALID, "keys and database are kept apart: choose a folder outside the other one")
    home.load_bus()
    _make_empty(folder)
    for part in ("bus", "orgs"):
        if (home.path / part).exists():
            shutil.copytree(home.path / part, folder / part, ignore=shutil.ignore_patterns(_GUARD))


def put_keys_back(home: Home, folder: Path) -> None:
    """Into a home that has none. The guard is another matter: `deptbus audit incept`. Raises `Misuse`."""
    if home.bus.exists():
        raise Misuse(Code.STATE_INVALID, f"{home.bus} is there already: move it away to have the backup's keys")
    if not (folder / "bus" / "config.json").exists():
        raise Misuse(Code.CONFIG_INVALID, f"{folder} holds no bus's keys")
    home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The bus's own come last: without them there is no bus here.
    for part in ("orgs", "bus"):
        if (folder / part).exists():
            shutil.copytree(folder / part, home.path / part, dirs_exist_ok=part == "orgs")


async def put_back(dsn: str, folder: Path) -> Backup:
    """Puts the database in the place of the one that `dsn` names, at once and whole. Nobody may be connected to it.

    Raises `Misuse` (STACK_RUNNING, CONFIG_INVALID), `Malformed`, `Unavailable`.
    """
    backup = Backup.load(folder)
    server, _, rest = dsn.rpartition("/")
    name, mark, options = rest.partition("?")
    if '"' in name:
        raise Misuse(Code.CONFIG_INVALID, "a database with a quote in its name is not restored")
    beside, before = f"{name}_{_BESIDE}", f"{name}_{_BEFORE}"
    admin = await db.connect(f"{server}/postgres{mark}{options}")
    try:
        async with db.postgres_errors("putting the database back"):
            for left in (beside, before):  # by a crash
                await admin.execute(f'DROP DATABASE IF EXISTS "{left}"', timeout=START_SECONDS)
            await admin.execute(f'CREATE DATABASE "{beside}"', timeout=START_SECONDS)
        into = f"{server}/{beside}{mark}{options}"
        await _run("pg_restore", into, folder, "--exit-on-error", "--no-owner", "--no-privileges", str(folder / DUMP))
        try:
            async with db.postgres_errors("putting the database back"):
                there = await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", name)
                async with admin.transaction():
                    if there:
                        await admin.execute(f'ALTER DATABASE "{name}" RENAME TO "{before}"')
                    await admin.execute(f'ALTER DATABASE "{beside}" RENAME TO "{name}"')
                await admin.execute(f'DROP DATABASE IF EXISTS "{before}"', timeout=START_SECONDS)
        except asyncpg.ObjectInUseError as exc:
            raise Misuse(
                Code.STACK_RUNNING, "somebody is connected to the database: stop every gateway and recorder first"
            ) from exc
    finally:
        await admin.close()
    return backup


@asynccontextmanager
async def own_server(home: Home) -> AsyncIterator[str]:
    """The DSN of the home's own PostgreSQL, started for this alone. Raises `Misuse` (STACK_RUNNING), `Unavailable`."""
    home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = await asyncio.to_thread(lock.HomeLock.take, home.path)
    try:
        folder = home.path / "postgres"
        password = await asyncio.to_thread(postgres.prepare, folder)
        (port,) = free_ports(1)
        child = postgres.run(folder, port, home.logs)
        try:
            dsn = postgres.dsn(password, port)
            await _until_it_answers(postgres.dsn(password, port, "postgres"))
            yield dsn
        finally:
            child.process.send_signal(child.stop_signal)
            await asyncio.to_thread(child.process.wait, START_SECONDS)
    finally:
        held.release()


async def _until_it_answers(dsn: str) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                await (await db.connect(dsn)).close()
            except Unavailable:
                await asyncio.sleep(0.2)
            else:
                return


def _make_empty(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as exc:
        raise Misuse(Code.CONFIG_INVALID, f"{folder} cannot be used ({exc.strerror}): choose another folder") from exc
    if taken:
        raise Misuse(Code.STATE_INVALID, f"{folder} is not empty: a backup has a folder of its own")


async def _run(tool: str, dsn: str, folder: Path, *arguments: str) -> None:
    """One of PostgreSQL's own tools; the password goes through its environment, which only its user can read."""
    ours = postgres.binaries() / tool  # it reads servers of its own version and older ones
    parts = urlsplit(dsn)
    asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    environment = os.environ | {
        "PGHOST": asked.get("host") or parts.hostname or "",
        "PGPORT": str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGSSLMODE": asked.get("sslmode", "prefer"),
        **({"PGSSLROOTCERT": asked["sslrootcert"]} if "sslrootcert" in asked else {}),
        "LC_ALL": "C",
    }
    database: Sequence[str] = ("--dbname", unquote(parts.path.lstrip("/")))
    log = folder / f"{tool}.log"
    child = start(tool, [ours, *database, *arguments], log, environment=environment)
    try:
        status = await asyncio.to_thread(child.process.wait, COPY_SECONDS)
    finally:
        child.process.kill()
    said = " | ".join(log_tail(log).strip().splitlines()[-3:])
    log.unlink(missing_ok=True)
    if status:
        full = "No space left" in said
        raise Unavailable(Code.DISK_FULL if full else Code.POSTGRES_UNAVAILABLE, f"{tool} ended with {status}: {said}")
