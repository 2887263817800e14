"""What a gateway says of itself, held against what it answers."""

from __future__ import annotations

from functools import cache
from typing import Any

import httpx
import jsonschema_rs

from bus.gateway.openapi import PATH
from bus.transport import client_context


class Described:
    """A gateway's document. `check` fails where an answer is not what it describes."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self._validators: dict[str, Any] = {}

    def check(self, method: str, path: str, status: int, body: Any) -> None:
        """A JSON answer to a path as the document writes it."""
        at = f"{method} {path} {status}"
        if at not in self._validators:
            answer = self.document["paths"][path][method]["responses"][str(status)]
            schema = answer["content"]["application/json"]["schema"] | {"components": self.document["components"]}
            self._validators[at] = jsonschema_rs.validator_for(schema, validate_formats=True)
        wrong = [f"{error.instance_path}: {error.message}" for error in self._validators[at].iter_errors(body)]
        assert not wrong, f"{at}: {wrong}"


@cache
def described(gateway: str, tls_authority: str) -> Described:
    """What the gateway at this address says; asked once."""
    with httpx.Client(trust_env=False, verify=client_context(tls_authority)) as client:
        return Described(client.get(gateway + PATH).raise_for_status().json())
