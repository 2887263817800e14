"""`/metrics`, `/healthz`, `/readyz` of a process, on a port of their own: for ops, not for agencies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deploy.serving import Bounds, Server
from schemas.errors import DeptbusError

GRACE_SECONDS = 5  # requests under way are answered; then the process ends


def probes(check: Callable[[], Awaitable[None]]) -> Starlette:
    """`check` raises a `DeptbusError` while the process is not ready: 503.

    Starlette alone, *because* FastAPI over it would be most of what a recorder loads.
    """

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        try:
            await check()
        except DeptbusError as exc:
            return JSONResponse({"code": exc.code.value, "detail": exc.detail}, 503)
        return JSONResponse({"status": "ready"})

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)])


@dataclass(frozen=True, slots=True)
class Served:
    """An application on a port of loopback.

    Over TLS 1.3 with `certificate` (PEM, key and certificate); only for whom `client_authority` certified, if given.
    Within `bounds`.
    """

    app: Starlette
    port: int
    certificate: Path | None = None
    client_authority: Path | None = None
    bounds: Bounds = field(default_factory=Bounds)


async def serve(*apps: Served, work: Awaitable[None]) -> None:
    """Serves on loopback while the work goes on. The first part that ends, however it does, ends all.

    On cancellation the requests under way are answered first: the work goes on until the servers are done.
    """
    servers = [_server(one) for one in apps]
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


def _server(one: Served) -> Server:
    def context(_: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        made = default()
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        return made

    config = uvicorn.Config(
        one.app,
        host="127.0.0.1",
        port=one.port,
        ws="none",
        ssl_certfile=one.certificate,
        ssl_ca_certs=None if one.client_authority is None else str(one.client_authority),
        ssl_cert_reqs=ssl.CERT_NONE if one.client_authority is None else ssl.CERT_REQUIRED,
        ssl_context_factory=context if one.certificate else None,
        proxy_headers=False,  # nobody before it is believed: what was signed is what came
        server_header=False,
        log_config=None,
        access_log=False,
        lifespan="off",  # what runs is started and stopped by the process
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return Server(config, one.bounds)
