"""Divisions: places as exports of all provinces and years name them."""

from __future__ import annotations

import pytest

from schemas.divisions import Divisions, Level

DIVISIONS = Divisions.load()

# 省份 地区 code: with and without suffixes, all kinds of unit, all parts of the country.
PLACES = """
浙江 杭州 330100 | 浙江省 杭州市 330100 | 浙江 嘉兴 330400 | 浙江 秀洲区 330411 | 浙江 义乌 330782
浙江 桐乡市 330483 | 福建 漳州 350600 | 福建省 厦门 350200 | 江苏 淮安 320800 | 江苏 苏州市 320500
江苏 昆山 320583 | 辽宁 丹东 210600 | 辽宁 葫芦岛 211400 | 辽宁 朝阳 211300 | 辽宁 朝阳县 211321
吉林 吉林 220200 | 吉林 长春 220100 | 吉林 延边 222400 | 吉林 延边州 222400 | 吉林省 延边朝鲜族自治州 222400
黑龙江 大兴安岭 232700 | 黑龙江 大兴安岭地区 232700 | 内蒙古 呼和浩特 150100 | 内蒙古自治区 锡林郭勒 152500
内蒙古 阿拉善盟 152900 | 内蒙古 鄂温克 150724 | 河北 石家庄 130100 | 河北 正定县 130123 | 山西 太原 140100
山东 济南 370100 | 山东 莱芜 370116 | 河南 济源 419001 | 河南 郑州市 410100 | 湖北 恩施 422800
湖北 恩施州 422800 | 湖北 神农架 429021 | 湖北 神农架林区 429021 | 湖北 仙桃 429004 | 湖南 湘西 433100
湖南 长沙 430100 | 广东 东莞 441900 | 广东 深圳 440300 | 广东 顺德 440606 | 广西 南宁 450100
广西壮族自治区 桂林市 450300 | 海南 海口 460100 | 海南 儋州 460400 | 海南 陵水 469028 | 四川 凉山 513400
四川 甘孜州 513300 | 贵州 黔东南 522600 | 贵州 威宁 520526 | 云南 西双版纳 532800 | 云南 红河 532500
云南 大理 532900 | 西藏 那曲 540600 | 西藏自治区 日喀则 540200 | 陕西 西安 610100 | 甘肃 嘉峪关 620200
甘肃 临夏 622900 | 甘肃 积石山 622927 | 甘肃 东乡 622926 | 青海 海南 632500 | 青海 海西 632800
宁夏 中卫 640500 | 宁夏回族自治区 银川 640100 | 新疆 乌鲁木齐 650100 | 新疆 伊犁 654000 | 新疆 克孜勒苏 653000
新疆 巴音郭楞 652800 | 新疆维吾尔自治区 石河子 659001 | 新疆 阿拉尔市 659002 | 安徽 合肥 340100
江西 南昌 360100 | 北京 北京 110000 | 北京市 北京市 110000 | 北京 朝阳 110105 | 北京 朝阳区 110105
上海 浦东新区 310115 | 上海 浦东 310115 | 天津 滨海新区 120116 | 重庆 重庆 500000 | 重庆 万州 500101
重庆 石柱 500240 | 香港 香港 810000 | 澳门特别行政区 澳门 820000 | 台湾 台湾 710000 | 浙江 浙江省 330000
福建 沙县 350405
"""

# Names of former times, and what took the place over.
FORMER = """
江苏 淮阴市 320800 | 浙江 鄞县 330212 | 浙江 平湖县 330482 | 浙江 嘉兴地区 330400 | 河北 保定地区 130600
北京 通县 110112 | 北京 宣武区 110102 | 上海 南汇 310115 | 上海 闸北区 310106 | 天津 塘沽 120116
安徽 巢湖 340181 | 湖北 襄樊 420600 | 四川 重庆 500000 | 四川 郫县 510117 | 云南 思茅地区 530800
云南 中甸县 533401 | 内蒙古 伊克昭盟 150600 | 重庆 江北区 500157 | 广东 潮阳县 440513 | 广西 横县 450181
西藏 林芝地区 540400 | 新疆 哈密地区 650500 | 山东 莱城区 370116 | 辽宁 铁法市 211281
"""


def _rows(text: str) -> list[tuple[str, str, str]]:
    cells = (cell.split() for line in text.strip().splitlines() for cell in line.split("|"))
    return [(province, place, code) for province, place, code in cells]


@pytest.mark.parametrize(("province", "place", "code"), _rows(PLACES) + _rows(FORMER))
def test_place_is_found(province: str, place: str, code: str) -> None:
    found = DIVISIONS.find(province, place)
    assert found is not None
    assert found.code == code
    assert found.in_force


@pytest.mark.parametrize(
    ("province", "place"),
    [
        ("浙江", ""),
        ("", "杭州"),
        ("", ""),
        ("浙江", "漳州"),  # another province's
        ("江苏", "鼓楼"),  # Nanjing and Xuzhou have one each
        ("河北", "新华区"),
        ("新疆", "伊宁"),  # a city and a county
        ("北京", "市辖区"),  # a heading of the table
        ("湖北", "省直辖县级行政区划"),
        ("浙江", "郊区"),
        ("东北", "沈阳"),
        ("浙江", "N/A"),
        ("河北", "雄安"),  # no division of GB/T 2260
    ],
)
def test_unknown_or_ambiguous_is_none(province: str, place: str) -> None:
    assert DIVISIONS.find(province, place) is None


def test_every_division_in_force_is_found_by_its_name_or_is_ambiguous() -> None:
    """A name that two places of a province share gives None, never the wrong one."""
    ambiguous = set()
    for code, row in DIVISIONS.codes.items():
        if row.in_force and row.level is not Level.PROVINCE:
            province = DIVISIONS.codes[code[:2] + "0000"]
            found = DIVISIONS.find(province.name, row.name)
            if found is None:
                ambiguous.add(row.name)
            else:
                assert found == row, code
    headings = {"市辖区", "县", "省直辖县级行政区划", "自治区直辖县级行政区划"}
    assert ambiguous - headings == {"城区", "市中区", "新华区", "桥西区", "向阳区", "铁西区", "鼓楼区"}


def test_table_is_whole() -> None:
    in_force = [row for row in DIVISIONS.codes.values() if row.in_force]
    levels = [sum(row.level is level for row in in_force) for level in Level]
    assert levels[0] == 34
    assert 330 <= levels[1] <= 350  # 333 prefectures and the headings
    assert 2800 <= levels[2] <= 2900
    for row in DIVISIONS.codes.values():
        assert len(row.code) == 6
        assert row.code.isdigit()
        assert row.valid_from is None or row.valid_to is None or row.valid_from <= row.valid_to
        for successor in row.successors:
            assert DIVISIONS.codes[successor].in_force, row.code


def test_retired_code_is_kept() -> None:
    row = DIVISIONS.by_code("440524")
    assert row is not None
    assert (row.name, row.in_force, row.successors) == ("潮阳县", False, ("440513",))
    assert DIVISIONS.by_code("999999") is None
