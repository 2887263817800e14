"""Which export a file is: the same again, or one that has grown, so that no line of it is fed twice.

A licence that changes inside one export (its old state on line 10, its new one on line 500) would otherwise flip back
and forth each time the file is read again: after a crash, or because a watched file has grown.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from bus.pki import write_private
from schemas.errors import Code, Malformed

MAX_KNOWN = 1_000  # exports remembered: three years of daily ones
_BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Known:
    """An export as it was last fed: its first `size` bytes have this SHA-256."""

    id: str
    size: int
    digest: str


class Exports:
    """The exports that a department fed, in one small file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def identify(self, export: Path) -> str:
        """The id of the export that this file is or continues, else a new one; remembered before its first record.

        A crash after this leaves an id that the next reading finds again: what was fed by then is known by its line.
        """
        known = self._read()
        with export.open("rb") as file:
            size, digests = _digests(file, sorted({one.size for one in known}))
        same = next((one for one in reversed(known) if digests.get(one.size) == one.digest), None)
        found = Known(same.id if same else secrets.token_hex(8), size, digests[size])
        kept = [one for one in known if one is not same][-MAX_KNOWN + 1 :]
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self._path, json.dumps([asdict(one) for one in (*kept, found)]).encode())
        return found.id

    def _read(self) -> list[Known]:
        if not self._path.exists():
            return []
        try:
            return [Known(**one) for one in json.loads(self._path.read_text("ascii"))]
        except (ValueError, TypeError, RecursionError) as exc:
            raise Malformed(
                Code.DATA_CORRUPT, f"{self._path} cannot be read: restore it, or remove it and expect old states again"
            ) from exc


def _digests(file: IO[bytes], sizes: list[int]) -> tuple[int, dict[int, str]]:
    """The file's size, and the SHA-256 of its beginnings of these sizes and of the whole."""
    digest, at = hashlib.sha256(), 0
    found: dict[int, str] = {}
    for size in sizes:
        while at < size and (block := file.read(min(_BLOCK, size - at))):
            digest.update(block)
            at += len(block)
        if at < size:
            break
        found[size] = digest.hexdigest()
    while block := file.read(_BLOCK):
        digest.update(block)
        at += len(block)
    found[at] = digest.hexdigest()
    return at, found
