"""A log's tree in tiles: C2SP tlog-tiles over RFC 6962 hashing. Pure.

A tile of level L holds up to 256 hashes of perfect subtrees of 256^L leaves. A partial tile is the beginning of the
full one, so whoever stores the longest has them all; only the tiles on the right edge ever grow (`Edge`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from bus import merkle
from schemas.errors import Code, Malformed

WIDTH = 256
HEIGHT = 8
HASH_BYTES = 32
FULL_BYTES = WIDTH * HASH_BYTES
MAX_ENTRY_BYTES = 65_535  # a bundle gives each entry's length as a uint16
_LEVELS = 8  # 256^8 leaves: an offset of Kafka is an int64
_PATH = re.compile(r"tile/(entries|0|[1-9]\d?)/((?:x\d{3}/)*\d{3})(?:\.p/([1-9]\d{0,2}))?")


class Tile(NamedTuple):
    """A tile's place: `level` 0 to 63, or -1 for a bundle of entries."""

    level: int
    number: int


ENTRIES = -1
Tiles = Mapping[Tile, bytes]


class Range(NamedTuple):
    """The leaves `begin` ≤ n < `end`: the subtree over them is one hash of a proof."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Edge:
    """The right edge of a tree of `size` leaves: at each level the hashes of its partial tile, empty if there is none.

    All that growing needs, whatever the tree's size: at most eight times 255 hashes.
    """

    size: int = 0
    tails: tuple[bytes, ...] = (b"",) * _LEVELS

    @classmethod
    def of(cls, size: int, tiles: Tiles) -> Edge:
        """From the tiles of `edge_tiles(size)`. Raises `Malformed` (LOG_TAMPERED) if one is missing or too short."""
        tails = []
        for level in range(_LEVELS):
            width = partial_width(size, level)
            tile = Tile(level, size >> (HEIGHT * (level + 1)))
            hashes = tiles.get(tile, b"")[: width * HASH_BYTES] if width else b""
            if len(hashes) != width * HASH_BYTES:
                raise Malformed(Code.LOG_TAMPERED, f"{path(tile, width)} is missing or too short")
            tails.append(hashes)
        return cls(size, tuple(tails))

    def root(self) -> bytes:
        """The tree's root."""
        nodes: list[bytes] = []
        for level in range(_LEVELS - 1, -1, -1):
            nodes.extend(_perfect(self.tails[level]))
        return _fold(nodes)


def edge_tiles(size: int) -> list[Tile]:
    """The partial tiles of a tree of this size."""
    return [Tile(n, size >> (HEIGHT * (n + 1))) for n in range(_LEVELS) if partial_width(size, n)]


def partial_width(size: int, level: int) -> int:
    """How many hashes the level's partial tile has; 0 if there is none."""
    return (size >> (HEIGHT * level)) % WIDTH


def grow(edge: Edge, leaves: Sequence[bytes]) -> tuple[Edge, dict[Tile, bytes]]:
    """The edge after these leaf hashes, and every tile that changed, as long as it is now."""
    changed: dict[Tile, bytes] = {}
    tails = list(edge.tails)
    new = b"".join(leaves)
    size = edge.size
    for level in range(_LEVELS):
        if not new:
            break
        index = size >> (HEIGHT * (level + 1))
        hashes = tails[level] + new
        new = b""
        whole = len(hashes) // FULL_BYTES
        for at in range(whole):
            full = hashes[at * FULL_BYTES : (at + 1) * FULL_BYTES]
            changed[Tile(level, index + at)] = full
            new += perfect_root(full)
        tails[level] = hashes[whole * FULL_BYTES :]
        if tails[level]:
            changed[Tile(level, index + whole)] = tails[level]
    return Edge(size + len(leaves), tuple(tails)), changed


# Proofs


def inclusion(index: int, size: int) -> list[Range]:
    """The subtrees of an inclusion proof, leaf to root (RFC 6962 §2.1.1)."""
    if not 0 <= index < size:
        raise Malformed(Code.PROOF_INVALID, f"entry {index} is outside a log of {size}")
    ranges: list[Range] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            ranges.append(Range(middle, end))
            end = middle
        else:
            ranges.append(Range(begin, middle))
            begin = middle
    return ranges[::-1]


def consistency(old: int, new: int) -> list[Range]:
    """The subtrees of a consistency proof between two sizes (RFC 6962 §2.1.2)."""
    if not 0 <= old <= new:
        raise Malformed(Code.PROOF_INVALID, f"a log of {new} has no earlier size {old}")
    if old in (0, new):
        return []
    ranges: list[Range] = []
    begin, end = 0, new
    known = True  # whether the subtree at hand is one that the verifier has: the old tree's root itself
    while (last := old - begin) != end - begin:
        middle = begin + _split(end - begin)
        if last <= middle - begin:
            ranges.append(Range(middle, end))
            end = middle
        else:
            ranges.append(Range(begin, middle))
            begin = middle
            known = False
    if not known:
        ranges.append(Range(begin, end))
    return ranges[::-1]


def tiles_for(ranges: Iterable[Range]) -> set[Tile]:
    """The tiles that hold what these subtrees are made of."""
    return {Tile(height // HEIGHT, at >> (HEIGHT - height % HEIGHT)) for r in ranges for height, at in _nodes(r)}


def hashes(ranges: Iterable[Range], tiles: Tiles) -> list[bytes]:
    """Each subtree's hash. Raises `Malformed` (LOG_TAMPERED) if a tile of `tiles_for` is missing or too short."""
    return [_fold([_node(height, at, tiles) for height, at in _nodes(r)]) for r in ranges]


def _nodes(span: Range) -> list[tuple[int, int]]:
    """The perfect subtrees (height, place) of a range that begins where a proof's subtree may, left to right."""
    nodes = []
    at = span.begin
    while at < span.end:
        height = (span.end - at).bit_length() - 1
        if at:
            height = min(height, (at & -at).bit_length() - 1)
        nodes.append((height, at >> height))
        at += 1 << height
    return nodes


def _node(height: int, at: int, tiles: Tiles) -> bytes:
    level, inside = divmod(height, HEIGHT)
    tile = Tile(level, at >> (HEIGHT - inside))
    begin = (at << inside) % WIDTH * HASH_BYTES
    data = tiles.get(tile, b"")[begin : begin + (HASH_BYTES << inside)]
    if len(data) != HASH_BYTES << inside:
        raise Malformed(Code.LOG_TAMPERED, f"{path(tile, WIDTH)} is missing or too short")
    return perfect_root(data)


def perfect_root(data: bytes) -> bytes:
    """The root over a power of two of hashes that stand one after the other."""
    while len(data) > HASH_BYTES:
        data = b"".join([sha256(b"\x01" + data[at : at + 64]).digest() for at in range(0, len(data), 64)])
    return data


def _perfect(data: bytes) -> list[bytes]:
    """The roots of the perfect subtrees that these hashes make up, the largest first."""
    roots = []
    count = len(data) // HASH_BYTES
    begin = 0
    for height in range(HEIGHT - 1, -1, -1):
        if count >> height & 1:
            length = HASH_BYTES << height
            roots.append(perfect_root(data[begin : begin + length]))
            begin += length
    return roots


def _fold(nodes: Sequence[bytes]) -> bytes:
    """One hash over perfect subtrees of falling size."""
    if not nodes:
        return merkle.EMPTY_ROOT
    folded = nodes[-1]
    for node in reversed(nodes[:-1]):
        folded = merkle.node_hash(node, folded)
    return folded


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


# Paths and bundles


def path(tile: Tile, width: int = WIDTH) -> str:
    """`tile/<level or entries>/<index>[.p/<width>]`: three digits a group, all but the last behind an `x`."""
    groups = [f"{tile.number % 1000:03d}"]
    rest = tile.number // 1000
    while rest:
        groups.append(f"x{rest % 1000:03d}")
        rest //= 1000
    level = "entries" if tile.level == ENTRIES else str(tile.level)
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"


def parse_path(text: str) -> tuple[Tile, int]:
    """The tile and width that a path names, in its one spelling. Raises `Malformed` (REQUEST_MALFORMED)."""
    found = _PATH.fullmatch(text)
    if found is not None:
        level = ENTRIES if found[1] == "entries" else int(found[1])
        width = int(found[3] or WIDTH)
        tile = Tile(level, int(found[2].replace("x", "").replace("/", "")))
        if level < 64 and tile.number < 1 << 56 and width <= WIDTH and path(tile, width) == text:
            return tile, width
    raise Malformed(Code.REQUEST_MALFORMED, "a path is tile/<level>/<index> or tile/entries/<index>, C2SP tlog-tiles")


def widths(size: int) -> Iterable[tuple[Tile, int]]:
    """Every tile and bundle of a log of this size with its width, from the bottom up, bundles first."""
    for level in (ENTRIES, *range(_LEVELS)):
        hashes_there = size >> (HEIGHT * max(level, 0))
        for index in range(hashes_there // WIDTH):
            yield Tile(level, index), WIDTH
        if hashes_there % WIDTH:
            yield Tile(level, hashes_there // WIDTH), hashes_there % WIDTH


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Entries one after the other, each behind its length as a big-endian uint16."""
    return b"".join([len(entry).to_bytes(2) + entry for entry in entries])


def starts(bundle: bytes) -> list[int]:
    """Where each entry's bytes begin, behind its length. Raises `Malformed` (LOG_TAMPERED) if lengths do not add up."""
    found = []
    at, end = 0, len(bundle)
    while at + 2 <= end:
        found.append(at + 2)
        at += 2 + int.from_bytes(bundle[at : at + 2])
    if at != end or len(found) > WIDTH:
        raise Malformed(Code.LOG_TAMPERED, "the bundle's lengths do not add up to its size")
    return found


def split_bundle(bundle: bytes) -> list[bytes]:
    """The entries of a bundle. Raises `Malformed` (LOG_TAMPERED)."""
    return [bundle[at : at + int.from_bytes(bundle[at - 2 : at])] for at in starts(bundle)]
