"""The tree in tiles against the plain tree: growth in any steps, every proof, every path."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import merkle
from bus.tlog import tiles
from bus.tlog.tiles import ENTRIES, Edge, Tile
from schemas.errors import Code, Malformed


def leaves_of(count: int) -> list[bytes]:
    return [merkle.leaf_hash(str(n).encode()) for n in range(count)]


LEAVES = leaves_of(70_000)


def grown(*steps: int) -> tuple[Edge, dict[Tile, bytes]]:
    edge, stored = Edge(), {}
    for step in steps:
        edge, changed = tiles.grow(edge, LEAVES[edge.size : edge.size + step])
        stored.update(changed)
    return edge, stored


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 700), max_size=12))
def test_any_steps_grow_the_same_tree(steps: list[int]) -> None:
    edge, stored = grown(*steps)
    size = sum(steps)
    assert (edge.size, edge.root()) == (size, merkle.root(LEAVES[:size]))
    assert stored == (grown(size)[1] if size else {})
    assert Edge.of(size, stored) == edge
    assert {t: len(data) // 32 for t, data in stored.items()} == {
        t: width for t, width in tiles.widths(size) if t.level != ENTRIES
    }


def test_three_levels() -> None:
    edge, stored = grown(65_536, 4_000)
    assert edge.root() == merkle.root(LEAVES[:69_536])
    assert len(stored[Tile(2, 0)]) == 32


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 1_500), st.data())
def test_proofs_verify(size: int, data: st.DataObject) -> None:
    _, stored = grown(1_500)  # a larger tree holds every smaller one
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    path = tiles.hashes(tiles.inclusion(index, size), stored)
    assert merkle.root_from_path(LEAVES[index], index, size, path) == merkle.root(LEAVES[:size])
    ranges = tiles.consistency(old, size)
    assert tiles.tiles_for(ranges) <= stored.keys()
    proof = tiles.hashes(ranges, stored)
    if old:
        merkle.verify_consistency(old, size, merkle.root(LEAVES[:old]), merkle.root(LEAVES[:size]), proof)


@given(st.integers(-1, 63), st.integers(0, 1 << 50), st.integers(1, 256))
def test_paths(level: int, index: int, width: int) -> None:
    assert tiles.parse_path(tiles.path(Tile(level, index), width)) == (Tile(level, index), width)


def test_path_of_the_standard() -> None:
    assert tiles.path(Tile(0, 1_234_067)) == "tile/0/x001/x234/067"
    assert tiles.path(Tile(ENTRIES, 0), 7) == "tile/entries/000.p/7"


@pytest.mark.parametrize(
    "text",
    ["tile/64/000", "tile/00/000", "tile/0/0", "tile/0/x000/000", "tile/0/000.p/0", "tile/0/000.p/256",
     "tile/0/001/002", "tile/x/000", "tile/0/000/", "tile/0/000.p/01", "tile/0/000.p/300"],
)  # fmt: skip
def test_other_spellings_name_nothing(text: str) -> None:
    with pytest.raises(Malformed):
        tiles.parse_path(text)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=256))
def test_bundles(entries: list[bytes]) -> None:
    bundle = tiles.encode_bundle(entries)
    assert tiles.split_bundle(bundle) == entries
    if bundle:
        with pytest.raises(Malformed) as refused:
            tiles.split_bundle(bundle[:-1])
        assert refused.value.code is Code.LOG_TAMPERED
