"""A bus of its own for a bench: a new database, a market department that issues, and consumers."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from urllib.request import urlopen

import structlog

from bus.identity import Identity
from bus.topics import LICENCE_PARTITIONS, Topic, apply
from bus.transport import Cluster
from deploy import bootstrap
from deploy.bootstrap import Bus
from deploy.commands.stack import start_detached
from deploy.home import Home, Stack
from deploy.stack.supervisor import stop_running
from deploy.stack.tls import TransportAuthority
from tests.bench.sample import ISSUER, ITEM

BANK = "112106000050000185"  # synthetic
PLAIN_TOPIC = "plain"  # the peer's, with as many partitions as the bus's own
READY_SECONDS = 30.0
STOP_SECONDS = 10.0

Said = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where things are. `market` issues business licences, `bank` receives them and may read the audit trail."""

    folder: Path
    kafka: Cluster  # as its administrator
    servers: str
    tls: Path
    postgres: str
    bus: Bus
    market: Identity
    bank: Identity


@contextmanager
def world(runner: asyncio.Runner, said: Said) -> Iterator[World]:
    """Kafka and PostgreSQL of its own with a bus on them; all of it is gone afterwards."""
    folder = Path(mkdtemp(prefix="deptbus-bench-"))
    home = Home(folder / "home")
    said("starting Kafka and PostgreSQL")
    try:
        stack = runner.run(start_detached(home, bare=True, quiet=True))
        said("setting up a bus")
        yield runner.run(_set_up(folder, stack))
    finally:
        runner.run(stop_running(home))
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def process(
    there: World, name: str, module: str = "deploy.process", *, clear: bool = False
) -> Iterator[tuple[int, str, str]]:
    """A gateway or recorder as its own process: its pid, its URL and that of its metrics, once it says that it is
    ready. `clear`: without TLS.
    """
    port, metrics_port = free_port(), free_port()
    dsn = there.folder / "dsn"
    dsn.write_text(there.postgres, "utf-8")
    command = [
        *(sys.executable, "-m", module, name, "--bus", str(there.bus.folder), "--kafka", there.servers),
        *("--postgres-file", str(dsn), "--port", str(port), "--metrics-port", str(metrics_port)),
        *(() if clear else ("--tls", str(there.tls))),
    ]
    log = there.folder / f"{name}.log"
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, cwd=Path(__file__).parents[2])
    try:
        _wait_ready(child, f"http://127.0.0.1:{metrics_port}/readyz", log)
        yield child.pid, f"http{'' if clear else 's'}://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}/metrics"
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()


def quiet() -> None:
    """Errors only, on stderr."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


async def _set_up(folder: Path, stack: Stack) -> World:
    kafka, postgres = stack.administrator, stack.postgres
    tls = TransportAuthority(folder / "bus" / "tls").server("gateway")
    bus = await bootstrap.prepare(folder / "bus", kafka, postgres)
    market = await bootstrap.add_org(
        bus, folder / "market", kafka, postgres, name="market", uscc=ISSUER, issues=[(ITEM, "")], receives=[]
    )
    bank = await bootstrap.add_org(
        bus, folder / "bank", kafka, postgres, name="bank", uscc=BANK, issues=[], receives=[ITEM], auditor=True
    )
    plain = Topic(name=PLAIN_TOPIC, partitions=LICENCE_PARTITIONS, config={})
    await apply(kafka, [plain], replication=1)
    return World(
        folder=folder,
        kafka=kafka,
        servers=stack.kafka,
        tls=tls,
        postgres=postgres,
        bus=bus,
        market=market,
        bank=bank,
    )


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_ready(child: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        try:
            with urlopen(url, timeout=1) as answer:
                if json.load(answer)["status"] == "ready":
                    return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"a process did not become ready; its log ends:\n{log.read_text('utf-8')[-2000:]}")
