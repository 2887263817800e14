"""`deptbus up`, `down`, `status`: the local stack."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from deploy.home import Home, HomeOption, Stack
from deploy.output import Json, command, emit, err, facts
from deploy.stack.supervisor import Supervisor, stack_running, stop_running
from schemas.errors import Code, DeptbusError, Malformed, Misuse, Unavailable

_DETACH_SECONDS = 600.0  # the first start fetches 54 MB of jars
_POLL_SECONDS = 0.2


def register(app: typer.Typer) -> None:
    """Adds the commands."""

    @command(app)
    async def up(
        home: HomeOption = None,
        detach: Annotated[bool, typer.Option("--detach", help="Return once everything is ready.")] = False,
        kafka: Annotated[str | None, typer.Option(help="Use this Kafka (HOST:PORT) instead of starting one.")] = None,
        postgres: Annotated[str | None, typer.Option(help="Use this PostgreSQL (DSN) instead of starting one.")] = None,
        port: Annotated[int | None, typer.Option(help="The gateway's port (default: a free one).")] = None,
        bare: Annotated[bool, typer.Option("--bare", hidden=True, help="Kafka and PostgreSQL only.")] = False,
        json: Json = False,
    ) -> None:
        """Start Kafka, PostgreSQL, a gateway and the recorder.

        Ctrl-C (or `deptbus down`) stops them and keeps the data.
        """
        where = Home.find(home)
        if detach:
            stack = await start_detached(where, kafka=kafka, postgres=postgres, port=port, bare=bare, quiet=json)
            _show(stack, as_json=json)
            return
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        supervisor = Supervisor(
            where,
            kafka_at=kafka,
            postgres_at=postgres,
            port=port,
            bare=bare,
            say=lambda text: None if json else err.print(f"[dim]{text}[/]"),
        )
        await supervisor.run(lambda stack: _show(stack, as_json=json), stop)

    @command(app)
    async def down(home: HomeOption = None, json: Json = False) -> None:
        """Stop the stack. Its data stays."""
        where = Home.find(home)
        if not await stop_running(where):
            raise Unavailable(Code.STACK_NOT_RUNNING, f"no stack runs in {where.path}")
        emit({"stopped": str(where.path)}, as_json=json, human=lambda: err.print("Stopped. The data is kept."))

    @command(app)
    async def status(home: HomeOption = None, json: Json = False) -> None:
        """Say whether the stack runs and each process is ready."""
        where = Home.find(home)
        stack = where.stack()
        if stack_running(where) is None:
            raise Unavailable(
                Code.STACK_NOT_RUNNING, f"the stack in {where.path} is gone: `deptbus up` starts it again"
            )
        ready = {name: await _is_ready(url) for name, url in stack.metrics.items()}
        document = {"ready": ready, "kafka": stack.kafka, "gateways": stack.gateways, "pids": stack.pids}
        emit(document, as_json=json, human=lambda: facts("deptbus", {**ready, "gateway at": ", ".join(stack.gateways)}))
        if not all(ready.values()):
            raise Unavailable(Code.CHILD_DEAD, "a process is not ready: see its log in " + str(where.logs))


async def start_detached(
    home: Home,
    *,
    kafka: str | None = None,
    postgres: str | None = None,
    port: int | None = None,
    bare: bool = False,
    quiet: bool = False,
) -> Stack:
    """Runs `deptbus up` in the background; returns once it is ready. Raises what it said when it failed."""
    home.logs.mkdir(parents=True, exist_ok=True)
    log = home.logs / "up.log"
    arguments = [sys.executable, "-m", "deploy.cli", "up", "--json", "--home", str(home.path)]
    for name, value in (("--kafka", kafka), ("--postgres", postgres), ("--port", port)):
        arguments += [name, str(value)] if value is not None else []
    arguments += ["--bare"] if bare else []
    if not quiet:
        err.print("[dim]Starting (the first time fetches Kafka, about 20 s)[/]")
    said = home.logs / "up.json"
    with said.open("wb") as document, log.open("wb") as noise:
        process = subprocess.Popen(  # noqa: ASYNC220 - starting takes milliseconds; waiting is below
            arguments, stdin=subprocess.DEVNULL, stdout=document, stderr=noise, start_new_session=True, cwd=_code()
        )
    deadline = time.monotonic() + _DETACH_SECONDS
    while time.monotonic() < deadline:
        ended = process.poll()
        text = said.read_bytes()
        if text.endswith(b"\n") and b'"error"' not in text:
            return home.stack()
        if ended is not None:
            raise _failed(text, ended, log)
        await asyncio.sleep(_POLL_SECONDS)
    process.terminate()
    raise Unavailable(Code.CHILD_DEAD, f"the stack was not ready after {_DETACH_SECONDS:.0f} s: see {log}")


def _code() -> Path:
    """The folder that the packages are imported from: a detached process must find the same code."""
    return Path(__file__).resolve().parents[2]


def _failed(said: bytes, status: int, log: Path) -> DeptbusError:
    try:
        error = json.loads(said)["error"]
        code, detail = Code(error["code"]), error["detail"]
    except (ValueError, KeyError):
        return Unavailable(Code.CHILD_DEAD, f"`deptbus up` ended with {status}: see {log}")
    return {1: Malformed, 2: Misuse}.get(status, Unavailable)(code, detail)


def _show(stack: Stack, *, as_json: bool) -> None:
    document: dict[str, Any] = asdict(stack)
    rows = {"gateway": ", ".join(stack.gateways), "kafka": stack.kafka, "metrics": ", ".join(stack.metrics.values())}
    emit(document, as_json=as_json, human=lambda: facts("deptbus is up (Ctrl-C or `deptbus down` stops it)", rows))


async def _is_ready(metrics_url: str) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
            return (await client.get(metrics_url.replace("/metrics", "/readyz"))).is_success
    except httpx.HTTPError:
        return False
