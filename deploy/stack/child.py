"""A child process of the stack: its start, its log, its end, and what its log says of why.

A child waits for a word before it becomes the program: until then whoever must end it later (the watchdog) is told of
it. So there is no moment in which a crash of the parent leaves a child that nobody knows.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import Code, DeptbusError, Malformed, Unavailable

LOG_TAIL = 30_000
LOG_BYTES = 16 * 1024 * 1024  # then it becomes `<name>.log.1`, and the one before that is gone
ALMOST_FULL_BYTES = 16 * 1024 * 1024  # with less than this even a log's last words may be missing
ENGINES = frozenset({"kafka", "postgres"})  # only they have data that can be damaged
# The parent died before it said a word: end of file, and nothing was started.
_WAIT_FOR_WORD = 'read -r go || exit 125; exec "$@" </dev/null'
_REASONS = (
    (Code.DISK_FULL, re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)),
    (Code.PORT_TAKEN, re.compile(r"address already in use|BindException|could not create any TCP/IP", re.IGNORECASE)),
    (Code.DATA_CORRUPT, re.compile(r"initialized with PG_CONTROL_VERSION 0,")),  # emptied: no version that ever was
    (
        Code.DATA_VERSION,
        re.compile(
            r"database files are incompatible with server|Unsupported .{0,40}version|"
            r"(Unrecognized|Unknown|Invalid|Don't know how to parse) .{0,60}version",
            re.IGNORECASE,
        ),
    ),
    (
        Code.DATA_CORRUPT,
        re.compile(
            r"incorrect checksum in control file|could not find the database system|could not (open|read) file \"|"
            r"invalid (checkpoint|primary checkpoint|magic number)|could not locate a valid checkpoint|"
            r"could not locate required checkpoint|invalid data in file|is not a (valid )?data directory|control file|"
            r"PANIC:|CorruptRecordException|InconsistentClusterId|Failed to parse|meta\.properties|"
            r"KafkaStorageException|(node|cluster) ID not found|directory\.id|"
            r"no snapshot found|relation mapping file|invalid page in block"
        ),
    ),
)
_ADVICE = {
    Code.DISK_FULL: "the disk is full: free space and run `deptbus up` again; the data is kept",
    Code.PORT_TAKEN: "its port is in use: stop what listens there or choose other ports",
    Code.DATA_VERSION: "its data is of another version: use the deptbus that wrote it, or another DEPTBUS_HOME",
    Code.DATA_CORRUPT: "its data is damaged: restore a backup, or move the folder away to start empty",
    Code.CHILD_DEAD: "it ended by itself; `deptbus up` starts everything again",
}
_TRY_LATER = frozenset({Code.CHILD_DEAD, Code.DISK_FULL, Code.PORT_TAKEN})


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
        """Its process id, and its group's."""
        return self.process.pid

    def dead(self) -> DeptbusError | None:
        """None while it runs, else what its log says of its end."""
        status = self.process.poll()
        if status is None:
            return None
        tail = log_tail(self.log)
        code = self._reason(status, tail)
        spoken = [line for line in tail.splitlines() if line.strip() and not line.startswith(("\t", " "))]
        last = " | ".join(spoken[-3:])  # not the depth of a Java stack
        how = f"was killed by signal {-status}" if status < 0 else f"ended with {status}"
        detail = f"{self.name} {how}: {_ADVICE[code]} (log: {self.log}; last lines: {last[-600:]})"
        return (Unavailable if code in _TRY_LATER else Malformed)(code, detail)

    def signal_group(self, number: signal.Signals) -> None:
        """To the process and all its children; nothing if they are gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _reason(self, status: int, tail: str) -> Code:
        if _almost_full(self.log):
            return Code.DISK_FULL
        if status == -signal.SIGKILL:
            return Code.CHILD_DEAD  # killed from outside: what its log has said before was not why
        possible = (reason for reason in _REASONS if self.name in ENGINES or reason[0] in _TRY_LATER)
        return next((code for code, pattern in possible if pattern.search(tail)), Code.CHILD_DEAD)


def start(
    name: str,
    arguments: Sequence[str | Path],
    log: Path,
    *,
    user: int | None = None,
    environment: dict[str, str] | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    kill_signal: signal.Signals = signal.SIGKILL,
    announce: Callable[[Child], None] | None = None,
) -> Child:
    """Starts a process with its output in `log`; the log before is kept as `<name>.log.1`.

    `user` is a uid to run as (only root may). `announce` is told of it before the program begins; if it raises, the
    program never does.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size:
        log.replace(_before(log))
    with log.open("ab") as output:  # appending, so that `bound_log` can cut it under the writer
        process = subprocess.Popen(
            ["/bin/sh", "-c", _WAIT_FOR_WORD, name, *(str(a) for a in arguments)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=[] if user is not None else None,
            env=environment,
            cwd="/" if user is not None else None,
        )
    child = Child(name, process, log, stop_signal, kill_signal)
    assert process.stdin is not None
    try:
        if announce is not None:
            announce(child)
        with suppress(BrokenPipeError):  # it was killed meanwhile: its status says so
            process.stdin.write(b"\n")
            process.stdin.flush()
    except BaseException:
        child.signal_group(signal.SIGKILL)
        process.wait()
        raise
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
    return child


def run_to_end(child: Child, seconds: float) -> int:
    """Its exit status. Raises `Unavailable` (CHILD_DEAD) if it takes longer; then it is gone."""
    try:
        return child.process.wait(seconds)
    except subprocess.TimeoutExpired:
        child.signal_group(signal.SIGKILL)
        child.process.wait()
        raise Unavailable(
            Code.CHILD_DEAD, f"{child.name} did not finish in {seconds:.0f} s (log: {child.log}): try again"
        ) from None


def log_tail(path: Path) -> str:
    """The end of a log, at most 30,000 bytes; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def bound_log(path: Path) -> None:
    """Keeps a log that is being written from filling the disk. Lines of the very moment may be lost."""
    with suppress(OSError):
        if path.stat().st_size > LOG_BYTES:
            shutil.copyfile(path, _before(path))
            os.truncate(path, 0)


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


def _before(log: Path) -> Path:
    return log.with_name(log.name + ".1")


def _almost_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < ALMOST_FULL_BYTES
    except OSError:
        return False
