"""Consistency: every pair of sizes is proven by the proof for it, and by nothing near it."""

from __future__ import annotations

import pytest

from bus import merkle
from bus.tlog import tiles
from bus.tlog.tiles import Edge
from schemas.errors import Malformed

SIZES = range(1, 34)
LEAVES = [merkle.leaf_hash(bytes([n])) for n in SIZES]
ROOTS = [merkle.root(LEAVES[:size]) for size in range(len(LEAVES) + 1)]
_, TILES = tiles.grow(Edge(), LEAVES)


def _holds(old: int, new: int, root1: bytes, root2: bytes, proof: list[bytes]) -> bool:
    try:
        merkle.verify_consistency(old, new, root1, root2, proof)
    except Malformed:
        return False
    return True


def test_the_proof_for_two_sizes_shows_them_and_nothing_else() -> None:
    for new in SIZES:
        for old in range(1, new + 1):
            proof = tiles.hashes(tiles.consistency(old, new), TILES)
            pair = ROOTS[old], ROOTS[new]
            merkle.verify_consistency(old, new, *pair, proof)
            other = bytes(32)
            assert not _holds(old, new, other, ROOTS[new], proof)
            assert not _holds(old, new, ROOTS[old], other, proof)
            assert not _holds(old, new, *pair, [*proof, other])
            assert not _holds(old, new, *pair, [other, *proof])
            for at in range(len(proof)):
                assert not _holds(old, new, *pair, [*proof[:at], other, *proof[at + 1 :]])
                assert not _holds(old, new, *pair, [*proof[:at], *proof[at + 1 :]])


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 1), (-1, 1), (2, 1)])
def test_nothing_shows_that_an_empty_or_a_larger_tree_is_the_beginning(old: int, new: int) -> None:
    assert not _holds(old, new, merkle.EMPTY_ROOT, merkle.EMPTY_ROOT, [])
