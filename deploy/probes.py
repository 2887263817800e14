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
    """Serves on loopback while the work goes on. The first part that fails ends all."""
    servers = [_server(app, port) for app, port in apps]
    async with asyncio.TaskGroup() as tasks:
        for server in servers:
            tasks.create_task(server.serve())
        tasks.create_task(_until_done(work, servers))


async def _until_done(work: Awaitable[None], servers: list[uvicorn.Server]) -> None:
    await work
    for server in servers:
        server.should_exit = True


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
