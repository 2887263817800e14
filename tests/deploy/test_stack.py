"""The local stack as a person meets it: `deptbus up`, `down`, `status`, and everything that can go wrong with them.

Every run is a process of its own. Starting takes seconds, so the stacks are shared: `main` is one home (with spaces and
Chinese in its path) through start, stop, crash and damage, in the order of this file; `engines` is a Kafka and a
PostgreSQL that others' stacks use.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from prometheus_client.parser import text_string_to_metric_families

from bus.kafka import consumer, partitions_of, producer
from bus.transport import client_context
from deploy.home import Home, Stack
from deploy.stack import jars

ROOT = Path(__file__).resolve().parents[2]
UP_SECONDS = 180  # on a loaded machine
GONE_SECONDS = 5.0
TOPIC = "kept"
AS_ROOT = os.geteuid() == 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command left: its exit code, its one document, its stderr."""

    status: int
    document: dict[str, Any]
    said: str

    @property
    def code(self) -> str:
        return str(self.document["error"]["code"])

    @property
    def detail(self) -> str:
        return str(self.document["error"]["detail"])


def command(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "deploy.cli", *arguments, "--json", "--home", str(home)]


def deptbus(home: Path, *arguments: str, environment: dict[str, str] | None = None) -> Answer:
    done = subprocess.run(
        command(home, *arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=UP_SECONDS,
        env=environment,
        check=False,
    )
    assert len(done.stdout.splitlines()) == 1, f"not one document: {done.stdout!r} {done.stderr[-2000:]}"
    return Answer(done.returncode, json.loads(done.stdout), done.stderr)


class Foreground:
    """`deptbus up` as its terminal has it."""

    def __init__(self, home: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.home = home
        self.process = subprocess.Popen(
            command(home, "up", *arguments),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # so that a test's own Ctrl-C leaves it to its fixture
        )

    def ready(self) -> Stack:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        document = json.loads(line)
        assert "error" not in document, document
        return Stack(**document)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, seconds: float = 60) -> tuple[int, str, str]:
        out, said = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, said


def up(home: Path, *arguments: str) -> Stack:
    answer = deptbus(home, "up", "--detach", *arguments)
    assert answer.status == 0, answer
    return Stack(**answer.document)


def refused(answer: Answer, status: int, code: str, *words: str) -> None:
    """The exit code, the closed code, and a sentence with what to do."""
    assert (answer.status, answer.code) == (status, code), answer
    for word in words:
        assert word in answer.detail, answer.detail


def processes_of(home: Path) -> list[psutil.Process]:
    """Whatever works in this home or was started with its name (PostgreSQL's workers by where they are)."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            named = any(str(home) in part for part in process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and (named or process.cwd().startswith(str(home))):
                found.append(process)
    return found


def family(pids: Sequence[int]) -> list[psutil.Process]:
    """These processes, all that they started, and all in their groups."""
    groups = set(pids)
    return [
        process
        for process in psutil.process_iter()
        if process.pid in groups or _group(process.pid) in groups or groups & {p.pid for p in _parents(process)}
    ]


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _parents(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.parents()
    except psutil.Error:
        return []


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    living = []
    for process in processes:
        with suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


def until(what: Callable[[], bool], seconds: float, message: str) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, message
        time.sleep(0.02)


def gone(home: Path, processes: Sequence[psutil.Process], seconds: float = GONE_SECONDS) -> None:
    until(
        lambda: not alive(processes) and not processes_of(home),
        seconds,
        f"still there: {alive(processes)} {processes_of(home)}",
    )


async def keep_something(stack: Stack, text: str) -> None:
    """A message and a row."""
    admin = AIOKafkaAdminClient(**stack.administrator.options())
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    finally:
        await admin.close()
    client = await producer(stack.administrator, "test")
    await client.send_and_wait(TOPIC, text.encode())
    await client.stop()
    connection = await asyncpg.connect(stack.postgres)
    await connection.execute("CREATE TABLE kept (text text)")
    await connection.execute("INSERT INTO kept VALUES ($1)", text)
    await connection.close()


async def kept(stack: Stack) -> tuple[str, str]:
    reader = await consumer(stack.administrator, "test")
    try:
        reader.assign(await partitions_of(reader, TOPIC))
        await reader.seek_to_beginning()
        message = (await asyncio.wait_for(reader.getone(), 20)).value.decode()
    finally:
        await reader.stop()
    connection = await asyncpg.connect(stack.postgres)
    row = await connection.fetchval("SELECT text FROM kept")
    await connection.close()
    return message, row


@contextmanager
def damaged(path: Path, data: bytes) -> Iterator[None]:
    """The file with other bytes, and as it was afterwards."""
    before = path.read_bytes()
    try:
        path.write_bytes(data)
        yield
    finally:
        path.write_bytes(before)


@contextmanager
def forbidden(folder: Path) -> Iterator[Path]:
    """A folder that its owner may only read."""
    folder.mkdir(mode=0o500)
    yield folder


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """A small file system of its own."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def can_mount() -> bool:
    if not AS_ROOT or sys.platform != "linux":
        return False
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return done.returncode == 0


MOUNTS = pytest.mark.skipif(
    not can_mount(), reason="a small or read-only disk needs root and mounts: run the tests as root to cover it"
)


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One home through the whole file; a stack may run in it or not."""
    path = tmp_path_factory.mktemp("stack") / "我的 证照 bus"
    yield path
    subprocess.run(command(path, "down"), cwd=ROOT, capture_output=True, check=False, timeout=UP_SECONDS)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Kafka and PostgreSQL alone. Their first start was killed in the middle, which must do no harm."""
    path = tmp_path_factory.mktemp("engines") / "home"
    first = Foreground(path, "--bare")
    until(lambda: (path / "postgres" / "data.new").exists(), UP_SECONDS, "initdb never began")
    first.signal(signal.SIGKILL)
    first.end()
    gone(path, [])
    up(path, "--bare")
    yield path
    subprocess.run(command(path, "down"), cwd=ROOT, capture_output=True, check=False, timeout=UP_SECONDS)


PROCESSES = {"gateway", "recorder", "access"}


class TestRunning:
    async def test_up_starts_everything_and_says_where(self, main: Path) -> None:
        stack = up(main)
        file = main / "stack.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        document = json.loads(file.read_text("utf-8"))
        assert Stack(**document) == stack
        names = "version kafka kafka_login postgres gateways metrics pids ca tls_ca logs"
        assert document.keys() == set(names.split())
        assert document["version"] == 1
        assert document["pids"].keys() == {"up", "watchdog", "kafka", "postgres", "accounts", *PROCESSES}
        assert all(psutil.pid_exists(pid) for pid in document["pids"].values())
        assert document["metrics"].keys() == PROCESSES
        assert document["logs"].keys() == {"kafka", "postgres", "accounts", *PROCESSES}
        assert all(Path(log).is_file() for log in document["logs"].values())
        assert Path(document["ca"]).read_text("ascii").startswith("-----BEGIN CERTIFICATE")
        await keep_something(stack, "a 证")

    def test_nothing_that_others_read_holds_the_password(self, main: Path) -> None:
        password = (main / "postgres" / "password").read_bytes()
        for path in main.rglob("*"):
            if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077 and "data" not in path.parts:
                assert password not in path.read_bytes(), path
        arguments = [part for process in processes_of(main) for part in process.cmdline()]
        assert not any(password.decode() in part for part in arguments)

    def test_status_asks_every_process(self, main: Path) -> None:
        answer = deptbus(main, "status")
        assert answer.status == 0
        assert answer.document["ready"] == dict.fromkeys(PROCESSES, True)

    def test_every_process_has_probes_and_metrics_without_ids(self, main: Path) -> None:
        stack = Home.find(main).stack()
        # A path and a header with ids: what of them reaches the metrics must be the route only.
        context = client_context(Path(stack.tls_ca).read_text("ascii"))
        asked = "0a1b2c3d-0a1b-4c3d-8e4f-0a1b2c3d4e5f"
        httpx.get(f"{stack.gateways[0]}/v1/records/{asked}", trust_env=False, verify=context)
        httpx.post(f"{stack.gateways[0]}/v1/keys", content=b"x", trust_env=False, verify=context)
        for url in stack.metrics.values():
            for probe, said in (("healthz", "ok"), ("readyz", "ready")):
                answer = httpx.get(url.replace("metrics", probe), trust_env=False)
                assert (answer.status_code, answer.json()) == (200, {"status": said})
            families = list(text_string_to_metric_families(httpx.get(url, trust_env=False).text))
            assert any(family.name.startswith("bus_") for family in families)
            labels = {label for family in families for sample in family.samples for label in sample.labels.items()}
            for name, value in labels:
                assert not _ID.search(value), f"{name}={value}"
                assert name in _LABELS, f"{name}: say in this test why it holds no ids"

    def test_a_second_up_is_refused_and_the_first_goes_on(self, main: Path) -> None:
        log = (main / "logs" / "up.log").read_bytes()
        pid = str(Home.find(main).stack().pids["up"])
        refused(deptbus(main, "up"), 2, "STACK_RUNNING", pid, "deptbus down")
        refused(deptbus(main, "up", "--detach"), 2, "STACK_RUNNING", pid, "deptbus down")
        assert deptbus(main, "status").status == 0
        assert (main / "logs" / "up.log").read_bytes() == log

    async def test_down_stops_everything_and_up_goes_on(self, main: Path) -> None:
        before = Home.find(main).stack()
        processes = family(list(before.pids.values()))
        assert deptbus(main, "down").status == 0
        assert not alive(processes)
        assert not processes_of(main)
        assert not (main / "stack.json").exists()
        assert "Traceback" not in "".join(Path(log).read_text("utf-8") for log in before.logs.values())
        refused(deptbus(main, "down"), 3, "STACK_NOT_RUNNING", str(main))
        refused(deptbus(main, "status"), 3, "STACK_NOT_RUNNING", "deptbus up")

    async def test_kill_9_leaves_nothing_and_the_next_up_recovers(self, main: Path) -> None:
        foreground = Foreground(main)
        stack = foreground.ready()
        assert await kept(stack) == ("a 证", "a 证")
        processes = family(list(stack.pids.values()))
        assert len(processes) > len(stack.pids), "PostgreSQL has workers"
        foreground.signal(signal.SIGKILL)
        killed = time.monotonic()
        gone(main, processes)
        assert time.monotonic() - killed < GONE_SECONDS
        foreground.end()
        assert (main / "stack.json").exists(), "stale: it names processes that are gone"
        refused(deptbus(main, "status"), 3, "STACK_NOT_RUNNING")
        again = up(main)
        assert await kept(again) == ("a 证", "a 证")

    def test_kafka_dies_and_the_rest_is_stopped(self, main: Path) -> None:
        stack = Home.find(main).stack()
        _dies(main, stack, "kafka")
        assert stack.logs["kafka"] in (main / "logs" / "up.log").read_text("utf-8")


_ID = re.compile(r"[0-9a-f]{16}|[0-9A-HJ-NP-RT-UW-Y]{18}|[0-9a-f]{8}-[0-9a-f]{4}|[A-Za-z0-9+/_-]{40}")
_LABELS = {
    "outcome",
    "role",  # a process's key: gateway, recorder
    "topic",
    "consumergroup",
    "reason",
    "change",  # added or removed
    "kind",
    "route",
    "item",
    "limit",  # the law's name of it
    "state",
    "verdict",
    "le",
    # prometheus_client's own, of the interpreter
    "generation",
    "implementation",
    "major",
    "minor",
    "patchlevel",
    "version",
}


def _dies(home: Path, stack: Stack, name: str) -> None:
    """One part is killed: the supervisor says which, and nothing is left."""
    processes = family(list(stack.pids.values()))
    os.kill(stack.pids[name], signal.SIGKILL)
    gone(home, processes, 30)
    assert not (home / "stack.json").exists()
    said = (home / "logs" / "up.log").read_text("utf-8")
    assert "CHILD_DEAD" in said
    assert f"{name} was killed by signal 9" in said


class TestDamage:
    """The stack of `main` is down; each file is damaged and mended again."""

    @pytest.mark.parametrize(
        ("file", "data", "code", "words"),
        [
            ("version.json", b'{"format": 99, "kafka": "4.4.0"}', "DATA_VERSION", ("format 99",)),
            ("version.json", b'{"format": 1, "kafka": "99.0.0"}', "DATA_VERSION", ("Kafka 99.0.0",)),
            ("version.json", b"{", "DATA_CORRUPT", ("version.json",)),
            ("kafka/data/meta.properties", b"\x00damaged\x00", "DATA_CORRUPT", ("kafka", "restore a backup")),
            ("kafka/data/meta.properties", b"version=99\nnode.id=1\n", "DATA_VERSION", ("kafka",)),
            ("postgres/data/PG_VERSION", b"99\n", "DATA_VERSION", ("PostgreSQL 99",)),
            ("postgres/data/PG_VERSION", b"\xff\xfe", "DATA_CORRUPT", ("PG_VERSION", "restore a backup")),
            ("postgres/data/global/pg_control", bytes(8192), "DATA_CORRUPT", ("postgres", "restore a backup")),
            ("postgres/data/global/pg_control", b"", "DATA_CORRUPT", ("postgres", "restore a backup")),
            ("postgres/data/global/pg_control", b"\x5a" * 8192, "DATA_VERSION", ("postgres", "another version")),
            ("postgres/data/global/pg_filenode.map", b"damaged", "DATA_CORRUPT", ("postgres", "restore a backup")),
        ],
    )
    def test_data_that_cannot_be_used(
        self, main: Path, engines: Path, file: str, data: bytes, code: str, words: tuple[str, ...]
    ) -> None:
        theirs = Home.find(engines).stack()
        # The other engine is one that runs already: quicker.
        other = ["--kafka", theirs.kafka] if file.startswith("postgres") else ["--postgres", theirs.postgres]
        with damaged(main / file, data):
            refused(deptbus(main, "up", "--bare", *other), 1, code, *words)
            assert not processes_of(main)
            assert not (main / "stack.json").exists()

    @pytest.mark.parametrize("file", ["kafka/data/meta.properties", "postgres/data/PG_VERSION"])
    def test_data_without_its_first_file_is_not_started_empty(self, main: Path, file: str) -> None:
        path = main / file
        path.rename(main / "aside")
        try:
            refused(deptbus(main, "up"), 1, "DATA_CORRUPT", path.name, "move it away")
            assert not processes_of(main)
        finally:
            (main / "aside").rename(path)

    async def test_mended_it_goes_on(self, main: Path) -> None:
        stack = up(main, "--bare")
        assert await kept(stack) == ("a 证", "a 证")
        assert deptbus(main, "down").status == 0


class TestArguments:
    def test_a_port_that_another_holds(self, tmp_path: Path) -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            held.listen()
            port = held.getsockname()[1]
            answer = deptbus(tmp_path / "home", "up", "--port", str(port))
        refused(answer, 3, "PORT_TAKEN", str(port), "--port")
        assert not processes_of(tmp_path)

    def test_servers_that_are_no_addresses(self, tmp_path: Path) -> None:
        refused(deptbus(tmp_path, "up", "--kafka", "nowhere"), 2, "CONFIG_INVALID", "HOST:PORT")
        refused(deptbus(tmp_path, "up", "--postgres", "nowhere"), 2, "CONFIG_INVALID", "postgresql://")

    def test_a_home_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "home").write_bytes(b"")
        for arguments in (["up"], ["up", "--detach"]):
            refused(deptbus(tmp_path / "home", *arguments), 2, "CONFIG_INVALID", "DEPTBUS_HOME")

    def test_a_home_that_kafka_cannot_name(self, tmp_path: Path) -> None:
        refused(deptbus(tmp_path / "a,b", "up"), 2, "CONFIG_INVALID", "comma")


class TestRegistry:
    """Kafka's jars are not here yet and cannot be fetched."""

    def test_no_registry(self, tmp_path: Path) -> None:
        begun = time.monotonic()
        answer = deptbus(tmp_path / "home", "up", environment=_proxied(tmp_path, 1))
        refused(answer, 3, "REGISTRY_UNREACHABLE", "kafka_2.13", "Maven")
        assert time.monotonic() - begun < 30
        assert not processes_of(tmp_path)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
    def test_a_registry_that_does_not_answer_holds_nobody(self, tmp_path: Path, number: signal.Signals) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            foreground = Foreground(tmp_path / "home", environment=_proxied(tmp_path, silent.getsockname()[1]))
            silent.settimeout(UP_SECONDS)
            asked, _ = silent.accept()
            processes = family([foreground.process.pid])
            foreground.signal(number)
            gone(tmp_path, processes)
            status, out, _ = foreground.end()
            asked.close()
        if number == signal.SIGINT:
            assert status == 3
            assert json.loads(out)["error"]["code"] == "STACK_NOT_RUNNING"

    def test_a_jar_that_broke_off_is_seen(self, tmp_path: Path) -> None:
        name = "jopt-simple-5.0.4.jar"
        (tmp_path / name).write_bytes(b"PK\x03\x04 and no more")
        assert name in jars.damaged([tmp_path / name])
        assert len(jars.expected()) > 40


def _proxied(folder: Path, port: int) -> dict[str, str]:
    """An empty cache, and a registry only through this port."""
    (folder / "user").mkdir()
    proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), f"http://127.0.0.1:{port}")
    return os.environ | proxies | {"HOME": str(folder / "user"), "NO_PROXY": "", "no_proxy": ""}


def given(theirs: Stack, dsn: str) -> tuple[str, ...]:
    return "--kafka", theirs.kafka, "--kafka-login", theirs.kafka_login, "--postgres", dsn


class TestGivenServers:
    async def test_they_are_used_and_left_alone(self, engines: Path, tmp_path: Path) -> None:
        theirs = Home.find(engines).stack()
        dsn = await _database(theirs, "given")
        foreground = Foreground(tmp_path, *given(theirs, dsn))
        stack = foreground.ready()
        assert stack.pids.keys() == {"up", "watchdog", "accounts", *PROCESSES}
        assert (stack.kafka, stack.postgres) == (theirs.kafka, dsn)
        assert not (tmp_path / "kafka").exists()
        assert not (tmp_path / "postgres").exists()
        processes = family(list(stack.pids.values()))
        foreground.signal(signal.SIGINT)  # Ctrl-C
        status, _, said = foreground.end()
        assert status == 0, said
        assert not alive(processes)
        assert all(psutil.pid_exists(pid) for pid in theirs.pids.values())

    async def test_the_gateway_dies_and_the_rest_is_stopped(self, engines: Path, tmp_path: Path) -> None:
        theirs = Home.find(engines).stack()
        dsn = await _database(theirs, "dies")
        _dies(
            tmp_path,
            up(tmp_path, *given(theirs, dsn)),
            "gateway",
        )
        assert all(psutil.pid_exists(pid) for pid in theirs.pids.values())

    def test_servers_that_are_not_there(self, engines: Path, tmp_path: Path) -> None:
        theirs = Home.find(engines).stack()
        wrong = theirs.postgres.replace("postgresql://deptbus:", "postgresql://deptbus:not-")
        answer = deptbus(tmp_path, "up", *given(theirs, wrong))
        refused(answer, 3, "POSTGRES_UNAVAILABLE", "PostgreSQL", "password")
        assert "not-" not in answer.detail
        nowhere = deptbus(tmp_path, "up", "--kafka", "127.0.0.1:1", "--postgres", theirs.postgres)
        refused(nowhere, 3, "KAFKA_UNAVAILABLE", "Kafka")

    def test_postgres_dies_and_the_rest_is_stopped(self, engines: Path) -> None:
        """The last of `engines`."""
        _dies(engines, Home.find(engines).stack(), "postgres")


async def _database(stack: Stack, name: str) -> str:
    connection = await asyncpg.connect(stack.postgres)
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    return stack.postgres.rsplit("/", 1)[0] + "/" + name


class TestDisk:
    @MOUNTS
    def test_too_little_space_to_begin(self, tmp_path: Path) -> None:
        with mounted(tmp_path / "small", "size=64m") as disk:
            refused(deptbus(disk / "home", "up"), 3, "DISK_FULL", "free some space")
            assert not processes_of(disk)

    @MOUNTS
    async def test_a_disk_that_fills_up_loses_nothing(self, tmp_path: Path) -> None:
        with mounted(tmp_path / "small", "size=1400m") as disk:
            foreground = Foreground(disk / "home", "--bare")
            stack = foreground.ready()
            await keep_something(stack, "b")
            with (disk / "ballast").open("wb") as ballast:
                os.posix_fallocate(ballast.fileno(), 0, shutil.disk_usage(disk).free - 8 * 1024 * 1024)
            status, _, said = foreground.end()
            assert status == 3
            assert "DISK_FULL" in said
            assert not processes_of(disk)
            (disk / "ballast").unlink()
            again = up(disk / "home", "--bare")
            assert await kept(again) == ("b", "b")
            assert deptbus(disk / "home", "down").status == 0

    def test_a_home_that_cannot_be_written(self, tmp_path: Path) -> None:
        """For root, who may write everywhere else, a read-only disk; for others a folder without the right."""
        with mounted(tmp_path / "fixed", "size=64m,ro") if AS_ROOT else forbidden(tmp_path / "fixed") as folder:
            for arguments in (["up"], ["up", "--detach"]):
                why = "Read-only" if AS_ROOT else "Permission denied"
                refused(deptbus(folder / "home", *arguments), 2, "CONFIG_INVALID", why, "DEPTBUS_HOME")
