"""`deptbus policy diff` over files: what differs, its exit code, and what a file cannot mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli import app

RULES = """
- {kind: agreement, provider: 11330411MB2A00011E, consumer: 12350600400000018P, item: business-licence,
   sections: [identity], purposes: [tax-registration], grounds: [STATUTORY_DUTY], duties: [税收征收管理法 第十五条],
   valid_from: 2025-01-01, id: 00000000-0000-0000-0000-000000000007}
"""


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["policy", "diff", *map(str, arguments)])
    return result.exit_code, result.stdout


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES, "utf-8")
    return path


def test_two_files_are_compared(file: Path, tmp_path: Path) -> None:
    """Exit 1 if anything is permitted or refused otherwise, 0 if nothing."""
    wider = tmp_path / "wider.yaml"
    wider.write_text(RULES.replace("[identity]", "[identity, business]"), "utf-8")
    code, said = run(file, wider, "--json", "--home", tmp_path)
    (group,) = json.loads(said)["permits"]
    assert (code, group["sections"], group["purposes"]) == (1, ["business"], ["tax-registration"])
    assert json.loads(said)["refuses"] == []
    assert run(file, file, "--home", tmp_path)[0] == 0
    code, said = run(file, wider, "--home", tmp_path)
    assert code == 1
    assert "This change newly permits" in said


def test_what_cannot_be_meant_is_said(file: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("- {kind: agreement, colour: red}", "utf-8")
    assert run(file, wrong, "--home", tmp_path)[0] == 1
    assert run(file, "--home", tmp_path)[0] == 2
    assert run(file, tmp_path / "none.yaml", "--home", tmp_path)[0] == 2
    assert run("--changes", wrong, "--home", tmp_path)[0] == 3  # no bus runs there
