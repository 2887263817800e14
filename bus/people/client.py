"""A person's line to the gateways: to her what `bus.client.GatewayClient` is to a department.

Her session's token stands where a department signs. It gets no key: nothing that was sealed opens in a session.
"""

from __future__ import annotations

from collections.abc import Sequence

from bus.client import Asker, bearer


class PersonClient(Asker):
    """Without a token nobody's: that is how a login begins. Raises `Refused` (LOGIN_ENDED, ROLE_FORBIDDEN, ...)."""

    def __init__(self, urls: Sequence[str], tls_authority: str, token: str = "") -> None:
        super().__init__(urls, tls_authority)
        self._token = token

    async def send(self, method: str, path: str, body: bytes, content_type: str) -> bytes:
        """As `Asker`'s, in her session. That token is no token of the log's files (`fetch`)."""
        headers = bearer(self._token) | {"Content-Type": content_type}
        return await self.line.ask(method, path, body, lambda _: headers)
