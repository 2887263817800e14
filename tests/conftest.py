"""One real stack a test session, and the report of `make test`.

`DEPTBUS_TEST_HOME` names a running stack to use instead of starting one: quicker while developing.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus import db
from deploy.home import Home, Stack
from tests.report import ROOT, write_report

UP_SECONDS = 600
DOWN_SECONDS = 120
_OWN_FOLDER = pytest.StashKey[str]()
_FAILED = pytest.StashKey[bool]()
_started = time.monotonic()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A running stack: Kafka, PostgreSQL, gateway, recorder."""
    given = os.environ.get("DEPTBUS_TEST_HOME")
    where = Home.find(Path(given) if given else tmp_path_factory.mktemp("stack"))
    if not given:
        _deptbus(where, UP_SECONDS, "up", "--detach")
    try:
        yield where
    finally:
        if not given:
            _deptbus(where, DOWN_SECONDS, "down")


@pytest.fixture(scope="session")
def stack(home: Home) -> Stack:
    return home.stack()


@pytest.fixture
def kafka(stack: Stack) -> str:
    """Bootstrap servers. Topics and groups are the test's own: see `unique`."""
    return stack.kafka


@pytest.fixture
def dsn(stack: Stack) -> Iterator[str]:
    """An empty database of the test's own."""
    name = f"test_{secrets.token_hex(6)}"
    asyncio.run(_execute(stack.postgres, f'CREATE DATABASE "{name}"'))
    try:
        yield stack.postgres.rsplit("/", 1)[0] + "/" + name
    finally:
        asyncio.run(_execute(stack.postgres, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def unique() -> str:
    """A name that no other test has."""
    return f"t-{secrets.token_hex(6)}"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A folder of this run's own for temporary files.

    As root PostgreSQL runs as another user, who must pass through the folders above its data. Every start of pytest
    closes the usual one, `/tmp/pytest-of-root`, to others: under the servers of a run that is under way.
    """
    # Where tests run in the background of a script, which ignores Ctrl-C, what they start must not: `up` heeds that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A broker here lives for seconds or minutes: Java's second compiler would take more than it gives back.
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
    # Processes start by the hundred: where a machine wants no compiled files beside the code, they are kept apart.
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / "build" / "pycache"))
    if config.option.basetemp is None:
        config.option.basetemp = config.stash[_OWN_FOLDER] = tempfile.mkdtemp(prefix="deptbus-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """It goes, unless a test failed: then logs are in it."""
    folder = config.stash.get(_OWN_FOLDER, None)
    if folder is not None and not config.stash.get(_FAILED, True):
        shutil.rmtree(folder, ignore_errors=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """`build/test.json`, also when tests failed. Of several processes the first one counts for all."""
    session.config.stash[_FAILED] = bool(exitstatus)
    if hasattr(session.config, "workerinput"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None
    counts = {name: len(reporter.stats.get(name, [])) for name in ("passed", "failed", "error", "skipped")}
    write_report("test", seconds=time.monotonic() - _started, exit_status=int(exitstatus), **counts)


async def _execute(dsn: str, statement: str) -> None:
    connection = await db.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _deptbus(home: Home, seconds: float, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments, "--json", "--home", str(home.path)],
        check=True,
        timeout=seconds,
        stdout=subprocess.DEVNULL,
    )
