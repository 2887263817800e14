"""Cells: what is read comes back whole, what could mean two things is refused, and nothing else is ever raised."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.parsers import parse_capital, parse_date, parse_region
from adapters.text import damage, trim
from schemas.errors import Code, Malformed

DAYS = st.dates(date(1950, 1, 1), date(2026, 1, 1))
FORMS = (
    "{0:%Y-%m-%d}",
    "{0:%Y/%m/%d}",
    "{0:%Y.%m.%d}",
    "{0:%Y%m%d}",
    "{0.year}/{0.month}/{0.day}",
    "{0.year}年{0.month}月{0.day}日",
)
CURRENCIES = {
    "人民币": "CNY",
    "美元": "USD",
    "港元": "HKD",
    "港币": "HKD",
    "欧元": "EUR",
    "日元": "JPY",
    "英镑": "GBP",
    "": "CNY",
}
UNITS = {"万": 10_000, "亿": 100_000_000}
WIDE = str.maketrans("0123456789,.()", "０１２３４５６７８９，．（）")


@given(DAYS, st.sampled_from(FORMS), st.booleans())
def test_a_date_in_every_form(day: date, form: str, wide: bool) -> None:
    text = form.format(day)
    assert parse_date(text.translate(WIDE) if wide and "." not in text else text) == day


@given(
    st.integers(0, 9_999_999),
    st.sampled_from(sorted(UNITS)),
    st.sampled_from(sorted(CURRENCIES)),
    st.booleans(),
    st.booleans(),
)
def test_capital_in_every_form(number: int, unit: str, currency: str, bracket: bool, wide: bool) -> None:
    behind = f"{unit}{currency}"
    text = f"{number:,}({behind})" if bracket else f"{number}{behind}"
    amount, code = parse_capital(text.translate(WIDE) if wide else text)
    assert (amount, code) == (Decimal(number) * UNITS[unit], CURRENCIES[currency])


@pytest.mark.parametrize(
    "text", ["4310", "-12万元人民币", "1.2.3万元人民币", "AHMED", "1,23万", "万元", "3(万", "1e5元", ""]
)
def test_an_uncertain_capital_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse_capital(text)
    assert refused.value.code is Code.CAPITAL_FORM


@given(st.text(max_size=60))
def test_nothing_but_a_reason_is_raised(text: str) -> None:
    reasons: set[tuple[Code, Code]] = set()
    for parse, code in ((parse_date, Code.DATE_INVALID), (parse_capital, Code.CAPITAL_FORM)):
        try:
            parse(text)
        except Malformed as exc:
            reasons.add((exc.code, code))
    assert all(raised is meant for raised, meant in reasons)
    damage(text)
    assert trim(f"\u3000 {trim(text)}\u3000") == trim(text)


@pytest.mark.parametrize(
    ("province", "place", "code"),
    [
        ("浙江", "嘉兴", "330400"),
        ("北京", "", "110000"),
        ("河南", "济源", "419001"),
        ("浙江", "杭州市西湖区", "330100"),
    ],
)
def test_regions(province: str, place: str, code: str) -> None:
    assert parse_region(province, place) == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("實(shí)踐", Code.TEXT_PINYIN),
        ("们(men)都", Code.TEXT_PINYIN),
        ("能?！绷市", Code.TEXT_SLIP),
        ("去?！胺奖", Code.TEXT_SLIP),
        ("嘉兴\ufffd丽泰", Code.TEXT_REPLACEMENT),
        ("某某(有限合伙)", None),
        ("某某（上海）贸易", None),
        ("中心(CBD)店", None),
        ("网(app)店", None),
        ("吃了吗？餐饮店", None),
    ],
)
def test_damage(text: str, code: Code | None) -> None:
    assert damage(text) is code
