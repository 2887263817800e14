"""`/metrics`, `/healthz`, `/readyz` of a process, on a port of their own: for ops, not for agencies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from bus.gateway.app import status_of
from schemas.errors import DeptbusError

GRACE_SECONDS = 5  # requests under way are answered; then the process ends


def probes(check: Callable[[], Awaitable[None]]) -> FastAPI:
    """`check` raises a `DeptbusError` while the process is not ready."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz")
    async def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        try:
            await check()
        except DeptbusError as exc:
            return _json({"code": exc.code.value, "detail": exc.detail}, status_of(exc))
        return _json({"status": "ready"})

    return app


async def serve(*apps: tuple[FastAPI, int], work: Awaitable[None]) -> None:
    """Serves on loopback while the work goes on. The first part that ends, however it does, ends all.

    On cancellation the requests under way are answered first: the work goes on until the servers are done.
    """
    servers = [_server(app, port) for app, port in apps]
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


class _Server(uvicorn.Server):
    """Leaves signals to the process: two servers here would take them from each other."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: FastAPI, port: int) -> uvicorn.Server:
    return _Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",  # what runs is started and stopped by the process
            timeout_graceful_shutdown=GRACE_SECONDS,
            limit_concurrency=1_000,
            h11_max_incomplete_event_size=64 * 1024,
        )
    )


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(value), status_code=status, media_type="application/json")
