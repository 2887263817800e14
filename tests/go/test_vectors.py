"""Other people's vectors of Merkle trees, against the functions that the log is made and checked with."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from bus import merkle
from bus.tlog import tiles
from bus.tlog.tiles import Edge, Range
from schemas.errors import Malformed

# github.com/transparency-dev/merkle at 417fb0c (Apache-2.0): testdata/inclusion and testdata/consistency, one case a
# line behind its file's name. Its releases do not carry them.
VECTORS: list[Mapping[str, Any]] = json.loads(Path(__file__).with_name("merkle-vectors.json").read_text("utf-8"))
# draft-ietf-plants-merkle-tree-certs, "Subtree Test Vectors": SHA-256 over every answer for trees up to this size.
LARGEST = 130
SUBTREES = "b82806ad4265bb151c1119c0f4db437bb4d1a1f887b3a7fba1cd4ebf552e3e81"
INCLUSIONS = "ac2a8f989e44d99e399db448050ff5f19757df53cfb716aa81015d3955d8163f"
CONSISTENCIES = "10fa99b37bf9bf9ffa26b412fbd98bd75363256d0b75d61bc4538b9c9c5a0a74"


def _holds(v: Mapping[str, Any]) -> bool:
    proof = [b64decode(one) for one in v["proof"] or ()]
    try:
        if "leafIdx" in v:
            found = merkle.root_from_path(b64decode(v["leafHash"]), v["leafIdx"], v["treeSize"], proof)
            return found == b64decode(v["root"])
        merkle.verify_consistency(v["size1"], v["size2"], b64decode(v["root1"]), b64decode(v["root2"]), proof)
    except Malformed:
        return False
    return True


def test_proofs_of_transparency_dev() -> None:
    assert len(VECTORS) == 196
    assert [v["file"] for v in VECTORS if _holds(v) == v["wantErr"]] == []


# The draft's trees: leaf n is the byte n. A subtree [start, end) is valid where a proof's subtree may stand.

LEAVES = [merkle.leaf_hash(bytes([n])) for n in range(LARGEST)]
_, TILES = tiles.grow(Edge(), LEAVES)


def _subtrees(size: int) -> list[Range]:
    """The valid subtrees that end at this size, the empty one among them."""
    return [
        Range(begin, size) for begin in range(size + 1) if begin % (1 << max(size - begin - 1, 0).bit_length()) == 0
    ]


def test_every_subtree_and_every_inclusion_in_it() -> None:
    subtrees, inclusions = sha256(), sha256()
    for begin, end in (subtree for size in range(LARGEST + 1) for subtree in _subtrees(size)):
        edge, grown = tiles.grow(Edge(), LEAVES[begin:end])
        assert edge.root() == merkle.root(LEAVES[begin:end])
        subtrees.update(f"[{begin}, {end}) {edge.root().hex()}\n".encode())
        for index in range(end - begin):
            path = tiles.hashes(tiles.inclusion(index, end - begin), grown)
            line = [f"{begin + index} [{begin}, {end})", *(one.hex() for one in path)]
            inclusions.update((" ".join(line) + "\n").encode())
    assert (subtrees.hexdigest(), inclusions.hexdigest()) == (SUBTREES, INCLUSIONS)


def test_every_consistency_of_a_subtree() -> None:
    found = sha256()
    for size in range(LARGEST + 1):
        for begin, end in (subtree for last in range(size + 1) for subtree in _subtrees(last)):
            proof = tiles.consistency(end, size) if begin == 0 else _consistency(begin, end, Range(0, size), True)
            found.update((" ".join([f"[{begin}, {end}) {size}", *map(_hash, proof)]) + "\n").encode())
    assert found.hexdigest() == CONSISTENCIES


def _consistency(begin: int, end: int, within: Range, known: bool) -> list[Range]:
    """The draft's SUBTREE_SUBPROOF, for what a log has no use for: subtrees that do not begin at 0."""
    if begin == end:
        return []
    if (begin, end) == within:
        return [] if known else [within]
    middle = within.begin + (1 << ((within.end - within.begin - 1).bit_length() - 1))
    left, right = Range(within.begin, middle), Range(middle, within.end)
    if end <= middle:
        return [*_consistency(begin, end, left, known), right]
    if middle <= begin:
        return [*_consistency(begin, end, right, known), left]
    return [*_consistency(middle, end, right, False), left]


@cache
def _hash(span: Range) -> str:
    return tiles.hashes([span], TILES)[0].hex()
