"""HTTP/1.1 with a bound to everything that a stranger could make large, slow or many.

uvicorn parses and answers; what it leaves open is bounded here, before any signature is looked at: how many are
connected, how long each may take to greet, ask and read its answer, how large and how many header fields are. Whoever
is refused here gets `{code, detail}` as from the gateway. How large a body may be, its route says (`bus.bodies`).
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import httptools
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from bus import metrics
from schemas.errors import Code, Unavailable

PIECE_BYTES = 64 * 1024  # what is written at once: the next follows when a caller has read
RETRY_SECONDS = 0.1  # after the system had no descriptor left, or a caller was gone before it was let in

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What callers may take, all of them together or each. Whoever goes beyond it is refused, never all the others."""

    # On each of two ports, of the 1,024 descriptors that a process has where nobody set more: the rest is for Kafka,
    # PostgreSQL and files. Beyond it whoever has waited longest without a whole request makes room: idle callers,
    # however many, can't shut others out.
    connections: int = 400
    patience_seconds: float = 0.25  # nobody is put out sooner: a burst of callers who ask at once is served in turn
    handshake_seconds: float = 5.0  # two round trips; the SDK waits as long for it
    idle_seconds: float = 15.0  # between two requests: a subscriber's polls are closer
    # From a request's first byte to its last: the largest, 8 MiB of claims, over 4 Mbit/s. A signature holds for 60 s,
    # so that much later it would be refused anyway.
    request_seconds: float = 20.0
    # For the next of an answer's pieces to be read, of which some 500 KiB are on their way: 200 kbit/s or more.
    unread_seconds: float = 20.0
    head_bytes: int = 16 * 1024  # a signed request has less than 1 KiB of fields
    head_fields: int = 64
    flush_seconds: float = 5.0  # for the last bytes to a caller that is being hung up on


class Server(uvicorn.Server):
    """A server within bounds. It leaves signals to the process: two servers here would take them from each other."""

    def __init__(self, config: uvicorn.Config, bounds: Bounds) -> None:
        config.app = _in_pieces(config.app)
        super().__init__(config)
        self.bounds = bounds
        # Everybody who is connected, since when in the loop's time: whoever has waited longest stands first.
        self.callers: OrderedDict[_Caller, float] = OrderedDict()
        self._changed = asyncio.Event()
        self._accepting: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Of the process, not of the server."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens. Raises `Unavailable` (PORT_TAKEN)."""
        config = self.config
        try:
            listener = socket.create_server((config.host, config.port), backlog=config.backlog)
        except OSError as exc:
            raise Unavailable(Code.PORT_TAKEN, f"port {config.port} cannot be had: {exc}") from exc
        listener.setblocking(False)
        self.servers = []
        self._accepting = asyncio.create_task(self._accept(listener))
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Nobody more is let in; who is being answered is."""
        assert self._accepting is not None
        self._accepting.cancel()
        for caller in list(self.callers):
            if caller.transport is None:
                caller.put_out()
        with suppress(asyncio.CancelledError):
            await self._accepting
        await super().shutdown(sockets)

    async def _accept(self, listener: socket.socket) -> None:
        """Lets callers in, one after the other. While all places are at work the next ones wait outside."""
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as exc:
                    log.warning("not_accepted", error=type(exc).__name__)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                try:
                    await self._room()
                except BaseException:
                    connection.close()
                    raise
                caller = _Caller(self)
                self.callers[caller] = loop.time()
                caller.greeting = asyncio.create_task(self._greet(caller, connection))

    async def _room(self) -> None:
        """Waits until one more may come in, and puts out who has waited for too long; nobody who is being answered."""
        loop = asyncio.get_running_loop()
        while len(self.callers) >= self.bounds.connections:
            first = next((caller for caller in self.callers if not caller.at_work), None)
            patience = None
            if first is not None:
                patience = self.callers[first] + self.bounds.patience_seconds - loop.time()
                if patience <= 0:
                    first.put_out()
                    self.leave(first)
                    continue
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._changed.wait()

    async def _greet(self, caller: _Caller, connection: socket.socket) -> None:
        """TLS, if it is spoken here."""
        loop, tls = asyncio.get_running_loop(), self.config.ssl
        try:
            await loop.connect_accepted_socket(
                lambda: caller,
                connection,
                ssl=tls,
                ssl_handshake_timeout=self.bounds.handshake_seconds if tls else None,
            )
        except (OSError, asyncio.CancelledError):  # not TLS, too slow, gone, or put out for another
            self.leave(caller)

    def waits(self, caller: _Caller) -> None:
        """The caller waits from now on."""
        if caller in self.callers:
            self.callers[caller] = asyncio.get_running_loop().time()
            self.callers.move_to_end(caller)
            self._changed.set()

    def leave(self, caller: _Caller) -> None:
        """Its place is free."""
        self.callers.pop(caller, None)
        self._changed.set()


def _in_pieces(app: Any) -> Any:
    """The application, its answers written piece by piece.

    Under TLS what is written at once is encrypted and kept at once, and nobody is told that it waits to be read.
    """

    async def pieces(scope: Any, receive: Any, send: Any) -> None:
        async def piecewise(message: Any) -> None:
            body, more = message.get("body", b""), message.get("more_body", False)
            for at in range(PIECE_BYTES, len(body), PIECE_BYTES):
                await send({**message, "body": body[at - PIECE_BYTES : at], "more_body": True})
            rest = (len(body) - 1) // PIECE_BYTES * PIECE_BYTES
            await send({**message, "body": body[rest:], "more_body": more} if rest > 0 else message)

        await app(scope, receive, piecewise)

    return pieces


class _Refused(Exception):
    """Raised in the middle of parsing."""

    def __init__(self, status: int, code: Code, detail: str) -> None:
        super().__init__(status, code, detail)
        self.status, self.code, self.detail = status, code, detail


class _Caller(HttpToolsProtocol):
    """One connection: it greets, waits, asks, is at work, or is hung up on. Each but work has its deadline here."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.config, server.server_state, {})
        self._server = server
        self._bounds = server.bounds
        self.greeting: asyncio.Task[None] | None = None
        self.at_work = False  # a whole request is here and not answered yet
        self._asking = False  # a request has begun and is not whole
        self._in_head = False
        self._head_bytes = self._head_fields = self._hosts = 0
        self._refusal: _Refused | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    # How long

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._until(None)
        self._unset_keepalive_if_required()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)
        self._server.leave(self)

    def put_out(self) -> None:
        """At once: its place is needed."""
        if self.transport is not None:
            self.transport.abort()
        elif self.greeting is not None:
            self.greeting.cancel()

    def _wait(self) -> None:
        """For the first byte of a request."""
        self._server.waits(self)
        self._until(self._bounds.idle_seconds)

    def _until(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        if self.transport.is_closing():
            self.transport.abort()
        elif self._asking:
            seconds = f"{self._bounds.request_seconds:g} s"
            self._refuse(_Refused(408, Code.REQUEST_SLOW, f"the request was not whole {seconds} after it began"))
        elif not self.flow.write_paused:  # else it is still reading, and that has a deadline of its own
            self._hang_up(self._bounds.flush_seconds)

    def timeout_keep_alive_handler(self) -> None:
        """uvicorn's own deadline, which any byte lifts for good, has nothing to say."""

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self._bounds.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
            if not (self._asking or self.at_work or self.transport.is_closing()):
                self._wait()

    def _hang_up(self, seconds: float) -> None:
        """When what was said is read, or after so long."""
        self.transport.close()
        self._until(seconds)

    # How much, and of what form

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.at_work:
            self._only_this()
            return
        was_in_head = self._in_head
        try:
            self.parser.feed_data(data)
            if was_in_head and self._in_head:  # a field that is still coming was counted by nobody yet
                self._count(len(data))
        except httptools.HttpParserUpgrade:
            self._refuse(_Refused(400, Code.REQUEST_MALFORMED, "only HTTP/1.1 is spoken here: no CONNECT, no Upgrade"))
        except (httptools.HttpParserError, _Refused):
            if self.at_work and self._refusal is None:
                self._only_this()
            else:
                self._refuse(self._refusal or _Refused(400, Code.REQUEST_MALFORMED, "this is no HTTP/1.1 request"))

    def on_message_begin(self) -> None:
        if self.at_work:
            raise RuntimeError("one request at a time")  # to the parser, which stops: see `data_received`
        super().on_message_begin()
        self._asking = self._in_head = True
        self._head_bytes = self._head_fields = self._hosts = 0
        self._server.waits(self)
        self._until(self._bounds.request_seconds)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value), fields=1)
        match name.lower():
            case b"host":
                self._hosts += 1
            case b"transfer-encoding":
                # No two readers disagree about where a request ends if its length is said first, once. Chunks bring
                # trailers, extensions, and bodies of millions of them.
                self._bad(411, "the body's length is said in Content-Length: no Transfer-Encoding is read")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.url.startswith(b"/"):
            self._bad(400, "a request's target is a path: this is no proxy")
        if self._hosts != 1 and self.parser.get_http_version() != "1.0":
            self._bad(400, f"{self._hosts} Host fields: there is one (RFC 9112 section 3.2)")
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._asking = False
        super().on_message_complete()
        if self.cycle.response_complete:  # refused before it was whole
            self._wait()
        else:
            self.at_work = True
            self._until(None)

    def on_response_complete(self) -> None:
        self.at_work = False
        super().on_response_complete()
        if self.transport.is_closing():
            self._until(self._bounds.unread_seconds)
        elif not self._asking:
            self._wait()

    def _count(self, count: int, fields: int = 0) -> None:
        self._head_bytes += count
        self._head_fields += fields
        if self._head_bytes > self._bounds.head_bytes or self._head_fields > self._bounds.head_fields:
            most = f"{self._bounds.head_fields} fields, {self._bounds.head_bytes} bytes"
            self._refusal = _Refused(431, Code.REQUEST_TOO_LARGE, f"the head of a request has at most {most}")
            raise self._refusal

    def _bad(self, status: int, detail: str) -> NoReturn:
        self._refusal = _Refused(status, Code.REQUEST_MALFORMED, detail)
        raise self._refusal

    def _only_this(self) -> None:
        """What comes behind a request is not read: the connection ends with the answer. No client pipelines."""
        self.cycle.keep_alive = False
        self.flow.pause_reading()

    def _refuse(self, error: _Refused) -> None:
        """Says it, unless this request's answer has begun, and hangs up."""
        metrics.REQUESTS.labels(route="none", outcome=error.code.value).inc()
        in_body = self._asking and not self._in_head
        open_ = not getattr(self.cycle, "response_complete", True)  # before the first request it is None
        if not (self.cycle.response_started if in_body or open_ else False):
            self.transport.write(_answer(error))
        if open_:
            self.cycle.disconnected = True  # its application learns that nobody waits for its answer
            self.cycle.message_event.set()
        self._asking = self._in_head = self.at_work = False
        self._hang_up(self._bounds.flush_seconds)


def _answer(error: _Refused) -> bytes:
    body = json.dumps({"code": error.code.value, "detail": error.detail}).encode()
    head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\ncache-control: no-store\r\n"
    return STATUS_LINE[error.status] + head.encode() + b"connection: close\r\n\r\n" + body
