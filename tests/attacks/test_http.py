"""What a stranger can do to a gateway's port: too much, too slowly, too often, or as others read it otherwise.

Over TLS, on the loop that a gateway runs on, with bounds so small that a test takes tenths of a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import pytest
import uvloop
from fastapi import Response

from bus.gateway.app import create_app
from bus.gateway.service import Gateway
from bus.transport import client_context
from deploy.probes import Served, serve
from deploy.serving import Bounds
from deploy.stack.child import free_ports
from deploy.stack.tls import TransportAuthority
from schemas.errors import Code
from tests.bus.test_openapi import gateway

__all__ = ["gateway"]  # the fixture: one that never starts, which is all that a stranger gets to see

BOUNDS = Bounds(
    connections=20,
    patience_seconds=0.05,
    handshake_seconds=0.3,
    idle_seconds=0.4,
    request_seconds=0.6,
    unread_seconds=1.0,
    flush_seconds=0.2,
)
SOON = 1.5  # beyond a bound: the machine is busy
LARGE = 64 * 1024 * 1024  # no kernel's buffers hold it
HOST = b"Host: gateway\r\n"
GET = b"GET /healthz HTTP/1.1\r\n" + HOST


@dataclass(frozen=True, slots=True)
class Port:
    """A served gateway, seen from outside."""

    number: int
    tls: ssl.SSLContext

    def connect(self, *, greet: bool = True) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.number), timeout=5)
        return self.tls.wrap_socket(plain, server_hostname="localhost") if greet else plain

    def say(self, data: bytes, *, every: Sequence[bytes] = ()) -> tuple[list[tuple[int, str]], float]:
        """All answers until the server hangs up, as (status, code), and how long that took.

        `every`: more that is sent, piece by piece, for as long as somebody listens.
        """
        began = time.monotonic()
        said = b""
        with self.connect() as line, suppress(OSError):
            line.sendall(data)
            pieces = iter(every)
            while True:
                line.settimeout(0.05 if every else 10)
                try:
                    block = line.recv(65_536)
                except TimeoutError:
                    line.sendall(next(pieces, b"a"))
                    continue
                if not block:
                    break
                said += block
        return _answers(said), time.monotonic() - began

    def well(self) -> None:
        """It answers others as before."""
        assert self.say(GET + b"Connection: close\r\n\r\n")[0] == [(200, "")]


def _answers(said: bytes) -> list[tuple[int, str]]:
    found = []
    while said:
        head, _, rest = said.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = int(fields[b"content-length"])
        body, said = rest[:size], rest[size:]
        found.append((int(head.split(b" ")[1]), json.loads(body).get("code", "")))
    return found


@pytest.fixture(scope="module")
def port(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    tls = TransportAuthority(tmp_path_factory.mktemp("tls"))
    (number,) = free_ports(1)
    app = create_app(gateway)
    large = bytes(LARGE)

    @app.get("/large")
    async def _large() -> Response:
        return Response(large)

    @app.get("/slow")
    async def _slow() -> dict[str, str]:
        await asyncio.sleep(0.3)
        return {}

    stop = asyncio.Event()
    served = Served(app, number, tls.server("gateway"), bounds=BOUNDS)
    thread = threading.Thread(target=lambda: uvloop.run(serve(served, work=stop.wait())))  # type: ignore[arg-type]
    thread.start()
    made = Port(number, client_context(tls.file.read_text("ascii")))
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(OSError):
            made.well()
            break
        time.sleep(0.02)
    yield made
    stop._loop.call_soon_threadsafe(stop.set)  # type: ignore[attr-defined]
    thread.join(10)


FORMS: dict[str, tuple[bytes, int]] = {
    "bytes of no protocol": (os.urandom(200).replace(b"\r", b"x") + b"\r\n\r\n", 400),
    "a TLS greeting inside of TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32), 400),
    "HTTP/2 by itself": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "an upgrade": (GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
    "a tunnel": (b"CONNECT other:443 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "another host in the target": (b"GET http://other/healthz HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no path": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "two hosts": (GET + HOST + b"\r\n", 400),
    "a line feed alone": (b"GET /healthz HTTP/1.1\nHost: gateway\n\n", 400),
    "a folded field": (GET + b"X: a\r\n b\r\n\r\n", 400),
    "a blank before the colon": (GET + b"Content-Length : 3\r\n\r\nabc", 400),
    "a control character in a field": (GET + b"X: a\x00b\r\n\r\n", 400),
    "two lengths": (GET + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "a length with a sign": (GET + b"Content-Length: +3\r\n\r\nabc", 400),
    "a length and chunks": (GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks and a length": (GET + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 411),
    "chunks": (GET + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nSignature: late\r\n\r\n", 411),
    "chunks under another name": (GET + b"Transfer-Encoding: xchunked\r\n\r\n", 411),
    "a thousand fields": (GET + b"X: a\r\n" * 1_000 + b"\r\n", 431),
    "a large field": (GET + b"X: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    "a long path": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_two_readers_could_read_differently(port: Port, form: str) -> None:
    """Smuggling begins where the one before a gateway and the gateway see other requests in the same bytes."""
    data, status = FORMS[form]
    code = Code.REQUEST_TOO_LARGE if status == 431 else Code.REQUEST_MALFORMED
    answers, seconds = port.say(data)
    assert answers == [(status, code)]
    assert seconds < SOON
    port.well()


def test_what_follows_a_request_is_no_request(port: Port) -> None:
    """Pipelined, or left over: the first is answered, the others are nobody's."""
    assert port.say(GET.replace(b"healthz", b"slow") + b"\r\n" + (GET + b"\r\n") * 3)[0] == [(200, "")]


def test_a_field_without_end_is_not_collected(port: Port) -> None:
    """It is refused while it comes, and not listened to for longer than the refusal takes to be read."""
    began = time.monotonic()
    with port.connect() as line, suppress(OSError):
        line.sendall(GET + b"X: ")
        while time.monotonic() - began < 10:
            line.sendall(b"a" * 65_536)
    assert time.monotonic() - began < BOUNDS.flush_seconds + SOON
    port.well()


def test_a_body_is_bounded_and_never_unpacked(port: Port) -> None:
    """Before anybody has signed: by its route's bound; a packed one by what it says of itself."""
    keys = b"POST /v1/agreements:list HTTP/1.1\r\nConnection: close\r\n" + HOST
    bomb = b"\x1f\x8b" + bytes(100)
    large = b"Content-Length: %d\r\n\r\n" % (LARGE // 32 + 1) + bytes(LARGE // 32 + 1)
    for data, expected in (
        (large, (413, Code.REQUEST_TOO_LARGE)),
        (b"Content-Encoding: gzip\r\nContent-Length: 102\r\n\r\n" + bomb, (415, Code.REQUEST_ENCODED)),
        (b"Content-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}", (401, Code.REQUEST_UNSIGNED)),
    ):
        assert port.say(keys + data)[0] == [expected]


SLOW: dict[str, tuple[bytes, Sequence[bytes], list[tuple[int, str]], float]] = {
    "says nothing": (b"", (), [], BOUNDS.idle_seconds),
    "says nothing, line by line": (b"\r\n", [b"\r\n"] * 40, [], BOUNDS.idle_seconds),
    "half a head": (GET[:9], (), [(408, Code.REQUEST_SLOW)], BOUNDS.request_seconds),
    "a head, byte by byte": (GET, [b"X"] * 40, [(408, Code.REQUEST_SLOW)], BOUNDS.request_seconds),
    "half a body": (
        b"POST /v1/keys HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nab",
        (),
        [(408, Code.REQUEST_SLOW)],
        BOUNDS.request_seconds,
    ),
    "a body, byte by byte": (
        b"POST /v1/keys HTTP/1.1\r\n" + HOST + b"Content-Length: 900\r\n\r\nab",
        [b"a"] * 40,
        [(408, Code.REQUEST_SLOW)],
        BOUNDS.request_seconds,
    ),
    "a body that nobody reads": (
        GET + b"Content-Length: 900\r\n\r\n",
        [b"a"] * 40,
        [(200, "")],
        BOUNDS.request_seconds,
    ),
    "goes on after an answer": (GET + b"\r\n", [b"\r\n"] * 40, [(200, "")], BOUNDS.idle_seconds),
}


def test_whoever_is_slow_is_hung_up_on(port: Port) -> None:
    """By a deadline that no byte lifts, and told so where there was a request. All at once: others are answered."""
    with ThreadPoolExecutor(len(SLOW)) as pool:
        asked = {name: pool.submit(port.say, data, every=every) for name, (data, every, _, _) in SLOW.items()}
        port.well()
        for name, said in asked.items():
            _, _, expected, bound = SLOW[name]
            answers, seconds = said.result()
            assert answers == expected, name
            assert bound - 0.1 < seconds < bound + SOON, name
    port.well()


def test_whoever_never_reads_is_hung_up_on(port: Port) -> None:
    """The answer is not kept for ever: neither a large one, nor the next."""
    with port.connect() as line:
        line.settimeout(0.05)
        line.sendall(GET.replace(b"healthz", b"large") + b"\r\n")
        began = time.monotonic()
        gone = False
        while not gone and time.monotonic() - began < 5:
            time.sleep(0.05)
            gone = line.fileno() >= 0 and _hung_up(port.number, line.getsockname()[1])
        assert gone
        assert BOUNDS.unread_seconds - 0.1 < time.monotonic() - began < BOUNDS.unread_seconds + SOON
    port.well()


def test_a_large_answer_comes_whole_to_whoever_reads_it(port: Port) -> None:
    """However long that takes: what has a deadline is each piece."""
    began = time.monotonic()
    count = 0
    with port.connect() as line:
        line.sendall(GET.replace(b"healthz", b"large") + b"Connection: close\r\n\r\n")
        while block := line.recv(65_536):
            count += len(block)
            if count % (1024 * 1024) < len(block):
                time.sleep(0.02)
    assert LARGE < count < LARGE + 1_000
    assert time.monotonic() - began > BOUNDS.unread_seconds


def _hung_up(server: int, client: int) -> bool:
    """Whether the server's end of a connection is no longer established (Linux, /proc/net/tcp)."""
    with open("/proc/net/tcp", encoding="ascii") as lines:  # noqa: PTH123 - of the kernel
        for line in lines:
            _, local, remote, state, *_ = line.split()
            if local.endswith(f":{server:04X}") and remote.endswith(f":{client:04X}"):
                return state != "01"
    return True


def test_whoever_does_not_greet_is_hung_up_on(port: Port) -> None:
    began = time.monotonic()
    with port.connect(greet=False) as line, suppress(ConnectionError):
        assert line.recv(1) == b""
    assert time.monotonic() - began < BOUNDS.handshake_seconds + SOON


def test_idle_callers_make_room_and_a_burst_waits_its_turn(port: Port) -> None:
    """Twenty times as many as there are places, silent before or after their greeting; others are answered."""
    began = time.monotonic()
    crowd = [port.connect(greet=False) for _ in range(380)]
    try:
        crowd += [port.connect() for _ in range(20)]
        port.well()
        assert time.monotonic() - began < 4  # 20 rounds of patience; of handshakes' deadlines they would take 6 s
        burst = GET.replace(b"healthz", b"slow") + b"Connection: close\r\n\r\n"
        with ThreadPoolExecutor(60) as pool:
            answers = [said[0] for said in pool.map(port.say, [burst] * 60)]
        assert answers == [[(200, "")]] * 60
    finally:
        for line in crowd:
            line.close()


def test_a_client_that_goes_away_is_no_defect(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    """In the middle of a body: nothing is logged as an error, whoever does it how often."""
    for _ in range(3):
        with port.connect() as line:
            line.sendall(b"POST /v1/keys HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nab")
    port.well()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
