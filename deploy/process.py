"""`python -m deploy.process gateway|recorder`: one process of the bus, its metrics and its probes."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from bus.gateway.app import create_app, status_of
from bus.gateway.service import Gateway
from bus.logs import configure
from bus.recorder.service import Recorder
from bus.trust import Trust
from deploy.bootstrap import Bus
from schemas.catalogue import Catalogue
from schemas.errors import Code, DeptbusError, Unavailable

GRACE_SECONDS = 5  # requests under way are answered; then the process ends

log = structlog.get_logger()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("process", choices=("gateway", "recorder"))
    parser.add_argument("--bus", type=Path, required=True, help="the bus's folder")
    parser.add_argument("--kafka", required=True)
    parser.add_argument(
        "--postgres-file", type=Path, required=True, help="a file that holds the DSN: it has a password"
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--metrics-port", type=int, required=True)
    arguments = parser.parse_args()
    configure(arguments.process)
    run = _gateway if arguments.process == "gateway" else _recorder
    with suppress(KeyboardInterrupt):
        uvloop.run(_until_stopped(run(arguments)))


async def _until_stopped(work: Awaitable[None]) -> None:
    """SIGTERM and SIGINT cancel the work, which then closes what it opened."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


async def _gateway(arguments: argparse.Namespace) -> None:
    bus = Bus.load(arguments.bus)
    gateway = Gateway(
        keyring=bus.keyring(),
        origin=bus.origin,
        authority=bus.authority.signer.der,
        catalogue=Catalogue.load(),
        bootstrap=arguments.kafka,
        dsn=_dsn(arguments),
    )
    async with gateway:
        await _serve(
            (create_app(gateway), arguments.port),
            (_probes(gateway.check), arguments.metrics_port),
            work=gateway.run(),
        )


async def _recorder(arguments: argparse.Namespace) -> None:
    bus = Bus.load(arguments.bus)
    recorder = Recorder(
        bus.signer("recorder"),
        bus.origin,
        Catalogue.load(),
        Trust(bus.authority.signer.der),
        arguments.kafka,
        _dsn(arguments),
    )

    async def check() -> None:
        if not recorder.ready:
            raise Unavailable(Code.POSTGRES_UNAVAILABLE, "the recorder has not reached its engines")

    await _serve((_probes(check), arguments.metrics_port), work=recorder.run())


class _Server(uvicorn.Server):
    """Leaves signals to `_until_stopped`: two servers here would take them from each other."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(*apps: tuple[FastAPI, int], work: Awaitable[None]) -> None:
    """Serves until the work ends or this is cancelled. The first part that fails ends all.

    Requests under way are answered first: the work goes on until the servers are done.
    """
    servers = [
        _Server(
            uvicorn.Config(
                app,
                host="127.0.0.1",
                port=port,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=GRACE_SECONDS,
                limit_concurrency=1_000,
                h11_max_incomplete_event_size=64 * 1024,
            )
        )
        for app, port in apps
    ]
    working = asyncio.ensure_future(work)
    serving = [asyncio.ensure_future(server.serve()) for server in servers]
    try:
        await asyncio.wait({working, *serving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for server in servers:
            server.should_exit = True
        ends = await asyncio.gather(*serving, return_exceptions=True)
        working.cancel()
        ends += await asyncio.gather(working, return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError):
            raise end


def _probes(check: Callable[[], Awaitable[None]]) -> FastAPI:
    """`/metrics`, `/healthz`, `/readyz` on a port of their own: not for agencies."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz")
    async def healthz() -> Response:
        return Response(json.dumps({"status": "ok"}), media_type="application/json")

    @app.get("/readyz")
    async def readyz() -> Response:
        try:
            await check()
        except DeptbusError as exc:
            body = {"code": exc.code.value, "detail": exc.detail}
            return Response(json.dumps(body), status_code=status_of(exc), media_type="application/json")
        return Response(json.dumps({"status": "ready"}), media_type="application/json")

    return app


def _dsn(arguments: argparse.Namespace) -> str:
    return str(arguments.postgres_file.read_text("utf-8")).strip()


if __name__ == "__main__":
    main()
