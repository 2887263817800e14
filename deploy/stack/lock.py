"""The lock on a home: one `deptbus up` at a time, found by whoever asks, and gone with its processes.

An `flock` on `<home>/lock`, shared with the watchdog: the kernel lets go of it when the last of the two is gone, so a
crash leaves nothing to clean, and a new start cannot meet processes that are still being ended. The file holds the
supervisor's process id while that lives.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from schemas.errors import Code, Misuse

ENDING_SECONDS = 5.0  # what the watchdog of a killed supervisor takes at most
_SURE_SECONDS = 0.5  # a supervisor that was killed this moment still stands in the file
_RETRY_SECONDS = 0.05


class HomeLock:
    """Held from `take` to `release`, and by every process that got `descriptor`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self.descriptor = descriptor

    @classmethod
    def take(cls, home: Path) -> HomeLock:
        """Raises `Misuse` (STACK_RUNNING)."""
        path = home / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        begun = time.monotonic()
        while not _try(descriptor):
            owner = _owner(path)
            # A watchdog that ends a killed supervisor's stack strikes the id out; that is waited for.
            if time.monotonic() - begun > (ENDING_SECONDS if owner is None else _SURE_SECONDS):
                os.close(descriptor)
                raise Misuse(
                    Code.STACK_RUNNING, f"a stack runs in {home} already (process {owner}): `deptbus down` stops it"
                )
            time.sleep(_RETRY_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return cls(path, descriptor)

    def release(self) -> None:
        """Gives the home to whoever comes next."""
        with suppress(OSError):
            os.ftruncate(self.descriptor, 0)
        os.close(self.descriptor)


def holder(home: Path) -> int | None:
    """The process id of the `deptbus up` that has this home; None if nobody has it."""
    path = home / "lock"
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if _try(descriptor, fcntl.LOCK_SH) else _owner(path)
    finally:
        os.close(descriptor)


def _try(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None  # between taking the lock and saying so


def lives(pid: int) -> bool:
    """Whether there is such a process (one that nobody has waited for still counts)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
