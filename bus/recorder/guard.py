"""The fork guard: the last checkpoint that was signed, outside the database and its backups.

Whoever restores the database from a backup, or starts a second recorder beside the first, finds here that another
history was signed already, and signs nothing. Only three things happen to it: it is created once, on purpose; it is
read; it moves forward by compare-and-swap. (The idea is Sunlight's: a lock backend that is trusted, beside a storage
that is not.) A recorder that stands by on another host needs the same file, on storage that both reach.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bus import merkle
from schemas.errors import Code, Misuse, Refused, Unavailable

BUSY_SECONDS = 5.0
T = TypeVar("T")

_CREATE = """
CREATE TABLE guard (
    id INTEGER PRIMARY KEY CHECK (id = 1), origin TEXT NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL
) STRICT
"""
_ADD = "INSERT INTO guard (id, origin, size, root) VALUES (1, ?, ?, ?)"
_READ = "SELECT origin, size, root FROM guard"
_SWAP = "UPDATE guard SET size = ?, root = ? WHERE origin = ? AND size = ? AND root = ?"


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed last. A log that has signed nothing yet is of size 0."""

    size: int = 0
    root: bytes = merkle.EMPTY_ROOT


class Guard:
    """The guard of one log in one SQLite file. Nothing here creates it but `create`."""

    def __init__(self, path: Path, origin: str) -> None:
        self._path = path
        self._origin = origin

    @classmethod
    def create(cls, path: Path, origin: str, last: Signed | None = None) -> Guard:
        """Inception, or a guard that was lost and begins again at a checkpoint that others hold.

        Raises `Misuse` (STATE_INVALID) if there is one already.
        """
        if path.exists():
            raise Misuse(Code.STATE_INVALID, f"{path}: this log has its guard already")
        last = last or Signed()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Under another name until it is whole: a crash in between leaves no half guard.
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        with _opened(temporary, "rwc") as connection:
            connection.execute(_CREATE)
            connection.execute(_ADD, (origin, last.size, last.root))
        temporary.chmod(0o600)
        temporary.rename(path)
        return cls(path, origin)

    async def read(self) -> Signed:
        """Raises `Refused` (LOG_GUARD_MISSING) or `Unavailable`."""
        return await self._in_thread(self._read)

    async def swap(self, old: Signed, new: Signed) -> bool:
        """Whether the guard stood at `old`; then it stands at `new`, on the disk, when this returns."""

        def swap(connection: sqlite3.Connection) -> bool:
            values = (new.size, new.root, self._origin, old.size, old.root)
            return connection.execute(_SWAP, values).rowcount == 1

        return await self._in_thread(swap)

    def _read(self, connection: sqlite3.Connection) -> Signed:
        row = connection.execute(_READ).fetchone()
        if row is None or row[0] != self._origin:
            found = "nobody" if row is None else row[0]
            raise Refused(Code.LOG_GUARD_MISSING, f"{self._path} guards {found}, not {self._origin}: check the paths")
        return Signed(row[1], row[2])

    async def _in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def run() -> T:
            if not self._path.exists():
                raise Refused(
                    Code.LOG_GUARD_MISSING,
                    f"{self._path} is not there: nothing is signed without it. Bring the file back, or see "
                    "`deptbus audit incept`",
                )
            with _opened(self._path, "rw") as connection:
                return work(connection)

        return await asyncio.to_thread(run)


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """One transaction, on the disk when it ends. Opened each time: a file that was replaced is seen at once."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS)
        try:
            # FULL does not wait for the journal's unlinking: after a power cut an old guard would stand again.
            connection.execute("PRAGMA synchronous = EXTRA")
            with connection:
                yield connection
        finally:
            connection.close()
    except sqlite3.Error as exc:
        code = Code.DISK_FULL if exc.sqlite_errorcode == sqlite3.SQLITE_FULL else Code.DATA_CORRUPT
        raise Unavailable(code, f"{path}: the guard cannot be used ({exc})") from exc
