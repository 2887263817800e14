"""What a gateway that was taken over can answer a department's client: an error of ours, in bounded time and memory."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bus import client
from bus.client import MAX_ANSWER_BYTES, GatewayClient
from deploy.stack.tls import TransportAuthority
from schemas.errors import Code, DeptbusError
from tests.vectors import world

BOMB = gzip.compress(bytes(256 * 1024 * 1024), 1)
Answer = Callable[[asyncio.StreamWriter], Any]


def whole(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> Answer:
    head = b"".join(field + b"\r\n" for field in (b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *fields))

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head + b"\r\n" + body)

    return answer


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"a" * 65_536)
        await writer.drain()


async def dripping(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def fields_without_end(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: " + b"a" * 60_000 + b"\r\n")
        await writer.drain()


HOSTILE: dict[str, tuple[Answer, Code]] = {
    "packed": (whole(BOMB, b"Content-Encoding: gzip"), Code.REQUEST_ENCODED),
    "packed twice": (whole(BOMB, b"Content-Encoding: gzip, deflate"), Code.REQUEST_ENCODED),
    "longer than any": (whole(bytes(MAX_ANSWER_BYTES + 1)), Code.REQUEST_TOO_LARGE),
    "endless": (endless, Code.REQUEST_TOO_LARGE),
    "dripping": (dripping, Code.GATEWAY_UNAVAILABLE),
    "fields without end": (fields_without_end, Code.GATEWAY_UNAVAILABLE),
    "nested": (whole(b"[" * 200_000), Code.REQUEST_MALFORMED),
    "a number without end": (whole(b"9" * 100_000), Code.REQUEST_MALFORMED),
    "no JSON": (whole(b"\xff\x00"), Code.REQUEST_MALFORMED),
    "a refusal without a code": (whole(b"[]", status=b"403 Forbidden"), Code.GATEWAY_UNAVAILABLE),
    "a refusal that nests": (whole(b"[" * 200_000, status=b"403 Forbidden"), Code.GATEWAY_UNAVAILABLE),
    "a code of its own": (whole(b'{"code":"HAHA","detail":""}', status=b"403 Forbidden"), Code.GATEWAY_UNAVAILABLE),
    "another place to ask": (
        whole(b"", b"Location: http://192.0.2.1/", status=b"307 Temporary Redirect"),
        Code.GATEWAY_UNAVAILABLE,
    ),
    "no HTTP": (lambda writer: _say(writer, b"SSH-2.0-x\r\n"), Code.GATEWAY_UNAVAILABLE),
}


async def _say(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)


@pytest.fixture
async def ask(tmp_path: Path) -> AsyncIterator[Callable[[Answer], Any]]:
    """What a department's client makes of an answer."""
    saying: list[Answer] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await saying[0](writer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    authority = TransportAuthority(tmp_path).file.read_text("ascii")
    identity = SimpleNamespace(department=world.DEPARTMENT, tls_authority=authority, refresh=lambda: None)

    async def ask(answer: Answer) -> Any:
        saying[:] = [answer]
        async with GatewayClient(cast(Any, identity), [url]) as gateway:
            return await gateway.post_json("/v1/agreements:list", {})

    yield ask
    server.close()


@pytest.mark.parametrize("name", HOSTILE)
async def test_an_answer_is_read_no_further_than_it_may_go(
    ask: Callable[[Answer], Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "WHOLE_SECONDS", 2.0 if name != "dripping" else 0.2)
    answer, code = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(DeptbusError) as refused:
            await asyncio.wait_for(ask(answer), 10)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.code is code
    assert peak < 4 * MAX_ANSWER_BYTES


async def test_a_plain_answer_is_read(ask: Callable[[Answer], Any]) -> None:
    assert await ask(whole(b"[]")) == []
