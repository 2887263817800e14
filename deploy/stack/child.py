"""A child process of the stack: its log, its end, and what its log says of why."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import Code, DeptbusError, Malformed, Unavailable

LOG_TAIL = 30_000
_REASONS = (
    (Code.DISK_FULL, re.compile(r"No space left on device|could not write .*: No space", re.IGNORECASE)),
    (Code.PORT_TAKEN, re.compile(r"Address already in use|BindException|could not create any TCP/IP sockets")),
    (Code.DATA_VERSION, re.compile(r"database files are incompatible with server|Unsupported (log|metadata) version")),
    (
        Code.DATA_CORRUPT,
        re.compile(
            r"invalid (checkpoint|primary checkpoint|magic number)|could not locate a valid checkpoint|"
            r"invalid data in file|is not a (valid )?data directory|control file|PANIC:|could not open file \"global|"
            r"CorruptRecordException|InconsistentClusterIdException|Failed to parse|meta\.properties|"
            r"KafkaStorageException"
        ),
    ),
)
_ADVICE = {
    Code.DISK_FULL: "the disk is full: free space and run `deptbus up` again; the data is kept",
    Code.PORT_TAKEN: "its port is in use: stop what listens there or choose other ports",
    Code.DATA_VERSION: "its data is of another version: use the deptbus that wrote it, or another DEPTBUS_HOME",
    Code.DATA_CORRUPT: "its data is damaged: restore a backup, or move the folder away to start empty",
    Code.CHILD_DEAD: "it ended by itself",
}


@dataclass(slots=True)
class Child:
    """A started process in a session of its own."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    kill_signal: signal.Signals = signal.SIGKILL

    @property
    def pid(self) -> int:
        return self.process.pid

    def dead(self) -> DeptbusError | None:
        """None while it runs, else what its log says of its end."""
        status = self.process.poll()
        if status is None:
            return None
        tail = log_tail(self.log)
        code = next((code for code, pattern in _REASONS if pattern.search(tail)), Code.CHILD_DEAD)
        last = " | ".join(tail.strip().splitlines()[-3:])
        detail = f"{self.name} ended with {status}: {_ADVICE[code]} (log: {self.log}; last lines: {last[-600:]})"
        kind = Unavailable if code in (Code.CHILD_DEAD, Code.DISK_FULL, Code.PORT_TAKEN) else Malformed
        return kind(code, detail)

    def signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def start(
    name: str,
    arguments: Sequence[str | Path],
    log: Path,
    *,
    user: int | None = None,
    environment: dict[str, str] | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    kill_signal: signal.Signals = signal.SIGKILL,
) -> Child:
    """Starts a process with its output in `log`. `user` is a uid to run as (only root may)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(a) for a in arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=[] if user is not None else None,
            env=environment,
            cwd="/" if user is not None else None,
        )
    return Child(name, process, log, stop_signal, kill_signal)


def log_tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now.

    Taken by another before use, the child says PORT_TAKEN and `up` can be run again.
    """
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
