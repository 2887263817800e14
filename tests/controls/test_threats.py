"""The table of threats says what there is."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from tests.controls.threats import DOCUMENT, Threat, load, patched, with_table
from tests.report import ROOT

THREATS = load()


def test_the_document_is_made_of_the_rows() -> None:
    document = DOCUMENT.read_text("utf-8")
    assert document == with_table(document, THREATS), "run `python -m tests.controls --write`"
    assert [name for name, count in Counter(one.id for one in THREATS).items() if count > 1] == []


@pytest.mark.parametrize("threat", THREATS, ids=lambda one: one.id)
def test_a_row_names_what_exists(threat: Threat) -> None:
    """Its test, its place in the code, and patches that fit and leave Python behind."""
    file, _, name = threat.test.partition("::")
    names = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8"))) if hasattr(node, "name")}
    assert {part.partition("[")[0] for part in name.split("::")} <= names, threat.test
    assert threat.patches
    assert (ROOT / threat.where.partition(":")[0]).exists()
    for patch in threat.patches:
        text = patched((ROOT / patch.file).read_text("utf-8"), patch)
        if patch.file.endswith(".py"):
            ast.parse(text)
