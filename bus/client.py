"""A department's line to a gateway: signed requests, grants checked before anything is used."""

from __future__ import annotations

import asyncio
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx

from bus import httpsig
from bus.identity import Identity
from bus.messages import Grant, KeyRequest, Read, open_grant
from bus.transport import UNPACKED, answer_of, client_context
from bus.trust import Trust
from schemas.errors import Code, DeptbusError, Malformed, Refused, Unavailable

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0  # a gateway answers in milliseconds, or says 503 within its own bounds
WHOLE_SECONDS = 300.0  # the largest answer, 16 MiB of entries, over 500 kbit/s
MAX_ANSWER_BYTES = 32 * 1024 * 1024
_EXCEPTIONS: Mapping[int, type[DeptbusError]] = {
    400: Malformed,
    408: Malformed,
    411: Malformed,
    413: Malformed,
    415: Malformed,
    431: Malformed,
    500: Unavailable,  # a defect of that gateway: another may do better, and nothing was released
    503: Unavailable,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for and why: the same words on every key request, and in the audit trail.

    `operator` and `agent` (who acts for the subject) are ids of the department's own; never a citizen number.
    """

    sections: tuple[str, ...]
    purpose: str
    ground: str
    operator: str
    citation: str = ""
    case: str = ""
    agent: str | None = None


class Line:
    """HTTP to one gateway, or to the next one in the list when it is away. `tls_authority` (PEM) certifies them."""

    def __init__(self, urls: Sequence[str], tls_authority: str) -> None:
        self.urls = list(urls)
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        self._http = httpx.AsyncClient(timeout=timeout, trust_env=False, verify=client_context(tls_authority))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(self, method: str, path: str, body: bytes, headers: Callable[[str], Mapping[str, str]]) -> bytes:
        """The answer's body; `headers` are asked for with the URL that is tried.

        Raises what the gateway refuses with, or `Unavailable` if none answers or the last one said so.
        """
        away: Unavailable | None = None
        for url in list(self.urls):
            try:
                return await self._send(url, method, path, body, headers(url + path))
            except Unavailable as exc:
                away = exc
                # The next call begins with the one that answered last.
                self.urls.append(self.urls.pop(0))
        raise away or Unavailable(Code.GATEWAY_UNAVAILABLE, "no gateway is known: is the stack up?")

    async def _send(self, url: str, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        asking = self._http.stream(method, url + path, content=body, headers={**headers, **UNPACKED})
        try:
            async with asyncio.timeout(WHOLE_SECONDS), asking as response:
                answer = await answer_of(response, MAX_ANSWER_BYTES)
        except (httpx.HTTPError, OSError) as exc:
            raise Unavailable(Code.GATEWAY_UNAVAILABLE, f"{url} did not answer ({type(exc).__name__})") from exc
        if response.is_success:
            return answer
        raise _error(response.status_code, answer, url)


class Asker(ABC):
    """Whoever asks gateways: a department by its key, or a person in her session (`bus.people.client`)."""

    def __init__(self, urls: Sequence[str], tls_authority: str) -> None:
        self.line = Line(urls, tls_authority)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.line.__aexit__(kind, error, trace)

    @abstractmethod
    async def send(self, method: str, path: str, body: bytes, content_type: str) -> bytes:
        """The answer's body. A gateway that is away or says 503 is passed over for the next.

        Raises `Unavailable`, `Refused`, `Malformed`.
        """

    async def post_json(self, path: str, body: Any) -> Any:
        """The JSON answer to a POST. Raises as `send`."""
        return json_of(await self.send("POST", path, json.dumps(body).encode(), "application/json"))

    async def get_json(self, path: str) -> Any:
        """The JSON answer to a GET. Raises as `send`."""
        return json_of(await self.send("GET", path, b"", "application/json"))

    async def proof(self, entry: bytes) -> bytes:
        """A `.tlog-proof` file's bytes: that the log has an entry, by its leaf hash, as a grant's results name it.

        To be kept as a receipt (回执): `bus.tlog.proof` checks it offline. Raises as `send`, and `Refused` (NOT_FOUND)
        until a checkpoint covers the entry, a second or two after the grant.
        """
        return await self.send("GET", f"/v1/audit/proofs/{entry.hex()}", b"", "text/plain")

    async def fetch(self, path: str, token: str = "") -> bytes:
        """A file of the log, by its path on a gateway: unsigned, and with a token if it is one of entries."""
        return await self.line.ask("GET", path, b"", lambda _: bearer(token))


class GatewayClient(Asker):
    """A department's: its requests are signed, and its grants checked.

    `urls` are the bus's gateways. Those of providers' own are found in their certificates, and asked for keys alone.
    """

    def __init__(self, identity: Identity, urls: Sequence[str]) -> None:
        super().__init__(urls, identity.tls_authority)
        self.identity = identity
        self._own: dict[str, Line] = {}  # by owner

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for line in (self.line, *self._own.values()):
            await line.__aexit__(kind, error, trace)

    def owners(self, trust: Trust, issuer: str) -> list[str]:
        """Whose gateways may open an issuer's sessions, in the order in which they are to be asked.

        An issuer that has a gateway of its own may still have sealed earlier sessions to the bus's.
        """
        own = [issuer] if trust.gateways(issuer, datetime.now(UTC)) else []
        return list(dict.fromkeys([*own, self.identity.gateway_owner]))

    async def keys(
        self,
        trust: Trust,
        reads: Sequence[Read],
        wanted: Wanted,
        of_set: str | None = None,
        learn: Callable[[], Awaitable[None]] | None = None,
        owner: str | None = None,
    ) -> tuple[Grant, Mapping[tuple[bytes, str], bytes]]:
        """Asks for the keys of these records; `of_set` is the entry (hex) of a granted set that they are members of.

        `owner`, one of `owners`, is whose gateway to ask; None: the bus's. `learn` brings the trust up to date, for a
        grant by a key that is not known: a gateway's that was renewed.
        Raises `Unavailable` (then nothing is known of the answer), `Refused`, `Malformed`.
        """
        self.identity.refresh()
        kem = self.identity.kem  # the answer is sealed to this one, whatever is renewed meanwhile
        request = KeyRequest(
            request=secrets.token_bytes(16),
            purpose=wanted.purpose,
            ground=wanted.ground,
            operator=wanted.operator,
            citation=wanted.citation,
            case=wanted.case,
            agent=wanted.agent,
            recipient=kem.id,
            reads=tuple(reads),
        )
        path = "/v1/keys" if of_set is None else f"/v1/sets/{of_set}/keys"
        owner = owner or self.identity.gateway_owner
        line = self._line(owner, trust)
        answer = await self._send(line, "POST", path, request.encode(), "application/avro")
        try:
            return open_grant(answer, request.request, kem, trust, datetime.now(UTC), owner)
        except Refused as exc:
            if exc.code is not Code.CERTIFICATE_UNKNOWN or learn is None:
                raise
        await learn()
        return open_grant(answer, request.request, kem, trust, datetime.now(UTC), owner)

    def _line(self, owner: str, trust: Trust) -> Line:
        """To an owner's gateways, at the addresses that their certificates have now. One is kept a department."""
        if owner == self.identity.gateway_owner:
            return self.line
        line = self._own.get(owner)
        if line is None:
            line = self._own[owner] = Line((), self.identity.tls_authority)
        urls = trust.gateways(owner, datetime.now(UTC))
        if set(line.urls) != set(urls):  # else its order says which one answered last
            line.urls = list(urls)
        return line

    async def send(self, method: str, path: str, body: bytes, content_type: str) -> bytes:
        """As `Asker`'s, signed."""
        return await self._send(self.line, method, path, body, content_type)

    async def _send(self, line: Line, method: str, path: str, body: bytes, content_type: str) -> bytes:
        def signed(url: str) -> Mapping[str, str]:
            self.identity.refresh()
            return httpsig.sign(self.identity.department, method, url, body) | {"Content-Type": content_type}

        return await line.ask(method, path, body, signed)


def bearer(token: str) -> dict[str, str]:
    """The header of who holds a token; none without one."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def json_of(answer: bytes) -> Any:
    """Raises `Malformed`: a gateway's answer is foreign text, too."""
    try:
        return json.loads(answer)
    except (ValueError, RecursionError) as exc:
        raise Malformed(Code.REQUEST_MALFORMED, "the gateway's answer is no JSON text") from exc


def _error(status: int, answer: bytes, url: str) -> DeptbusError:
    """The gateway's refusal as the exception that it was there."""
    try:
        said = json_of(answer)
        code, detail = Code(said["code"]), str(said["detail"])
    except (Malformed, ValueError, KeyError, TypeError):
        return Unavailable(Code.GATEWAY_UNAVAILABLE, f"{url} answered {status} without a code")
    return _EXCEPTIONS.get(status, Refused)(code, detail)
