"""Writes the vectors: `python -m tests.vectors.generate`.

`tests/vectors/<format>/<name>.json`: one case a file. A bad one is named by its failure, differs from a good one in
that alone, and is signed and sealed again around it unless the signature is the failure. The same input gives the
same files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vectors import chains, entries, example, keys, messages, records, sections, trees

ROOT = Path(__file__).parent
MODULES = (example, records, sections, messages, entries, trees, keys, chains)


@dataclass(frozen=True, slots=True)
class File:
    """`fields` in the order in which they are written."""

    format: str
    name: str
    fields: Mapping[str, Any]

    @property
    def path(self) -> Path:
        return ROOT / self.format / f"{self.name}.json"

    def text(self) -> str:
        return json.dumps(self.fields, ensure_ascii=False, indent=2) + "\n"


def files() -> Iterator[File]:
    """Every vector."""
    for module in MODULES:
        for format_, name, fields in module.cases():
            yield File(format_, name, fields)


def main() -> None:
    wanted = {file.path: file for file in files()}
    for folder in {path.parent for path in wanted}:
        folder.mkdir(exist_ok=True)
        for stale in set(folder.glob("*.json")) - wanted.keys():
            stale.unlink()
    for path, file in wanted.items():
        path.write_text(file.text(), "utf-8")


if __name__ == "__main__":
    main()
