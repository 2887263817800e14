"""The local stack's OpenID provider as a process: its address, its one client, and the first accounts.

Its port is chosen once: people are known by (issuer, subject), so an issuer that moved would be another provider.
"""

from __future__ import annotations

import secrets
import socket
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from bus.people.openid import Registration
from bus.transport import client_context
from deploy.stack.tls import TransportAuthority
from schemas.errors import Code, Unavailable

CLIENT = "deptbus-gateway"
# Below the range from which systems give ports to connections: seldom taken when it is needed again.
PORTS = range(20_000, 32_000)
FIRST = ("auditor", "officer", "operator")


def registration_file(bus: Path) -> Path:
    """Where gateways look for their OpenID provider."""
    return bus / "people.json"


def store_file(home: Path) -> Path:
    """Where the accounts are."""
    return home / "accounts" / "accounts.sqlite"


def register(bus: Path, tls: TransportAuthority) -> Registration | None:
    """The gateway's registration at the local provider, made once; None if the bus was told another provider."""
    file, authority = registration_file(bus), tls.file.read_text("ascii")
    known = Registration.load(file)
    if known is not None and known.client_id != CLIENT:
        return None
    made = known or Registration(
        issuer=f"https://127.0.0.1:{_free_port()}", client_id=CLIENT, client_secret=secrets.token_urlsafe(32)
    )
    made = replace(made, authority=authority)
    made.save(file)
    return made


def port_of(registration: Registration) -> int:
    """The port that the issuer names."""
    port = urlsplit(registration.issuer).port
    assert port is not None
    return port


def arguments(home: Path, bus: Path, tls: TransportAuthority, port: int, gateway: str) -> list[str | Path]:
    """How the process is started; `gateway` is the gateway's address."""
    return [
        *(sys.executable, "-m", "deploy.accounts", "--store", store_file(home)),
        *("--registration", registration_file(bus), "--tls", tls.server("accounts"), "--port", str(port)),
        *("--redirect-uri", f"{gateway}/people/callback"),
    ]


async def answers(registration: Registration) -> None:
    """Raises an `httpx.HTTPError` until the provider does."""
    verify = client_context(registration.authority)
    async with httpx.AsyncClient(verify=verify, trust_env=False, timeout=5.0) as http:
        (await http.get(f"{registration.issuer}/keys")).raise_for_status()


def _free_port() -> int:
    for port in secrets.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Unavailable(Code.PORT_TAKEN, "no port is free for the accounts' provider: stop what listens on so many")
