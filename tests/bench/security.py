"""What being secure costs: the same work over TLS, logged in, under access rules, beside the same work in clear.

`secure-publish` has a second broker that listens in clear and asks nobody; `secure-release` a second gateway over HTTP,
on the same engines. Both sides sign and verify records and requests as ever: what that costs stands in `more`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from bus import cataloguefeed, httpsig, topics, trustfeed
from bus.httpsig import Message
from bus.kafka import everything, producer
from bus.publisher import Publisher
from bus.transport import Cluster
from bus.trust import Trust
from deploy.stack import kafka
from deploy.stack.child import free_ports
from deploy.stack.tls import TransportAuthority
from schemas.catalogue import Catalogue
from tests.bench.measure import Outcome, Said, compare
from tests.bench.publish import RECORDS, rate
from tests.bench.release import READS, admitted, allow, ask
from tests.bench.release import RECORDS as READ_RECORDS
from tests.bench.sample import drafts
from tests.bench.world import World, process, world
from tests.faults.plant import kill

# Whatever is lost beyond this is not the price of encryption: at these sizes AES-GCM takes some microseconds a record.
FLOOR = 0.5
READY_SECONDS = 60.0
SIGNED = 500
LOGINS = 20


def secure_publish(said: Said) -> Outcome:
    """Publisher.publish, 64 a call, to a broker that asks who it is, and to one that does not."""
    with asyncio.Runner() as runner, world(runner, said) as there, _in_clear(there, runner) as servers:
        secure = Publisher(there.market, there.servers, Catalogue.load())
        clear = Publisher(replace(there.market, login=None), servers, Catalogue.load())
        for one in (secure, clear):
            runner.run(one.__aenter__())
        try:

            def side(publisher: Publisher) -> Callable[[int], float]:
                return lambda number: runner.run(rate(publisher.publish, list(drafts(RECORDS, number * RECORDS))))

            outcome = compare(side(secure), side(clear), floor=FLOOR, said=said)
        finally:
            for one in (secure, clear):
                runner.run(one.__aexit__(None, None, None))
        ways = {"tls_and_scram": there.market.cluster(there.servers), "clear": Cluster(servers=servers)}
        connecting = {f"connect_ms_{name}": round(runner.run(_connecting(one)) * 1000, 1) for name, one in ways.items()}
    return replace(outcome, more=connecting)


def secure_release(said: Said) -> Outcome:
    """The bench of releases over HTTPS and over HTTP, at two gateways of one bus."""
    with (
        asyncio.Runner() as runner,
        world(runner, said) as there,
        process(there, "recorder"),
        process(there, "gateway") as (_, secure, _),
        process(there, "gateway", clear=True) as (_, clear, _),
    ):
        claims = [one.claims_bytes for one in runner.run(admitted(there, READ_RECORDS, said))]
        runner.run(allow(there, secure, said))
        batches = [tuple(claims[at : at + READS]) for at in range(0, READ_RECORDS, READS)]
        outcome = compare(
            lambda _: ask(there, secure, batches, None).rate,
            lambda _: ask(there, clear, batches, None).rate,
            floor=FLOOR,
            said=said,
            rounds=3,
        )
    return replace(outcome, more=_signatures(there))


@contextmanager
def _in_clear(there: World, runner: asyncio.Runner) -> Iterator[str]:
    """A broker as the stack's, but for everything that is secure about it, with a bus of the same keys on it."""
    folder = there.folder / "clear"
    node = kafka.Node(1, *free_ports(3))
    files = kafka.resolve()
    properties = kafka.prepare(files, folder / "kafka", node, TransportAuthority(folder / "tls"))
    lines = [
        line
        for line in properties.read_text("ascii").splitlines()
        if not line.startswith(("ssl.", "listener.", "authorizer.", "super.", "allow."))
    ]
    lines.append("listener.security.protocol.map=CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT")
    properties.write_text("\n".join(lines) + "\n", "ascii")
    child = kafka.run(files, properties, folder)
    try:
        servers = f"127.0.0.1:{node.client}"
        runner.run(_same_bus(there, Cluster(servers=servers)))
        yield servers
    finally:
        kill(child)


async def _same_bus(there: World, clear: Cluster) -> None:
    """The topics, and what publishers must know: certificates, KEM keys, who may issue what."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            await topics.apply_catalogue(clear, Catalogue.load())
            break
        except Exception:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
    for topic in (trustfeed.TOPIC, cataloguefeed.TOPIC):
        await _copy(there.kafka, clear, topic)


async def _copy(source: Cluster, target: Cluster, topic: str) -> None:
    client = await producer(target, "bench")
    try:
        async for message in everything(source, [topic]):
            await client.send_and_wait(topic, message.value, key=message.key)
    finally:
        await client.stop()


async def _connecting(cluster: Cluster) -> float:
    """Seconds from nothing to a producer that is ready, at the median."""
    took = []
    for _ in range(LOGINS):
        began = time.perf_counter()
        client = await producer(cluster, "bench")
        took.append(time.perf_counter() - began)
        await client.stop()
    return sorted(took)[LOGINS // 2]


def _signatures(there: World) -> dict[str, Any]:
    """Microseconds to sign a request, and to verify it."""
    trust = Trust(there.bank.authority)
    trust.add_certificate(there.bank.department.der)
    url, body, now = "https://gateway.example/v1/keys", bytes(32 * 1024), datetime.now(UTC)
    began = time.perf_counter()
    for _ in range(SIGNED):
        headers = httpsig.sign(there.bank.department, "POST", url, body, now)
    signed = time.perf_counter() - began
    message = Message(method="POST", url=url, headers=headers)
    began = time.perf_counter()
    for _ in range(SIGNED):
        httpsig.verify(message, body, trust, now)
    verified = time.perf_counter() - began
    return {
        "sign_request_us": round(signed / SIGNED * 1e6, 1),
        "verify_request_us": round(verified / SIGNED * 1e6, 1),
        "reads_a_request": READS,
    }
