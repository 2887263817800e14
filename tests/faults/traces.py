"""What is left of a record: its secrets as bytes anywhere, and whether any keys that there are open it.

Two questions, because each alone can be passed by mistake: bytes may lie somewhere under a wrapping that somebody can
open, and keys that should not be there may lie about in the clear.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus import hpke, session
from bus.envelope import Record
from bus.gateway.keyring import _DAY_BITS, _NONCE_BYTES, _ROOTS, Keyring, _point
from bus.punctured import Tree
from bus.sealing import LEAF_BITS, open_body, section_secret
from schemas.errors import DeptbusError, Refused

CHUNK = 4 * 1024 * 1024
_ZEROES = bytes(CHUNK)
Forms = dict[str, list[bytes]]


# Bytes


def of_key(name: str, key: bytes) -> Forms:
    """A secret of 32 random bytes, as it is and as text."""
    texts = (key.hex().encode(), key.hex().upper().encode(), base64.b64encode(key).rstrip(b"="))
    return {name: [key, *texts, base64.urlsafe_b64encode(key).rstrip(b"=")]}


def of_text(name: str, text: str) -> Forms:
    """A value of a section, as it is sent and stored, in JSON, and as Python holds what has Chinese in it."""
    return {name: [text.encode(), text.encode("ascii", "backslashreplace"), text.encode("utf-16-le")]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen in so many bytes."""

    bytes: int
    names: frozenset[str]


def look(chunks: Iterable[bytes], wanted: Forms) -> Seen:
    """Which of these are anywhere in a stream, also across two chunks. An empty chunk parts what is not adjacent."""
    needles = [(name, form) for name, forms in wanted.items() for form in dict.fromkeys(forms)]
    longest = max(len(form) for _, form in needles)
    found: set[str] = set()
    count, tail = 0, b""
    for chunk in chunks:
        count += len(chunk)
        if chunk == _ZEROES[: len(chunk)]:  # a gap, or nothing but it: keys are random, texts are text
            tail = b""
            continue
        data = tail + chunk
        found |= {name for name, form in needles if name not in found and form in data}
        tail = data[-longest + 1 :]
    return Seen(bytes=count, names=frozenset(found))


def of_files(paths: Iterable[Path]) -> Iterator[bytes]:
    """Every file below these folders; one that goes meanwhile is none."""
    for top in paths:
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_symlink() or not path.is_file():
                continue
            with suppress(FileNotFoundError), path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
            yield b""


def of_process(pid: int) -> Iterator[bytes]:
    """A process's memory, but for what is a file's and was never written. Raises `OSError` where nobody may read it."""
    with Path(f"/proc/{pid}/maps").open() as maps:
        places = [line.split(maxsplit=5) for line in maps]
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for span, rights, _, _, inode, *name in places:
            ours = "w" in rights or inode == "0"
            if "r" not in rights or not ours or (name and name[0].startswith("[v")):  # [vvar], [vdso], [vsyscall]
                continue
            begin, end = (int(text, 16) for text in span.split("-"))
            for at in range(begin, end, CHUNK):
                try:
                    data = os.pread(memory.fileno(), min(CHUNK, end - at), at)
                except OSError:  # unmapped meanwhile, or a device's
                    break
                yield data
            yield b""


# Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Every key of a keys' folder. Nodes are (depth, node): which of them they were said to be is not heeded."""

    kem: Sequence[hpke.PrivateKey]
    days: Sequence[tuple[int, bytes]]
    sections: Sequence[tuple[int, bytes]]

    @classmethod
    def of(cls, keyring: Keyring) -> Keys:
        """Raises `DeptbusError` if the folder's master key opens them not."""
        days = [keyring._tree(path.stem) for path in (keyring.folder / "wrap").glob("*.key")]
        left = [keyring.left(*_named(path.stem)) or {} for path in (keyring.folder / "left").glob("*.key")]
        return cls(
            kem=[key for key in map(keyring.kem, keyring.kem_ids) if key is not None],
            days=[node for tree in days if tree is not None for node in _nodes(tree)],
            sections=[node for trees in left for tree in trees.values() for node in _nodes(tree)],
        )

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.kem) + len(self.days) + len(self.sections)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A session as some copy has it: its record, and its roots as they were wrapped, if it has them."""

    value: bytes
    roots: bytes = b""


def opened_by(keys: Keys, stored: Iterable[Stored], record: Record) -> Mapping[str, bytes]:
    """The secrets of the record's sections that follow from these keys and copies, each tried out on the section.

    Every key is tried in every place: a node that lies where it should not be is found.
    """
    claims = record.claims
    at = claims.session + claims.issuer.encode()
    place = _point(claims.session, claims.issuer)
    names = [name for name, _ in claims.sections]
    roots: list[bytes] = []
    for one in stored:
        announced = session.parse(one.value)
        for private in keys.kem:
            with suppress(DeptbusError):
                roots += session.roots(announced, private, tuple(names)).values()
        for depth, node in keys.days:
            with suppress(InvalidTag, ValueError):
                wrapping = AESGCM(_down(_DAY_BITS, depth, node, place))
                plain = wrapping.decrypt(one.roots[:_NONCE_BYTES], one.roots[_NONCE_BYTES:], at)
                roots += [root["root"] for root in _ROOTS.decode(plain)]
    found: dict[str, bytes] = {}
    for depth, node in [*((0, root) for root in dict.fromkeys(roots)), *keys.sections]:
        secret = section_secret(_down(LEAF_BITS, depth, node, claims.leaf), record.prefix)
        for (name, commitment), body in zip(claims.sections, record.bodies, strict=True):
            with suppress(Refused):
                open_body(secret, commitment, body)
                found[name] = secret
    return found


def _down(bits: int, depth: int, node: bytes, leaf: int) -> bytes:
    """The leaf's node, if this one were above it."""
    return Tree(bits, {(depth, leaf >> bits - depth): node}).node(leaf)


def _nodes(tree: Tree) -> list[tuple[int, bytes]]:
    return [(depth, node) for (depth, _), node in tree.nodes.items()]


def _named(stem: str) -> tuple[bytes, str]:
    session_id, _, issuer = stem.partition("-")
    return bytes.fromhex(session_id), issuer
