"""Tables of entries: what a spreadsheet must not run, and what it must not change."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from bus import tables
from bus.audit import KINDS
from deploy.commands import trail
from deploy.workbook import TrailBook

NAMES = {"11330400002520062A": "海盐县市场监督管理局", "12330411MB0X00000Y": "税务局"}


def decision(**changed: Any) -> dict[str, Any]:
    body = {
        "consumer": "12330411MB0X00000Y",
        "provider": "11330400002520062A",
        "purpose": "tax-registration",
        "ground": "STATUTORY_DUTY",
        "citation": "税收征收管理法 第十五条",
        "case": "2026-0117",
        "operator": "window-3",
        "agent": None,
        "record": "ab" * 32,
        "item": "business-licence",
        "region": "330411",
        "sections": [
            {"name": "identity", "code": "PERMIT", "rule": "r@1"},
            {"name": "business", "code": "AGREEMENT_SECTION", "rule": "r@1"},
        ],
    }
    return {
        "index": 7,
        "entry": "cd" * 32,
        "logged_at": "2026-03-01T23:30:00.123456+00:00",
        "time": "2026-03-01T23:30:00+00:00",
        "kind": "Decision",
        "request": "00" * 16,
        "logged_by": "00" * 32,
        "body": body | changed,
    }


def parsed(*entries: dict[str, Any]) -> list[list[str]]:
    data = b"".join(tables.csv_lines(tables.row(one, NAMES) for one in entries))
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def test_a_row_says_who_opened_what_of_whom_in_the_readers_language() -> None:
    headings, cells = parsed(decision())
    assert headings == list(tables.COLUMNS)
    row = dict(zip(headings, cells, strict=True))
    assert row["入日志时间(北京时间)"] == "2026-03-02 07:30:00.123"
    assert (row["事项"], row["使用方"], row["提供方"]) == ("使用决定", "税务局", "海盐县市场监督管理局")
    assert (row["开放部分"], row["拒绝部分及代码"]) == ("identity", "business(AGREEMENT_SECTION)")
    assert (row["用途"], row["依据"], row["所依规则"]) == ("税务登记", "法定职责", "r@1")
    assert set(tables.KINDS) == set(KINDS)


def test_a_set_is_a_row_of_what_it_opened() -> None:
    """Its sections are names, its rules one text: in a spreadsheet and in a terminal's table."""
    changed = {"sections": ["identity", "business"], "rule": "r@1 s@2", "count": 29, "root": "ef" * 32}
    entry = decision(**changed) | {"kind": "SetDecision"}
    headings, cells = parsed(entry)
    row = dict(zip(headings, cells, strict=True))
    assert (row["事项"], row["开放部分"], row["拒绝部分及代码"]) == ("批量使用决定", "identity、business", "")
    assert (row["所依规则"], row["说明"]) == ("r@1 s@2", f"29 条,根 {'ef' * 32}")
    assert trail.row(entry, NAMES)[-2:] == [["identity", "business"], []]


HARMFUL = (
    *("=1+1", '=HYPERLINK("http://x","y")', "+1", "-1", "@SUM(A1)"),
    *("\t=1+1", "\r=1+1", "\n=1+1", "\r\n=1", " =1+1"),
    *("\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20x"),  # full-width
    *("\ufe66" + "1", "\ufe63" + "1", "\N{MINUS SIGN}1"),  # small forms, and a minus that is no hyphen
    *("\u3000=1", "\u200b=1", "\ufeff=1"),  # blanks that are not seen
)


@pytest.mark.parametrize("text", HARMFUL)
def test_a_spreadsheet_runs_no_formula_from_a_csv(text: str) -> None:
    """Wherever in an entry it comes from: also from a name."""
    (_, cells) = parsed(decision(operator=text, case=text, agent=text))
    row = dict(zip(tables.COLUMNS, cells, strict=True))
    assert row["经办人"] == row["代办人"] == row["案号"] == "'" + text
    entry = decision()
    named = tables.row(entry, {entry["body"]["consumer"]: text})
    line = b"".join(tables.csv_rows([named])).decode()
    assert "'" + text in next(csv.reader(io.StringIO(line, newline="")))


def test_a_quote_or_a_line_break_stays_inside_of_its_cell() -> None:
    """RFC 4180: what looks like the next cell, or the next row, is text."""
    text = 'a","=1+1"\r\n"=2+2","b'
    rows = parsed(decision(case=text), decision())
    assert len(rows) == 3
    assert rows[1][tables.COLUMNS.index("案号")] == text
    data = b"".join(tables.csv_lines([]))
    assert data.startswith(tables.BOM)
    assert data.endswith(b'"\r\n')


def test_json_lines_change_nothing() -> None:
    entries = [decision(case=text) for text in HARMFUL]
    lines = b"".join(tables.json_lines(entries)).decode().splitlines()
    assert [json.loads(line) for line in lines] == entries


def test_every_cell_of_a_workbook_is_text(tmp_path: Path) -> None:
    """Read again: no formula, no number, no error; and what XML cannot hold is replaced."""
    book = TrailBook()
    texts = [*HARMFUL, "#N/A", "1e5", "0012", "bell \x07", "x" * 40_000]
    for text in texts:
        book.add(tables.row(decision(operator=text), NAMES))
    book.save(tmp_path / "trail.xlsx", {"筛选条件": "=cmd", "条数": "3"})
    read = load_workbook(tmp_path / "trail.xlsx")
    assert read.sheetnames == ["审计记录", "说明"]
    cells = [cell for sheet in read for row in sheet.iter_rows() for cell in row if cell.value is not None]
    assert {(cell.data_type, cell.number_format) for cell in cells} == {("s", "@")}
    assert [cell.value for cell in read["审计记录"][1]] == list(tables.COLUMNS)
    at = tables.COLUMNS.index("经办人")
    shown = [row[at].value for row in read["审计记录"].iter_rows(min_row=2)]
    assert shown[-2:] == ["bell \ufffd", "x" * 32_767]
    assert "=1+1" in shown
    assert (tmp_path / "trail.xlsx").stat().st_mode & 0o777 == 0o600
