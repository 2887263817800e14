"""Vectors of sealed sections, and of the keys that lead to them."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus import sealing
from tests.vectors import world
from tests.vectors.records import Case
from tests.vectors.world import SCHEMA, SCHEMA_DOCUMENT, VALUES, array, blob, nullable, text, zigzag

SECRET = world.GOOD.secrets["business"]
PLAIN = SCHEMA.encode(VALUES)["business"]


def cases() -> Iterator[Case]:
    for name, fields in {**_good(), **_bad()}.items():
        yield "section", name, fields
    yield from _leaf_keys()


def business(
    *,
    capital: bytes | None = None,
    online: bytes = b"\x01",
    size: bytes = b"\x02",
    sites: bytes | None = None,
    staff: bytes = b"\x18",
) -> bytes:
    """The section `business`, field by field."""
    capital = nullable(blob((500_000_000).to_bytes(4, "big"))) if capital is None else capital
    sites = array([text("杭州"), text("嘉兴")]) if sites is None else sites
    return capital + online + size + sites + staff


def padded(section: bytes, more: bytes = b"") -> bytes:
    return section + bytes(-len(section) % sealing.PAD_TO) + more


def seal(plain: bytes, *, committed: bytes | None = None) -> tuple[bytes, bytes]:
    """Commitment and body of exactly this plaintext; the commitment to another if `committed`."""
    commitment = hmac.digest(sealing.salt_of(SECRET), plain if committed is None else committed, "sha256")
    return commitment, AESGCM(sealing.expand(SECRET, b"deptbus/1 key" + commitment)).encrypt(bytes(12), plain, None)


def section(
    note: str, sealed: tuple[bytes, bytes], expect: str = "ok", *, secret: bytes = SECRET, name: str = "business"
) -> dict[str, Any]:
    commitment, body = sealed
    return {
        "note": note,
        "expect": expect,
        "schema": SCHEMA_DOCUMENT.hex(),
        "section": name,
        "secret": secret.hex(),
        "commitment": commitment.hex(),
        "body": body.hex(),
    }


def _good() -> dict[str, dict[str, Any]]:
    exact = business(sites=array([text("A" * 52)]))  # 64 bytes: no padding at all
    assert len(exact) == sealing.PAD_TO, len(exact)
    assert business() == PLAIN
    shown = {"capital": "5000000.00", "online": True, "size": "LARGE", "sites": ["杭州", "嘉兴"], "staff": 12}
    least = business(capital=nullable(None), online=b"\x00", size=b"\x00", sites=array([]), staff=b"\x00")
    nothing: dict[str, Any] = {"capital": None, "online": False, "size": "SMALL", "sites": [], "staff": 0}
    return {
        "ok": section("The usual section.", seal(padded(PLAIN))) | {"plain": padded(PLAIN).hex(), "fields": shown},
        "ok-without-padding": section("A section of exactly 64 bytes has no padding.", seal(exact))
        | {"plain": exact.hex(), "fields": shown | {"sites": ["A" * 52]}},
        "ok-least": section("Nulls, an empty array, false and zero.", seal(padded(least)))
        | {"plain": padded(least).hex(), "fields": nothing},
    }


def _bad() -> dict[str, dict[str, Any]]:
    closed, padding, malformed = "BODY_UNOPENABLE", "PADDING_INVALID", "SECTION_MALFORMED"
    commitment, body = seal(padded(PLAIN))
    other = padded(business(staff=b"\x1a"))
    bad_padding = bytearray(padded(PLAIN))
    bad_padding[-1] = 1
    flipped = bytes([body[0] ^ 1]) + body[1:]

    def encoded(note: str, plain: bytes, expect: str = malformed) -> dict[str, Any]:
        return section(note, seal(padded(plain)), expect)

    return {
        "secret-wrong": section(
            "The secret of another section.", (commitment, body), closed, secret=world.GOOD.secrets["identity"]
        ),
        "secret-31-bytes": section("A secret cut short.", (commitment, body), closed, secret=SECRET[:31]),
        "body-changed": section("One bit of the ciphertext.", (commitment, flipped), closed),
        "body-tag-changed": section("One bit of the tag.", (commitment, body[:-1] + bytes([body[-1] ^ 1])), closed),
        "body-cut-short": section("The body's last byte is missing.", (commitment, body[:-1]), closed),
        "body-empty": section("An empty body.", (commitment, b""), closed),
        "commitment-changed": section(
            "One bit of the commitment: the key is derived from it.",
            (bytes([commitment[0] ^ 1]) + commitment[1:], body),
            closed,
        ),
        "commitment-to-another": section(
            "Sealed under a commitment to another plaintext, by whoever knows the secret.",
            seal(padded(PLAIN), committed=other),
            "COMMITMENT_MISMATCH",
        ),
        "padding-not-zero": section("The last padding byte is 1.", seal(bytes(bad_padding)), padding),
        "padding-64-too-many": section("64 zero bytes more than needed.", seal(padded(PLAIN, bytes(64))), padding),
        "padding-missing": section("The section without padding.", seal(PLAIN), padding),
        "padding-one-too-many": section("A 65th byte.", seal(padded(PLAIN, b"\x00")), padding),
        "section-unknown": section(
            "The schema has no such section.", seal(padded(PLAIN)), "SECTION_UNKNOWN", name="other"
        ),
        "section-of-another-name": section(
            "The plaintext of business read as identity.", seal(padded(PLAIN)), malformed, name="identity"
        ),
        "empty": section("Nothing is in the section.", seal(b""), malformed),
        "boolean-2": encoded("A boolean that is neither 0 nor 1.", business(online=b"\x02")),
        "enum-out-of-range": encoded("Symbol 2 of two.", business(size=b"\x04")),
        "long-varint": encoded("12 in two bytes.", business(staff=zigzag(12, longer=1))),
        "int-over-32-bits": encoded("An int of 2^31.", business(staff=zigzag(2**31))),
        "array-in-two-blocks": encoded(
            "A block for each site.", business(sites=zigzag(1) + text("杭州") + zigzag(1) + text("嘉兴") + b"\x00")
        ),
        "decimal-not-shortest": encoded(
            "A decimal with a leading zero byte.", business(capital=nullable(blob((500_000_000).to_bytes(5, "big"))))
        ),
        "decimal-over-precision": encoded(
            "21 digits where 20 are allowed.", business(capital=nullable(blob((10**20 + 1).to_bytes(9, "big"))))
        ),
        "string-invalid-utf-8": encoded("A continuation byte alone.", business(sites=array([blob(b"\x80")]))),
        "date-beyond-9999": section(
            "A date in the year 10000.",
            seal(padded(text("x") + zigzag(2_932_897) + text("y"))),
            malformed,
            name="identity",
        ),
    }


def _leaf_keys() -> Iterator[Case]:
    """From a session's secret to a section's: GGM's tree between."""
    for leaf in (0, 1, 5, 255, 256, 32_767, 32_768, 65_534, 65_535):
        root = sealing.section_root(world.SESSION_SECRET, "identity")
        node = sealing.LeafKeys(root).node(leaf)
        prefix = f"any bytes for leaf {leaf}".encode()
        yield (
            "ggm",
            f"ok-leaf-{leaf}",
            {
                "note": f"Leaf {leaf}: sixteen hashes from the section's root.",
                "expect": "ok",
                "session_secret": world.SESSION_SECRET.hex(),
                "section": "identity",
                "root": root.hex(),
                "leaf": leaf,
                "node": node.hex(),
                "prefix": prefix.hex(),
                "secret": sealing.section_secret(node, prefix).hex(),
            },
        )
    for name, leaf in (("leaf-65536", 65_536), ("leaf-negative", -1)):
        note = "A session has the leaves 0 to 65,535."
        yield "ggm", name, {"note": note, "expect": "CLAIMS_INVALID", "root": root.hex(), "leaf": leaf}
