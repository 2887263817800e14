"""Rows of an export, one after the other: CSV and XLSX, in memory that does not grow with the file.

A file that is not what its department's file declares is refused before its first record. What is wrong with a single
row is the row's own fault, and the mapping quarantines it.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import IO, Any

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
TELLING_WIDTH = 5  # so many columns do not come together by chance
EXACT = 10**15  # a code stored as a longer number has lost its last digits: it keeps the form that says so
MIN_UTF8_SURPLUS = 12  # six Chinese characters: the chance that GB18030 text of that length is UTF-8 is below 1e-5
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
            if _decode(line, encoding)[1]:
                bad += 1
                if number == 0:
                    raise Malformed(Code.ENCODING, f"{path}: the header is not {encoding}: set source.encoding right")
    if bad > max(1, total * MAX_BAD_SHARE):
        raise Malformed(Code.ENCODING, f"{path}: {bad} of {total} lines are not {encoding}: set source.encoding right")


@dataclass(slots=True)
class _Line:
    """A physical line. `bad`: not in the declared encoding; the text then only shows what there was."""

    number: int
    text: str
    bad: bool


def _csv_rows(path: Path, encoding: str, delimiter: str) -> Iterator[Row]:
    """Rows by physical lines, so that one broken row costs one row: a stray quote does not swallow those behind it."""
    with path.open("rb") as file:
        yield from _split(file, encoding, delimiter)


def _split(file: IO[bytes], encoding: str, delimiter: str) -> Iterator[Row]:
    lines = _decoded(file, encoding)
    held: deque[_Line] = deque()
    width = 0
    while (line := held.popleft() if held else next(lines, None)) is not None:
        block, is_open = _block(line, held, lines, delimiter)
        if len(block) > 1 and _is_stray(block, is_open, delimiter, width):
            held.extendleft(reversed(block[1:]))
            del block[1:]
        row = _csv_row(block, delimiter)
        if row is not None:
            width = width or len(row.cells)
            yield row


def _block(first: _Line, held: deque[_Line], lines: Iterator[_Line], delimiter: str) -> tuple[list[_Line], bool]:
    """The line, with those that a quoted cell goes on into; and whether that cell is still open behind them."""
    block, size = [first], len(first.text)
    is_open = _open_quote(first.text, delimiter) >= 0
    while is_open and len(block) < MAX_ROW_LINES and size < MAX_ROW_BYTES:
        more = held.popleft() if held else next(lines, None)
        if more is None:
            break
        block.append(more)
        size += len(more.text)
        is_open = _open_quote(more.text, delimiter, inside=True) >= 0
    return block, is_open


def _is_stray(block: list[_Line], is_open: bool, delimiter: str, width: int) -> bool:
    """Whether the quote that joins these lines is a stray one: it never ends, or a line behind it is a row of its own.

    A cell may hold line breaks, and one of its lines may look like a row: so the joined row has to be broken, or the
    first line whole without the quote. Of few columns many a line looks whole: there only a broken row tells.
    """
    if is_open:
        return True
    if not any(_is_whole(line.text, delimiter, width) for line in block[1:]):
        return False
    joined = _cells("".join(line.text for line in block), delimiter, strict=width < TELLING_WIDTH)
    return len(joined) != width or (width >= TELLING_WIDTH and _is_whole(block[0].text, delimiter, width))


def _is_whole(text: str, delimiter: str, width: int) -> bool:
    """Whether a line is a row of its own, but perhaps for a quote that it does not close."""
    quote = _open_quote(text, delimiter)
    return len(_cells(text if quote < 0 else text[:quote] + text[quote + 1 :], delimiter)) == width


def _csv_row(block: list[_Line], delimiter: str) -> Row | None:
    """One row, or None for an empty line, with or without delimiters, as spreadsheets leave them at the end."""
    number, text = block[0].number, "".join(line.text for line in block)
    if any(line.bad for line in block):
        return Row(line=number, cells=(text,), fault=Code.ENCODING)
    if not text.strip():
        return None
    cells = _cells(text, delimiter)
    if not cells or _open_quote(text, delimiter) >= 0:
        return Row(line=number, cells=(text,), fault=Code.COLUMNS)
    return Row(line=number, cells=cells) if any(map(trim, cells)) else None


def _cells(text: str, delimiter: str, *, strict: bool = False) -> tuple[str, ...]:
    """The cells of one row's text; none if it is not CSV. `strict`: nothing stands between a quote and a delimiter."""
    try:
        return tuple(next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict), ()))
    except csv.Error:
        return ()


def _open_quote(text: str, delimiter: str, *, inside: bool = False) -> int:
    """Where the quoted cell begins that goes on behind this text, or -1.

    As the csv module reads: a quote opens a cell only at its beginning; inside, two of them are one; elsewhere it is a
    character like any other (5" pipes). `inside`: a cell is open before the text already.
    """
    if not inside and '"' not in text:
        return -1
    at = opened = 0
    while True:
        if not inside and text[at : at + 1] == '"':
            opened, at, inside = at, at + 1, True
        if inside:
            while (at := text.find('"', at)) >= 0 and text[at + 1 : at + 2] == '"':
                at += 2
            if at < 0:
                return opened
            inside = False
        at = text.find(delimiter, at) + 1
        if not at:
            return -1


def _decoded(file: IO[bytes], encoding: str) -> Iterator[_Line]:
    """Neither encoding has a line break inside a longer character, so each line stands for itself."""
    for number, line in enumerate(_lines(file), 1):
        text, bad = _decode(line, encoding)
        yield _Line(number, text.lstrip("\ufeff") if number == 1 else text, bad)


def _decode(line: bytes, encoding: str) -> tuple[str, bool]:
    """The text, and whether it is not what was declared: undecodable, with NUL, or UTF-8 where GB18030 was said.

    Most of UTF-8 decodes as GB18030, to other characters. The reverse does not happen to a line of this length.
    """
    try:
        text = line.decode(encoding)
    except UnicodeError:
        return line.decode(encoding, "replace"), True
    if encoding != "utf-8" and not line.isascii() and _is_utf8(line):
        return text, True
    return text, "\x00" in text


def _is_utf8(line: bytes) -> bool:
    try:
        return len(line) - len(line.decode("utf-8")) >= MIN_UTF8_SURPLUS
    except UnicodeError:
        return False


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Physical lines, ended by CR LF, LF or CR, cut where they would not fit into a row."""
    rest = b""
    while chunk := file.read(MAX_ROW_BYTES):
        lines = (rest + chunk).splitlines(keepends=True)
        # The last may go on in the next chunk, if only by the LF of its CR LF.
        rest = lines.pop() if len(lines[-1]) < MAX_ROW_BYTES else b""
        yield from lines
    if rest:
        yield rest


def _header(path: Path, cells: tuple[str, ...], department: Department) -> tuple[str, ...]:
    header = tuple(map(trim, cells))
    missing = [column for column in department.columns if column not in header]
    if missing:
        raise Malformed(Code.SOURCE_INVALID, f"{path}: the header has no column {', '.join(missing)}")
    twice = [column for column in department.columns if header.count(column) > 1]
    if twice:
        raise Malformed(Code.SOURCE_INVALID, f"{path}: the header names column {', '.join(twice)} twice")
    return header


def _xlsx(path: Path, department: Department) -> tuple[tuple[str, ...], Iterator[Row]]:
    _check_archive(path)
    found = _xlsx_rows(path)
    header = next(found, None)
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


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as exc:  # openpyxl raises whatever the XML or the archive met
        raise Malformed(Code.SOURCE_INVALID, f"{path}: not a readable XLSX workbook ({type(exc).__name__})") from exc


def _xlsx_rows(path: Path) -> Iterator[Row]:
    width = 0
    with path.open("rb") as file:  # by its content: openpyxl refuses a path with another ending
        for number, values in enumerate(_xlsx_values(path, file), 1):
            cells = [_cell(value) for value in values]
            while len(cells) > width and not cells[-1]:
                cells.pop()  # a sheet's rows are as wide as its widest
            if not any(map(trim, cells)):
                continue
            width = width or len(cells)
            yield Row(line=number, cells=tuple(cells + [""] * (width - len(cells))))


def _xlsx_values(path: Path, file: IO[bytes]) -> Iterator[tuple[Any, ...]]:
    import openpyxl

    with _readable(path):
        sheet = openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets[0]
        rows = iter(sheet.iter_rows(values_only=True))
    while True:
        with _readable(path):
            row = next(rows, None)
        if row is None:
            return
        yield row


def _cell(value: object) -> str:
    """A cell as the CSV would have it. Whole numbers come from Excel as floats, and exact to 15 digits only."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == datetime.min.time() else value.isoformat(" ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    return str(value)
