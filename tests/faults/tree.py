"""The log's tree a second time, straight from RFC 6962 §2.1 and C2SP tlog-tiles, to compare ours with.

Shares no code with `bus.merkle` or `bus.tlog`: a mistake there is not repeated here. It keeps every value, which a
server could not.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bus.tlog.note import Verifier

ENTRIES = -1


class Tree:
    """The tree over the values of a topic, in offset order."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self._perfect: dict[tuple[int, int], bytes] = {}

    def extend(self, values: Iterable[bytes | None]) -> None:
        """What no uint16 can give the length of, and what is nothing, is no leaf."""
        self.values += [value for value in values if value and len(value) < 65_536]

    def root(self, size: int) -> bytes:
        """MTH(D[0:size])."""
        return self._hash(0, size)

    def tile(self, level: int, number: int, size: int) -> bytes:
        """Hashes of subtrees of 256^level leaves: the 256 from 256 * number on, as far as the tree goes."""
        whole = size // 256**level
        places = range(256 * number, min(256 * (number + 1), whole))
        return b"".join(self._subtree(8 * level, place) for place in places)

    def bundle(self, number: int, size: int) -> bytes:
        """The entries from 256 * number on, each behind its length."""
        values = self.values[256 * number : min(256 * (number + 1), size)]
        return b"".join(len(value).to_bytes(2, "big") + value for value in values)

    def files(self, size: int) -> dict[tuple[int, int], bytes]:
        """Everything that a log of this size has, by level (-1 for bundles) and number."""
        found = {(ENTRIES, number): self.bundle(number, size) for number in range(-(-size // 256))}
        level = 0
        while size // 256**level:
            for number in range(-(-(size // 256**level) // 256)):
                found[level, number] = self.tile(level, number, size)
            level += 1
        return found

    def _hash(self, begin: int, end: int) -> bytes:
        count = end - begin
        if count == 0:
            return sha256(b"").digest()
        if count & (count - 1) == 0:
            height = count.bit_length() - 1
            return self._subtree(height, begin >> height)
        half = 1
        while half * 2 < count:
            half *= 2
        return _node(self._hash(begin, begin + half), self._hash(begin + half, end))

    def _subtree(self, height: int, place: int) -> bytes:
        found = self._perfect.get((height, place))
        if found is None:
            if height == 0:
                found = sha256(b"\x00" + self.values[place]).digest()
            else:
                found = _node(self._subtree(height - 1, 2 * place), self._subtree(height - 1, 2 * place + 1))
            self._perfect[height, place] = found
        return found


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


async def difference(connection: asyncpg.Connection, tree: Tree) -> str:
    """What of the stored log is not what the values give; empty if all of it is. The log may go on meanwhile."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        state = await connection.fetchrow("SELECT size, root FROM log_state")
        tiles = await connection.fetch("SELECT level, number, hashes FROM log_tile")
        bundles = await connection.fetch("SELECT number, entries FROM log_bundle")
    if state is None:
        return "there is no log"
    size = state["size"]
    if size > len(tree.values):
        return f"it has {size} entries, the topic {len(tree.values)}"
    if state["root"] != tree.root(size):
        return f"its root at {size} entries is another"
    stored = [((row["level"], row["number"]), row["hashes"]) for row in tiles]
    stored += [((ENTRIES, row["number"]), row["entries"]) for row in bundles]
    wanted = tree.files(size)
    if len(stored) != len(wanted):
        return f"it has {len(stored)} tiles and bundles, not {len(wanted)}"
    wrong = [place for place, data in stored if wanted.get(place) != data]
    return f"other bytes in (level, number) {wrong[:5]}" if wrong else ""


def size_of(note: bytes, verifier: Verifier, tree: Tree) -> int:
    """The size of a checkpoint that the log's key has signed and whose root is this tree's; -1 for any other."""
    text, _, signatures = note.decode().partition("\n\n")
    origin, size, root = text.split("\n")
    key = Ed25519PublicKey.from_public_bytes(_public(verifier))
    for line in signatures.splitlines():
        dash, name, blob = line.split(" ")
        if (dash, name) == ("—", origin):
            key.verify(base64.b64decode(blob)[4:], (text + "\n").encode())
            if int(size) <= len(tree.values) and base64.b64decode(root) == tree.root(int(size)):
                return int(size)
    return -1


def _public(verifier: Verifier) -> bytes:
    """The key of a vkey (C2SP signed-note): `<name>+<id>+<base64 of a type byte and the key>`."""
    encoded: Any = verifier.vkey.split("+", 2)[2]
    return base64.b64decode(encoded)[1:]
