"""The matrix says what there is: tests that exist and expect the codes, vectors that give them, places in the code."""

from __future__ import annotations

import ast
import json
from collections import Counter
from functools import cache

import pytest

from tests.attacks.matrix import Attack, load
from tests.bus.test_vectors import VECTORS
from tests.report import ROOT

ATTACKS = load()


@cache
def _parsed(file: str) -> tuple[ast.Module, str]:
    text = (ROOT / file).read_text("utf-8")
    return ast.parse(text), text


def _named(file: str) -> dict[str, ast.AST]:
    """Functions, classes and constants of a file, by name."""
    found: dict[str, ast.AST] = {}
    for node in ast.walk(_parsed(file)[0]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    return found


def _expected(node: str) -> str:
    """What a test says: its own text, and its file's tables and helpers."""
    file, *names = node.split("::")
    tree, text = _parsed(file)
    found = _named(file)
    assert set(names) <= found.keys(), node
    around = [
        one
        for one in tree.body
        if not (isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name.startswith("test_"))
        and not isinstance(one, ast.ClassDef)
    ]
    return "\n".join(ast.get_source_segment(text, one) or "" for one in (found[names[-1]], *around))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: one.id)
def test_a_row_is_true(attack: Attack) -> None:
    file, _, name = attack.where.partition(":")
    assert name in _named(file), attack.where
    assert attack.tests or attack.vectors
    assert attack.codes or attack.outcome
    given = {json.loads((VECTORS / f"{one}.json").read_text("utf-8"))["expect"] for one in attack.vectors}
    assert given <= set(attack.codes)
    said = "\n".join(map(_expected, attack.tests))
    missing = [code for code in attack.codes if code not in given and code.value not in said]
    assert missing == [], "no test or vector of the row expects them"


def test_every_row_has_a_name_of_its_own() -> None:
    assert [name for name, count in Counter(one.id for one in ATTACKS).items() if count > 1] == []
