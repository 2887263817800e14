"""Schema bombs: a document that would cost its reader more than its bytes is refused, or costs no more than they."""

from __future__ import annotations

import json
import time
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest

from schemas.errors import Code, Malformed
from schemas.item import ItemSchema
from tests.vectors.world import zigzag

SECONDS = 2.0  # for 64 KiB of a document, on a busy machine
MEMORY = 64 * 1024 * 1024


def document(*types: Any, **more: Any) -> bytes:
    fields = [{"name": f"f{n}", "type": one, "section": "s"} for n, one in enumerate(types)]
    return json.dumps({"type": "record", "name": "Bomb", "fields": fields} | more).encode()


def doubling(depth: int) -> list[Any]:
    """Records of two of the one before: a value of the last has 2^depth of the first."""

    def record(number: int, *types: str) -> dict[str, Any]:
        fields = [{"name": f"x{at}", "type": one} for at, one in enumerate(types)]
        return {"type": "record", "name": f"R{number}", "fields": fields}

    return [record(0, "int"), *(record(n, f"R{n - 1}", f"R{n - 1}") for n in range(1, depth))]


REFUSED: dict[str, bytes] = {
    "too large": document({"type": "enum", "name": "E", "symbols": ["S" * 100 + str(n) for n in range(1_000)]}),
    "nested": b'{"type":"record","name":"B","fields":[{"name":"f","section":"s","type":'
    + b'{"type":"array","items":' * 2_000
    + b'"int"'
    + b"}" * 2_000
    + b"}]}",
    "a record of nothing": document({"type": "array", "items": {"type": "record", "name": "Q", "fields": []}}),
    "a record that holds itself": document(
        {"type": "record", "name": "R", "fields": [{"name": "again", "type": ["null", "R"]}]}
    ),
    "by way of another": document(
        {
            "type": "record",
            "name": "x.R",
            "fields": [
                {
                    "name": "q",
                    "type": {
                        "type": "record",
                        "name": "Q",
                        "fields": [{"name": "r", "type": {"type": "array", "items": {"type": "x.R"}}}],
                    },
                }
            ],
        }
    ),
    "the document in itself": document({"type": "array", "items": "Bomb"}),
    "an array of nothing": document({"type": "array", "items": "null"}),
    "a fixed of no bytes": document({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}),
    "a map": document({"type": "map", "values": "int"}),
    "a hundred million digits": document({"type": "bytes", "logicalType": "decimal", "precision": 10**8, "scale": 0}),
    "a thousand sections": json.dumps(
        {
            "type": "record",
            "name": "B",
            "fields": [{"name": f"f{n}", "type": "int", "section": f"s{n}"} for n in range(1_000)],
        }
    ).encode(),
    "a section by a path": document("int").replace(b'"section": "s"', b'"section": "../s"'),
    "a type that is not there": document("Unknown"),
    "numbers for names": document(7, {"type": 7}),
}
TAKEN: dict[str, bytes] = {
    "records that double": document(*doubling(40)),
    "six hundred fields": document(*["string"] * 600),
    "a union of a hundred": document(
        ["null", *({"type": "fixed", "name": f"F{n}", "size": n + 1} for n in range(100))]
    ),
    "a default of megabytes": document({"type": "array", "items": "string"}).replace(
        b'"section": "s"', b'"section": "s", "default": ["' + b"x" * 50_000 + b'"]'
    ),
}


def measured(bomb: bytes) -> ItemSchema | Malformed:
    """What becomes of it, in bounded time and memory."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        return ItemSchema.parse(bomb)
    except Malformed as exc:
        return exc
    finally:
        seconds, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert seconds < SECONDS
        assert peak < MEMORY


@pytest.mark.parametrize("name", REFUSED)
def test_a_document_that_cannot_be_meant_is_refused(name: str) -> None:
    found = measured(REFUSED[name])
    assert isinstance(found, Malformed), name
    assert found.code is Code.CONFIG_INVALID


@pytest.mark.parametrize("name", TAKEN)
def test_an_odd_document_costs_no_more_than_its_bytes(name: str) -> None:
    """It is taken; a hostile value of it is refused as quickly."""
    found = measured(TAKEN[name])
    assert isinstance(found, ItemSchema), found
    began = time.monotonic()
    for value in (b"", b"\x00", b"\x02" * 20_000, zigzag(2**62), zigzag(2**40) + b"\x00" * 1_000, b"\xff" * 5_000):
        for codec in found.codecs.values():
            with suppress(Malformed):
                codec.decode(value)
    assert time.monotonic() - began < SECONDS
