"""Damage that real exports carry in their text. Found, never repaired: the department mends it and feeds it again."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from schemas.errors import Code

# A half character that a converter dropped: GB18030 text read one byte off shows '?！' or '？' before a chance hanzi.
_SLIP_PAIR: Final = re.compile(r"[?？]！[一-鿿]")
_SLIP_ALONE: Final = re.compile(r"[?？]([一-鿿])")
# A reading noted inside a word, as in 實(shí)踐: a reader's aid that was saved into the data.
_READING: Final = re.compile(r"[一-鿿]\s*[(（]([a-zA-ZüÜāáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜ]{1,6})[)）]")
_TONED: Final = re.compile(r"[āáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜ]")
# One syllable of Hanyu Pinyin in plain lower-case letters (GB/T 16159): initials and finals.
_SYLLABLE: Final = re.compile(
    r"(?:[bpmf]?(?:a|o|ai|ei|ao|ou|an|en|ang|eng|i|ie|iao|iu|ian|in|iang|ing|u)|"
    r"[dtnl](?:a|e|ai|ei|ao|ou|an|en|ang|eng|ong|i|ie|iao|iu|ian|in|ing|u|uo|ui|uan|un|ü|üe)|"
    r"[gkh](?:a|e|ai|ei|ao|ou|an|en|ang|eng|ong|u|ua|uo|uai|ui|uan|un|uang)|"
    r"[jqx](?:i|ia|ie|iao|iu|ian|in|iang|ing|iong|u|ue|uan|un)|"
    r"(?:zh|ch|sh|r)(?:a|e|i|ai|ei|ao|ou|an|en|ang|eng|ong|u|ua|uo|uai|ui|uan|un|uang)|"
    r"[zcs](?:a|e|i|ai|ei|ao|ou|an|en|ang|eng|ong|u|uo|ui|uan|un)|"
    r"y(?:a|e|ao|ou|an|in|ang|ing|ong|u|ue|uan|un|i)|w(?:a|o|ai|ei|an|en|ang|eng|u)|er)\Z"
)
_BLANKS: Final = " \t\r\n　  ​﻿"


def damage(text: str) -> Code | None:
    """What is wrong with a cell's text, worst first, or None."""
    if "�" in text:
        return Code.TEXT_REPLACEMENT
    if ("?" in text or "？" in text) and is_slip(text):
        return Code.TEXT_SLIP
    if ("(" in text or "（" in text) and any(map(is_reading, _READING.findall(text))):
        return Code.TEXT_PINYIN
    return None


def is_slip(text: str) -> bool:
    """A question mark with '！' and a hanzi behind it, or directly before a hanzi that ordinary text hardly uses."""
    if _SLIP_PAIR.search(text):
        return True
    return any(not is_common(char) for char in _SLIP_ALONE.findall(text))


def is_reading(bracketed: str) -> bool:
    """Pinyin of one character: with a tone mark, or one plain syllable in lower case. (CBD), (IT), (上海) are names."""
    return bool(_TONED.search(bracketed) or _SYLLABLE.match(bracketed))


@lru_cache(maxsize=8192)
def is_common(char: str) -> bool:
    """Whether a hanzi is one of GB 2312's 3,755 of level 1, which cover nearly all running text."""
    try:
        row = char.encode("gb2312")[0]
    except UnicodeEncodeError:
        return False
    return 0xB0 <= row <= 0xD7


def trim(text: str) -> str:
    """Without the blanks around it, full-width and invisible ones too. What is inside stays."""
    return text.strip(_BLANKS)
