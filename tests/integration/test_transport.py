"""Who may connect, and to whom: TLS at gateways and brokers, logins, and clients' certificates where they are asked."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from aiokafka.errors import KafkaError

from bus import audit
from bus.client import GatewayClient
from bus.kafka import producer
from bus.transport import Cluster, Login, client_context
from deploy.home import Stack
from deploy.probes import Served, probes, serve
from deploy.stack.child import free_ports
from deploy.stack.tls import TransportAuthority
from schemas.errors import Code, Unavailable
from tests.integration.bus import World

SOON_SECONDS = 10.0


async def test_a_gateway_is_spoken_to_over_tls_and_by_its_name(world: World, stack: Stack, tmp_path: Path) -> None:
    """In clear, by an older TLS, under a CA that did not certify it: nothing is asked and nothing answered."""
    identity = await world.join()
    url = world.place.gateways[0]
    other = TransportAuthority(tmp_path / "other").file.read_text("ascii")
    async with GatewayClient(replace(identity, tls_authority=other), [url]) as client:
        with pytest.raises(Unavailable) as caught:
            await client.post_json("/v1/agreements:list", {})
        assert caught.value.code is Code.GATEWAY_UNAVAILABLE
    old = client_context(Path(stack.tls_ca).read_text("ascii"))
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    for address, context in ((url.replace("https", "http"), old), (url, old)):
        async with httpx.AsyncClient(trust_env=False, verify=context) as http:
            with pytest.raises(httpx.TransportError):
                await http.get(address + "/healthz")
    async with GatewayClient(identity, [url]) as client:
        assert await client.post_json("/v1/agreements:list", {}) == []


@asynccontextmanager
async def served(tls: TransportAuthority, others: TransportAuthority) -> AsyncIterator[str]:
    """A server that lets in only whom `others` certified."""

    async def good() -> None:
        pass

    (port,) = free_ports(1)
    stop = asyncio.Event()

    async def work() -> None:
        await stop.wait()

    one = Served(probes(good), port, tls.server("gateway"), others.file)
    serving = asyncio.create_task(serve(one, work=work()))
    try:
        yield f"https://127.0.0.1:{port}/healthz"
    finally:
        stop.set()
        await serving


async def test_mutual_tls_lets_in_only_who_was_certified(tmp_path: Path) -> None:
    """An option of a gateway's. A stranger does not come as far as a request."""
    tls, others = TransportAuthority(tmp_path / "tls"), TransportAuthority(tmp_path / "clients")
    known, stranger = others.client("agency"), TransportAuthority(tmp_path / "stranger").client("agency")

    def context(certificate: Path | None) -> ssl.SSLContext:
        made = client_context(tls.file.read_text("ascii"))
        if certificate is not None:
            made.load_cert_chain(certificate)
        return made

    async with served(tls, others) as url:
        async with asyncio.timeout(SOON_SECONDS):
            while True:
                try:
                    async with httpx.AsyncClient(trust_env=False, verify=context(known)) as http:
                        assert (await http.get(url)).status_code == 200
                    break
                except httpx.ConnectError:  # it has only just been started
                    await asyncio.sleep(0.05)
        for certificate in (None, stranger):
            async with httpx.AsyncClient(trust_env=False, verify=context(certificate)) as http:
                with pytest.raises(httpx.TransportError):
                    await http.get(url)


async def test_a_broker_lets_in_only_who_logs_in(world: World, stack: Stack, tmp_path: Path) -> None:
    """In clear, with a wrong password, as nobody, and with a server's certificate where administrators come in."""
    identity = await world.join()
    login = identity.login
    assert login is not None
    admin = stack.administrator
    gateway = world.place.bus.folder / "tls" / "gateway.pem"
    assert admin.login is not None
    strangers = {
        "in clear": Cluster(servers=stack.kafka),
        "a wrong password": Cluster(servers=stack.kafka, login=replace(login, password=secrets.token_urlsafe(32))),
        "no user": Cluster(servers=stack.kafka, login=replace(login, user="nobody")),
        "no certificate": Cluster(servers=admin.servers, login=Login(authority=login.authority)),
        "another's certificate": Cluster(
            servers=admin.servers, login=Login(authority=login.authority, certificate=gateway, key=gateway)
        ),
    }
    for name, cluster in strangers.items():
        with pytest.raises((Unavailable, KafkaError)):  # noqa: PT012 - some may connect, none may write
            client = await producer(cluster, "stranger")
            try:
                async with asyncio.timeout(SOON_SECONDS):
                    await client.send_and_wait(audit.TOPIC, b"written by a stranger")
            finally:
                await client.stop()
            pytest.fail(name)
    await (await producer(identity.cluster(stack.kafka), "known")).stop()


async def test_a_broker_shows_who_it_is(world: World, stack: Stack, tmp_path: Path) -> None:
    """A password is never given to a broker that the transport CA did not certify."""
    identity = await world.join()
    assert identity.login is not None
    other = TransportAuthority(tmp_path / "other").file.read_text("ascii")
    with pytest.raises(Unavailable) as caught:
        await producer(Cluster(servers=stack.kafka, login=replace(identity.login, authority=other)), "test")
    assert caught.value.code is Code.KAFKA_UNAVAILABLE
    shown = repr(identity.login)
    assert identity.login.password not in shown
    assert identity.login.user in shown
