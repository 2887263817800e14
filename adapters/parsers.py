"""From a cell's text to a field's value. Each raises `Malformed` with the reason that the row is quarantined for."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Final

from schemas.divisions import Division, Divisions, Level
from schemas.errors import Code, Malformed
from schemas.identifiers import parse_uscc

MAX_LENGTH: Final = 100  # no day, amount or place is written longer: not to be searched, nor remembered
CACHED: Final = 16_384  # days, amounts and places come again and again; of each kind about 3 MiB
EARLIEST_YEAR: Final = 1840  # the oldest firms that still trade; anything before is a typing error
MAX_CAPITAL: Final = Decimal(10) ** 18  # decimal(20, 2)
_CENT: Final = Decimal("0.01")

_FULL_WIDTH: Final = str.maketrans("０１２３４５６７８９，．（）－／：　–—−￥＄", "0123456789,.()-/: ---¥$")
_DATE: Final = re.compile(
    r"(?P<y>[0-9]{4})(?:(?P<s>[-/.])(?P<m>[0-9]{1,2})(?P=s)(?P<d>[0-9]{1,2})"
    r"|年(?P<m2>[0-9]{1,2})月(?P<d2>[0-9]{1,2})[日号]|(?P<m3>[0-9]{2})(?P<d3>[0-9]{2}))"
    # Midnight only: another time may be another zone's, and the day then another.
    r"(?:[ T]0?0:00(?::00(?:\.0+)?)?(?:\+08:?00)?)?\Z"
)
_DATE_IN_WORDS: Final = re.compile(
    r"([〇零○一二三四五六七八九]{4})年(元|[一二三四五六七八九十]{1,3})月([一二三四五六七八九十]{1,3})[日号]\Z"
)
_CURRENCIES: Final = {
    "人民币": "CNY", "RMB": "CNY", "CNY": "CNY", "¥": "CNY",
    "美元": "USD", "美圆": "USD", "美金": "USD", "USD": "USD", "US$": "USD", "$": "USD",
    "港元": "HKD", "港币": "HKD", "港圆": "HKD", "香港元": "HKD", "香港币": "HKD", "HKD": "HKD", "HK$": "HKD",
    "澳门元": "MOP", "澳门币": "MOP", "MOP": "MOP", "新台币": "TWD", "台币": "TWD", "TWD": "TWD",
    "欧元": "EUR", "EUR": "EUR", "英镑": "GBP", "GBP": "GBP", "日元": "JPY", "日圆": "JPY", "JPY": "JPY",
    "韩元": "KRW", "韩圆": "KRW", "KRW": "KRW", "新加坡元": "SGD", "新元": "SGD", "SGD": "SGD",
    "加拿大元": "CAD", "加元": "CAD", "CAD": "CAD", "澳大利亚元": "AUD", "澳元": "AUD", "AUD": "AUD",
    "新西兰元": "NZD", "NZD": "NZD", "泰铢": "THB", "THB": "THB", "卢布": "RUB", "RUB": "RUB",
    "林吉特": "MYR", "马来西亚林吉特": "MYR", "MYR": "MYR", "丹麦克朗": "DKK", "挪威克朗": "NOK",
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
_AMOUNT: Final = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?"
_CAPITAL: Final = re.compile(
    rf"(?P<before>{_CURRENCY})?(?P<number>{_AMOUNT})"
    rf"(?P<bracket>\()?(?P<scale>{_SCALE})?(?P<yuan>[元圆])?(?:(?P<after>{_CURRENCY})[元圆]?)?[整正]?(?(bracket)\)[元圆]?)"
    rf"(?:\((?P<behind>{_CURRENCY})[元圆]?\))?\Z"
)
_CAPITAL_IN_WORDS: Final = re.compile(
    rf"(?P<before>{_CURRENCY})?(?P<words>[零〇一二三四五六七八九十百千万亿]+)"
    rf"(?:(?P<yuan>[元圆])|(?P<after>{_CURRENCY})[元圆]?)[整正]?(?:\((?P<behind>{_CURRENCY})[元圆]?\))?\Z"
)
# Figures as cheques and contracts write them (大写), and how they are written otherwise.
_FORMAL: Final = str.maketrans("壹贰叁肆伍陆柒捌玖拾佰仟萬億圓貳參陸两○", "一二三四五六七八九十百千万亿圆二三六二〇")
_DIGITS: Final = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"〇": 0}
_PLACES: Final = {"十": 10, "百": 100, "千": 1_000}
_MYRIADS: Final = {"万": 10**4, "亿": 10**8}
# 新疆生产建设兵团's cities are counties of Xinjiang in GB/T 2260; it has no code of its own there.
_PROVINCE_NAMES: Final = {"新疆生产建设兵团": "新疆", "新疆兵团": "新疆", "兵团": "新疆", "内蒙": "内蒙古"}
_MUNICIPALITIES: Final = ("北京", "天津", "上海", "重庆")
_HEADINGS: Final = ("市辖区", "县")  # the table's rows between a municipality and its districts: the whole of it
_BETWEEN: Final = " /\\-－,，、>·|"


def parse_text(text: str) -> str:
    """The text as it is."""
    return text


def parse_credit_code(text: str) -> str:
    """A unified social credit code, canonical: lower case, blanks or hyphens inside are the department's to mend."""
    return parse_uscc(text)


@lru_cache(maxsize=CACHED)
def parse_date(text: str) -> date:
    """A civil date: ISO, with slashes or dots, without marks, or with 年月日; also in Chinese numerals.

    Raises DATE_INVALID, also if it is missing.
    """
    compact = re.sub(r"\s*([年月日号])\s*", r"\1", text.translate(_FULL_WIDTH).strip())
    numbers = _date_in_words(compact) or _date_in_figures(compact)
    if numbers is None or len(text) > MAX_LENGTH:
        raise Malformed(Code.DATE_INVALID, "not a date in a known form")
    try:
        parsed = date(*numbers)
    except ValueError as exc:
        raise Malformed(Code.DATE_INVALID, "no such day in the calendar") from exc
    if parsed.year < EARLIEST_YEAR:
        raise Malformed(Code.DATE_INVALID, f"a year before {EARLIEST_YEAR}")
    return parsed


def _date_in_figures(text: str) -> tuple[int, int, int] | None:
    found = _DATE.match(text)
    if found is None:
        return None
    month, day = (next(filter(None, found.group(*names))) for names in (("m", "m2", "m3"), ("d", "d2", "d3")))
    return int(found["y"]), int(month), int(day)


def _date_in_words(text: str) -> tuple[int, int, int] | None:
    """二〇一九年九月二十八日."""
    found = _DATE_IN_WORDS.match(text)
    if found is None:
        return None
    year = int("".join(str(_DIGITS[digit]) for digit in found[1].replace("○", "〇")))
    month, day = (_number("一" if words == "元" else words) for words in found.groups()[1:])
    return None if month is None or day is None else (year, month, day)


@lru_cache(maxsize=CACHED)
def parse_capital(text: str) -> tuple[Decimal, str]:
    """Registered capital as `(amount in whole units, ISO 4217 currency)`, from the ways that exports write it.

    A number without unit and currency is ambiguous (元 or 万元), so it is refused. Raises CAPITAL_FORM.
    """
    compact = re.sub(r"\s+", "", text.translate(_FULL_WIDTH)).upper()
    found = _CAPITAL.match(compact)
    if found is not None and any(found.group("before", "scale", "yuan", "after", "behind")):
        amount = Decimal(found["number"].replace(",", "")) * _SCALES[found["scale"] or ""]
    elif (found := _CAPITAL_IN_WORDS.match(compact.translate(_FORMAL))) and (number := _number(found["words"])):
        amount = Decimal(number)
    else:
        raise Malformed(Code.CAPITAL_FORM, "not an amount with a unit")
    named = {_CURRENCIES[name] for name in found.group("before", "after", "behind") if name}
    if len(named) > 1:
        raise Malformed(Code.CAPITAL_FORM, "two currencies")
    if len(text) > MAX_LENGTH or amount >= MAX_CAPITAL or amount != amount.quantize(_CENT):
        raise Malformed(Code.CAPITAL_FORM, "an amount out of range, or finer than a cent")
    return amount.quantize(_CENT), named.pop() if named else "CNY"


def _number(words: str) -> int | None:
    """A whole number in Chinese numerals (一百二十三万四千); None if it is not written as numbers are."""
    total = section = digit = 0
    place, myriad = 10_000, 10**12
    for char in words:
        if char in _DIGITS:
            if digit:
                return None
            digit = _DIGITS[char]
        elif char in _PLACES:
            if _PLACES[char] >= place or (not digit and (char != "十" or section)):
                return None
            place = _PLACES[char]
            section, digit = section + (digit or 1) * place, 0
        else:
            section += digit
            if _MYRIADS[char] >= myriad or not section:
                return None
            myriad = _MYRIADS[char]
            total, section, digit, place = total + section * myriad, 0, 0, 10_000
    return total + section + digit


@lru_cache(maxsize=CACHED)
def parse_region(province: str, place: str) -> str:
    """The division code (GB/T 2260) of a province and a place in it. Without a place it is the province's own.

    A place written with its district (杭州市西湖区, 杭州/西湖区) counts as its city. Raises REGION_UNKNOWN.
    """
    found = _find(_PROVINCE_NAMES.get(province, province), place or province) if len(place) <= MAX_LENGTH else None
    if found is None:
        raise Malformed(Code.REGION_UNKNOWN, "no such province and place in GB/T 2260, or an ambiguous one")
    return found.code


def _find(province: str, place: str) -> Division | None:
    """As `Divisions.find`, also for places written with their province before them or their district behind."""
    find = Divisions.load().find
    found = find(province, place)
    if found is not None:
        return found
    if place in _HEADINGS and province.removesuffix("市") in _MUNICIPALITIES:
        return find(province, province)
    for end in range(len(place) - 1, 1, -1):
        before = find(province, place[:end])
        if before is not None and before.level is Level.PROVINCE:
            return _find(province, place[end:].lstrip(_BETWEEN))
    return _city(province, place)


def _city(province: str, place: str) -> Division | None:
    """The city of a place that is written with its district, or with anything else behind a 市."""
    find = Divisions.load().find
    parts = re.split(f"[{re.escape(_BETWEEN)}]+", place, maxsplit=1)
    if len(parts) == 2:
        city, district = find(province, parts[0]), find(province, parts[1])
        return None if city is not None and district is not None and not _holds(city, district) else city
    if city_name := re.match(r".+?(?:市|地区|自治州|盟)(?=.)", place):
        return find(province, city_name[0])
    for end in range(2, len(place) - 1):
        city, district = find(province, place[:end]), find(province, place[end:])
        if city is not None and district is not None and _holds(city, district):
            return city
    return None


def _holds(whole: Division, part: Division) -> bool:
    return part.code.startswith(whole.code[: 2 * whole.level])
