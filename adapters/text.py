"""Damage that real exports carry in their text. Found, never repaired: the department mends it and feeds it again."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from functools import lru_cache
from typing import Final

from schemas.errors import Code

# U+FFFD, and what it becomes when its UTF-8 bytes are read as GB18030 (in pairs) or as Latin 1.
_REPLACEMENT: Final = re.compile("\ufffd|锟斤拷|ï¿½")
_SUSPECT: Final = re.compile("[\ufffd锟ï?？(（]")  # without any of these nothing below can be found
# A half character that a converter dropped: GB18030 text read one byte off shows '?！' or '？' before a chance hanzi.
# '?！' of two widths is nobody's punctuation; the others may end a sentence, so the hanzi decides.
_SLIP_PAIR: Final = re.compile(r"\?！[一-鿿]")
_SLIP_ALONE: Final = re.compile(r"[?？]！?([一-鿿])")
# A reading noted inside a word, as in 實(shí)踐: a reader's aid that was saved into the data.
_READING: Final = re.compile(r"([一-鿿])\s*[(（]([a-zA-ZüÜāáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜ]{1,6})[)）]")
_TONES: Final = re.compile("[\u0300\u0301\u0304\u030c]")
# The syllables of Hanyu Pinyin (GB/T 16159): initials, and the finals that each takes.
_FINALS: Final = {
    "": "a o e ai ei ao ou an en ang eng er",
    "b": "a o ai ei ao an en ang eng i ie iao ian in ing u",
    "p": "a o ai ei ao ou an en ang eng i ie iao ian in ing u",
    "m": "a o e ai ei ao ou an en ang eng i ie iao iu ian in ing u",
    "f": "a o ei ou an en ang eng u",
    "d": "a e ai ei ao ou an en ang eng ong i ia ie iao iu ian ing u uo ui uan un",
    "t": "a e ai ei ao ou an ang eng ong i ie iao ian ing u uo ui uan un",
    "n": "a e ai ei ao ou an en ang eng ong i ie iao iu ian in iang ing u uo uan ü üe v ve",
    "l": "a e ai ei ao ou an ang eng ong i ia ie iao iu ian in iang ing u uo uan un ü üe v ve",
    "g k h": "a e ai ei ao ou an en ang eng ong u ua uo uai ui uan un uang",
    "j q x": "i ia ie iao iu ian in iang ing iong u ue uan un",
    "zh ch sh r": "a e i ai ei ao ou an en ang eng ong u ua uo uai ui uan un uang",
    "z c s": "a e i ai ei ao ou an en ang eng ong u uo ui uan un",
    "y": "a e ao ou an ang i in ing ong u ue uan un",
    "w": "a o ai ei an en ang eng u",
}
_SYLLABLES: Final = frozenset(
    f"{initial}{final}"
    for initials, finals in _FINALS.items()
    for initial in initials.split(" ")
    for final in finals.split(" ")
)
# Words that brands put into brackets, and that are syllables by chance: 男装(men) is no reading of 装, 们(men) is.
_WORDS: Final = {
    *("a", "an", "ban", "bang", "bin", "can", "den", "die", "e", "fan", "gang", "gun", "hang", "he", "hen", "long"),
    *("man", "me", "men", "o", "pan", "pen", "pin", "ran", "rang", "run", "sang", "she", "song", "sun", "wan", "you"),
}
# GB 2312's level 1 is in the order of readings: the first hanzi of each letter. These have another reading, too.
_LETTERS: Final = "abcdefghjklmnopqrstwxyz"
_FIRST_OF_LETTER: Final = [char.encode("gb2312") for char in "啊芭擦搭蛾发噶哈击喀垃妈拿哦啪期然撒塌挖昔压匝"]
_OTHER_READING: Final = frozenset("番行巷弄蔓")
_BLANKS: Final = " \t\r\n\v\f\x85\xa0\u3000\u2002\u2003\u2009\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"


def damage(text: str) -> Code | None:
    """What is wrong with a cell's text, worst first, or None."""
    if not _SUSPECT.search(text):
        return None
    if _REPLACEMENT.search(text):
        return Code.TEXT_REPLACEMENT
    if is_slip(text):
        return Code.TEXT_SLIP
    return Code.TEXT_PINYIN if any(is_reading(*found) for found in _READING.findall(text)) else None


def is_slip(text: str) -> bool:
    """'?！' before a hanzi, or a question mark before one that ordinary text hardly uses."""
    if _SLIP_PAIR.search(text):
        return True
    return any(not is_common(char) for char in _SLIP_ALONE.findall(text))


def is_reading(char: str, bracketed: str) -> bool:
    """Whether brackets behind a hanzi hold Pinyin of one character: with a tone mark, or plain and in lower case.

    (CBD), (IT), (app), (café), (上海) are names; so is a word that is a syllable by chance but not of this hanzi.
    """
    plain = unicodedata.normalize("NFC", _TONES.sub("", unicodedata.normalize("NFD", bracketed)))
    if plain not in _SYLLABLES:
        return False
    return plain != bracketed or plain not in _WORDS or _may_read(char, plain[0])


def _may_read(char: str, letter: str) -> bool:
    """Whether a hanzi's reading may begin with this letter: yes, unless the standard's order says otherwise."""
    if not is_common(char) or char in _OTHER_READING:
        return True
    return _LETTERS[bisect_right(_FIRST_OF_LETTER, char.encode("gb2312")) - 1] == letter


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
