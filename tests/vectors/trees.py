"""Vectors of Merkle trees: the leaves and roots that RFC 6962's implementations publish, and inclusion in them.

And of a set's tree, with leaves over records and their holders.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bus import merkle
from bus.sets import Member
from tests.vectors.records import Case
from tests.vectors.world import GOOD, HOLDER, fixed

# The test tree of certificate-transparency's reference implementation: inputs, and the root of the first n.
INPUTS = (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)  # fmt: skip
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)

MEMBERS = tuple(
    sorted(
        (
            Member(record=GOOD.leaf_hash, subjects=(HOLDER,)),
            Member(record=fixed("a record of two owners"), subjects=(fixed("an owner"), fixed("a co-owner"))),
            Member(record=fixed("another record"), subjects=(fixed("an owner"),)),
        ),
        key=lambda one: one.record,
    )
)
SET_ROOT = merkle.root([one.leaf for one in MEMBERS])


def cases() -> Iterator[Case]:
    for size, root in enumerate(ROOTS):
        note = f"The root of the first {size} leaves: a published value."
        yield "merkle", f"ok-root-{size}", {"note": note, "expect": "ok", "inputs": list(INPUTS[:size]), "root": root}
    leaves = [merkle.leaf_hash(bytes.fromhex(data)) for data in INPUTS]
    for index, size in ((0, 1), (0, 2), (2, 3), (1, 5), (4, 5), (6, 7), (5, 8)):
        path = merkle.paths(merkle.levels(leaves[:size]))[index]
        note = f"Leaf {index} of {size}."
        yield (
            "merkle",
            f"ok-inclusion-{index}-of-{size}",
            _inclusion(note, "ok", leaves[index], index, size, path, ROOTS[size]),
        )
    yield from _bad(leaves)
    yield from _sets()


def _bad(leaves: list[bytes]) -> Iterator[Case]:
    path = merkle.paths(merkle.levels(leaves[:5]))[1]
    bad = "PROOF_INVALID"

    def case(name: str, note: str, index: int, size: int, path: list[bytes]) -> Case:
        return "merkle", name, _inclusion(note, bad, leaves[1], index, size, path, None)

    yield case("path-too-short", "A hash is missing.", 1, 5, path[:-1])
    yield case("path-too-long", "A hash too many.", 1, 5, [*path, path[0]])
    yield case("path-empty", "No path in a tree of five.", 1, 5, [])
    yield case("index-is-size", "Leaf 5 of five.", 5, 5, path)
    yield case("index-negative", "Leaf -1.", -1, 5, path)
    yield case("size-0", "A tree without leaves includes nothing.", 0, 0, [])


def _inclusion(
    note: str, expect: str, leaf: bytes, index: int, size: int, path: list[bytes], root: str | None
) -> dict[str, Any]:
    fields: dict[str, Any] = {"note": note, "expect": expect, "leaf_hash": leaf.hex(), "index": index, "size": size}
    fields["path"] = [one.hex() for one in path]
    return fields if root is None else fields | {"root": root}


def _sets() -> Iterator[Case]:
    """Each proves the member with two holders; the path and the root are those of the set as it was granted."""
    place = next(at for at, one in enumerate(MEMBERS) if len(one.subjects) == 2)
    two = MEMBERS[place]
    turned = Member(record=two.record, subjects=two.subjects[::-1])
    first = Member(record=two.record, subjects=two.subjects[:1])
    path = [one.hex() for one in merkle.paths(merkle.levels([one.leaf for one in MEMBERS]))[place]]
    for name, note, expect, shown in (
        ("ok-owners", "Three records, one of two holders.", "ok", two),
        ("subjects-turned", "Its holders in another order than the claims have them.", "PROOF_INVALID", turned),
        ("subject-missing", "One of its two holders is left out.", "PROOF_INVALID", first),
    ):
        members = [{"record": one.record.hex(), "subjects": [s.hex() for s in one.subjects]} for one in MEMBERS]
        members[place] = {"record": shown.record.hex(), "subjects": [s.hex() for s in shown.subjects]}
        fields = {"note": note, "expect": expect, "members": members, "root": SET_ROOT.hex()}
        yield "set", name, fields | {"position": place, "path": path}
