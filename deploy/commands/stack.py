"""`deptbus up`, `down`, `status`: the local stack."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Annotated, Any

import httpx
import structlog
import typer

from deploy.commands.people import first_accounts
from deploy.home import Home, HomeOption, Stack
from deploy.output import Json, command, emit, err, facts
from deploy.stack.supervisor import Supervisor, stack_running, stop_running, writable
from schemas.errors import Code, DeptbusError, Malformed, Misuse, Unavailable

_DETACH_SECONDS = 600.0  # the first start fetches 54 MB of jars
_POLL_SECONDS = 0.1
_ANSWER_BYTES = 64 * 1024

log = structlog.get_logger()


def register(app: typer.Typer) -> None:
    """Adds the commands."""

    @command(app)
    async def up(
        home: HomeOption = None,
        detach: Annotated[bool, typer.Option("--detach", help="Return once everything is ready.")] = False,
        kafka: Annotated[str | None, typer.Option(help="Use this Kafka (HOST:PORT) instead of starting one.")] = None,
        kafka_login: Annotated[
            Path | None,
            typer.Option(help="A folder with the given Kafka's administrator: kafka.json and kafka-ca.pem."),
        ] = None,
        postgres: Annotated[str | None, typer.Option(help="Use this PostgreSQL (DSN) instead of starting one.")] = None,
        port: Annotated[
            int | None, typer.Option(min=1, max=65_535, help="The gateway's port (default: a free one).")
        ] = None,
        base_url: Annotated[
            str | None,
            typer.Option(help="Where others reach the gateway (https://HOST), for AuthZEN discovery."),
        ] = None,
        client_ca: Annotated[
            Path | None, typer.Option(help="Who certifies those who may connect to the gateway at all (mutual TLS).")
        ] = None,
        bare: Annotated[bool, typer.Option("--bare", hidden=True, help="Kafka and PostgreSQL only.")] = False,
        json: Json = False,
    ) -> None:
        """Start Kafka, PostgreSQL, a gateway and the recorder.

        Ctrl-C (or `deptbus down`) stops them and keeps the data.
        """
        where = Home.find(home)
        if detach:
            stack = await start_detached(
                where,
                kafka=kafka,
                kafka_login=kafka_login,
                postgres=postgres,
                port=port,
                base_url=base_url,
                client_ca=client_ca,
                bare=bare,
                quiet=json,
            )
            _show(stack, as_json=json)
            if not json:
                first_accounts(where)
            return
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` means it
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        supervisor = Supervisor(
            where,
            kafka_at=kafka,
            kafka_login=kafka_login,
            postgres_at=postgres,
            port=port,
            base_url=base_url,
            client_ca=client_ca,
            bare=bare,
            say=lambda text: None if json else err.print(f"[dim]{text}[/]"),
        )
        shown: list[Stack] = []

        def show(stack: Stack) -> None:
            _show(stack, as_json=json)
            if not json:
                first_accounts(where)
            shown.append(stack)

        try:
            await supervisor.run(show, stop)
        except DeptbusError as exc:
            if not (json and shown):
                raise
            # The one document has been printed; detached, this is in up.log.
            log.error("stack_ended", code=exc.code, detail=exc.detail)
            raise typer.Exit(exc.exit_code) from exc

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
        if stack_running(where) is None:
            raise Unavailable(Code.STACK_NOT_RUNNING, f"no stack runs in {where.path}: start it with `deptbus up`")
        stack = where.stack()
        ready = {name: await _is_ready(url) for name, url in stack.metrics.items()}
        document = {"ready": ready, "kafka": stack.kafka, "gateways": stack.gateways, "pids": stack.pids}
        emit(document, as_json=json, human=lambda: facts("deptbus", {**ready, "gateway at": ", ".join(stack.gateways)}))
        if not all(ready.values()):
            err.print(f"A process is not ready: see its log in {where.logs}", markup=False)
            raise typer.Exit(Unavailable.exit_code)


async def start_detached(
    home: Home,
    *,
    kafka: str | None = None,
    kafka_login: Path | None = None,
    postgres: str | None = None,
    port: int | None = None,
    base_url: str | None = None,
    client_ca: Path | None = None,
    bare: bool = False,
    quiet: bool = False,
) -> Stack:
    """Runs `deptbus up` in the background; returns once it is ready. Raises what it said when it failed."""
    arguments = [sys.executable, "-m", "deploy.cli", "up", "--json", "--home", str(home.path)]
    given = {
        "--kafka": kafka,
        "--kafka-login": kafka_login,
        "--postgres": postgres,
        "--port": port,
        "--base-url": base_url,
        "--client-ca": client_ca,
    }
    for name, value in given.items():
        arguments += [name, str(value)] if value is not None else []
    arguments += ["--bare"] if bare else []
    running = stack_running(home)
    if running is not None:  # before its log is touched
        raise Misuse(
            Code.STACK_RUNNING, f"a stack runs in {home.path} already (process {running}): `deptbus down` stops it"
        )
    if not quiet:
        err.print("[dim]Starting (the first time fetches Kafka, about 20 s)[/]")
    log = home.logs / "up.log"
    # Its answer has a password: a file that only we can read, which has no name once it is open.
    with writable(home.path):
        home.logs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home.path) as said, log.open("wb") as noise:
            process = subprocess.Popen(  # noqa: ASYNC220 - starting takes milliseconds; waiting is below
                arguments, stdin=subprocess.DEVNULL, stdout=said, stderr=noise, start_new_session=True, cwd=_code()
            )
            return await _answer(process, said, log)


async def _answer(process: subprocess.Popen[bytes], said: IO[bytes], log: Path) -> Stack:
    deadline = time.monotonic() + _DETACH_SECONDS
    try:
        while time.monotonic() < deadline:
            ended = process.poll()
            # `pread`: the child writes at the place that `seek` would move.
            text = os.pread(said.fileno(), _ANSWER_BYTES, 0)
            if text.endswith(b"\n") and "error" not in (document := json.loads(text)):
                return Stack(**document)
            if ended is not None:
                raise _failed(text, ended, log)
            await asyncio.sleep(_POLL_SECONDS)
    except BaseException:
        process.terminate()  # nobody will wait for it any more; it stops in order
        raise
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
