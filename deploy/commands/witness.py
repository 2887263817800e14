"""`deptbus witness`: a department's own witness (见证方) over the bus's audit log, or anybody's."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import closing, suppress
from typing import Annotated

import typer

from bus.tlog.note import Algorithm, Verifier
from bus.witness.service import create_app, open_witness
from deploy.commands.options import As
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, facts
from deploy.probes import Served, probes, serve
from schemas.errors import Code, Malformed, Misuse, Unavailable

DEFAULT_PORT = 7380


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app)
    async def witness(
        department: As,
        log: Annotated[list[str], typer.Option("--log", help="The vkey of a log to watch; may be repeated.")],
        port: Annotated[int, typer.Option(help="Where logs submit their checkpoints, on loopback.")] = DEFAULT_PORT,
        metrics_port: Annotated[int | None, typer.Option(help="Serve /metrics, /healthz and /readyz there.")] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Cosign what a log states, as long as it never takes anything back. Runs until it is stopped.

        The first start makes a key in the department's folder. Give its vkey to whoever runs the log, for its policy.
        """
        where = Home.find(home)
        identity = where.identity(department)
        logs = [_log(text) for text in log]
        _check_port(port)
        name = f"{identity.origin}/witness/{identity.uscc}"
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        running, store = open_witness(where.org_folder(department), name, logs)
        with closing(store):
            document = {
                "name": name,
                "vkey": running.verifier.vkey,
                "url": f"http://127.0.0.1:{port}",
                "logs": [one.name for one in logs],
            }
            emit(document, as_json=json, human=lambda: facts("Witness", document))
            if not json:
                line = f"witness {department} {document['vkey']} {document['url']}"
                err.print(f"for the log's policy file: {line}", markup=False, soft_wrap=True)
            apps = [Served(create_app(running, store), port)]
            if metrics_port is not None:
                apps.append(Served(probes(_ready), metrics_port))
            with suppress(asyncio.CancelledError):
                await serve(*apps, work=_until_stopped())


async def _until_stopped() -> None:
    await asyncio.Event().wait()


async def _ready() -> None:
    """It needs nothing but its own disk: ready as long as it runs."""


def _log(text: str) -> Verifier:
    try:
        verifier = Verifier.from_vkey(text)
    except Malformed as exc:
        raise Misuse(Code.CONFIG_INVALID, f"--log {text!r:.200}: {exc.detail}") from exc
    if verifier.algorithm is not Algorithm.ED25519:
        raise Misuse(Code.CONFIG_INVALID, f"--log {text!r:.200}: that is a witness's key, not a log's")
    return verifier


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server binds it
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as exc:
            raise Unavailable(
                Code.PORT_TAKEN, f"port {port} cannot be had ({exc}): stop what listens there, or choose with --port"
            ) from exc
