"""Exports as departments send them: larger, dirtier, of other provinces and years than the sample. All rows invented.

What can mean one thing only is read; anything else is kept aside with a reason, and costs no other row.
"""

from __future__ import annotations

import csv
import io
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import config, sources
from adapters.config import Department
from adapters.mapping import REASONS, Accepted, Quarantined, Row, map_row
from adapters.parsers import parse_capital, parse_date, parse_region
from adapters.text import damage
from consent.decide import CHINA
from schemas.catalogue import Catalogue
from schemas.divisions import Divisions, Level
from schemas.errors import Code, Malformed, Misuse

TOML = Path(__file__).parents[2] / "adapters/departments/market-regulation.toml"
HEADER = (
    "企业名称",
    "统一社会信用代码",
    "注册日期",
    "企业类型",
    "法人代表",
    "注册资金",
    "经营范围",
    "所在省份",
    "地区",
    "注册地址",
)
NAME, USCC, DAY, KIND, PERSON, CAPITAL, SCOPE, PROVINCE, PLACE, ADDRESS = range(10)
SOUND = (
    "秀洲测试有限公司",
    "91330411MA2B00019F",
    "2019-03-01",
    "有限责任公司",
    "张三",
    "1,000(万元人民币)",
    "软件开发；信息技术咨询服务",
    "浙江",
    "嘉兴",
    "浙江省嘉兴市测试路1号",
)
LARGE = 200_000
MAPPED = 8  # every eighth of them is mapped, too: enough to fill the caches, and quicker
ALNUM = "0123456789ABCDEFGHJKLMNPQRTUWXY"
PUBLISHED = "ok"


@pytest.fixture(scope="module")
def department() -> Department:
    return config.load(TOML, Catalogue.load())


def credit_code(number: int) -> str:
    """An invented code with both checks right. Written out again here: the reader's own rules are not its judge."""
    body = f"{number:08d}"
    inner = 11 - sum(int(d) * w for d, w in zip(body, (3, 7, 9, 10, 5, 8, 4, 2), strict=True)) % 11
    code = f"91330411{body}" + "0123456789X0"[inner]
    return code + ALNUM[-sum(ALNUM.index(c) * pow(3, at, 31) for at, c in enumerate(code)) % 31]


def sound(number: int) -> tuple[str, ...]:
    return (f"第{number}号测试有限公司", credit_code(number), *SOUND[2:])


ROWS = [sound(number) for number in range(1, 21)]


def changed(row: Sequence[str], column: int, text: str) -> tuple[str, ...]:
    return (*row[:column], text, *row[column + 1 :])


def written(rows: Iterable[Sequence[str]], end: str = "\r\n", delimiter: str = ",", quoting: int = 0) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator=end, delimiter=delimiter, quoting=quoting).writerows([HEADER, *rows])  # type: ignore[arg-type]
    return out.getvalue()


class Fed:
    """What became of an export: the accepted rows, and each row's outcome by its line."""

    def __init__(self, tmp_path: Path, department: Department, data: bytes | str, **source: str) -> None:
        if isinstance(data, str):
            data = data.encode(source.get("encoding", "utf-8"))
        path = tmp_path / "export"
        path.write_bytes(data)
        declared = replace(department, source=replace(department.source, **source))
        header, rows = sources.rows(path, declared)
        item = Catalogue.load().item(department.item)
        self.rows = [map_row(row, header, declared, item) for row in rows]
        self.accepted = [row for row in self.rows if isinstance(row, Accepted)]
        self.outcomes = {row.line: str(row.reason) for row in self.rows if isinstance(row, Quarantined)}


def outcome(tmp_path: Path, department: Department, column: int, text: str) -> str:
    """What becomes of a sound row with one cell changed, between others that it must not touch."""
    fed = Fed(tmp_path, department, written([ROWS[0], changed(ROWS[1], column, text), ROWS[2]]))
    assert len(fed.rows) == 3
    assert set(fed.outcomes) <= {3}
    return fed.outcomes.get(3, PUBLISHED)


# Files


def test_sound_rows_are_sound(tmp_path: Path, department: Department) -> None:
    """What the tests below change one thing of."""
    fed = Fed(tmp_path, department, written(ROWS))
    assert fed.outcomes == {}
    assert fed.accepted[0].values["registered_capital"] == Decimal("10000000.00")


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"], ids=["CRLF", "LF", "CR"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL], ids=["some", "all"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_line_ends_quotes_delimiters(
    tmp_path: Path, department: Department, end: str, quoting: int, delimiter: str, encoding: str
) -> None:
    """All give the same rows; in GB18030 a | may be half of a character."""
    rows = [*ROWS, changed(ROWS[3], PERSON, "弢簗寍")]  # in GB18030 the second byte of one of many such is a |
    fed = Fed(tmp_path, department, written(rows, end, delimiter, quoting), encoding=encoding, delimiter=delimiter)
    assert [row.line for row in fed.accepted] == list(range(2, 23))
    assert fed.accepted[-1].values["legal_representative"] == "弢簗寍"


def test_a_delimiter_may_be_half_of_a_character(tmp_path: Path, department: Department) -> None:
    """Bytes are not searched for delimiters: text is."""
    half = next(chr(code) for code in range(0x4E00, 0x9FFF) if chr(code).encode("gb18030")[1:2] == b"|")
    rows = [changed(ROWS[0], NAME, f"{half}记商行"), ROWS[1]]
    fed = Fed(tmp_path, department, written(rows, delimiter="|"), encoding="gb18030", delimiter="|")
    assert (len(fed.accepted), fed.accepted[0].values["name"]) == (2, f"{half}记商行")


def test_mixed_line_ends(tmp_path: Path, department: Department) -> None:
    """As files have that were put together on two systems; the last line may lack its end."""
    lines = written(ROWS).split("\r\n")[:-1]
    ends = ["\r\n", "\n", "\r"] * 7
    text = "".join(line + end for line, end in zip(lines, ends, strict=True))[: -len(ends[20])]
    assert len(Fed(tmp_path, department, text).accepted) == 20


def test_a_line_end_at_the_edge_of_a_chunk(tmp_path: Path, department: Department, monkeypatch: Any) -> None:
    """CR and LF may come in different reads."""
    data = written(ROWS)
    for size in range(150, 175):
        monkeypatch.setattr(sources, "MAX_ROW_BYTES", size * 7)
        fed = Fed(tmp_path, department, data)
        assert [row.line for row in fed.accepted] == list(range(2, 22))


def test_another_column_order(tmp_path: Path, department: Department) -> None:
    """Columns are found by name; further ones, even without a name, are no harm."""
    order = list(range(10))
    random.Random(7).shuffle(order)
    table = [[row[at] for at in order] for row in (HEADER, *ROWS)]
    head = ["序号", *table[0], "", ""]
    rows = [[str(at), *row, "", ""] for at, row in enumerate(table[1:])]
    plain = Fed(tmp_path, department, written(ROWS)).accepted
    text = "\r\n".join(",".join(f'"{cell}"' for cell in row) for row in [head, *rows])
    assert Fed(tmp_path, department, text).accepted == plain


def test_a_column_that_is_read_stands_once(tmp_path: Path, department: Department) -> None:
    """Which of two would be meant is the department's to say."""
    text = written(ROWS).replace("企业类型", "企业名称", 1).replace("\r\n", ",企业类型\r\n", 1)
    with pytest.raises(Malformed) as refused:
        Fed(tmp_path, department, text)
    assert refused.value.code is Code.SOURCE_INVALID


def test_damage_in_a_column_that_nobody_reads(tmp_path: Path, department: Department) -> None:
    """It shows that the row was damaged, under whatever names: also of two unnamed columns the first."""
    head, row, *_ = written(ROWS).split("\r\n")
    assert Fed(tmp_path, department, f"{head},,\r\n{row},\ufffd,\r\n").outcomes == {2: "TEXT_REPLACEMENT"}


@pytest.mark.parametrize("marks", ["", "\ufeff", "\ufeff\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_byte_order_marks(tmp_path: Path, department: Department, marks: str, encoding: str, quoting: int) -> None:
    """None, one, and two, as a script leaves that adds one to what has one; before a quote, too."""
    fed = Fed(tmp_path, department, marks + written(ROWS, quoting=quoting), encoding=encoding)
    assert len(fed.accepted) == 20


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("gb18030", "utf-8"),
        ("utf-8", "gb18030"),
        ("utf-8-sig", "gb18030"),
        *((wide, said) for wide in ("utf-16", "utf-16-le", "utf-16-be", "utf-32") for said in ("utf-8", "gb18030")),
        ("big5", "utf-8"),
    ],
)
@pytest.mark.parametrize("latin", [False, True], ids=["Chinese header", "Latin header"])
def test_another_encoding_than_declared_is_refused(
    tmp_path: Path, department: Department, there: str, said: str, latin: bool
) -> None:
    """Before the first record, with a header in Latin letters, too: most of UTF-8 can be read as GB18030."""
    text = "\n".join(written(ROWS).splitlines())
    names = dict(zip(HEADER, "abcdefghij", strict=True))
    if latin:
        fields = (replace(f, columns=tuple(names[column] for column in f.columns)) for f in department.fields)
        department = replace(department, fields=tuple(fields))
        text = "\n".join([",".join(names.values()), *text.splitlines()[1:]])
    with pytest.raises(Malformed) as refused:
        Fed(tmp_path, department, text.encode(there, "replace"), encoding=said)
    assert refused.value.code in ((Code.ENCODING,) if latin else (Code.ENCODING, Code.SOURCE_INVALID))


@pytest.mark.parametrize(("said", "other"), [("utf-8", "gb18030"), ("gb18030", "utf-8")])
def test_a_row_in_another_encoding_costs_itself(tmp_path: Path, department: Department, said: str, other: str) -> None:
    """Two exports put together: a few foreign lines are quarantined, not published as other characters."""
    lines = [line.encode(said) for line in written([*ROWS, *ROWS]).splitlines()]
    lines[7] = lines[7].decode(said).encode(other)
    assert Fed(tmp_path, department, b"\n".join(lines), encoding=said).outcomes == {8: "ENCODING"}


@pytest.mark.parametrize("data", [b"\x80", b"\xff", b"\x81\x30", b"\x00"])
@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_a_byte_that_is_none_of_the_encoding(
    tmp_path: Path, department: Department, data: bytes, encoding: str
) -> None:
    """In the middle of a cell; the rows around it stay whole."""
    before, mark, after = written([ROWS[0], changed(ROWS[1], NAME, "@"), ROWS[2]]).encode(encoding).partition(b"@")
    assert mark
    fed = Fed(tmp_path, department, before + data + b"," * (data == b"\x81\x30") + after, encoding=encoding)
    assert fed.outcomes == {3: "ENCODING"}


def test_empty_lines_are_no_rows(tmp_path: Path, department: Department) -> None:
    """Also those of blanks or delimiters only, as spreadsheets leave them; line numbers count them."""
    lines = written(ROWS[:3]).split("\r\n")
    blank = ["", "  ", "\t", "　　", ",,,,,,,,,", ' ,"",　,,,,,,,', ","]
    text = "\r\n".join([*lines[:2], *blank, *lines[2:4], *blank])
    assert [row.line for row in Fed(tmp_path, department, text).accepted] == [2, 10, 11]


def test_a_header_again_and_a_sum_are_kept_aside(tmp_path: Path, department: Department) -> None:
    """They are lines of the export, so they are counted and shown; nothing of them is published."""
    fed = Fed(tmp_path, department, written([*ROWS[:2], HEADER, *ROWS[2:4]]) + "合计,20\r\n合计：4 家,,,,,,,,,\r\n")
    assert fed.outcomes == {4: "USCC_FORM", 7: "COLUMNS", 8: "USCC_MISSING"}
    assert len(fed.accepted) == 4


@pytest.mark.parametrize("wrong", [SOUND[:9], (*SOUND, "x"), (*SOUND, ""), SOUND[:1]])
def test_columns_lost_or_added(tmp_path: Path, department: Department, wrong: tuple[str, ...]) -> None:
    """Which column is which cannot be known."""
    assert Fed(tmp_path, department, written([ROWS[0], wrong, ROWS[1]])).outcomes == {3: "COLUMNS"}


# Quotes


@pytest.mark.parametrize("column", range(10))
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_a_line_break_inside_a_cell(tmp_path: Path, department: Department, column: int, end: str) -> None:
    """It belongs to the cell, whichever: the row's line is where it starts."""
    folded = changed(ROWS[1], column, f"{ROWS[1][column]}{end}甲")
    fed = Fed(tmp_path, department, written([ROWS[0], folded, ROWS[2], ROWS[3]], end))
    lines = [row.line for row in fed.rows]
    assert lines == [2, 3, 5, 6]
    assert {2, 5, 6} & fed.outcomes.keys() == set()


def test_a_cell_may_hold_what_looks_like_a_row(tmp_path: Path, department: Department) -> None:
    """Inside of a sound quoted cell nothing is a row."""
    folded = changed(ROWS[1], SCOPE, "甲\n" + ",".join(ROWS[5]) + "\n乙")
    fed = Fed(tmp_path, department, written([ROWS[0], folded, ROWS[2]], "\n"))
    assert [row.line for row in fed.accepted] == [2, 3, 6]


@given(
    st.integers(2, 8).flatmap(
        lambda width: st.lists(
            st.lists(st.text('甲乙丙,"\n;| 1x', max_size=6), min_size=width, max_size=width), min_size=1, max_size=6
        )
    ),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=300, deadline=None)
def test_sound_csv_is_read_as_it_was_written(rows: list[list[str]], end: str) -> None:
    """Whatever its cells hold: the rules for stray quotes do not touch what has none."""
    out = io.StringIO()
    header = [f"h{at}" for at in range(len(rows[0]))]
    csv.writer(out, lineterminator=end).writerows([header, *rows])
    read = [list(row.cells) for row in sources._split(io.BytesIO(out.getvalue().encode()), "utf-8", ",")]
    assert read == [header, *(row for row in rows if "".join(row).strip())]


def test_quotes_inside_cells_stay(tmp_path: Path, department: Department) -> None:
    """Doubled in a quoted cell, single in the middle of a plain one, Chinese ones anywhere."""
    rows = [changed(ROWS[0], NAME, '"老字号"商行'), changed(ROWS[1], NAME, "“老字号”商行")]
    text = written([*rows, *ROWS[2:]]).replace("第3号", '第3"号', 1).replace("第7号", '第7"号', 1)
    fed = Fed(tmp_path, department, text)
    assert fed.outcomes == {}
    assert [fed.accepted[at].values["name"] for at in (0, 1, 2, 6, 7)] == [
        '"老字号"商行',
        "“老字号”商行",
        '第3"号测试有限公司',
        '第7"号测试有限公司',
        "第8号测试有限公司",
    ]


@pytest.mark.parametrize("strays", [{4}, {4, 5}, {4, 6, 9}, set(range(1, 21)), {20}, {19, 20}])
@pytest.mark.parametrize("column", [NAME, KIND, ADDRESS])
def test_a_stray_quote_at_the_beginning_of_a_cell(
    tmp_path: Path, department: Department, strays: set[int], column: int
) -> None:
    """It costs its own row and no other, however many there are and whatever stands behind."""
    lines = []
    for number, row in enumerate(ROWS, 1):
        cells = list(changed(row, CAPITAL, "100万元"))
        cells[column] = ('"' if number in strays else "") + cells[column]
        lines.append(",".join(cells))
    fed = Fed(tmp_path, department, "\n".join([",".join(HEADER), *lines, ""]))
    assert {row.line for row in fed.accepted} == {n + 1 for n in range(1, 21) if n not in strays}
    assert fed.outcomes == {n + 1: "COLUMNS" for n in strays}


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_quote_loses_a_row(data: st.DataObject) -> None:
    """Quotes at random places of random rows: every line is in some row's cells, none silently gone."""
    lines = [",".join(changed(row, CAPITAL, "100万元")) for row in ROWS[:8]]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 7))
        place = data.draw(st.integers(0, len(lines[at])))
        lines[at] = lines[at][:place] + '"' + lines[at][place:]
    text = "\n".join([",".join(HEADER), *lines, ""])
    found = list(sources._split(io.BytesIO(text.encode()), "utf-8", ","))
    shown = "\n".join(cell for row in found for cell in row.cells)
    for row in ROWS[:8]:
        assert row[USCC][8:17] in shown.replace('"', "")
    assert [row.line for row in found] == sorted({row.line for row in found})


def test_an_unclosed_quote_in_the_last_line(tmp_path: Path, department: Department) -> None:
    """The file ends inside of a cell."""
    text = written(ROWS[:3]) + '"' + ",".join(changed(ROWS[4], CAPITAL, "100万元"))
    fed = Fed(tmp_path, department, text)
    assert (len(fed.accepted), fed.outcomes) == (3, {5: "COLUMNS"})


# Cells


@pytest.mark.parametrize(
    "name",
    [
        "𠮷野家餐饮有限公司",
        "䶮记商行",
        "㐂乐餐饮店",
        "喆焜堃商贸",
        "吃了吗？餐饮店",
        "真的？！火锅店",
        "什么?小吃店",
        "中心(CBD)店",
        "秀洲（上海）贸易有限公司",
        "某某(有限合伙)",
        "云(IT)服务",
        "网(app)店",
        "男装(men)旗舰店",
        "咖啡(café)店",
        "某某(in)店",
        "某某(VIP)会所",
        "A·B(中国)投资",
        "第一(1)食堂",
        "O2O（线上）店",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_a_name_that_only_looks_odd(tmp_path: Path, department: Department, name: str, encoding: str) -> None:
    """Rare hanzi, question marks that are meant, brackets with words."""
    fed = Fed(tmp_path, department, written([changed(ROWS[0], NAME, name)]), encoding=encoding)
    assert (fed.outcomes, fed.accepted[0].values["name"]) == ({}, name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("实(shí)践商行", "TEXT_PINYIN"),
        ("实（shi）践商行", "TEXT_PINYIN"),
        ("我们(men)商行", "TEXT_PINYIN"),
        ("實 (shi) 踐", "TEXT_PINYIN"),
        ("绿(lǜ)色", "TEXT_PINYIN"),
        ("女(nǚ)装", "TEXT_PINYIN"),
        ("番(pan)禺", "TEXT_PINYIN"),
        ("绍能?！绷市", "TEXT_SLIP"),
        ("去？嗪商行", "TEXT_SLIP"),
        ("去？！嗪商行", "TEXT_SLIP"),
        ("嘉兴\ufffd丽泰", "TEXT_REPLACEMENT"),
        ("嘉兴锟斤拷丽泰", "TEXT_REPLACEMENT"),
        ("嘉兴ï¿½丽泰", "TEXT_REPLACEMENT"),
    ],
)
def test_damaged_text(text: str, reason: str) -> None:
    """What no name holds."""
    assert damage(text) is Code(reason)


def test_a_missing_value_is_written_in_many_ways(tmp_path: Path, department: Department) -> None:
    """As the department's file lists them, blanks around them or not."""
    for word in ("", " ", "　", "N/A", " N/A ", "#N/A", "NULL", "-", "——", "/", "无"):
        assert outcome(tmp_path, department, NAME, word) == "NAME_MISSING"
        assert outcome(tmp_path, department, USCC, word) == "USCC_MISSING"
        assert outcome(tmp_path, department, DAY, word) == "DATE_INVALID"
        assert outcome(tmp_path, department, PROVINCE, word) == "REGION_UNKNOWN"
        for column in (KIND, PERSON, CAPITAL, SCOPE, PLACE, ADDRESS):
            assert outcome(tmp_path, department, column, word) == PUBLISHED


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (f" {credit_code(77)}　", PUBLISHED),
        (f"\ufeff{credit_code(77)}\u200b", PUBLISHED),
        (f"{credit_code(77)}\u00a0", PUBLISHED),
        ("330411108223110", "USCC_LEGACY_15"),
        ("33041110822311", "USCC_FORM"),
        (credit_code(77).translate(str.maketrans("0123456789", "０１２３４５６７８９")), "USCC_FORM"),
        ("91330411MA2B00019f", "USCC_FORM"),
        ("91330411 MA2B00019F", "USCC_FORM"),
        ("91330411-MA2B00019F", "USCC_FORM"),
        ("'91330411MA2B00019F", "USCC_FORM"),
        ("9.1330411E+17", "USCC_FORM"),
        ("91330411MA2BOOO19F", "USCC_FORM"),
        ("91330411MA2B00019G", "USCC_CHECK"),
        ("11320800MB0000001R", "USCC_ORG_CHECK"),
    ],
)
def test_credit_codes(tmp_path: Path, department: Department, code: str, reason: str) -> None:
    """Blanks around a code are nobody's; anything else is the department's to mend: a code identifies a firm."""
    assert outcome(tmp_path, department, USCC, code) == reason


@pytest.mark.parametrize(
    ("text", "amount", "currency"),
    [
        ("1000万元", 10_000_000, "CNY"),
        ("1000万", 10_000_000, "CNY"),
        ("1000万人民币", 10_000_000, "CNY"),
        ("1000万人民币元", 10_000_000, "CNY"),
        ("人民币1000万元", 10_000_000, "CNY"),
        ("人民币：1000", None, ""),
        ("RMB 1,000万", 10_000_000, "CNY"),
        ("￥1,000.00万元", 10_000_000, "CNY"),
        ("1,000.00万元", 10_000_000, "CNY"),
        ("1,000.00 万元（人民币）", 10_000_000, "CNY"),
        ("1,000(万元)", 10_000_000, "CNY"),
        ("1000(万)元", 10_000_000, "CNY"),
        ("1000万元整", 10_000_000, "CNY"),
        ("１０００万元", 10_000_000, "CNY"),
        ("１，０００．５（万元）", 10_005_000, "CNY"),
        ("　1000 万元 ", 10_000_000, "CNY"),
        ("1 000万元", 10_000_000, "CNY"),
        ("10000000元", 10_000_000, "CNY"),
        ("0.5亿元", 50_000_000, "CNY"),
        ("1428.571429万元", Decimal("14285714.29"), "CNY"),
        ("壹佰万元整", 1_000_000, "CNY"),
        ("人民币壹佰万元整", 1_000_000, "CNY"),
        ("人民币 贰仟零伍拾万圆整", 20_500_000, "CNY"),
        ("一百二十三万四千元", 1_234_000, "CNY"),
        ("壹亿贰仟万元", 120_000_000, "CNY"),
        ("拾万美元", 100_000, "USD"),
        ("500万美元", 5_000_000, "USD"),
        ("500(万美元)", 5_000_000, "USD"),
        ("US$500万", 5_000_000, "USD"),
        ("500万元美元", 5_000_000, "USD"),
        ("300万港币", 3_000_000, "HKD"),
        ("300万港元", 3_000_000, "HKD"),
        ("300万香港元", 3_000_000, "HKD"),
        ("HK$300万", 3_000_000, "HKD"),
        ("200万欧元", 2_000_000, "EUR"),
        ("20000万日元", 200_000_000, "JPY"),
        ("100万新西兰元", 1_000_000, "NZD"),
        ("0万元", 0, "CNY"),
        ("1000", None, ""),
        ("1000.00", None, ""),
        ("壹佰", None, ""),
        ("一百一百万元", None, ""),
        ("万元", None, ""),
        ("约1000万元", None, ""),
        ("1000万元以上", None, ""),
        ("1000-2000万元", None, ""),
        ("-1000万元", None, ""),
        ("1,00万元", None, ""),
        ("1.2.3万元", None, ""),
        ("1000(万元", None, ""),
        ("1000万元)", None, ""),
        ("1000万美元人民币", None, ""),
        ("人民币1000万美元", None, ""),
        ("66.6666667万元", None, ""),
        ("99999999999999亿元", None, ""),
        ("1" * 400 + "万元", None, ""),
        ("٣٠٠万元", None, ""),
        ("1000W", None, ""),
        ("#REF!", None, ""),
    ],
)
def test_capital(text: str, amount: Any, currency: str) -> None:
    """In whole units of its currency; what may mean 元 or 万元, or two currencies, or about, is refused."""
    if amount is not None:
        assert parse_capital(text) == (Decimal(amount), currency)
        return
    with pytest.raises(Malformed) as refused:
        parse_capital(text)
    assert refused.value.code is Code.CAPITAL_FORM


_NUMERALS = "零壹贰叁肆伍陆柒捌玖"


def _spelt(number: int) -> str:
    """A whole number below 10^12 as contracts spell it; the reader's inverse, made independently."""
    text = ""
    for unit, name in ((10**8, "亿"), (10**4, "万"), (1, "")):
        part, number = divmod(number, unit)
        if part:
            figures = f"{part:04d}"
            if text and part < 1000:
                text += "零"
            spelt = "".join(
                _NUMERALS[int(d)] + name_of if d != "0" else "零"
                for d, name_of in zip(figures, ("仟", "佰", "拾", ""), strict=True)
            )
            while "零零" in spelt:
                spelt = spelt.replace("零零", "零")
            text += spelt.strip("零") + name
    return text


@given(st.integers(1, 10**12 - 1))
def test_capital_in_words(number: int) -> None:
    """Every amount below a million million, as contracts write it."""
    assert parse_capital(f"人民币{_spelt(number)}元整") == (Decimal(number), "CNY")


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2019-3-1", date(2019, 3, 1)),
        ("2019/3/1", date(2019, 3, 1)),
        ("2019/3/1 0:00", date(2019, 3, 1)),
        ("2019/03/01 00:00:00", date(2019, 3, 1)),
        ("2019-03-01 00:00:00.000", date(2019, 3, 1)),
        ("2019-03-01T00:00:00+08:00", date(2019, 3, 1)),
        ("2019.03.01", date(2019, 3, 1)),
        ("20190301", date(2019, 3, 1)),
        ("2019年3月1日", date(2019, 3, 1)),
        ("2019 年 03 月 01 日", date(2019, 3, 1)),
        ("2019年3月1号", date(2019, 3, 1)),
        ("２０１９－０３－０１", date(2019, 3, 1)),
        ("2019–03–01", date(2019, 3, 1)),
        ("二〇一九年三月一日", date(2019, 3, 1)),
        ("二零一九年十二月三十一日", date(2019, 12, 31)),
        ("1897-05-27", date(1897, 5, 27)),
        ("2000-02-29", date(2000, 2, 29)),
        ("2046-02-28", date(2046, 2, 28)),  # a term may end in the future; a first day may not: below
        ("1900-02-29", None),
        ("2019-00-10", None),
        ("2019-02-30", None),
        ("2019-13-01", None),
        ("0019-03-01", None),
        ("1019-03-01", None),
        ("19-03-01", None),
        ("01/03/2019", None),  # the first of March or the third of January
        ("2019-03", None),
        ("2019", None),
        ("43525", None),  # a spreadsheet's day number, of one of two calendars
        ("2019-03-01 16:00:00", None),  # midnight of the next day, if it was written in UTC
        ("2019-02-28T16:00:00Z", None),
        ("2019-03/01", None),
        ("2019.3", None),
        ("2019年3月", None),
        ("٢٠١٩-٠٣-٠١", None),
        ("长期", None),
        ("2019-03-01;2020-03-01", None),
    ],
)
def test_dates(text: str, day: date | None) -> None:
    """One day, or none: which of two would be meant is not guessed."""
    if day is not None:
        assert parse_date(text) == day
        return
    with pytest.raises(Malformed) as refused:
        parse_date(text)
    assert refused.value.code is Code.DATE_INVALID


def test_nothing_was_registered_tomorrow(tmp_path: Path, department: Department) -> None:
    """A first day to come is a typing error; today, in UTC+8, is none."""
    today = datetime.now(CHINA).date()
    assert outcome(tmp_path, department, DAY, today.isoformat()) == PUBLISHED
    assert outcome(tmp_path, department, DAY, (today + timedelta(days=2)).isoformat()) == "DATE_INVALID"


@pytest.mark.parametrize(
    ("province", "place", "code"),
    [
        ("浙江", "嘉兴", "330400"),
        ("浙江省", "嘉兴市", "330400"),
        ("浙江省", "浙江省嘉兴市", "330400"),
        ("浙江", "浙江嘉兴", "330400"),
        ("浙江", "嘉兴市秀洲区", "330400"),
        ("浙江", "嘉兴/秀洲区", "330400"),
        ("浙江", "嘉兴市 秀洲区", "330400"),
        ("浙江", "嘉兴秀洲区", "330400"),
        ("浙江", "秀洲区", "330411"),
        ("浙江", "德清县", "330521"),
        ("浙江", "", "330000"),
        ("内蒙古", "呼和浩特", "150100"),
        ("内蒙古自治区", "锡林郭勒盟", "152500"),
        ("内蒙", "包头", "150200"),
        ("广西", "南宁", "450100"),
        ("广西壮族自治区", "广西壮族自治区南宁市", "450100"),
        ("新疆维吾尔自治区", "伊犁哈萨克自治州", "654000"),
        ("新疆", "石河子", "659001"),
        ("新疆生产建设兵团", "石河子市", "659001"),
        ("西藏", "拉萨市", "540100"),
        ("宁夏", "吴忠", "640300"),
        ("吉林", "吉林", "220200"),
        ("吉林", "吉林省吉林市", "220200"),
        ("辽宁", "朝阳", "211300"),
        ("北京", "朝阳", "110105"),
        ("北京市", "北京市朝阳区", "110105"),
        ("北京", "市辖区", "110000"),
        ("上海", "上海", "310000"),
        ("重庆", "县", "500000"),
        ("海南", "三沙", "460300"),
        ("青海", "海南", "632500"),
        ("湖北", "恩施土家族苗族自治州利川市", "422800"),
        ("香港特别行政区", "", "810000"),
        ("江苏", "淮阴市", "320800"),  # retired, and became 淮安
        ("山东", "莱芜", "370116"),
        ("浙江", "下城区", "330105"),
    ],
)
def test_regions(province: str, place: str, code: str) -> None:
    """With and without suffixes, with the province before and the district behind, retired ones."""
    assert parse_region(province, place) == code


@pytest.mark.parametrize(
    ("province", "place"),
    [
        ("", "嘉兴"),
        ("江苏", "鼓楼区"),  # Nanjing and Xuzhou have one each
        ("浙江", "漳州"),
        ("重庆", "浙江省江北区"),  # contradicts itself
        ("浙江", "杭州/宁波"),
        ("新疆生产建设兵团", ""),
        ("新疆", "第八师"),
        ("浙江", "市辖区"),
        ("湖北", "省直辖县级行政区划"),
        ("朝阳", ""),
        ("浙江", "330400"),
        ("浙江", "火星"),
        ("东北", "沈阳"),
        ("浙江", "省"),
        ("浙江", "浙江省/"),
    ],
)
def test_no_region_or_more_than_one(province: str, place: str) -> None:
    """Ambiguous, contradictory, or no division: never a guess."""
    with pytest.raises(Malformed) as refused:
        parse_region(province, place)
    assert refused.value.code is Code.REGION_UNKNOWN


def test_a_place_with_its_district_is_its_city_everywhere() -> None:
    """Every fifth county of China, written in five ways behind its city: never in another city, hardly ever unknown."""
    codes = Divisions.load().codes
    counties = [row for row in codes.values() if row.in_force and row.level is Level.COUNTY][::5]
    unknown = asked = 0
    for county in counties:
        province, city = codes[f"{county.code[:2]}0000"], codes.get(f"{county.code[:4]}00")
        if city is None or not city.in_force or city.name in ("市辖区", "县") or "直辖" in city.name:
            continue
        short = city.name.removesuffix("市")
        ways = [province.name + city.name, city.name, f"{city.name}/", f"{short} ", short]
        for before in ways:
            asked += 1
            try:
                assert parse_region(province.name, before + county.name)[:4] == city.code[:4]
            except Malformed:
                unknown += 1
    assert asked > 2_000
    assert unknown < asked / 200


@given(st.text(max_size=12), st.text(max_size=12))
def test_no_region_raises_anything_else(province: str, place: str) -> None:
    """Whatever two columns hold."""
    code = None
    try:
        parse_region(province, place)
    except Malformed as exc:
        code = exc.code
    assert code in (None, Code.REGION_UNKNOWN)


@given(st.lists(st.text(max_size=20), min_size=10, max_size=10))
@settings(max_examples=200, deadline=None)
def test_a_row_is_accepted_or_has_a_reason(cells: list[str]) -> None:
    """Whatever ten cells hold: a reason of the closed list, the cells kept as they came."""
    department = config.load(TOML, Catalogue.load())
    item = Catalogue.load().item(department.item)
    mapped = map_row(Row(line=2, cells=tuple(cells)), HEADER, department, item)
    if isinstance(mapped, Quarantined):
        assert mapped.reason in REASONS
        assert mapped.cells == tuple(cells)


# Spreadsheets


def test_cells_of_a_spreadsheet(tmp_path: Path, department: Department) -> None:
    """Days, whole numbers and empty rows come as the CSV would have them; a code stored as a number is lost."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(HEADER)
    sheet.append(changed(ROWS[0], DAY, datetime(2019, 3, 1)))  # type: ignore[arg-type]
    sheet.append([None] * 10)
    sheet.append(["  ", *[None] * 9])
    sheet.append([*ROWS[1][:DAY], date(2019, 3, 1), *ROWS[1][DAY + 1 : ADDRESS], 7.0])
    sheet.append([*ROWS[2][:USCC], 9.1330411e17, *ROWS[2][DAY:]])
    sheet.append([*ROWS[3][:DAY], datetime(2019, 3, 1, 16), *ROWS[3][DAY + 1 :]])
    sheet.append(ROWS[4][:9])
    book.save(tmp_path / "book")
    fed = Fed(tmp_path, department, (tmp_path / "book").read_bytes(), format="xlsx")
    assert [row.line for row in fed.accepted] == [2, 5, 8]
    assert fed.accepted[1].values["address"] == "7"
    assert fed.outcomes == {6: "USCC_FORM", 7: "DATE_INVALID"}


def test_a_spreadsheet_cut_short(tmp_path: Path, department: Department) -> None:
    """Is refused by name, wherever it is cut: nothing of openpyxl's comes through."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (HEADER, *ROWS):
        sheet.append(row)
    book.save(tmp_path / "book")
    data = (tmp_path / "book").read_bytes()
    for at in range(0, len(data), len(data) // 40):
        damaged = bytearray(data)
        damaged[at : at + 30] = bytes(30)
        for wrong in (data[:at], bytes(damaged)):
            code = None
            try:
                Fed(tmp_path, department, wrong, format="xlsx")
            except Malformed as exc:
                code = exc.code
            assert code in (None, Code.SOURCE_INVALID)


# Declarations


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('encoding = "utf-8"', 'delimiter = "\\""'),
        ('encoding = "utf-8"', 'delimiter = "\\n"'),
        ('encoding = "utf-8"', 'delimiter = ""'),
        ('required = "REGION_UNKNOWN"', ""),
        ('required = "DATE_INVALID"', ""),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(tmp_path: Path, old: str, new: str) -> None:
    """A delimiter that ends lines or cells; a place or a first day that may be missing without a reason."""
    path = tmp_path / "d.toml"
    text = TOML.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(Misuse) as refused:
        config.load(path, Catalogue.load())
    assert refused.value.code is Code.CONFIG_INVALID


# Size


def test_a_cell_of_a_mebibyte_is_refused_at_once(tmp_path: Path, department: Department) -> None:
    """Where a day, an amount or a place should stand; and as text it is kept aside, not searched for ever."""
    long = 100_000
    started = time.monotonic()
    for parse, texts in (
        (parse_date, ("2019-03-01" + " " * long, " " * long + "2019-03-01", "1" * long)),
        (parse_capital, ("1" + " " * long + "万元", "1" * long + "万元", "一" * long + "元", "1," * long)),
        (lambda text: parse_region("浙江", text), ("杭" * long, "浙江" * long, "杭州市" * long, "/" * long)),
    ):
        for text in texts:
            with pytest.raises(Malformed):
                parse(text)
    for text in ("(" * long, "?" * long, "们(" * long, "？！" * long, "们" + " " * long, "的 " * long):
        damage(text)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("start", ['"', '""', '"""', 'x"', '","', '"x"y,"'])
def test_a_file_of_stray_quotes_takes_no_longer_than_its_length(
    tmp_path: Path, department: Department, start: str
) -> None:
    """Every line with one: each line is in some row, and none is looked at for ever."""
    count = 3_000
    text = "\n".join([",".join(HEADER), *(start + ",".join(changed(sound(n), CAPITAL, "1万")) for n in range(count))])
    started = time.monotonic()
    fed = Fed(tmp_path, department, text)
    assert time.monotonic() - started < 10
    kept = "\n".join("".join(row.cells) for row in fed.rows if isinstance(row, Quarantined))
    names = {row.values["uscc"] for row in fed.accepted}
    assert all(credit_code(n) in names or credit_code(n) in kept for n in range(count))


def test_a_large_export_in_bounded_memory(tmp_path: Path, department: Department) -> None:
    """Memory does not grow with the file, and time only in proportion: also where quotes stray."""
    path = tmp_path / "large"
    tail = ",".join(changed(SOUND, CAPITAL, "100万元")[2:])
    count, strays = LARGE, 50
    with path.open("w", encoding="utf-8") as out:
        out.write(",".join(HEADER) + "\n")
        for number in range(count):
            stray = '"' if number % (count // strays) == 7 else ""
            out.write(f"{stray}第{number}号测试有限公司,{credit_code(number)},{tail}\n")
    item = Catalogue.load().item(department.item)
    process = psutil.Process()
    started = time.monotonic()
    header, rows = sources.rows(path, department)
    assert isinstance(map_row(next(rows), header, department, item), Accepted)
    before, most, faults = process.memory_info().rss, 0, 0
    for number, row in enumerate(rows, 1):
        faults += row.fault is Code.COLUMNS
        if row.fault is None and number % MAPPED == 0:
            assert isinstance(map_row(row, header, department, item), Accepted)
        if number % 5_000 == 0:
            most = max(most, process.memory_info().rss)
    assert (number, faults) == (count - 1, strays)
    assert most - before < 60 * 2**20
    assert time.monotonic() - started < 60
