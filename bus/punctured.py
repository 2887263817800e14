"""GGM trees from which leaves were taken for good: a puncturable pseudo-random function.

Who holds a node derives every leaf below it. To take a leaf out, the nodes above it are replaced by the siblings along
its way: what is left yields all other leaves, and nothing yields that one. (Goldreich, Goldwasser, Micali 1986; Boneh
and Waters 2013.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bus.sealing import child
from schemas.errors import Code, Refused

Place = tuple[int, int]  # depth below the root, and which node of that depth


@dataclass(frozen=True, slots=True, repr=False)
class Tree:
    """What is left of a tree of `2 ** bits` leaves: nodes of 32 bytes by place, none below another."""

    bits: int
    nodes: Mapping[Place, bytes]

    @classmethod
    def whole(cls, bits: int, root: bytes) -> Tree:
        """A tree that nothing was taken from."""
        return cls(bits, {(0, 0): root})

    def node(self, leaf: int) -> bytes:
        """The leaf's node. Raises `Refused` (RECORD_ERASED) if it was taken out."""
        place = self._above(leaf)
        if place is None:
            raise Refused(Code.RECORD_ERASED, "the keys of this record are destroyed: it was erased")
        node = self.nodes[place]
        for shift in range(self.bits - place[0] - 1, -1, -1):
            node = child(node, leaf >> shift & 1)
        return node

    def without(self, leaf: int) -> Tree:
        """The tree with the leaf taken out; itself if it was before."""
        place = self._above(leaf)
        if place is None:
            return self
        return Tree(self.bits, {p: n for p, n in self.nodes.items() if p != place} | dict(self._beside(place, leaf)))

    def _above(self, leaf: int) -> Place | None:
        """The node that yields the leaf."""
        places = ((depth, leaf >> self.bits - depth) for depth in range(self.bits + 1))
        return next((place for place in places if place in self.nodes), None)

    def _beside(self, place: Place, leaf: int) -> Iterator[tuple[Place, bytes]]:
        """The siblings along the way from a node down to the leaf."""
        node = self.nodes[place]
        for depth in range(place[0] + 1, self.bits + 1):
            index = leaf >> self.bits - depth
            yield (depth, index ^ 1), child(node, index & 1 ^ 1)
            node = child(node, index & 1)
