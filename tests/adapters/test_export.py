"""The sample becomes what its expected file says, and so do dirtier exports of the same layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import openpyxl
import pytest

from adapters import config, feed
from adapters.config import Department
from schemas.catalogue import Catalogue
from schemas.errors import Code, Malformed, Misuse

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "deploy/demo/market-licences.csv"
TOML = ROOT / "adapters/departments/market-regulation.toml"
LINES = SAMPLE.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\r\n")
HEADER, GOOD = LINES[0], LINES[1:21]  # the first twenty rows are sound and of different firms


@pytest.fixture(scope="module")
def department() -> Department:
    return config.load(TOML, Catalogue.load())


def declared(department: Department, **source: str) -> Department:
    return replace(department, source=replace(department.source, **source))


def planned(tmp_path: Path, department: Department, data: bytes) -> feed.Result:
    path = tmp_path / f"export.{department.source.format}"
    path.write_bytes(data)
    return feed.plan(path, department, Catalogue.load())[0]


def export(rows: Sequence[bytes]) -> bytes:
    return b"\r\n".join([HEADER, *rows]) + b"\r\n"


def changed(row: bytes, column: int, text: str) -> bytes:
    """A row with one plain column replaced (the sample quotes only the capital, column 5; GOOD[3] has none)."""
    cells = row.split(b",")
    cells[column] = text.encode()
    return b",".join(cells)


def test_the_sample_is_as_expected(department: Department) -> None:
    expected = json.loads((ROOT / "deploy/demo/expected.json").read_text("utf-8"))
    del expected["demo"]
    assert feed.plan(SAMPLE, department, Catalogue.load())[0].to_json() == expected


def test_gb18030_gives_the_same_as_utf_8(tmp_path: Path, department: Department) -> None:
    text = SAMPLE.read_text("utf-8-sig")
    same = planned(tmp_path, department, text.encode())
    assert planned(tmp_path, declared(department, encoding="gb18030"), text.encode("gb18030")) == same


@pytest.mark.parametrize(("there", "said"), [("gb18030", "utf-8"), ("utf-8", "gb18030"), ("utf-16", "utf-8")])
def test_another_encoding_than_declared_is_refused(
    tmp_path: Path, department: Department, there: str, said: str
) -> None:
    data = export(GOOD).decode().encode(there)
    with pytest.raises(Malformed) as refused:
        planned(tmp_path, declared(department, encoding=said), data)
    assert refused.value.code in (Code.ENCODING, Code.SOURCE_INVALID)


@pytest.mark.parametrize("data", [b"", HEADER.replace("注册资金".encode(), b"x") + b"\r\n"])
def test_another_header_is_refused(tmp_path: Path, department: Department, data: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        planned(tmp_path, department, data)
    assert refused.value.code is Code.SOURCE_INVALID


@pytest.mark.parametrize(
    ("column", "text", "reason"),
    [
        (0, "福州市鼓\ufffd区某某店", "TEXT_REPLACEMENT"),
        (9, "福建省漳能?！绷市潮州路3号", "TEXT_SLIP"),
        (0, "漳(zhāng)州某某店", "TEXT_PINYIN"),
        (0, "　", "NAME_MISSING"),
        (1, "N/A", "USCC_MISSING"),
        (1, "350600108223110", "USCC_LEGACY_15"),
        (1, "91350600malelp7q8q", "USCC_FORM"),
        (1, "91350600MALELP7Q8R", "USCC_CHECK"),
        (2, "2019-02-30", "DATE_INVALID"),
        (2, "", "DATE_INVALID"),
        (8, "火星", "REGION_UNKNOWN"),
        (4, "张\x00磊", "ENCODING"),
    ],
)
def test_a_damaged_row_costs_itself_only(
    tmp_path: Path, department: Department, column: int, text: str, reason: str
) -> None:
    rows = [*GOOD[:3], changed(GOOD[3], column, text), *GOOD[4:]]
    assert planned(tmp_path, department, export(rows)).outcomes == {"5": reason}


def test_the_first_reason_wins(tmp_path: Path, department: Department) -> None:
    row = changed(changed(changed(GOOD[3], 0, ""), 1, "x"), 2, "x")
    assert planned(tmp_path, department, export([row])).outcomes == {"2": "NAME_MISSING"}


@pytest.mark.parametrize(
    ("province", "place"), [("新疆", "伊犁"), ("河南", "济源"), ("上海市", "浦东新区"), ("广东", "")]
)
def test_other_provinces(tmp_path: Path, department: Department, province: str, place: str) -> None:
    row = changed(changed(GOOD[3], 7, province), 8, place)
    assert planned(tmp_path, department, export([row])).published == 1


def test_a_line_is_where_its_row_starts(tmp_path: Path, department: Department) -> None:
    cells = GOOD[0].decode().rsplit(",", 1)
    folded = f'{cells[0]},"{cells[1]}\r\n二楼"'.encode()
    result = planned(tmp_path, department, export([folded, GOOD[1], GOOD[1]]))
    assert (result.lines, result.outcomes) == (3, {"5": "DUPLICATE of line 4"})


def test_an_unclosed_quote_costs_its_own_line(tmp_path: Path, department: Department) -> None:
    result = planned(tmp_path, department, export([GOOD[0], b'"' + GOOD[1], *GOOD[2:]]))
    assert (result.published, result.outcomes) == (19, {"3": "COLUMNS"})


def test_xlsx_gives_the_same_as_csv(tmp_path: Path, department: Department) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for line in (HEADER, *GOOD[1:3]):
        before, _, after = line.decode().partition('"')
        cells = before.split(",")
        if after:
            capital, _, rest = after.partition('"')
            cells = [*cells[:-1], capital, *rest.split(",")[1:]]
        sheet.append(cells)
    book.save(tmp_path / "made.xlsx")
    as_xlsx = declared(department, format="xlsx")
    result = planned(tmp_path, as_xlsx, (tmp_path / "made.xlsx").read_bytes())
    assert (result.lines, result.published) == (2, 2)
    with pytest.raises(Malformed) as refused:
        planned(tmp_path, as_xlsx, export(GOOD))
    assert refused.value.code is Code.SOURCE_INVALID


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('parser = "date"', 'parser = "dates"'),
        ("[fields.address]", "[fields.adress]"),
        ('format = "csv"', 'format = "csv"\ncolour = "red"'),
        ('item = "business-licence"', 'item = "business-license"'),
        ("[issuers]", "[issuers"),
        ("[fields.name]", 'fields.phone = "电话"\n[fields.name]'),
        ("[fields.name]", "[fields.name.name]"),
        ("[issuers]", "[[issuers]]"),
    ],
)
def test_a_typing_error_in_the_declaration_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "d.toml"
    text = TOML.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(Misuse) as refused:
        config.load(path, Catalogue.load())
    assert refused.value.code is Code.CONFIG_INVALID


def test_a_column_that_is_a_secret_is_not_mapped(tmp_path: Path) -> None:
    path, text = tmp_path / "d.toml", TOML.read_text("utf-8")
    for columns, refused in (('["备注"]', False), ('["备注", "企业名称"]', True)):
        path.write_text(text.replace('format = "csv"', f'format = "csv"\nsecret = {columns}', 1), "utf-8")
        if not refused:
            config.load(path, Catalogue.load())
            continue
        with pytest.raises(Misuse) as raised:
            config.load(path, Catalogue.load())
        assert raised.value.code is Code.FIELD_SECRET
        assert "企业名称" in raised.value.detail
