"""What a log states: so many entries, under this root (C2SP tlog-checkpoint v1.0.0). A signed note carries it."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass

from bus.tlog.note import strict_base64
from schemas.errors import Code, Malformed

MAX_SIZE = 2**63 - 1
ROOT_BYTES = 32
_SIZE = re.compile("0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log by its origin, its number of entries, and the 32-byte root over them (RFC 6962).

    Raises `Malformed` (NOTE_INVALID) for what could not be written. `parse` is `text`'s inverse.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or "\n" in self.origin:
            raise Malformed(Code.NOTE_INVALID, "a checkpoint's origin is a line that is not empty")
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != ROOT_BYTES:
            raise Malformed(Code.NOTE_INVALID, f"a checkpoint has a size below 2^63 and a root of {ROOT_BYTES} bytes")

    @property
    def text(self) -> str:
        """The text of the note that carries it."""
        return checkpoint_text(self.origin, self.size, self.root)

    def to_json(self) -> dict[str, str | int]:
        """As every answer and archive names it: the root in base64."""
        return {"origin": self.origin, "size": self.size, "root": b64encode(self.root).decode()}


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    """`<origin>\\n<size>\\n<base64 of the root>\\n`."""
    return f"{origin}\n{size}\n{b64encode(root).decode()}\n"


def parse(text: str, *, extensions: bool = False) -> Checkpoint:
    """A checkpoint from a note's text. Raises `Malformed` (NOTE_INVALID).

    Our logs write no extension lines and none are taken, unless asked for: a witness cosigns what other logs add.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() or not all(lines):
        raise Malformed(Code.NOTE_INVALID, "a checkpoint is an origin, a size and a root, each a line")
    origin, size, root, *more = lines
    if more and not extensions:
        raise Malformed(Code.NOTE_INVALID, f"the checkpoint of {origin} has extension lines")
    return Checkpoint(origin, parse_size(size), strict_base64(root))


def parse_size(text: str) -> int:
    """A size in decimal without leading zeroes. Raises `Malformed` (NOTE_INVALID)."""
    if not _SIZE.fullmatch(text):
        raise Malformed(Code.NOTE_INVALID, "a size is a decimal number below 2^63 without leading zeroes")
    return int(text)
