"""`deptbus openapi`: the gateway's HTTP interface, for who writes an agency's system or generates its client."""

from __future__ import annotations

import httpx
import typer

from bus.client import ANSWER_SECONDS
from bus.gateway.openapi import PATH
from bus.transport import client_context
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit
from schemas.errors import Code, Unavailable


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app)
    def openapi(home: HomeOption = None, json: Json = False) -> None:
        """Print the gateway's interface (OpenAPI 3.1), as a running gateway says it."""
        where = Home.find(home)
        url = where.stack().gateways[0] + PATH
        context = client_context(where.load_bus().tls_authority)
        try:
            answer = httpx.get(url, timeout=ANSWER_SECONDS, trust_env=False, verify=context).raise_for_status()
        except httpx.HTTPError as exc:
            raise Unavailable(Code.GATEWAY_UNAVAILABLE, f"{url} did not answer ({type(exc).__name__})") from exc
        emit(answer.json(), as_json=json)
