"""A line that can be cut, by silence, as a network that swallows packets, or by a reset; or made slow."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

CHUNK = 65_536


class Line:
    """An async context manager: a TCP relay to a port of this machine."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open = asyncio.Event()
        self._open.set()
        self._refusing = False
        self._delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._relays: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._open.set()
        self._drop()
        await asyncio.gather(*self._relays, return_exceptions=True)

    def silence(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        self._open.clear()

    def reset(self) -> None:
        """Every connection breaks, and no new one comes about."""
        self._refusing = True
        self._drop()

    def slow(self, seconds: float) -> None:
        """Each piece, of 64 KiB at most, takes that long, either way."""
        self._delay = seconds

    def mend(self) -> None:
        """New connections get through; those that were silenced are gone."""
        self._refusing = False
        self._delay = 0.0
        self._drop()
        self._open.set()

    def _drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._relay(reader, writer))
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            await self._open.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
            self._writers.add(back)
            with suppress(OSError):
                await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
            self._writers.discard(back)
        except OSError:
            pass  # nobody listens there: whoever came is told below
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                await self._open.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                writer.write(data)
                await writer.drain()
        finally:
            writer.transport.abort()
