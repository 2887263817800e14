"""Rows of an export, one after the other: CSV and XLSX, in memory that does not grow with the file.

A file that is not what its department's file declares is refused before its first record. What is wrong with a single
row is the row's own fault, and the mapping quarantines it.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import IO

from adapters.config import Department
from adapters.mapping import Row
from adapters.text import trim
from schemas.errors import Code, Malformed, Misuse

MAX_ROW_BYTES = 1024 * 1024  # no licence face is longer; a stray quote would otherwise swallow the file
MAX_ROW_LINES = 1_000
MAX_BAD_SHARE = 0.05  # above one undecodable line in twenty the declared encoding is wrong, not the lines
SAMPLE_LINES = 100_000  # lines that are looked at before the first record
MAX_UNPACKED = 2 * 1024**3  # of an XLSX: 2 GiB of XML are some ten million rows
MAX_RATIO = 200  # spreadsheets compress 10 to 30 times
_BOM = b"\xef\xbb\xbf"
_FOREIGN_BOMS = (b"\xff\xfe", b"\xfe\xff")

csv.field_size_limit(MAX_ROW_BYTES)


def rows(path: Path, department: Department) -> tuple[tuple[str, ...], Iterator[Row]]:
    """The header and the rows.

    Raises `Malformed` (SOURCE_INVALID, ENCODING) or `Misuse` if the file is not as declared.
    """
    if not path.is_file():
        raise Misuse(Code.SOURCE_INVALID, f"{path}: no such file")
    if department.source.format == "xlsx":
        return _xlsx(path, department)
    return _csv(path, department)


def _csv(path: Path, department: Department) -> tuple[tuple[str, ...], Iterator[Row]]:
    encoding, delimiter = department.source.encoding, department.source.delimiter
    _check_encoding(path, encoding)
    found = _csv_rows(path, encoding, delimiter)
    header = next(found, None)
    if header is None:
        raise Malformed(Code.SOURCE_INVALID, f"{path}: the file is empty")
    return _header(path, header.cells, department), found


def _check_encoding(path: Path, encoding: str) -> None:
    """The beginning of the file is in the declared encoding, but for a few lines."""
    with path.open("rb") as file:
        start = file.read(4)
        if start.startswith(_FOREIGN_BOMS) or (encoding != "utf-8" and start.startswith(_BOM)):
            raise Malformed(Code.ENCODING, f"{path}: begins with the mark of another encoding than {encoding}")
        file.seek(0)
        bad = total = 0
        for number, line in enumerate(_lines(file)):
            if number >= SAMPLE_LINES:
                break
            total += 1
            if b"\x00" in line or not _decodes(line, encoding):
                bad += 1
                if number == 0:
                    raise Malformed(Code.ENCODING, f"{path}: the header is not {encoding}: set source.encoding right")
    if bad > max(1, total * MAX_BAD_SHARE):
        raise Malformed(Code.ENCODING, f"{path}: {bad} of {total} lines are not {encoding}: set source.encoding right")


def _csv_rows(path: Path, encoding: str, delimiter: str) -> Iterator[Row]:
    """Rows by physical lines, so that one broken row costs one row: a quote that is never closed ends with its line."""
    with path.open("rb") as file:
        lines = _lines(file)
        number = 0
        held: list[tuple[int, bytes]] = []
        while True:
            line = held.pop(0)[1] if held else next(lines, None)
            if line is None:
                return
            number += 1
            if number == 1:
                line = line.removeprefix(_BOM)
            block = [line]
            while _open_quote(b"".join(block)) and len(block) < MAX_ROW_LINES:
                more = held.pop(0)[1] if held else next(lines, None)
                if more is None:
                    break
                block.append(more)
            if _open_quote(b"".join(block)) and len(block) > 1:
                # The quote is a stray one: this line alone is broken, the others are rows of their own.
                held = [(0, one) for one in block[1:]] + held
                block = block[:1]
            row = _csv_row(b"".join(block), number, encoding, delimiter)
            if row is not None:
                yield row
            number += len(block) - 1


def _csv_row(data: bytes, line: int, encoding: str, delimiter: str) -> Row | None:
    if not data.strip(b"\r\n\t "):
        return None
    try:
        text = data.decode(encoding)
        if "\x00" in text:
            raise UnicodeError
    except UnicodeError:
        return Row(line=line, cells=(data.decode(encoding, "replace"),), fault=Code.ENCODING)
    try:
        cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    except csv.Error:
        return Row(line=line, cells=(text,), fault=Code.COLUMNS)
    return Row(line=line, cells=tuple(cells))


def _open_quote(data: bytes) -> bool:
    """Whether a quoted cell goes on behind these bytes. Neither encoding has the quote inside a longer character."""
    return data.count(b'"') % 2 == 1 and len(data) < MAX_ROW_BYTES


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Physical lines, cut where they would not fit into a row."""
    while line := file.readline(MAX_ROW_BYTES):
        yield line


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeError:
        return False
    return True


def _header(path: Path, cells: tuple[str, ...], department: Department) -> tuple[str, ...]:
    header = tuple(map(trim, cells))
    missing = [column for column in department.columns if column not in header]
    if missing:
        raise Malformed(Code.SOURCE_INVALID, f"{path}: the header has no column {', '.join(missing)}")
    if len(set(header)) != len(header):
        raise Malformed(Code.SOURCE_INVALID, f"{path}: the header names a column twice")
    return header


def _xlsx(path: Path, department: Department) -> tuple[tuple[str, ...], Iterator[Row]]:
    import openpyxl

    _check_archive(path)
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        found = _xlsx_rows(book.worksheets[0])
        header = next(found, None)
    except Exception as exc:  # openpyxl raises whatever the XML or the archive met
        raise Malformed(Code.SOURCE_INVALID, f"{path}: not a readable XLSX workbook ({type(exc).__name__})") from exc
    if header is None:
        raise Malformed(Code.SOURCE_INVALID, f"{path}: the first sheet is empty")
    return _header(path, header.cells, department), found


def _check_archive(path: Path) -> None:
    """Refuses an archive that would unpack to more than a spreadsheet does."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = [(entry.file_size, entry.compress_size) for entry in archive.infolist()]
    except (zipfile.BadZipFile, OSError) as exc:
        raise Malformed(Code.SOURCE_INVALID, f"{path}: not an XLSX workbook") from exc
    if sum(size for size, _ in sizes) > MAX_UNPACKED or any(s > MAX_RATIO * max(c, 1_000) for s, c in sizes):
        raise Malformed(Code.SOURCE_INVALID, f"{path}: unpacks to more than a spreadsheet holds")


def _xlsx_rows(sheet: object) -> Iterator[Row]:
    width = 0
    for number, values in enumerate(sheet.iter_rows(values_only=True), 1):  # type: ignore[attr-defined]
        cells = [_cell(value) for value in values]
        while len(cells) > width and not cells[-1]:
            cells.pop()  # a sheet's rows are as wide as its widest
        if not any(cells):
            continue
        width = width or len(cells)
        yield Row(line=number, cells=tuple(cells + [""] * (width - len(cells))))


def _cell(value: object) -> str:
    """A cell as the CSV would have it. Whole numbers come from Excel as floats."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == datetime.min.time() else value.isoformat(" ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
