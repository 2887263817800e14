"""Pseudonyms of subjects and references of licences: personal data still, only not readable at sight.

The root key stays with gateways; a department holds the key of the items that it issues or may receive.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from cryptography.hazmat.primitives.hmac import HMAC

from bus.sealing import digest, expand, keyed
from schemas.errors import Code, Malformed


def item_key(root: bytes, item: str, generation: int) -> bytes:
    """`K`: the pseudonym key of one item and generation (from 1)."""
    return expand(root, f"deptbus/1 pseudonym {generation} {item}".encode())


def subject(key: bytes, kind: str, canonical_id: str) -> bytes:
    """A subject's pseudonym, 32 bytes. `kind` is PERSON, ORGANISATION, DEPARTMENT, PLACE or LOT."""
    return digest(_keyed(key), f"subject\n{kind}\n{canonical_id}".encode())


def person(root: bytes, issuer: str, subject: str) -> bytes:
    """Who logs in, 32 bytes: by the OpenID provider's URL and its `sub` (ASCII), which may be anything but secret."""
    return digest(_keyed(expand(root, b"deptbus/1 person")), f"{issuer}\n{subject}".encode())


def licence(key: bytes, identifying: Sequence[str]) -> bytes:
    """A licence's reference over all its versions, 32 bytes, from the catalogue's identifying fields in order.

    Raises `Malformed` (VALUE_INVALID) for a value that is not NFC or holds a control character: it would not be one
    text.
    """
    for value in identifying:
        if not value or not unicodedata.is_normalized("NFC", value) or not value.isprintable():
            raise Malformed(Code.VALUE_INVALID, "an identifying field is empty, not NFC, or holds control characters")
    return digest(_keyed(key), ("licence\n" + "\n".join(identifying)).encode())


@lru_cache(maxsize=64)  # an item's key serves each of its records: taken in once, a pseudonym costs a third
def _keyed(key: bytes) -> HMAC:
    return keyed(key)
