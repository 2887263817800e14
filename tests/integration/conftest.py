"""Two gateways over the session's stack, a fresh world for each test, and one plant whose parts may be killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from bus.pki import write_private
from deploy.home import Home, Stack
from deploy.stack.child import free_ports
from tests.faults.plant import Plant, gateway, until_ready
from tests.integration.bus import Place, World, place_of, place_on

BASE_URL = "https://gateway.example"  # of the second gateway: the stack's own was told none


@pytest.fixture(scope="session")
def place(home: Home, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The session's stack and a second gateway beside its own: same keys, same engines, another process."""
    port, folder = free_ports(1)[0], tmp_path_factory.mktemp("second-gateway")
    log, dsn_file, tls = folder / "gateway.log", folder / "dsn", home.bus / "tls" / "gateway.pem"
    write_private(dsn_file, stack.postgres.encode())
    with gateway(home.bus, stack.kafka, dsn_file, port, tls, log, "--base-url", BASE_URL) as probes:
        asyncio.run(until_ready(probes))
        first = place_on(home, stack, folder)
        gateways, metrics = (*first.gateways, f"https://127.0.0.1:{port}"), (*first.metrics, f"{probes}/metrics")
        yield replace(first, gateways=gateways, metrics=metrics, logs=(*first.logs, log))


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
    async with World(place_of(plant)) as made:
        yield made
