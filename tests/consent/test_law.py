"""The law as data: complete, and honest about what was not read."""

from __future__ import annotations

from importlib import resources

import pytest

from consent.law import GROUNDS, LEGAL_GROUNDS, LIMITS, NOTICES, parse
from consent.model import Ground, Notice
from schemas.errors import Code, Malformed

TEXT = (resources.files("consent") / "law.toml").read_text("utf-8")


def test_every_ground_and_notice_of_the_model_has_its_article() -> None:
    """In the order of art. 13 (1). MISSING is no notice at all."""
    assert list(LEGAL_GROUNDS) == [one.value for one in Ground]
    assert set(NOTICES) == set(Notice) - {Notice.MISSING}
    assert list(GROUNDS) == list(LEGAL_GROUNDS)
    items = [
        one.citation.removeprefix("个人信息保护法 第十三条第一款第").rstrip("项") for one in LEGAL_GROUNDS.values()
    ]
    assert items == list("一二三四五六七")


def test_only_the_first_ground_needs_consent() -> None:
    """Art. 13 (2): where items 2 to 7 apply, no consent is needed; a request then names what it stands on."""
    assert [one.id for one in LEGAL_GROUNDS.values() if one.needs_consent] == [Ground.CONSENT]
    assert [one.id for one in LEGAL_GROUNDS.values() if not one.needs_citation] == [Ground.CONSENT]


def test_what_was_not_read_names_no_article() -> None:
    """An article's number is a claim that somebody looked."""
    entries = [*LEGAL_GROUNDS.values(), *NOTICES.values(), *LIMITS.values()]
    assert [one.id for one in entries if one.verified != ("条第" in one.citation or one.citation.endswith("条"))] == []
    assert not any(one.verified for one in LIMITS.values())


def test_the_limits_are_those_of_the_regulation() -> None:
    """1, 10 and 20 working days, and the two that are less sure."""
    days = {one.id: one.days for one in LIMITS.values()}
    assert days == {
        "ANSWER_UNCONDITIONAL": 1,
        "ANSWER_CONDITIONAL": 10,
        "PROVISION": 20,
        "CORRECTION": 10,
        "DISPUTE": 30,
    }


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ('id = "NEWS"', 'id = "CONSENT"'),
        ('id = "NEWS"', 'id = "news"'),
        ("needs_consent = true", "needs_consent = 1"),
        ("needs_consent = true\n", ""),
        ("days = 20", "days = 0"),
        ("days = 20", 'days = "20"'),
        ('unit = "WORKING_DAY"', 'unit = "DAY"'),
        ("\nverified = true", "\nverified = false"),  # and says from where
        ("verified = false", "verified = true"),
        ("\nverified = true", "\nverified = true\nsource = 'hearsay'"),
        ("\nverified = true", "\nverified = true\nnote = ''"),
        ("[[limits]]", "[[limit]]"),
        ('zh = "已告知"', 'zh = ""'),
        ("[[grounds]]", "[[grounds]"),
    ],
)
def test_a_file_that_is_not_understood_is_refused(good: str, bad: str) -> None:
    """As a whole: nothing of it is taken."""
    assert good in TEXT
    with pytest.raises(Malformed) as refused:
        parse(TEXT.replace(good, bad, 1))
    assert refused.value.code is Code.CONFIG_INVALID
