"""A person's line to the gateways: to her what `bus.client.GatewayClient` is to a department.

Her session's token stands where a department signs. It gets no key: nothing that was sealed opens in a session.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from bus.client import Line, bearer, json_of


class Asker(Protocol):
    """Whoever asks gateways: a department by its key, or a person in her session. Errors as `GatewayClient`'s."""

    async def post_json(self, path: str, body: Any) -> Any:
        """The JSON answer to a POST."""

    async def proof(self, entry: bytes) -> bytes:
        """A `.tlog-proof` file's bytes: that the log has an entry, by its leaf hash."""

    async def send(self, method: str, path: str, body: bytes, content_type: str) -> bytes:
        """The answer's body."""

    async def fetch(self, path: str, token: str = "") -> bytes:
        """A file of the log, by its path on a gateway; with a token if it is one of entries."""


class PersonClient:
    """An `Asker`. Without a token nobody's: that is how a login begins."""

    def __init__(self, urls: Sequence[str], tls_authority: str, token: str = "") -> None:
        self._line = Line(urls, tls_authority)
        self._token = token

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._line.__aexit__(kind, error, trace)

    async def post_json(self, path: str, body: Any) -> Any:
        """Raises `Refused` (LOGIN_ENDED, ROLE_FORBIDDEN, ...), `Malformed`, `Unavailable`."""
        return json_of(await self.send("POST", path, json.dumps(body).encode(), "application/json"))

    async def get_json(self, path: str) -> Any:
        """Raises as `post_json`."""
        return json_of(await self.send("GET", path, b"", "application/json"))

    async def proof(self, entry: bytes) -> bytes:
        """Raises as `post_json`, and `Refused` (NOT_FOUND) until a checkpoint covers the entry."""
        return await self.send("GET", f"/v1/audit/proofs/{entry.hex()}", b"", "text/plain")

    async def send(self, method: str, path: str, body: bytes, content_type: str) -> bytes:
        """Raises as `post_json`."""
        headers = bearer(self._token) | {"Content-Type": content_type}
        return await self._line.ask(method, path, body, lambda _: headers)

    async def fetch(self, path: str, token: str = "") -> bytes:
        """Raises as `post_json`. Her session's own token is no token of the log's files."""
        return await self._line.ask("GET", path, b"", lambda _: bearer(token))
