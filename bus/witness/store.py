"""A witness's record on disk: one SQLite file, one row a log, replaced by compare-and-swap.

`synchronous=FULL`: what `advance` has said is on the disk, also after a power failure. Two processes on one file do no
harm to each other: the statement that replaces a row compares it, too.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from bus.db import queries
from bus.tlog.checkpoint import Checkpoint
from schemas.errors import Code, Malformed, Misuse, Unavailable

SQL = queries(Path(__file__).with_name("store.sql"))
_VERSION = 1
_BUSY_SECONDS = 5.0


class Store:
    """A `bus.tlog.witness.Record`. Blocking; calls may come from any thread."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file. Raises `Misuse` (DATA_VERSION), `Malformed` (DATA_CORRUPT) or `Unavailable`."""
        self._path = path
        self._turn = threading.Lock()
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            with self._errors():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.executescript(SQL["settings"])
        version = self._db.execute(SQL["version"]).fetchone()[0]
        if version not in (0, _VERSION):
            raise Misuse(Code.DATA_VERSION, f"{self._path} is of version {version}; this software writes {_VERSION}")
        if not version:
            self._db.executescript(SQL["create"])
        self._path.chmod(0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self._db.close()

    def latest(self, origin: str) -> Checkpoint | None:
        """The last checkpoint of a log that was cosigned."""
        with self._turn, self._errors():
            row = self._db.execute(SQL["latest"], {"origin": origin}).fetchone()
        return None if row is None else Checkpoint(origin, *row)

    def note(self, origin_hash: str) -> bytes | None:
        """The last checkpoint, signed and cosigned, of the log whose origin has this SHA-256 in lowercase hex."""
        with self._turn, self._errors():
            row = self._db.execute(SQL["note"], {"origin_hash": origin_hash}).fetchone()
        return None if row is None else bytes(row[0])

    def advance(self, old: Checkpoint | None, new: Checkpoint, note: bytes) -> bool:
        """Replaces `old` and is durable, or changes nothing and says false.

        Raises `Unavailable` (DISK_FULL): then nothing was recorded, and nothing may be cosigned.
        """
        values = {"origin": new.origin, "size": new.size, "root": new.root, "note": note}
        if old is None:
            statement = SQL["first"]
            values["origin_hash"] = sha256(new.origin.encode()).hexdigest()
        else:
            statement = SQL["advance"]
            values |= {"old_size": old.size, "old_root": old.root}
        with self._turn, self._errors():
            return self._db.execute(statement, values).rowcount == 1

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.OperationalError) as exc:
            raise Unavailable(
                Code.DISK_FULL,
                f"{self._path} could not be read or written ({exc}): free disk space, look at its rights",
            ) from exc
        except sqlite3.DatabaseError as exc:
            raise Malformed(Code.DATA_CORRUPT, f"{self._path} is no record of a witness ({exc})") from exc
