"""A set grant's tree: who checks a member's place in a set needs this and the entry's root, nothing else.

Members stand in the order of their records' leaf hashes, once each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bus import merkle
from schemas.errors import Code, Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One record of a set, with its holders' pseudonyms in the order of the claims."""

    record: bytes
    subjects: tuple[bytes, ...]

    @property
    def leaf(self) -> bytes:
        """`H(0x00 ‖ record ‖ subjects)`."""
        return merkle.leaf_hash(self.record + b"".join(self.subjects))


def verify(member: Member, position: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """That the member stands there, in the set of this root over `size` records.

    Raises `Malformed` (PROOF_INVALID) for what is no path of that place, `Refused` (PROOF_INVALID) for another root.
    """
    if merkle.root_from_path(member.leaf, position, size, path) != root:
        raise Refused(
            Code.PROOF_INVALID, f"member {position} of the set of {size} is another one: the path leads to another root"
        )
