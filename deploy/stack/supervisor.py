"""`deptbus up`: starts engines and processes in order, watches them, stops them in reverse.

The first part that dies ends the rest: half a stack would only look like one. `stack.json` is written when everything
is ready and removed when it stops.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx

from bus.db import connect
from bus.kafka import producer
from bus.pki import write_private
from bus.transport import Cluster
from deploy import bootstrap
from deploy.home import Home, Stack
from deploy.stack import accounts, kafka, lock, postgres
from deploy.stack.child import Child, bound_log, free_ports, start
from deploy.stack.tls import TransportAuthority, administrator
from schemas.errors import Code, DeptbusError, Malformed, Misuse, Unavailable

FORMAT = 1  # of DEPTBUS_HOME's layout
READY_SECONDS = 90.0  # Kafka takes 3 to 5 s on two idle cores; a loaded machine many times that
GIVEN_READY_SECONDS = 5.0  # a server that was running before `up`
STOP_SECONDS = 20.0  # Kafka flushes its logs
WATCH_SECONDS = 0.2
CONNECT_SECONDS = 5.0
LOG_SECONDS = 5.0  # between looks at the logs' sizes
MIN_FREE_BYTES = 1024 * 1024 * 1024  # Kafka's and PostgreSQL's first files take some 300 MB
# Below this it stops by itself, in order: engines that meet a full disk crash, and recover at the next start.
LOW_FREE_BYTES = 128 * 1024 * 1024
Progress = Callable[[str], None]


class Supervisor:
    """One stack in one home."""

    def __init__(
        self,
        home: Home,
        *,
        kafka_at: str | None,
        kafka_login: Path | None,
        postgres_at: str | None,
        port: int | None,
        base_url: str | None,
        client_ca: Path | None,
        bare: bool,
        say: Progress,
    ) -> None:
        self._home = home
        self._kafka_at = kafka_at
        self._kafka_login = kafka_login
        self._postgres_at = postgres_at
        self._port = port
        self._base_url = base_url
        self._client_ca = client_ca
        self._bare = bare
        self._say = say
        self._children: list[Child] = []
        self._helpers: list[Child] = []  # such as initdb: they end by themselves
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._logs_seen = 0.0

    async def run(self, ready: Callable[[Stack], None], stop: asyncio.Event) -> None:
        """Starts, calls `ready`, runs until `stop` is set. Raises what ended it otherwise."""
        self._check_arguments()
        with writable(self._home.path):
            self._home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = await asyncio.to_thread(lock.HomeLock.take, self._home.path)
        try:
            with writable(self._home.path):
                self._home.stack_file.unlink(missing_ok=True)  # of a supervisor that was killed
                self._check_home()
                await self._run(held, ready, stop)
        finally:
            held.release()

    async def _run(self, held: lock.HomeLock, ready: Callable[[Stack], None], stop: asyncio.Event) -> None:
        self._watchdog = subprocess.Popen(  # noqa: ASYNC220 - starting takes milliseconds; nothing waits for it
            [sys.executable, "-m", "deploy.stack.watchdog", str(held.descriptor)],
            stdin=subprocess.PIPE,
            start_new_session=True,
            pass_fds=[held.descriptor],
        )
        try:
            stack = await self._started(stop)
            self._home.write_stack(stack)
            ready(stack)
            while not stop.is_set():
                self._watch()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), WATCH_SECONDS)
        finally:
            await self._stop()

    async def _started(self, stop: asyncio.Event) -> Stack:
        """The stack, or `Unavailable` as soon as it is to stop: a download or an initdb is not waited for."""
        starting = asyncio.ensure_future(self._start())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not starting.done():
            starting.cancel()
            raise Unavailable(Code.STACK_NOT_RUNNING, f"stopped while it was starting; {self._home.path} is kept")
        return starting.result()

    def _check_arguments(self) -> None:
        """What can be known before anything is started."""
        if self._kafka_at is not None and not _SERVERS.fullmatch(self._kafka_at):
            raise Misuse(Code.CONFIG_INVALID, f"--kafka {self._kafka_at}: HOST:PORT is wanted, several with commas")
        if self._postgres_at is not None and not self._postgres_at.startswith(("postgresql://", "postgres://")):
            raise Misuse(Code.CONFIG_INVALID, "--postgres: postgresql://USER:PASSWORD@HOST:PORT/DATABASE is wanted")
        if self._base_url is not None:
            from bus import authzen  # and a web framework with it

            authzen.metadata(self._base_url)  # says what form it has
        if self._port is not None:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the gateway binds it
                try:
                    probe.bind(("127.0.0.1", self._port))
                except OSError as exc:
                    raise Unavailable(
                        Code.PORT_TAKEN,
                        f"the gateway's port {self._port} cannot be had ({exc.strerror}): stop what listens there "
                        "or choose another with --port",
                    ) from exc

    def _check_home(self) -> None:
        path = self._home.path
        free = shutil.disk_usage(path).free
        if self._embedded and free < MIN_FREE_BYTES:
            raise Unavailable(
                Code.DISK_FULL, f"{path} has {free >> 20} MiB free; {MIN_FREE_BYTES >> 20} are needed: free some space"
            )
        version = path / "version.json"
        if version.exists():
            _check_version(version)
        write_private(version, json.dumps({"format": FORMAT, "kafka": kafka.VERSION}).encode())

    @property
    def _embedded(self) -> bool:
        return self._kafka_at is None or self._postgres_at is None

    async def _start(self) -> Stack:
        home = self._home
        ports = free_ports(8)
        tls = TransportAuthority(home.bus / "tls")
        servers = self._kafka_at or f"127.0.0.1:{ports[0]}"
        if self._kafka_at is None:
            login, admin = tls.folder, await self._start_kafka(kafka.Node(1, *ports[:3]), tls)
        else:
            login = self._kafka_login or home.path
            admin = Cluster.of(servers, login)
        dsn = self._postgres_at or await self._start_postgres(ports[3])
        await self._until("Kafka", lambda: _kafka_answers(admin), given=self._kafka_at is not None)
        create = self._postgres_at is None
        await self._until("PostgreSQL", lambda: _postgres_answers(dsn, create=create), given=not create)
        gateways: list[str] = []
        metrics: dict[str, str] = {}
        if not self._bare:
            self._say("Setting up keys, tables and topics")
            bus = await bootstrap.prepare(home.bus, admin, dsn)
            await bootstrap.add_operator(bus, home.org_folder(bootstrap.OPERATOR), admin, dsn)
            gateway_port = self._port or ports[4]
            gateways = [f"https://127.0.0.1:{gateway_port}"]
            metrics = {
                "gateway": f"http://127.0.0.1:{ports[5]}/metrics",
                "recorder": f"http://127.0.0.1:{ports[6]}/metrics",
            }
            certificate = tls.server("gateway")
            dsn_file = home.path / "postgres.dsn"
            write_private(dsn_file, dsn.encode())
            self._process("recorder", servers, dsn_file, ports[6])
            if admin.login is not None:  # a Kafka spoken to in clear has no users to part
                metrics["access"] = f"http://127.0.0.1:{ports[7]}/metrics"
                self._process("access", servers, dsn_file, ports[7], "--login", str(login))
            await self._start_accounts(tls, gateways[0])  # before the gateway, which reads its registration there
            more = ["--port", str(gateway_port), "--tls", str(certificate)]
            more += [] if self._base_url is None else ["--base-url", self._base_url]
            more += [] if self._client_ca is None else ["--client-ca", str(self._client_ca)]
            self._process("gateway", servers, dsn_file, ports[5], *more)
            for name, own, port in self._own_gateways():
                metrics[name] = f"http://127.0.0.1:{(metrics_port := free_ports(1)[0])}/metrics"
                more = ["--port", str(port), "--tls", str(tls.server(name))]
                self._process("gateway", servers, dsn_file, metrics_port, *more, name=name, bus=own)
            for name, url in metrics.items():
                await self._until(name, lambda url=url: _ready(url))  # type: ignore[misc]
        assert self._watchdog is not None
        pids = {child.name: child.pid for child in self._children}
        return Stack(
            version=FORMAT,
            kafka=servers,
            kafka_login=str(login),
            postgres=dsn,
            gateways=gateways,
            metrics=metrics,
            pids={"up": os.getpid(), "watchdog": self._watchdog.pid, **pids},
            ca=str(home.bus / "ca" / "ca.pem"),
            tls_ca=str(tls.file),
            logs={child.name: str(child.log) for child in self._children},
        )

    async def _start_kafka(self, node: kafka.Node, tls: TransportAuthority) -> Cluster:
        """The cluster as its administrator."""
        self._say("Finding Kafka's jars (fetched once)")
        logs, folder = self._home.logs, self._home.path / "kafka"
        files = await asyncio.to_thread(kafka.resolve, logs, self._helper)
        self._say(f"Starting Apache Kafka {kafka.VERSION}")
        properties = await asyncio.to_thread(kafka.prepare, files, folder, node, tls, self._helper)
        kafka.run(files, properties, logs, self._add)
        return administrator(tls, f"127.0.0.1:{node.internal}")

    async def _start_postgres(self, port: int) -> str:
        self._say("Starting PostgreSQL")
        folder = self._home.path / "postgres"
        password = await asyncio.to_thread(postgres.prepare, folder, self._helper)
        postgres.run(folder, port, self._home.logs, self._add)
        return postgres.dsn(password, port)

    async def _start_accounts(self, tls: TransportAuthority, gateway: str) -> None:
        """The local OpenID provider, unless the bus was told another."""
        home = self._home
        client = await asyncio.to_thread(accounts.register, home.bus, tls)
        if client is None:
            return
        self._say("Starting the accounts")
        arguments = accounts.arguments(home.path, home.bus, tls, accounts.port_of(client), gateway)
        start("accounts", arguments, home.logs / "accounts.log", announce=self._add)
        await self._until("accounts", lambda: accounts.answers(client))

    def _own_gateways(self) -> Iterator[tuple[str, Path, int]]:
        """Name, folder and port of those departments' own gateways that are reached on this machine."""
        for folder in sorted((self._home.path / "orgs").glob("*")):
            own = bootstrap.own_gateway(folder)
            if (own / "config.json").exists():
                for url in map(urlsplit, bootstrap.Bus.load(own).signer("gateway").urls):
                    if url.hostname in ("127.0.0.1", "localhost"):
                        port = url.port or 443
                        yield f"gateway-{folder.name}-{port}", own, port

    def _process(
        self,
        process: str,
        bootstrap_servers: str,
        dsn_file: Path,
        metrics_port: int,
        *more: str,
        name: str = "",
        bus: Path | None = None,
    ) -> None:
        """`name` is the process's own, if several do the same; `bus` the folder that it is of."""
        name = name or process
        self._say(f"Starting the {name}")
        arguments: list[str | Path] = [
            *(sys.executable, "-m", "deploy.process", process, "--bus", bus or self._home.bus),
            *("--kafka", bootstrap_servers, "--postgres-file", dsn_file, "--metrics-port", str(metrics_port)),
            *more,
        ]
        start(name, arguments, self._home.logs / f"{name}.log", announce=self._add)

    def _add(self, child: Child) -> None:
        """From here on it ends when this process ends, however that is; it has not begun yet."""
        self._children.append(child)
        self._announce(child)

    def _helper(self, child: Child) -> None:
        """The same for what ends by itself. Its id may be another's by then: the watchdog forgets those."""
        for ended in [one for one in self._helpers if one.process.poll() is not None]:
            self._helpers.remove(ended)
            self._tell_watchdog(f"-{ended.pid}\n")
        self._helpers.append(child)
        self._announce(child)

    def _announce(self, child: Child) -> None:
        if self._stopping:
            raise Unavailable(Code.STACK_NOT_RUNNING, "stopped while it was starting")
        self._tell_watchdog(f"{child.pid} {int(child.kill_signal)}\n")

    def _tell_watchdog(self, line: str) -> None:
        assert self._watchdog is not None
        assert self._watchdog.stdin is not None
        with suppress(BrokenPipeError):  # `_watch` finds that it is gone
            self._watchdog.stdin.write(line.encode())
            self._watchdog.stdin.flush()

    async def _until(self, what: str, ask: Callable[[], Awaitable[Any]], *, given: bool = False) -> None:
        """Asks again until it answers. A child that died meanwhile says why."""
        seconds = GIVEN_READY_SECONDS if given else READY_SECONDS
        deadline = time.monotonic() + seconds
        while True:
            self._watch()
            try:
                await ask()
            except (DeptbusError, OSError, httpx.HTTPError, asyncpg.PostgresError) as exc:
                # A wrong password or database stays wrong; everything else may be a server that still starts.
                if time.monotonic() > deadline or isinstance(exc, asyncpg.PostgresError):
                    self._watch()
                    if given:
                        code = Code.KAFKA_UNAVAILABLE if what == "Kafka" else Code.POSTGRES_UNAVAILABLE
                        raise Unavailable(
                            code, f"the {what} that was given does not answer ({exc}): check its address"
                        ) from exc
                    if isinstance(exc, asyncpg.InternalServerError):  # SQLSTATE XX...: a file is not as it should be
                        raise Malformed(
                            Code.DATA_CORRUPT,
                            f"{what}'s data is damaged ({exc}): restore a backup, or move the folder away to start "
                            f"empty; logs: {self._home.logs}",
                        ) from exc
                    detail = f"{what} did not get ready ({exc}); logs: {self._home.logs}"
                    raise Unavailable(Code.CHILD_DEAD, detail) from exc
            else:
                return
            await asyncio.sleep(WATCH_SECONDS)

    def _watch(self) -> None:
        """Raises why the stack must end now: a dead child, or a disk that is nearly full. Engines come first."""
        for child in self._children:
            error = child.dead()
            if error is not None:
                raise error
        if self._watchdog is not None and self._watchdog.poll() is not None:
            raise Unavailable(
                Code.CHILD_DEAD, f"the watchdog ended with {self._watchdog.returncode}: run `deptbus up` again"
            )
        if time.monotonic() - self._logs_seen > LOG_SECONDS:
            self._logs_seen = time.monotonic()
            for child in self._children:
                bound_log(child.log)
        free = shutil.disk_usage(self._home.path).free
        if self._embedded and free < LOW_FREE_BYTES:
            raise Unavailable(
                Code.DISK_FULL,
                f"{self._home.path} has {free >> 20} MiB left: stopped in order, with all data kept; free some space "
                "and run `deptbus up` again",
            )

    async def _stop(self) -> None:
        """In reverse order, each with its time; what does not go is killed. A child that is dead already is fine."""
        self._stopping = True
        with suppress(OSError):
            self._home.stack_file.unlink(missing_ok=True)
        for helper in self._helpers:
            if helper.process.poll() is None:
                helper.signal_group(signal.SIGKILL)
        for child in reversed(self._children):
            if child.process.poll() is None:
                # PostgreSQL's workers take the signal of their parent's choice, not this one.
                child.process.send_signal(child.stop_signal)
            try:
                await asyncio.to_thread(child.process.wait, STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.signal_group(child.kill_signal)
                await asyncio.to_thread(child.process.wait)
            child.signal_group(signal.SIGKILL)  # what it may have left behind
        if self._watchdog is not None:
            self._tell_watchdog("stop\n")
            assert self._watchdog.stdin is not None
            with suppress(BrokenPipeError):
                self._watchdog.stdin.close()
            await asyncio.to_thread(self._watchdog.wait)


_SERVERS = re.compile(r"[^\s:,]+:\d{1,5}(,[^\s:,]+:\d{1,5})*|\[[0-9a-fA-F:]+\]:\d{1,5}")


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """A home that cannot be written is said so in one sentence."""
    try:
        yield
    except OSError as exc:
        where = exc.filename or path
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable(Code.DISK_FULL, f"{where} cannot be written ({exc.strerror}): free some space") from exc
        raise Misuse(
            Code.CONFIG_INVALID,
            f"{where} cannot be used ({exc.strerror}): give your user the right, or choose another DEPTBUS_HOME",
        ) from exc


def _check_version(path: Path) -> None:
    """The layout is ours, and Kafka's files are not of a later Kafka than this one: it cannot go back."""
    try:
        found = json.loads(path.read_text("ascii"))
        layout, broker = found["format"], found["kafka"]
        later = tuple(map(int, broker.split("."))) > tuple(map(int, kafka.VERSION.split(".")))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise Malformed(
            Code.DATA_CORRUPT, f"{path} cannot be read: restore it, or move {path.parent} away to start empty"
        ) from exc
    if layout != FORMAT:
        raise Malformed(
            Code.DATA_VERSION,
            f"{path.parent} is of format {layout}, this deptbus writes {FORMAT}: use the deptbus that wrote it, "
            "or another DEPTBUS_HOME",
        )
    if later:
        raise Malformed(
            Code.DATA_VERSION,
            f"{path.parent} was written by Kafka {broker}, this is {kafka.VERSION}: use the deptbus that wrote it, "
            "or another DEPTBUS_HOME",
        )


def stack_running(home: Home) -> int | None:
    """The process id of the `deptbus up` that has this home, ready or still starting; None if none has."""
    return lock.holder(home.path)


async def stop_running(home: Home) -> bool:
    """Asks the supervisor to stop and waits until it is gone; False if none ran."""
    pid = stack_running(home)
    if pid is None:
        with suppress(OSError):
            home.stack_file.unlink(missing_ok=True)
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)  # a shell that put `up` in the background has it ignore SIGINT
    deadline = time.monotonic() + 4 * STOP_SECONDS
    while lock.holder(home.path) is not None:
        if time.monotonic() > deadline:
            raise Unavailable(Code.CHILD_DEAD, f"process {pid} does not stop: see {home.logs}")
        await asyncio.sleep(WATCH_SECONDS)
    # The lock goes last but for the interpreter's own end, which is not worth more than a moment.
    for _ in range(100):
        if not lock.lives(pid):
            break
        await asyncio.sleep(0.02)
    return True


async def _kafka_answers(cluster: Cluster) -> None:
    # A plain look first: aiokafka logs every refusal as an error, and a broker that starts refuses for seconds.
    host, _, port = cluster.servers.partition(",")[0].rpartition(":")
    _, writer = await asyncio.wait_for(asyncio.open_connection(host.strip("[]"), int(port)), CONNECT_SECONDS)
    writer.close()
    client = await producer(cluster, "up")
    await client.stop()


async def _postgres_answers(dsn: str, *, create: bool) -> None:
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


async def _ready(metrics_url: str) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
        answer = await client.get(metrics_url.replace("/metrics", "/readyz"))
        if not answer.is_success:
            raise Unavailable(Code.CHILD_DEAD, f"it says {answer.text[:1_000]}")
