"""Copies a log into a folder, laid out as C2SP tlog-tiles lays it out, and verifies it while it goes.

A file that is there is not fetched again, but checked like the others: an export that was cut off goes on, and an old
one is brought up to date. Files appear whole or not at all; the checkpoint comes last, so that it never states more
than there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from bus import merkle
from bus.tlog import tiles, verify
from bus.tlog.checkpoint import Checkpoint
from bus.tlog.note import Verifier
from bus.tlog.tiles import ENTRIES, FULL_BYTES, HASH_BYTES, WIDTH, Edge, Tile
from bus.tlog.verify import CHECKPOINT, Advance
from schemas.errors import Code, Malformed, Refused

VKEY = "log.vkey"
AT_ONCE = 8  # fetches; also the bundles that are in memory: 16 MiB each at most, a tenth of one as a rule

T = TypeVar("T")
_UNFINISHED = ".new"


class Source(Protocol):
    """Where the log is read."""

    async def checkpoint(self) -> bytes:
        """The newest signed note."""

    async def tile(self, path: str) -> bytes:
        """A file by its path in the log, as `bus.tlog.tiles.path` says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What is in the folder now; `fetched` files of it came from the log, the others were there."""

    checkpoint: Checkpoint
    fetched: int


async def export(folder: Path, source: Source, log: Verifier, advance: Advance) -> Exported:
    """Brings the folder to the log's newest checkpoint.

    Raises `Malformed` or `Refused` for the first file that is not the log's, by its name (LOG_TAMPERED), for a
    checkpoint that its key has not signed (SIGNATURE_INVALID), for a log that does not go on from the checkpoint that
    the folder has (LOG_FORK); and what the source raises. What was good until then stays.
    """
    copy = _Copy(folder, source)
    older_note = copy.read(CHECKPOINT)
    older = None if older_note is None else verify.signed(older_note, log, name=f"{folder / CHECKPOINT}")
    signed = await source.checkpoint()
    at = verify.signed(signed, log, name="the log's checkpoint")
    if older is not None and older.size > at.size:
        raise Refused(
            Code.LOG_FORK, f"the log states {at.size} entries, and {folder} has {older.size} that it had signed before"
        )
    await copy.bring_to(at, older, advance)
    copy.write(VKEY, f"{log.vkey}\n".encode())
    copy.write(CHECKPOINT, signed)
    await asyncio.to_thread(copy.remove_old, at.size)
    return Exported(checkpoint=at, fetched=copy.fetched)


class _Copy:
    def __init__(self, folder: Path, source: Source) -> None:
        self._folder = folder
        self._source = source
        self._fresh: dict[str, bytes] = {}
        self.fetched = 0

    async def bring_to(self, at: Checkpoint, older: Checkpoint | None, advance: Advance) -> None:
        """Bundle by bundle: their entries make the tiles, the tiles the root. Nothing is written before it fits."""
        edge, of = Edge(), -(-at.size // WIDTH)
        for first in range(0, of, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, of))
            bundles = await _all(self._leaves(number, min(WIDTH, at.size - number * WIDTH)) for number in numbers)
            leaves = [leaf for of_bundle in bundles for leaf in of_bundle]
            if older is not None and edge.size < older.size <= edge.size + len(leaves):
                self._check_goes_on(older, tiles.grow(edge, leaves[: older.size - edge.size])[0])
            edge, changed = tiles.grow(edge, leaves)
            due = {tile: hashes for tile, hashes in changed.items() if len(hashes) == FULL_BYTES}
            if edge.size == at.size:
                due |= {tile: edge.tails[tile.level] for tile in tiles.edge_tiles(at.size)}
            await _all(self._compare(tile, hashes) for tile, hashes in due.items())
            await asyncio.to_thread(self._keep)
            advance(numbers[-1] + 1, of)
        if edge.root() != at.root:
            raise Malformed(
                Code.LOG_TAMPERED, f"the log's {at.size} entries give another root than the one that it has signed"
            )

    def _check_goes_on(self, older: Checkpoint, edge: Edge) -> None:
        if edge.root() != older.root:
            raise Refused(
                Code.LOG_FORK,
                f"the log's first {older.size} entries are not those that it had signed, as {self._folder} shows: it "
                "states another history",
            )

    async def _leaves(self, number: int, width: int) -> list[bytes]:
        """The leaf hashes of a bundle."""
        path = tiles.path(Tile(ENTRIES, number), width)
        try:
            leaves = list(map(merkle.leaf_hash, tiles.split_bundle(await self._get(path))))
        except Malformed as exc:
            raise Malformed(exc.code, f"{path}: {exc.detail}") from exc
        if len(leaves) != width:
            raise Malformed(Code.LOG_TAMPERED, f"{path} has {len(leaves)} entries, not {width}")
        return leaves

    async def _compare(self, tile: Tile, hashes: bytes) -> None:
        path = tiles.path(tile, len(hashes) // HASH_BYTES)
        found = await self._get(path)
        if found == hashes:
            return
        at = next(
            (n for n in range(0, len(hashes), HASH_BYTES) if found[n : n + HASH_BYTES] != hashes[n : n + HASH_BYTES]), 0
        )
        what = "entry" if tile.level == 0 else "tile"
        place = tile.number * WIDTH + at // HASH_BYTES
        raise Malformed(
            Code.LOG_TAMPERED,
            f"{path}, hash {at // HASH_BYTES} is not that of {what} {place}: one of both was changed. If it was in "
            f"{self._folder}, remove both there and export again",
        )

    async def _get(self, path: str) -> bytes:
        data = await asyncio.to_thread(self.read, path)
        if data is None:
            data = self._fresh[path] = await self._source.tile(path)
        return data

    def _keep(self) -> None:
        for path, data in self._fresh.items():
            self.write(path, data)
        self.fetched += len(self._fresh)
        self._fresh.clear()

    def read(self, path: str) -> bytes | None:
        """A file of the folder, if it is there."""
        try:
            return (self._folder / path).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """Whole or not at all."""
        file = self._folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(file.name + _UNFINISHED)
        temporary.write_bytes(data)
        temporary.replace(file)

    def remove_old(self, size: int) -> None:
        """Partial files that longer ones have taken the place of, and what was not written to its end."""
        partial = [(tile, tiles.partial_width(size, tile.level)) for tile in tiles.edge_tiles(size)]
        partial.append((Tile(ENTRIES, size // WIDTH), size % WIDTH))
        keep = {self._folder / tiles.path(tile, width) for tile, width in partial}
        for file in [*self._folder.glob("tile/**/*.p/*"), *self._folder.glob(f"tile/**/*{_UNFINISHED}")]:
            if file not in keep:
                file.unlink(missing_ok=True)
        for folder in list(self._folder.glob("tile/**/*.p")):
            with suppress(OSError):  # one is still in use
                folder.rmdir()


async def _all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, or the first error, and then nothing of it goes on."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
