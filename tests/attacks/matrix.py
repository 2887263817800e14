"""`matrix.toml`: what was tried against the bus, and what stood against it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import Code

FILE = Path(__file__).with_name("matrix.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """A row. `tests` are pytest nodes, `vectors` files of tests/vectors; without codes, `outcome` says what happens."""

    group: str
    id: str
    attack: str
    codes: tuple[Code, ...]
    where: str
    outcome: str = ""
    tests: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()


def load() -> list[Attack]:
    """The rows, in the file's order. Raises `ValueError` or `TypeError` for a file that is none."""
    document = tomllib.loads(FILE.read_text("utf-8"))
    return [
        Attack(
            group=group["name"],
            codes=tuple(map(Code, row.pop("codes"))),
            tests=tuple(row.pop("tests", ())),
            vectors=tuple(row.pop("vectors", ())),
            **row,
        )
        for group in document["group"]
        for row in group["attack"]
    ]
