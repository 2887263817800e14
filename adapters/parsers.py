"""From a cell's text to a field's value. Each raises `Malformed` with the reason that the row is quarantined for."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from schemas.divisions import Divisions
from schemas.errors import Code, Malformed
from schemas.identifiers import parse_uscc

EARLIEST_YEAR: Final = 1840  # the oldest firms that still trade; anything before is a typing error
MAX_CAPITAL: Final = Decimal(10) ** 18  # decimal(20, 2)
_CENT: Final = Decimal("0.01")

_FULL_WIDTH: Final = str.maketrans("０１２３４５６７８９，．（）－／　", "0123456789,.()-/ ")
_DATE: Final = re.compile(
    r"(?P<y>\d{4})(?:(?P<s>[-/.])(?P<m>\d{1,2})(?P=s)(?P<d>\d{1,2})|年(?P<m2>\d{1,2})月(?P<d2>\d{1,2})日|(?P<m3>\d{2})(?P<d3>\d{2}))"
    r"(?:[ T]00:00(?::00(?:\.0+)?)?)?\Z"
)
_CURRENCIES: Final = {
    "人民币": "CNY", "RMB": "CNY", "CNY": "CNY", "￥": "CNY", "¥": "CNY",
    "美元": "USD", "美金": "USD", "USD": "USD", "$": "USD",
    "港元": "HKD", "港币": "HKD", "港圆": "HKD", "HKD": "HKD",
    "澳门元": "MOP", "澳门币": "MOP", "MOP": "MOP", "新台币": "TWD", "台币": "TWD", "TWD": "TWD",
    "欧元": "EUR", "EUR": "EUR", "英镑": "GBP", "GBP": "GBP", "日元": "JPY", "日圆": "JPY", "JPY": "JPY",
    "韩元": "KRW", "韩圆": "KRW", "KRW": "KRW", "新加坡元": "SGD", "新元": "SGD", "SGD": "SGD",
    "加拿大元": "CAD", "加元": "CAD", "CAD": "CAD", "澳大利亚元": "AUD", "澳元": "AUD", "AUD": "AUD",
    "瑞士法郎": "CHF", "CHF": "CHF", "瑞典克朗": "SEK", "SEK": "SEK", "德国马克": "DEM", "法国法郎": "FRF",
}  # fmt: skip
_SCALES: Final = {
    "": 1,
    "百": 100,
    "千": 1_000,
    "万": 10_000,
    "百万": 10**6,
    "千万": 10**7,
    "亿": 10**8,
    "万亿": 10**12,
}
_CURRENCY: Final = "|".join(sorted(map(re.escape, _CURRENCIES), key=len, reverse=True))
_SCALE: Final = "|".join(sorted(filter(None, _SCALES), key=len, reverse=True))
_CAPITAL: Final = re.compile(
    rf"(?P<before>{_CURRENCY})?(?P<number>(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?)"
    rf"(?P<bracket>\()?(?P<scale>{_SCALE})?(?P<yuan>[元圆])?(?:(?P<after>{_CURRENCY})[元圆]?)?(?(bracket)\))"
    rf"(?:\((?P<behind>{_CURRENCY})\))?\Z"
)


def parse_text(text: str) -> str:
    """The text as it is."""
    return text


def parse_credit_code(text: str) -> str:
    """A unified social credit code, canonical: lower case, blanks or hyphens inside are the department's to mend."""
    return parse_uscc(text)


def parse_date(text: str) -> date:
    """A civil date: ISO, with slashes or dots, without marks, or with 年月日.

    Raises DATE_INVALID, also if it is missing.
    """
    found = _DATE.match(text.translate(_FULL_WIDTH))
    if found is None:
        raise Malformed(Code.DATE_INVALID, "not a date in a known form")
    month, day = (next(filter(None, found.group(*names))) for names in (("m", "m2", "m3"), ("d", "d2", "d3")))
    try:
        parsed = date(int(found["y"]), int(month), int(day))
    except ValueError as exc:
        raise Malformed(Code.DATE_INVALID, "no such day in the calendar") from exc
    if not EARLIEST_YEAR <= parsed.year <= datetime.now().year + 1:
        raise Malformed(Code.DATE_INVALID, f"a year before {EARLIEST_YEAR} or in the future")
    return parsed


def parse_capital(text: str) -> tuple[Decimal, str]:
    """Registered capital as `(amount in whole units, ISO 4217 currency)`, from the ways that exports write it.

    A number without unit and currency is ambiguous (元 or 万元), so it is refused. Raises CAPITAL_FORM.
    """
    compact = re.sub(r"\s+", "", text.translate(_FULL_WIDTH)).upper()
    found = _CAPITAL.match(compact)
    if found is None or not any(found.group("before", "scale", "yuan", "after", "behind")):
        raise Malformed(Code.CAPITAL_FORM, "not an amount with a unit")
    named = {_CURRENCIES[name] for name in found.group("before", "after", "behind") if name}
    if len(named) > 1:
        raise Malformed(Code.CAPITAL_FORM, "two currencies")
    amount = Decimal(found["number"].replace(",", "")) * _SCALES[found["scale"] or ""]
    if amount >= MAX_CAPITAL or amount != amount.quantize(_CENT):
        raise Malformed(Code.CAPITAL_FORM, "an amount out of range, or finer than a cent")
    return amount.quantize(_CENT), named.pop() if named else "CNY"


def parse_region(province: str, place: str) -> str:
    """The division code (GB/T 2260) of a province and a place in it. Without a place it is the province's own.

    A place written with its district (杭州市西湖区) counts as its city. Raises REGION_UNKNOWN.
    """
    divisions = Divisions.load()
    found = divisions.find(province, place or province)
    if found is None and (city := re.match(r".+?(?:市|地区|自治州|盟)(?=.)", place)):
        found = divisions.find(province, city[0])
    if found is None:
        raise Malformed(Code.REGION_UNKNOWN, "no such province and place in GB/T 2260, or an ambiguous one")
    return found.code
