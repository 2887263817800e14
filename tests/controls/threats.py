"""`threats.toml`: what might be done to the bus, what stands against it, and how that is seen to be missed.

`python -m tests.controls --write` makes the table in bus/THREATS.md of it; `make controls` takes each control out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.report import ROOT

FILE = Path(__file__).with_name("threats.toml")
DOCUMENT = ROOT / "bus" / "THREATS.md"
BEGIN, END = "<!-- threats: begin -->", "<!-- threats: end -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One place of the code where a control is taken out. `old` stands there exactly once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Threat:
    """A row. `test` is a pytest node that fails when all patches are applied."""

    id: str
    threat: str
    control: str
    where: str
    default: str
    test: str
    group: str
    patches: tuple[Patch, ...]


def load() -> list[Threat]:
    """The rows, in the file's order."""
    document = tomllib.loads(FILE.read_text("utf-8"))
    return [
        Threat(group=group["name"], patches=tuple(Patch(**p) for p in row.pop("patch")), **row)
        for group in document["group"]
        for row in group["threat"]
    ]


def patched(text: str, patch: Patch) -> str:
    """The file's text without the control. Raises `ValueError` if the patch does not fit exactly once."""
    if text.count(patch.old) != 1:
        raise ValueError(f"{patch.file}: {patch.old!r} stands there {text.count(patch.old)} times, not once")
    return text.replace(patch.old, patch.new)


def table(threats: Sequence[Threat]) -> str:
    """As Markdown, a table a group."""
    lines: list[str] = []
    for group in dict.fromkeys(one.group for one in threats):
        lines += ["", f"### {group}", "", "| threat | control | enforced in | shipped default | test |"]
        lines.append("|---|---|---|---|---|")
        for one in threats:
            if one.group == group:
                cells = (one.threat, one.control, f"`{one.where}`", one.default, f"`{one.test.removeprefix('tests/')}`")
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines).strip() + "\n"


def with_table(document: str, threats: Sequence[Threat]) -> str:
    """The document with its table made anew. Raises `ValueError` if it has no place for one."""
    before, _, rest = document.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{table(threats)}\n{END}{after}"
