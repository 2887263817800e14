"""`python -m deploy.process gateway|recorder|access`: one process of the bus, its metrics and its probes.

Each loads its own alone: a recorder has no use for a gateway's libraries.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

import structlog
import uvloop

from bus.httpsig import authority
from bus.logs import configure
from bus.transport import Cluster
from bus.trust import Trust
from deploy.bootstrap import Bus
from deploy.probes import Served, probes, serve
from schemas.catalogue import Catalogue
from schemas.errors import Code, Misuse

log = structlog.get_logger()


def main() -> None:
    """The process: until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser()
    parser.add_argument("process", choices=("gateway", "recorder", "access"))
    parser.add_argument("--bus", type=Path, required=True, help="the bus's folder")
    parser.add_argument("--kafka", required=True)
    parser.add_argument(
        "--postgres-file", type=Path, required=True, help="a file that holds the DSN: it has a password"
    )
    parser.add_argument("--login", type=Path, help="a folder with the login of Kafka's administrator: for access")
    parser.add_argument("--tls", type=Path, help="a PEM file with the gateway's key and certificate: without it, HTTP")
    parser.add_argument("--client-ca", type=Path, help="who certifies those who may connect at all (mutual TLS)")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--base-url", help="https://HOST[:PORT], where others reach the gateway: for AuthZEN discovery")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        help="HOST[:PORT] that requests are signed for, beside --base-url's",
    )
    parser.add_argument("--metrics-port", type=int, required=True)
    arguments = parser.parse_args()
    configure(arguments.process)
    run = {"gateway": _gateway, "recorder": _recorder, "access": _access}[arguments.process]
    with suppress(KeyboardInterrupt):
        uvloop.run(until_stopped(run(arguments)))


async def until_stopped(work: Awaitable[None]) -> None:
    """SIGTERM and SIGINT cancel the work, which then closes what it opened."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


async def _gateway(arguments: argparse.Namespace) -> None:
    from bus.gateway.app import create_app
    from bus.gateway.service import Gateway

    bus = Bus.load(arguments.bus)
    gateway = Gateway(
        keyring=bus.keyring(),
        operator=bus.operator,
        origin=bus.origin,
        authority=bus.authority_der,
        catalogue=Catalogue.load(),
        cluster=bus.cluster(arguments.kafka, "gateway"),
        dsn=_dsn(arguments),
        proofs=bus.proofs(),
        years=bus.supervision_rules().years,
        names=[*_names(arguments), *map(authority, bus.signer("gateway").urls)],
        people=bus.people(),
    )
    async with gateway:
        _collect_seldom()
        await serve(
            Served(create_app(gateway, arguments.base_url), arguments.port, arguments.tls, arguments.client_ca),
            Served(probes(gateway.check), arguments.metrics_port),
            work=gateway.run(),
        )


def _names(arguments: argparse.Namespace) -> list[str]:
    """What the gateway is called: on its own machine, and as its operator says."""
    scheme = "http" if arguments.tls is None else "https"
    urls = [f"{scheme}://{host}:{arguments.port}" for host in ("127.0.0.1", "localhost")]
    urls += [f"{scheme}://{name}" for name in arguments.name]
    return [authority(url) for url in (*urls, arguments.base_url or urls[0])]


def _collect_seldom() -> None:
    """What a call makes is gone with its answer; collections on its way only carry it to where they take longest.

    With a full cache of documents such a pause is a tenth of a second, in which nothing is answered. At most 50,000
    objects, some 10 MB, wait for a collection that would free them.
    """
    gc.collect()
    gc.freeze()  # modules, routes, schemas: for ever
    gc.set_threshold(50_000, 20, 20)


async def _recorder(arguments: argparse.Namespace) -> None:
    from bus.recorder.service import Recorder

    bus = Bus.load(arguments.bus)
    recorder = Recorder(
        bus.signer("recorder"),
        bus.origin,
        Catalogue.load(),
        Trust(bus.authority_der),
        bus.cluster(arguments.kafka, "recorder"),
        _dsn(arguments),
        bus.log_keys(),
        bus.supervision_rules(),
    )

    async def check() -> None:
        recorder.check()

    await serve(Served(probes(check), arguments.metrics_port), work=recorder.run())


async def _access(arguments: argparse.Namespace) -> None:
    """Kafka's access rules as agreements say. The only process that is Kafka's administrator."""
    if arguments.login is None:
        raise Misuse(Code.CONFIG_INVALID, "--login is wanted: access rules are its administrator's to make")
    from bus.keeper import Keeper

    keeper = Keeper(Cluster.of(arguments.kafka, arguments.login), _dsn(arguments), Catalogue.load())

    async def check() -> None:
        keeper.check()

    await serve(Served(probes(check), arguments.metrics_port), work=keeper.run())


def _dsn(arguments: argparse.Namespace) -> str:
    return str(arguments.postgres_file.read_text("utf-8")).strip()


if __name__ == "__main__":
    main()
