"""PostgreSQL as the bus uses it: bounded calls, named SQL, forward migrations, one translation of errors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qs, urlsplit

import asyncpg

from schemas.errors import Code, Malformed, Misuse, Unavailable

CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 20.0  # the slowest statement here writes 500 rows; longer means that something is wrong
MIGRATION_SECONDS = 3_600.0  # a migration of a full index may run for long; it runs alone
POOL_SIZE = 8
_LOCK = 7_368_422_916_221  # any fixed number: the migrations' advisory lock
_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_MIGRATION = re.compile(r"(\d{4})_\w+\.sql\Z")


@asynccontextmanager
async def postgres_errors(doing: str) -> AsyncIterator[None]:
    """Turns a server that is away, or says so, into `Unavailable` (POSTGRES_UNAVAILABLE). Other errors are defects."""
    try:
        yield
    except (
        OSError,
        TimeoutError,
        asyncpg.PostgresConnectionError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,  # its state machine, when the server is killed between two messages
        asyncpg.OperatorInterventionError,
        asyncpg.InsufficientResourcesError,
        asyncpg.TransactionRollbackError,
        asyncpg.ReadOnlySQLTransactionError,
        asyncpg.CannotConnectNowError,
    ) as exc:
        raise Unavailable(
            Code.POSTGRES_UNAVAILABLE, f"{doing}: PostgreSQL did not answer ({type(exc).__name__})"
        ) from exc


def check_dsn(dsn: str) -> None:
    """Over a network PostgreSQL is spoken to by TLS, with its name verified. Raises `Misuse` (CONFIG_INVALID)."""
    try:
        parts = urlsplit(dsn)
        asked = parse_qs(parts.query)
        hosts = [one for name in asked.get("host", []) for one in name.split(",")]
        hosts += [one.rsplit("@")[-1].rsplit(":", 1)[0].strip("[]") for one in parts.netloc.split(",")]
        away = [one for one in hosts if one and not one.startswith("/") and not _is_here(one)]
    except ValueError as exc:
        raise Misuse(Code.CONFIG_INVALID, "the PostgreSQL DSN cannot be read") from exc
    if away and asked.get("sslmode") != ["verify-full"]:
        raise Misuse(
            Code.CONFIG_INVALID,
            f"PostgreSQL at {away[0]} is another machine: add sslmode=verify-full (and sslrootcert=FILE) to its DSN",
        )


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


async def connect(dsn: str) -> asyncpg.Connection:
    """A connection. The caller closes it. Raises `Misuse` (CONFIG_INVALID), `Unavailable` (POSTGRES_UNAVAILABLE)."""
    check_dsn(dsn)
    async with postgres_errors("connecting"):
        return await asyncpg.connect(dsn, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS)


async def pool(dsn: str, size: int = POOL_SIZE) -> asyncpg.Pool:
    """A pool of at most `size` connections. The caller closes it. Raises as `connect`."""
    check_dsn(dsn)
    async with postgres_errors("connecting"):
        return await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            reset=_keep,
        )


async def _keep(_: asyncpg.Connection) -> None:
    """Nothing here sets, listens or locks beyond a transaction: asyncpg's reset would cost each use a query."""


def queries(path: Path) -> Mapping[str, str]:
    """The named statements of a `.sql` file: blocks that begin with `-- name: <name>`."""
    parts = _NAME.split(path.read_text("utf-8"))
    return MappingProxyType(dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True)))


async def migrate(dsn: str) -> int:
    """Brings the database to the newest version, each step in a transaction of its own; returns the version.

    Raises `Malformed` (DATA_VERSION) if the database is newer than this software, or an applied step has been edited.
    """
    steps = _steps()
    connection = await connect(dsn)
    try:
        async with postgres_errors("migrating"):
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK, timeout=MIGRATION_SECONDS)
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_version "
                "(version integer PRIMARY KEY, digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            )
            applied = {r["version"]: r["digest"] for r in await connection.fetch("SELECT * FROM schema_version")}
            _check_applied(applied, steps)
            for version, text in steps.items():
                if version not in applied:
                    async with connection.transaction():
                        await connection.execute(text, timeout=MIGRATION_SECONDS)
                        await connection.execute(
                            "INSERT INTO schema_version (version, digest) VALUES ($1, $2)", version, _digest(text)
                        )
    finally:
        await connection.close()
    return max(steps)


def _steps() -> dict[int, str]:
    folder = resources.files("bus") / "migrations"
    found = ((_MIGRATION.match(entry.name), entry) for entry in folder.iterdir())
    return {int(match[1]): entry.read_text("utf-8") for match, entry in sorted(found, key=lambda f: f[1].name) if match}


def _check_applied(applied: Mapping[int, str], steps: Mapping[int, str]) -> None:
    newer = sorted(applied.keys() - steps.keys())
    if newer:
        raise Malformed(Code.DATA_VERSION, f"the database is of version {newer[-1]}: run a newer deptbus on it")
    for version, digest in applied.items():
        if digest != _digest(steps[version]):
            raise Malformed(Code.DATA_VERSION, f"migration {version} is not the one that this database was made with")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
