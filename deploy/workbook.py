"""The trail as a workbook (XLSX): every cell is text, so that a spreadsheet runs nothing and changes no number."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from openpyxl.styles import Font

from bus.tables import COLUMNS, Row
from schemas.errors import Code, Malformed

MOST_ROWS = 1_048_575  # of a sheet (ECMA-376), without the headings
MOST_CHARACTERS = 32_767  # of a cell
_WIDTHS = (10, 24, 10, 20, 20, 22, 10, 24, 28, 16, 10, 28, 14, 14, 18, 24, 24, 40, 24)


class TrailBook:
    """Rows go to disk as they come: a workbook of a million entries needs no memory for them."""

    def __init__(self) -> None:
        self._book = Workbook(write_only=True)
        self._sheet = self._book.create_sheet("审计记录")
        self._sheet.freeze_panes = "A2"
        for number, width in enumerate(_WIDTHS):
            self._sheet.column_dimensions[chr(ord("A") + number)].width = width
        self._sheet.append([self._cell(self._sheet, heading, bold=True) for heading in COLUMNS])
        self._rows = 0

    def add(self, row: Row) -> None:
        """Raises `Malformed` (REQUEST_TOO_LARGE) when the sheet is full."""
        self._rows += 1
        if self._rows > MOST_ROWS:
            raise Malformed(
                Code.REQUEST_TOO_LARGE, f"a sheet has {MOST_ROWS} rows: narrow the filter, or write csv or jsonl"
            )
        self._sheet.append([self._cell(self._sheet, text) for text in row])

    def save(self, path: Path, about: Mapping[str, str]) -> None:
        """Whole or not at all; `about` is the second sheet: at which checkpoint, with which filter, when."""
        sheet = self._book.create_sheet("说明")
        sheet.column_dimensions["A"].width, sheet.column_dimensions["B"].width = 24, 80
        for name, text in about.items():
            sheet.append([self._cell(sheet, name, bold=True), self._cell(sheet, text)])
        temporary = path.with_name(path.name + ".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            self._book.save(out)
        temporary.replace(path)

    @staticmethod
    def _cell(sheet: object, text: str, *, bold: bool = False) -> WriteOnlyCell:
        cell = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("\N{REPLACEMENT CHARACTER}", text)[:MOST_CHARACTERS])
        cell.data_type = "s"  # text, whatever it begins with: openpyxl takes '=' for a formula
        cell.number_format = "@"  # and it stays text when somebody edits it
        if bold:
            cell.font = Font(bold=True)
        return cell
