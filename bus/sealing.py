"""Sealing sections: keys bound to claims, commitments, padding (`bus/FORMATS.md`, 'Sealing').

A section's secret is derived from a session's secret *and the exact claim bytes*, so that whoever changes a claim gets
a key that opens nothing. Every key here is uniform, so HKDF is used without Extract (RFC 5869 §3.3).
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from schemas.errors import Code, Malformed, Refused

LEAF_BITS = 16
MAX_LEAVES = 1 << LEAF_BITS
PAD_TO = 64  # hides the length of names and amounts; a licence's section is 100 to 600 bytes
_SHA256 = SHA256()
_SALT = b"deptbus/1 salt\x01"  # Expand's one block
_NONCE = bytes(12)  # each key encrypts once: it is derived from the commitment of its only plaintext


def expand(key: bytes, info: bytes) -> bytes:
    """HKDF-Expand-SHA-256 to 32 bytes (RFC 5869 §2.3: one block, so one HMAC)."""
    return hmac.digest(key, info + b"\x01", "sha256")


def section_root(session_secret: bytes, section: str) -> bytes:
    """`R`, the root of a section's tree of leaf keys."""
    return expand(session_secret, b"deptbus/1 section " + section.encode())


def keyed(key: bytes) -> HMAC:
    """HMAC-SHA-256 with its key taken in: a copy for each message costs a third of a new one."""
    return HMAC(key, _SHA256)


def digest(keyed: HMAC, message: bytes) -> bytes:
    """The digest of one message; `keyed` may be used again."""
    copy = keyed.copy()
    copy.update(message)
    return copy.finalize()


def child(node: bytes, bit: int) -> bytes:
    """A node's left (0) or right (1) child in a tree of leaf keys."""
    return sha256((b"\x11" if bit else b"\x10") + node).digest()


class LeafKeys:
    """The nodes of one section's GGM tree (Goldreich, Goldwasser, Micali 1986), leaf by leaf.

    Remembers the way to the last leaf: the next leaf of a batch costs two hashes on average instead of sixteen.
    """

    __slots__ = ("_leaf", "_way")

    def __init__(self, root: bytes) -> None:
        self._way = [root]
        self._leaf = 0

    def node(self, leaf: int) -> bytes:
        """The leaf's node, 32 bytes. `leaf` is 0 to 65,535."""
        if not 0 <= leaf < MAX_LEAVES:
            raise Malformed(Code.CLAIMS_INVALID, f"leaf {leaf} is outside 0 to {MAX_LEAVES - 1}")
        way = self._way
        del way[LEAF_BITS + 1 - (leaf ^ self._leaf).bit_length() :]  # what the two ways do not share
        node = way[-1]
        for shift in range(LEAF_BITS - len(way), -1, -1):
            node = child(node, leaf >> shift & 1)
            way.append(node)
        self._leaf = leaf
        return node


def section_secret(node: bytes, prefix: bytes) -> bytes:
    """What a gateway releases for one section of one record. `prefix` is the claims up to, without, `sections`."""
    return hmac.digest(node, prefix, "sha256")


def seal(secret: bytes, section: bytes) -> tuple[bytes, bytes]:
    """`(commitment, body)` of an encoded section record."""
    plain = section + bytes(-len(section) % PAD_TO)
    keys = keyed(secret)
    commitment = hmac.digest(digest(keys, _SALT), plain, "sha256")
    key = digest(keys, b"deptbus/1 key" + commitment + b"\x01")
    return commitment, AESGCM(key).encrypt(_NONCE, plain, None)


def salt_of(secret: bytes) -> bytes:
    """The salt of a section's commitment: what a disclosure shows instead of the secret."""
    return expand(secret, b"deptbus/1 salt")


def open_body(secret: bytes, commitment: bytes, body: bytes) -> bytes:
    """The padded plaintext. Raises `Refused`: BODY_UNOPENABLE (wrong key or changed body) or COMMITMENT_MISMATCH."""
    keys = keyed(secret)
    try:
        plain = AESGCM(digest(keys, b"deptbus/1 key" + commitment + b"\x01")).decrypt(_NONCE, body, None)
    except (InvalidTag, ValueError) as exc:
        raise Refused(Code.BODY_UNOPENABLE, "the key does not open this section: another record's, or changed") from exc
    check_commitment(digest(keys, _SALT), commitment, plain)
    return plain


def check_commitment(salt: bytes, commitment: bytes, plain: bytes) -> None:
    """Raises `Refused` (COMMITMENT_MISMATCH) unless the issuer's claims commit to this plaintext."""
    if not hmac.compare_digest(hmac.digest(salt, plain, "sha256"), commitment):
        raise Refused(Code.COMMITMENT_MISMATCH, "the section is not the one that the claims commit to")


def check_padding(plain: bytes, used: int) -> None:
    """Raises `Malformed` (PADDING_INVALID) unless the section is padded to the least multiple of 64, with zeroes."""
    if len(plain) % PAD_TO or len(plain) - used >= PAD_TO or any(plain[used:]):
        raise Malformed(Code.PADDING_INVALID, "the section is not padded with the fewest zero bytes")
