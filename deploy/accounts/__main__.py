"""`python -m deploy.accounts`: the local stack's OpenID provider, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress
from pathlib import Path

import uvloop

from bus.logs import configure
from bus.people.openid import Registration
from deploy.accounts.provider import create_app
from deploy.accounts.store import Store
from deploy.probes import Served, serve
from deploy.process import until_stopped
from schemas.errors import Code, Misuse


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", type=Path, required=True, help="the file with the accounts")
    parser.add_argument("--registration", type=Path, required=True, help="the gateway's registration here")
    parser.add_argument("--redirect-uri", action="append", default=[], help="where it may send browsers back to")
    parser.add_argument("--tls", type=Path, required=True, help="a PEM file with key and certificate")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    configure("accounts")
    with suppress(KeyboardInterrupt):
        uvloop.run(until_stopped(_run(arguments)))


async def _run(arguments: argparse.Namespace) -> None:
    client = Registration.load(arguments.registration)
    if client is None:
        raise Misuse(Code.CONFIG_INVALID, f"{arguments.registration} is not there: `deptbus up` makes it")
    app = create_app(Store(arguments.store), client, frozenset(arguments.redirect_uri))
    await serve(Served(app, arguments.port, arguments.tls), work=_for_ever())


async def _for_ever() -> None:
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
