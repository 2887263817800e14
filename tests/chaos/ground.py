"""Hostile ground: a bus of several hosts' processes on one, each of which can be harmed and none of which is helped.

Three brokers (three copies of everything), PostgreSQL, two gateways, two recorders of which one stands by, who keeps
Kafka's access rules, and a load.
Whatever ends is started again half a second later, as systemd does with `Restart=always`: there is no other help.
Every connection goes through a line of ours (`tests.faults.cut`), brokers' among each other too, but the controllers'.
Brokers and PostgreSQL keep their data on disks of a size of their own, where this may mount them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from bus import db
from bus.client import GatewayClient
from bus.pki import write_private
from deploy import bootstrap
from deploy.demo.agreeing import agree
from deploy.stack import kafka, postgres
from deploy.stack.child import Child, free_ports, log_tail, start
from deploy.stack.tls import TransportAuthority, administrator
from schemas.errors import DeptbusError
from tests.chaos.checker import Checker, Ledgers
from tests.faults.cut import Line
from tests.faults.plant import CONSUMER, ITEM, PROVIDER, ROOT, agreement

RESTART_SECONDS = 0.5
WATCH_SECONDS = 0.1
READY_SECONDS = 120.0
ASK_SECONDS = 5.0
BROKERS = (1, 2, 3)
SIDES = ("a", "b")
# Three brokers on two cores: one compiler only, for a start is what most faults end in. With both, a restart of all
# took 70 s instead of 48, and a full course came to 186 records a second.
FLAGS = ("-Xmx256m", "-XX:TieredStopAtLevel=1")
DISK_MIB = {"broker": 4_096, "postgres": 8_192}  # an hour of the load takes half of it
RATE = 110.0  # records a second of each of two publishers
SINK = "chaos"
# Debian's package `faketime`: steps the clock of one process while it runs, and leaves the steady one alone.
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
# Of a cluster that loses brokers all the time: a replica that is stuck is not waited for half a minute.
SETTINGS = {"replica.lag.time.max.ms": 10_000, "min.insync.replicas": 2, "num.network.threads": 2, "num.io.threads": 4}


@dataclass(slots=True)
class Unit:
    """A process and how it is started: again, whenever it ends, unless it is held down."""

    name: str
    launch: Callable[[], Child]
    ready: Callable[[], Awaitable[Any]]
    child: Child | None = None
    held: bool = False
    ended_at: float = 0.0
    starts: int = 0
    ends: list[str] = field(default_factory=list)  # by itself: what it said

    @property
    def processes(self) -> list[psutil.Process]:
        """It and its children: PostgreSQL's are in sessions of their own."""
        try:
            if self.child is None or self.child.process.poll() is not None:
                return []
            process = psutil.Process(self.child.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def signal(self, number: signal.Signals) -> None:
        """To all of its processes."""
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self.signal(signal.SIGKILL)
        if self.child is not None:
            self.child.process.wait(10)


class Disk:
    """A disk of a size of its own, in a file: an async context manager."""

    def __init__(self, folder: Path, mib: int) -> None:
        self.folder = folder
        self._image = folder.with_suffix(".img")
        self._mib = mib

    async def __aenter__(self) -> Disk:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(self._mib * 1024 * 1024)
        await _run("mkfs.ext4", "-q", "-m", "0", str(self._image))
        await _run("mount", "-o", "loop", str(self._image), str(self.folder))
        self.folder.chmod(0o755)
        return self

    async def __aexit__(self, *_: object) -> None:
        for _attempt in range(50):
            with suppress(RuntimeError):
                await _run("umount", str(self.folder))
                self._image.unlink()
                return
            await asyncio.sleep(0.2)
        await _run("umount", "--lazy", str(self.folder))

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def fill(self) -> None:
        """To the last byte, however fast its owner writes."""
        with self._filler.open("ab") as file:
            for _attempt in range(3):
                for size in (64 << 20, 1 << 20, 4096):
                    with suppress(OSError):
                        while True:
                            os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
                            file.seek(0, os.SEEK_END)

    def empty(self) -> None:
        """What was taken is free again."""
        self._filler.unlink(missing_ok=True)

    def lose(self) -> None:
        """Everything on it."""
        for path in self.folder.iterdir():
            if path.name != "lost+found":
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def can_mount() -> bool:
    """Whether disks of our own can be had here."""
    return os.geteuid() == 0 and Path("/dev/loop-control").exists() and shutil.which("mkfs.ext4") is not None


class Ground:
    """An async context manager: everything runs inside."""

    def __init__(self, folder: Path, *, rate: float = RATE) -> None:
        self.folder = folder
        self._rate = rate
        ports = free_ports(3 * len(BROKERS) + 5 * len(SIDES) + 2)
        self.nodes = [kafka.Node(n, *(ports.pop() for _ in range(3))) for n in BROKERS]
        self._ports = ports
        self.units: dict[str, Unit] = {}
        self.lines: dict[str, Line] = {}
        self.disks: dict[str, Disk] = {}
        self.clocks: dict[str, Path] = {}
        self._stack = AsyncExitStack()
        self._admin: AIOKafkaAdminClient | None = None
        self.checker: Checker

    async def __aenter__(self) -> Ground:
        try:
            await self._up()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for unit in self.units.values():
            unit.held = True
        for unit in reversed(self.units.values()):
            unit.signal(signal.SIGCONT)
            unit.kill()
        if self._admin is not None:
            await self._admin.close()
        await self._stack.aclose()

    # Setting up

    async def _up(self) -> None:
        self._files = await asyncio.to_thread(kafka.resolve)
        self._cluster_id = kafka.new_cluster()
        for node in self.nodes:
            await self._line(f"client-{node.id}", node.client)
            await self._line(f"internal-{node.id}", node.internal)
        self.servers = ",".join(f"127.0.0.1:{self.lines[f'client-{n}'].port}" for n in BROKERS)
        internal = ",".join(f"127.0.0.1:{self.lines[f'internal-{n}'].port}" for n in BROKERS)
        self.tls = TransportAuthority(self.folder / "bus" / "tls")
        self.administrator = administrator(self.tls, internal)
        for node in self.nodes:
            await self._disk(f"broker-{node.id}", DISK_MIB["broker"])
            await asyncio.to_thread(self._prepare, node)
        await self._disk("postgres", DISK_MIB["postgres"])
        for node in self.nodes:
            self._add(f"broker-{node.id}", partial(self._broker, node), partial(_listens, node.client))
        self._postgres_port = self._ports.pop()
        password = await asyncio.to_thread(postgres.prepare, self.folder / "postgres")
        self.dsn = postgres.dsn(password, self._postgres_port)
        self._add("postgres", self._postgres, self._postgres_answers)
        self._stack.push_async_callback(_cancel, asyncio.create_task(self._supervise()))
        await self.until("the engines", lambda: self._answer("broker-1", "broker-2", "broker-3", "postgres"))
        await self.until("Kafka's copies", self._copies)
        bus = await bootstrap.prepare(self.folder / "bus", self.administrator, self.dsn)
        provider, consumer = [
            await bootstrap.add_org(
                bus,
                self.folder / "orgs" / name,
                self.administrator,
                self.dsn,
                name=name,
                uscc=uscc,
                issues=i,
                receives=r,
            )
            for (name, uscc), i, r in ((PROVIDER, [(ITEM, "")], []), (CONSUMER, [], [ITEM]))
        ]
        certificate = self.tls.server("gateway")
        urls = []
        await self._process("access", "", "--login", str(self.tls.folder))
        for side in SIDES:
            await self._process("recorder", side)
        for side in SIDES:
            port = self._ports.pop()
            reached = f"127.0.0.1:{await self._line(f'http-{side}', port)}"
            await self._process("gateway", side, "--port", str(port), "--tls", str(certificate), "--name", reached)
            urls.append(f"https://{reached}")
        await self.until("gateways and recorders", lambda: self._answer(*self.units))
        async with GatewayClient(provider, urls) as one, GatewayClient(consumer, urls) as other:
            await agree(one, other, agreement("STATUTORY_DUTY", "CONSENT"))
        self._load(urls, internal)
        self.checker = Checker(
            kafka=self.administrator.options(),
            dsn=self.dsn,
            item=ITEM,
            sink=SINK,
            ledgers=Ledgers(
                acknowledged=tuple(
                    self.folder / name / "acknowledged" for name in ("publisher-a", "publisher-b", "citizen")
                ),
                released=self.folder / "subscriber" / "released",
                consented=self.folder / "citizen" / "released",
                withdrawn=self.folder / "citizen" / "withdrawn",
                late=self.folder / "citizen" / "late",
            ),
            vkey=(self.folder / "bus" / "log" / "log.vkey").read_text("utf-8"),
            schemas=ROOT / "schemas" / "wire",
        )
        self._stack.push_async_callback(self.checker.close)
        self._stack.push_async_callback(_cancel, asyncio.create_task(self.checker.watch()))

    async def _line(self, name: str, port: int) -> int:
        self.lines[name] = await self._stack.enter_async_context(Line(port))
        return self.lines[name].port

    async def _disk(self, name: str, mib: int) -> None:
        if can_mount():
            self.disks[name] = await self._stack.enter_async_context(Disk(self.folder / name, mib))

    def _add(self, name: str, launch: Callable[[], Child], ready: Callable[[], Awaitable[Any]]) -> None:
        self.units[name] = Unit(name, launch, ready)

    def _prepare(self, node: kafka.Node) -> Path:
        """The broker's configuration, and its storage if it has none."""
        made = kafka.prepare(
            self._files, self.folder / f"broker-{node.id}", node, self.tls, quorum=self.nodes, cluster=self._cluster_id
        )
        lines = [f"{name}-{node.id}" for name in ("client", "internal")]
        client, internal = (self.lines[line].port for line in lines)
        more = SETTINGS | {"advertised.listeners": f"CLIENT://127.0.0.1:{client},INTERNAL://127.0.0.1:{internal}"}
        with made.open("a", encoding="ascii") as file:  # of two lines for one setting the last one counts
            file.writelines(f"{key}={value}\n" for key, value in more.items())
        return made

    def _broker(self, node: kafka.Node) -> Child:
        properties = self.folder / f"broker-{node.id}" / "server.properties"
        if not properties.exists():  # its disk was lost: it comes back empty, with its id
            properties = self._prepare(node)
        return kafka.run(self._files, properties, self.folder / "logs" / f"broker-{node.id}", flags=FLAGS)

    def _postgres(self) -> Child:
        return postgres.run(self.folder / "postgres", self._postgres_port, self.folder / "logs")

    async def _process(self, what: str, side: str = "", *more: str) -> None:
        name, metrics = f"{what}-{side}".rstrip("-"), self._ports.pop()
        port = await self._line(f"postgres-{name}", self._postgres_port)
        dsn = self.folder / f"{name}.dsn"
        write_private(dsn, self.dsn.replace(f":{self._postgres_port}/", f":{port}/").encode())
        arguments: list[str | Path] = [sys.executable, "-m", "deploy.process", what, "--bus", self.folder / "bus"]
        kafka_at = self.administrator.servers if what == "access" else self.servers
        arguments += ["--kafka", kafka_at, "--postgres-file", dsn, "--metrics-port", str(metrics), *more]
        self._add(name, lambda: self._python(name, arguments), lambda: _ready(f"http://127.0.0.1:{metrics}/readyz"))

    def _load(self, urls: Sequence[str], internal: str) -> None:
        gateways = [part for url in urls for part in ("--gateway", url)]
        observer = ("--internal", internal, "--observer", self.tls.folder)
        first = 1_000_000
        for name, what, more in (
            ("publisher-a", "publisher", ("--rate", self._rate, "--first", first)),
            ("publisher-b", "publisher", ("--rate", self._rate, "--first", 100 * first)),
            ("subscriber", "subscriber", (*gateways, "--dsn", self.dsn, "--table", SINK)),
            ("citizen", "citizen", (*gateways, *observer, "--first", 200 * first)),
        ):
            own = self.folder / name
            own.mkdir()
            arguments = [
                *(sys.executable, "-m", "tests.chaos.load", what, "--plant", self.folder, "--folder", own),
                *("--kafka", self.servers, *map(str, more)),
            ]
            self._add(name, lambda name=name, arguments=arguments: self._python(name, arguments), _nothing)  # type: ignore[misc]

    def _python(self, name: str, arguments: Sequence[str | Path]) -> Child:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        if FAKETIME.exists():
            clock = self.clocks.setdefault(name, self.folder / f"{name}.clock")
            if not clock.exists():
                clock.write_text("+0\n", "ascii")
            environment |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DISABLE_SHM": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        return start(name, arguments, self.folder / "logs" / f"{name}.log", environment=environment)

    # Running

    async def _supervise(self) -> None:
        while True:
            for unit in list(self.units.values()):
                await self._keep(unit)
            await asyncio.sleep(WATCH_SECONDS)

    async def _keep(self, unit: Unit) -> None:
        now = time.monotonic()
        if unit.child is not None and (status := unit.child.process.poll()) is not None:
            if status != -signal.SIGKILL and not unit.held:
                last = [line for line in log_tail(unit.child.log).splitlines() if line.strip()][-1:]
                unit.ends.append(f"{status}: {''.join(last)[:300]}")
            unit.child, unit.ended_at = None, now
        if unit.child is None and not unit.held and now - unit.ended_at > RESTART_SECONDS:
            try:
                unit.child = await asyncio.to_thread(unit.launch)
                unit.starts += 1
            except (OSError, DeptbusError) as exc:  # such as a disk that is full: tried again
                unit.ends.append(f"not started: {exc}"[:300])
                unit.ended_at = now

    def lose(self, name: str) -> None:
        """All of a broker's data."""
        if name in self.disks:
            self.disks[name].lose()
        else:
            shutil.rmtree(self.folder / name)

    async def until(self, what: str, ask: Callable[[], Awaitable[str]], seconds: float = READY_SECONDS) -> None:
        """Waits until it says nothing. Raises `TimeoutError` with what it said last."""
        deadline = time.monotonic() + seconds
        while said := await ask():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: {said}, after {seconds:.0f} s")
            await asyncio.sleep(0.1)

    async def well(self) -> str:
        """Why not everything is as it should be; empty if it is."""
        return await self._answer(*self.units) or await self._copies()

    async def _answer(self, *names: str) -> str:
        for name in names:
            unit = self.units[name]
            try:
                if unit.child is None or unit.child.process.poll() is not None:
                    return f"{name} does not run"
                await unit.ready()
            except (OSError, DeptbusError, httpx.HTTPError, asyncpg.PostgresError, TimeoutError) as exc:
                return f"{name} does not answer ({type(exc).__name__}: {exc})"[:300]
        return ""

    async def _copies(self) -> str:
        """Whether every partition has all of its copies in step."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                if self._admin is None:
                    admin = AIOKafkaAdminClient(**self.administrator.options(), request_timeout_ms=4_000)
                    await admin.start()
                    self._admin = admin
                topics = await self._admin.describe_topics()
        except (KafkaError, OSError, TimeoutError, AttributeError, ValueError) as exc:
            if self._admin is not None:
                admin, self._admin = self._admin, None
                with suppress(Exception):
                    await admin.close()
            return f"Kafka does not say how its copies are ({type(exc).__name__})"
        for topic in topics:
            for one in topic["partitions"]:
                if len(one["isr"]) < len(one["replicas"]):
                    return f"{topic['topic']}/{one['partition']} has copies {one['isr']} in step"
        brokers = {broker for topic in topics for one in topic["partitions"] for broker in one["replicas"]}
        return "" if not topics or len(brokers) == len(BROKERS) else f"only brokers {sorted(brokers)}"

    async def _postgres_answers(self) -> None:
        admin = await db.connect(self.dsn.rsplit("/", 1)[0] + "/postgres")
        try:
            with suppress(asyncpg.DuplicateDatabaseError):
                await admin.execute(f'CREATE DATABASE "{postgres.DATABASE}"')
        finally:
            await admin.close()


async def _listens(port: int) -> None:
    _, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), ASK_SECONDS)
    writer.transport.abort()


async def _ready(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=ASK_SECONDS) as client:
        (await client.get(url)).raise_for_status()


async def _nothing() -> None:
    """A load process shows by what it writes that it works."""


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {said.decode(errors='replace').strip()}")
