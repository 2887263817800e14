"""`deptbus up`: starts engines and processes in order, watches them, stops them in reverse.

The first part that dies ends the rest: half a stack would only look like one. `stack.json` is written when everything
is ready and removed when it stops.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from bus.db import connect
from bus.kafka import producer
from bus.pki import write_private
from deploy import bootstrap
from deploy.home import Home, Stack
from deploy.stack import kafka, postgres
from deploy.stack.child import Child, free_ports, start
from schemas.errors import Code, DeptbusError, Malformed, Misuse, Unavailable

FORMAT = 1  # of DEPTBUS_HOME's layout
READY_SECONDS = 90.0  # Kafka takes 3 to 5 s on two idle cores; a loaded machine many times that
STOP_SECONDS = 20.0  # Kafka flushes its logs
WATCH_SECONDS = 0.2
MIN_FREE_BYTES = 1024 * 1024 * 1024  # Kafka's and PostgreSQL's first files take some 300 MB
Progress = Callable[[str], None]


class Supervisor:
    """One stack in one home."""

    def __init__(
        self, home: Home, *, kafka_at: str | None, postgres_at: str | None, port: int | None, bare: bool, say: Progress
    ) -> None:
        self._home = home
        self._kafka_at = kafka_at
        self._postgres_at = postgres_at
        self._port = port
        self._bare = bare
        self._say = say
        self._children: list[Child] = []
        self._watchdog: subprocess.Popen[bytes] | None = None

    async def run(self, ready: Callable[[Stack], None], stop: asyncio.Event) -> None:
        """Starts, calls `ready`, runs until `stop` is set. Raises what ended it otherwise."""
        self._check_home()
        self._watchdog = subprocess.Popen(  # noqa: ASYNC220 - starting takes milliseconds; nothing waits for it
            [sys.executable, "-m", "deploy.stack.watchdog"], stdin=subprocess.PIPE, start_new_session=True
        )
        try:
            stack = await self._start(stop)
            self._home.write_stack(stack)
            ready(stack)
            while not stop.is_set():
                self._raise_if_dead()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), WATCH_SECONDS)
        finally:
            await self._stop()

    def _check_home(self) -> None:
        path = self._home.path
        try:
            path.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(path).free
        except OSError as exc:
            raise Unavailable(Code.DISK_FULL, f"{path} cannot be written ({exc.strerror})") from exc
        if free < MIN_FREE_BYTES:
            raise Unavailable(
                Code.DISK_FULL, f"{path} has {free >> 20} MiB free; {MIN_FREE_BYTES >> 20} are needed: free some space"
            )
        running = stack_running(self._home)
        if running is not None:
            raise Misuse(
                Code.STACK_RUNNING, f"a stack runs in {path} already (process {running}): `deptbus down` stops it"
            )
        version = path / "version.json"
        if version.exists():
            try:
                found = json.loads(version.read_text("ascii"))["format"]
            except (ValueError, KeyError) as exc:
                raise Malformed(
                    Code.DATA_CORRUPT, f"{version} cannot be read: restore it, or move {path} away"
                ) from exc
            if found != FORMAT:
                raise Malformed(Code.DATA_VERSION, f"{path} is of format {found}, this deptbus writes {FORMAT}")
        else:
            write_private(version, json.dumps({"format": FORMAT, "kafka": kafka.VERSION}).encode())

    async def _start(self, stop: asyncio.Event) -> Stack:
        home = self._home
        ports = free_ports(7)
        bootstrap_servers = self._kafka_at or await self._start_kafka(ports[0], ports[1])
        dsn = self._postgres_at or await self._start_postgres(ports[2])
        await self._until("Kafka", lambda: _kafka_answers(bootstrap_servers), stop)
        dsn = await self._until("PostgreSQL", lambda: _postgres_answers(dsn, create=self._postgres_at is None), stop)
        gateways: list[str] = []
        metrics: dict[str, str] = {}
        if not self._bare:
            self._say("Setting up keys, tables and topics")
            await bootstrap.prepare(home.bus, bootstrap_servers, dsn)
            gateway_port = self._port or ports[3]
            gateways = [f"http://127.0.0.1:{gateway_port}"]
            metrics = {
                "gateway": f"http://127.0.0.1:{ports[4]}/metrics",
                "recorder": f"http://127.0.0.1:{ports[5]}/metrics",
            }
            dsn_file = home.path / "postgres.dsn"
            write_private(dsn_file, dsn.encode())
            self._process("recorder", bootstrap_servers, dsn_file, ports[5])
            self._process("gateway", bootstrap_servers, dsn_file, ports[4], port=gateway_port)
            for name, url in metrics.items():
                await self._until(name, lambda url=url: _ready(url), stop)  # type: ignore[misc]
        return Stack(
            version=FORMAT,
            kafka=bootstrap_servers,
            postgres=dsn,
            gateways=gateways,
            metrics=metrics,
            pids={"up": os.getpid(), **{child.name: child.pid for child in self._children}},
            ca=str(home.bus / "ca" / "ca.pem"),
            logs={child.name: str(child.log) for child in self._children},
        )

    async def _start_kafka(self, port: int, controller_port: int) -> str:
        self._say("Finding Kafka's jars (fetched once)")
        files = await asyncio.to_thread(kafka.resolve)
        self._say(f"Starting Apache Kafka {kafka.VERSION}")
        properties = await asyncio.to_thread(kafka.prepare, files, self._home.path / "kafka", port, controller_port)
        self._add(kafka.run(files, properties, self._home.logs))
        return f"127.0.0.1:{port}"

    async def _start_postgres(self, port: int) -> str:
        self._say("Starting PostgreSQL")
        folder = self._home.path / "postgres"
        password = await asyncio.to_thread(postgres.prepare, folder)
        self._add(postgres.run(folder, port, self._home.logs))
        return postgres.dsn(password, port)

    def _process(self, name: str, bootstrap_servers: str, dsn_file: Path, metrics_port: int, port: int = 0) -> None:
        self._say(f"Starting the {name}")
        arguments: list[str | Path] = [
            *(sys.executable, "-m", "deploy.process", name, "--bus", self._home.bus, "--kafka", bootstrap_servers),
            *("--postgres-file", dsn_file, "--metrics-port", str(metrics_port), "--port", str(port)),
        ]
        self._add(start(name, arguments, self._home.logs / f"{name}.log"))

    def _add(self, child: Child) -> None:
        """From here on it ends when this process ends, however that is."""
        self._children.append(child)
        self._tell_watchdog(f"{child.pid} {int(child.kill_signal)}\n")

    def _tell_watchdog(self, line: str) -> None:
        assert self._watchdog is not None
        assert self._watchdog.stdin is not None
        with suppress(BrokenPipeError):
            self._watchdog.stdin.write(line.encode())
            self._watchdog.stdin.flush()

    async def _until(self, what: str, ask: Callable[[], Awaitable[Any]], stop: asyncio.Event) -> Any:
        """Asks again until it answers. A child that died meanwhile says why."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            self._raise_if_dead()
            if stop.is_set():
                raise Unavailable(Code.CHILD_DEAD, "stopped while starting")
            try:
                return await ask()
            except (DeptbusError, OSError, httpx.HTTPError) as exc:
                if time.monotonic() > deadline:
                    self._raise_if_dead()
                    detail = f"{what} did not get ready in {READY_SECONDS:.0f} s ({exc}); logs: {self._home.logs}"
                    raise Unavailable(Code.CHILD_DEAD, detail) from exc
            await asyncio.sleep(WATCH_SECONDS)

    def _raise_if_dead(self) -> None:
        for child in self._children:
            error = child.dead()
            if error is not None:
                raise error

    async def _stop(self) -> None:
        """In reverse order, each with its time; what does not go is killed."""
        self._home.stack_file.unlink(missing_ok=True)
        for child in reversed(self._children):
            child.signal_group(child.stop_signal) if child.name != "postgres" else child.process.send_signal(
                child.stop_signal
            )
            try:
                await asyncio.to_thread(child.process.wait, STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.signal_group(child.kill_signal)
                await asyncio.to_thread(child.process.wait)
        if self._watchdog is not None:
            self._tell_watchdog("stop\n")
            assert self._watchdog.stdin is not None
            self._watchdog.stdin.close()
            await asyncio.to_thread(self._watchdog.wait)


def stack_running(home: Home) -> int | None:
    """The supervisor's process id if its stack runs; a stale `stack.json` (after a crash) does not count."""
    try:
        stack = home.stack()
    except Unavailable:
        return None
    pid = stack.pids["up"]
    return pid if is_supervisor(pid) else None


def is_supervisor(pid: int) -> bool:
    """Whether this process id still is a `deptbus up`: ids are reused."""
    try:
        command = subprocess.run(
            ["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return False
    return " up" in command and ("deptbus" in command or "deploy.cli" in command)


async def stop_running(home: Home) -> bool:
    """Asks the supervisor to stop and waits until it is gone; False if none ran."""
    pid = stack_running(home)
    if pid is None:
        home.stack_file.unlink(missing_ok=True)
        return False
    os.kill(pid, signal.SIGINT)
    deadline = time.monotonic() + 4 * STOP_SECONDS
    while is_supervisor(pid):
        if time.monotonic() > deadline:
            raise Unavailable(Code.CHILD_DEAD, f"process {pid} does not stop: see {home.logs}")
        await asyncio.sleep(WATCH_SECONDS)
    return True


async def _kafka_answers(bootstrap_servers: str) -> None:
    client = await producer(bootstrap_servers, "up")
    await client.stop()


async def _postgres_answers(dsn: str, *, create: bool) -> str:
    if create:
        # A server that still starts says so (CannotConnectNow), which is asked again.
        admin = await connect(dsn.rsplit("/", 1)[0] + "/postgres")
        try:
            with suppress(asyncpg.DuplicateDatabaseError):
                await admin.execute(f'CREATE DATABASE "{postgres.DATABASE}"')
        finally:
            await admin.close()
    connection = await connect(dsn)
    await connection.close()
    return dsn


async def _ready(metrics_url: str) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
        answer = await client.get(metrics_url.replace("/metrics", "/readyz"))
        answer.raise_for_status()
