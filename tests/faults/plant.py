"""A whole bus whose every process can be killed and started again on its own: what `deptbus up` refuses to be."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from bus import db
from bus.client import GatewayClient
from bus.identity import Identity
from bus.kafka import producer
from bus.pki import write_private
from deploy import bootstrap
from deploy.demo.agreeing import agree
from deploy.stack import kafka, postgres
from deploy.stack.child import Child, free_ports, start
from deploy.stack.tls import TransportAuthority, administrator
from schemas.errors import DeptbusError

READY_SECONDS = 90.0
STOP_SECONDS = 10  # of a gateway's own: it answers what is under way
ROOT = Path(__file__).resolve().parents[2]
PROVIDER = ("market", "11330411MB2A00011E")
CONSUMER = ("tax", "12350600400000018P")
ITEM = "business-licence"
DUTY = "税收征收管理法 第十五条"
PURPOSE = "tax-registration"
SECTION = "identity"


def agreement(*grounds: str) -> dict[str, Any]:
    """What the consumer of the provider's licences applies for."""
    return {
        "provider": PROVIDER[1],
        "item": ITEM,
        "sections": [SECTION],
        "purposes": [PURPOSE],
        "grounds": list(grounds),
        "duties": [DUTY],
        "valid_from": "2020-01-01",
    }


class Plant:
    """Kafka, PostgreSQL, gateway and recorder on fixed ports, each a child of this process."""

    def __init__(self, folder: Path, *, module: str = "deploy.process") -> None:
        self.folder = folder
        self._module = module
        self.children: dict[str, Child] = {}
        ports = free_ports(8)
        self.node = kafka.Node(1, *ports[:3])
        self.postgres_port, self.gateway_port, *self.metrics_ports = ports[3:]
        self.kafka = f"127.0.0.1:{self.node.client}"
        self.tls = TransportAuthority(folder / "bus" / "tls")
        self.administrator = administrator(self.tls, f"127.0.0.1:{self.node.internal}")
        self.certificate = self.tls.server("gateway")
        self.gateway = f"https://127.0.0.1:{self.gateway_port}"
        self.dsn = ""

    async def up(self) -> None:
        """Everything, and the two departments with their agreement."""
        await self.start("kafka")
        await self.start("postgres")
        self.bus = await bootstrap.prepare(self.folder / "bus", self.administrator, self.dsn)
        self.provider = await self.join(*PROVIDER, issues=[(ITEM, "")], receives=[])
        self.consumer = await self.join(*CONSUMER, issues=[], receives=[ITEM])
        for name in ("access", "recorder", "gateway"):
            await self.start(name)
        await self._agree()

    async def _agree(self) -> None:
        """Without it nothing would ever be released, and no fault could show."""
        async with (
            GatewayClient(self.provider, [self.gateway]) as provider,
            GatewayClient(self.consumer, [self.gateway]) as consumer,
        ):
            await agree(provider, consumer, agreement("STATUTORY_DUTY"))

    async def join(
        self, name: str, uscc: str, *, issues: Sequence[tuple[str, str]], receives: Sequence[str]
    ) -> Identity:
        return await bootstrap.add_org(
            self.bus,
            self.folder / "orgs" / name,
            self.administrator,
            self.dsn,
            name=name,
            uscc=uscc,
            issues=issues,
            receives=receives,
        )

    async def start(self, name: str) -> None:
        """Starts (again) and waits until it answers."""
        logs = self.folder / "logs"
        log = logs / f"{name}-{time.monotonic_ns()}.log"
        match name:
            case "kafka":
                files = await asyncio.to_thread(kafka.resolve)
                properties = await asyncio.to_thread(kafka.prepare, files, self.folder / "kafka", self.node, self.tls)
                self.children[name] = kafka.run(files, properties, logs)
                await _until(self._kafka_answers)
            case "postgres":
                password = await asyncio.to_thread(postgres.prepare, self.folder / "postgres")
                self.dsn = postgres.dsn(password, self.postgres_port)
                write_private(self.folder / "dsn", self.dsn.encode())

                async def answers() -> None:
                    # The backends of one that was killed may live a moment longer, and hold its memory: tried again.
                    if name not in self.children or self.children[name].process.poll() is not None:
                        self.children[name] = postgres.run(self.folder / "postgres", self.postgres_port, logs)
                    await self._postgres_answers()

                await _until(answers)
            case _:
                arguments = [sys.executable, "-m", self._module, *self.arguments(name)]

                async def ready() -> None:
                    # An engine that is away at the wrong moment ends it: an operator's supervisor starts it again.
                    if name not in self.children or self.children[name].process.poll() is not None:
                        self.children[name] = start(name, arguments, log)
                    await _ready(f"{self.metrics(name)}/readyz")

                await _until(ready)

    def arguments(self, name: str) -> list[str | Path]:
        """Of `deploy.process` for the gateway, the recorder, or what keeps access rules."""
        return [
            *(name, "--bus", self.folder / "bus", "--kafka", self.kafka, "--postgres-file", self.folder / "dsn"),
            *("--port", str(self.gateway_port), "--tls", self.certificate, "--login", self.tls.folder),
            *("--base-url", self.gateway),
            *("--metrics-port", self.metrics(name).rpartition(":")[2]),
        ]

    def metrics(self, name: str) -> str:
        """Where one of them has its metrics and probes."""
        return f"http://127.0.0.1:{self.metrics_ports[('gateway', 'recorder', 'access').index(name)]}"

    def load(self, name: str, *arguments: Any) -> Child:
        """A process of the load: publisher, adapter or subscriber."""
        module = [sys.executable, "-m", "tests.faults.load"]
        command: list[str | Path] = [*module, name, "--plant", self.folder, *map(str, arguments)]
        log = self.folder / "logs" / f"{name}-{time.monotonic_ns()}.log"
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return start(name, command, log, environment=environment)

    def kill(self, name: str) -> None:
        """SIGKILL, without a chance to say anything."""
        kill(self.children[name])

    def down(self) -> None:
        for child in reversed(list(self.children.values())):
            child.signal_group(signal.SIGKILL)
            with suppress(Exception):
                child.process.wait(10)

    async def _kafka_answers(self) -> None:
        with socket.create_connection(("127.0.0.1", self.node.internal), 5):
            pass  # first a plain look: aiokafka logs every refusal
        client = await producer(self.administrator, "plant")
        await client.stop()

    async def _postgres_answers(self) -> None:
        admin = await db.connect(self.dsn.rsplit("/", 1)[0] + "/postgres")
        try:
            with suppress(asyncpg.DuplicateDatabaseError):
                await admin.execute(f'CREATE DATABASE "{postgres.DATABASE}"')
        finally:
            await admin.close()


def kill(child: Child) -> None:
    child.signal_group(signal.SIGKILL)
    child.process.wait(10)


@contextmanager
def gateway(bus: Path, kafka: str, dsn_file: Path, port: int, tls: Path, log: Path, *more: str | Path) -> Iterator[str]:
    """One more gateway's process. Where its metrics and probes are: `until_ready` waits for it."""
    metrics = free_ports(1)[0]
    arguments = [
        *(sys.executable, "-m", "deploy.process", "gateway", "--bus", bus, "--kafka", kafka),
        *("--postgres-file", dsn_file, "--port", str(port), "--metrics-port", str(metrics), "--tls", tls, *more),
    ]
    child = start("gateway", arguments, log)
    try:
        yield f"http://127.0.0.1:{metrics}"
    finally:
        child.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(STOP_SECONDS)
        kill(child)


async def until_ready(url: str) -> None:
    """Asks a process's probe, by where its metrics are."""
    await _until(lambda: _ready(f"{url}/readyz"))


async def _until(ask: Any) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            await ask()
        except (DeptbusError, OSError, httpx.HTTPError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            return


async def _ready(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        (await client.get(url)).raise_for_status()
