"""Merkle trees of RFC 6962 (hashing) and RFC 9162 (verification of inclusion and consistency).

One tree serves batches of records, batches of audit entries and the audit log.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from schemas.errors import Code, Malformed

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """`H(0x00 ‖ data)`: a record's identity on the bus is the leaf hash of its claims bytes."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """`H(0x01 ‖ left ‖ right)`."""
    return sha256(b"\x01" + left + right).digest()


def levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Leaf hashes first, the root alone last. A node without a sibling moves up as it is: RFC 6962's tree."""
    tree = [list(leaves)]
    while len(tree[-1]) > 1:
        below = tree[-1]
        above = [sha256(b"\x01" + below[i] + below[i + 1]).digest() for i in range(0, len(below) - 1, 2)]
        if len(below) % 2:
            above.append(below[-1])
        tree.append(above)
    return tree


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes."""
    return levels(leaves)[-1][0] if leaves else EMPTY_ROOT


def paths(tree: Sequence[Sequence[bytes]]) -> list[list[bytes]]:
    """The inclusion path of every leaf of `levels`' result, leaf to root."""
    found: list[list[bytes]] = []
    for index in range(len(tree[0])):
        path = []
        at = index
        for level in tree[:-1]:
            sibling = at ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            at >>= 1
        found.append(path)
    return found


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that this inclusion path leads to (RFC 9162 §2.1.3.2).

    Raises `Malformed` (PROOF_INVALID) unless `0 <= index < size`, the leaf is a hash, and the path is exactly as long
    as the place demands.
    """
    if len(leaf) != HASH_BYTES:
        # In a tree of one leaf whatever is given would be the root.
        raise Malformed(Code.PROOF_INVALID, f"a leaf hash has {HASH_BYTES} bytes, not {len(leaf)}")
    if not 0 <= index < size:
        raise Malformed(Code.PROOF_INVALID, f"leaf {index} is outside a tree of {size}")
    at, last, node = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise Malformed(Code.PROOF_INVALID, "the inclusion path is too long")
        if at & 1 or at == last:
            node = sha256(b"\x01" + sibling + node).digest()
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            node = sha256(b"\x01" + node + sibling).digest()
        at >>= 1
        last >>= 1
    if last != 0:
        raise Malformed(Code.PROOF_INVALID, "the inclusion path is too short")
    return node


def verify_consistency(size1: int, size2: int, root1: bytes, root2: bytes, proof: Sequence[bytes]) -> None:
    """That the tree of `size1` leaves is the beginning of the tree of `size2` (RFC 9162 §2.1.4.2).

    Raises `Malformed` (PROOF_INVALID) if the proof does not show it. For `size1` 0 no proof can: an empty tree is the
    beginning of every tree, and whoever accepts that says so without one.
    """
    if not 0 < size1 <= size2:
        raise Malformed(Code.PROOF_INVALID, f"there is no proof that a tree of {size1} begins one of {size2}")
    if size1 == size2:
        if proof or root1 != root2:
            raise Malformed(
                Code.PROOF_INVALID, f"two trees of {size1} are one tree, with one root and nothing to prove"
            )
        return
    # A perfect old tree is a subtree of the new one: its root, which is known, begins the path.
    path = [root1, *proof] if size1 & (size1 - 1) == 0 else list(proof)
    if not path:
        raise Malformed(Code.PROOF_INVALID, "the consistency proof is too short")
    at, last = size1 - 1, size2 - 1
    while at & 1:
        at >>= 1
        last >>= 1
    old = new = path[0]
    for node in path[1:]:
        if last == 0:
            raise Malformed(Code.PROOF_INVALID, "the consistency proof is too long")
        if at & 1 or at == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            new = node_hash(new, node)
        at >>= 1
        last >>= 1
    if last != 0:
        raise Malformed(Code.PROOF_INVALID, "the consistency proof is too short")
    if (old, new) != (root1, root2):
        raise Malformed(Code.PROOF_INVALID, f"the tree of {size1} does not begin the tree of {size2}")
