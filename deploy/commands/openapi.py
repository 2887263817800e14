"""`deptbus openapi`: the gateway's HTTP interface, for who writes an agency's system or generates its client."""

from __future__ import annotations

import httpx
import typer

from bus.client import ANSWER_SECONDS
from bus.gateway.openapi import PATH
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit
from schemas.errors import Code, Unavailable


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app)
    def openapi(home: HomeOption = None, json: Json = False) -> None:
        """Print the gateway's interface (OpenAPI 3.1), as a running gateway says it."""
        url = Home.find(home).stack().gateways[0] + PATH
        try:
            answer = httpx.get(url, timeout=ANSWER_SECONDS, trust_env=False).raise_for_status()
        except httpx.HTTPError as exc:
            raise Unavailable(Code.GATEWAY_UNAVAILABLE, f"{url} did not answer ({type(exc).__name__})") from exc
        emit(answer.json(), as_json=json)
