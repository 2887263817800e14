"""Two gateways over the session's stack, a fresh world for each test, and one plant whose parts may be killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bus.pki import write_private
from deploy.home import Home, Stack
from deploy.stack.child import free_ports
from tests.faults.plant import Plant, _ready, _until
from tests.integration.bus import Place, World

STOP_SECONDS = 10
BASE_URL = "https://gateway.example"  # of the second gateway: the stack's own was told none


@pytest.fixture(scope="session")
def place(home: Home, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The session's stack and a second gateway beside its own: same keys, same engines, another process."""
    port, metrics = free_ports(2)
    folder = tmp_path_factory.mktemp("second-gateway")
    log, dsn_file = folder / "gateway.log", folder / "dsn"
    write_private(dsn_file, stack.postgres.encode())
    arguments: list[str | Path] = [
        *(sys.executable, "-m", "deploy.process", "gateway", "--bus", home.bus, "--kafka", stack.kafka),
        *("--postgres-file", dsn_file, "--port", str(port), "--metrics-port", str(metrics)),
        *("--base-url", BASE_URL, "--tls", home.bus / "tls" / "gateway.pem"),
    ]
    with log.open("wb") as output:
        child = subprocess.Popen(list(map(str, arguments)), stdout=output, stderr=output)
    try:
        asyncio.run(_until(lambda: _ready(f"http://127.0.0.1:{metrics}/readyz")))
        yield Place(
            bus=home.load_bus(),
            kafka=stack.administrator,
            servers=stack.kafka,
            dsn=stack.postgres,
            gateways=(*stack.gateways, f"https://127.0.0.1:{port}"),
            metrics=(*stack.metrics.values(), f"http://127.0.0.1:{metrics}/metrics"),
            logs=(*map(Path, stack.logs.values()), log),
            folder=folder,
        )
    finally:
        child.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS)
        child.kill()


@pytest.fixture
async def world(place: Place) -> AsyncIterator[World]:
    """What a test does on the bus; its departments and firms are its own."""
    async with World(place) as made:
        yield made


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A bus of its own, for tests that kill a part or damage the index."""
    made = Plant(tmp_path_factory.mktemp("plant"))
    try:
        asyncio.run(made.up())
        yield made
    finally:
        made.down()


@pytest.fixture
async def killable(plant: Plant) -> AsyncIterator[World]:
    """A world on the plant."""
    place = Place(
        bus=plant.bus,
        kafka=plant.administrator,
        servers=plant.kafka,
        dsn=plant.dsn,
        gateways=(plant.gateway,),
        metrics=(),
        logs=(),
        folder=plant.folder,
    )
    async with World(place) as made:
        yield made
