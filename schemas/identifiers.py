"""Strict identifiers: canonical form only, every check digit.

Nothing is normalised here: on the wire one thing has one spelling. Adapters that clean an export do so before.
Errors name the rule, never the value: a citizen number must not reach a log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from operator import mul
from typing import Final

from schemas.errors import Code, Malformed

# GB 32100-2015: no I, O, S, V, Z.
_USCC_ALPHABET: Final = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_USCC_WEIGHTS: Final = tuple(pow(3, place, 31) for place in range(17))
_USCC_FORM: Final = re.compile(r"[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}\Z")
_LEGACY_15: Final = re.compile(r"[0-9]{15}\Z")
# GB 11714: the organisation code inside, positions 9 to 17 of the USCC.
_ORG_WEIGHTS: Final = (3, 7, 9, 10, 5, 8, 4, 2)
_ALNUM: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CITIZEN_FORM: Final = re.compile(r"[1-9][0-9]{16}[0-9X]\Z")
_CITIZEN_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CITIZEN_CHECKS: Final = "10X98765432"
# Characters to values as one translation of the bytes: twice as fast as a dictionary look-up for each character, and a
# publisher tests two codes a record.
_USCC_VALUES: Final = bytes(_USCC_ALPHABET.find(chr(byte)) % 256 for byte in range(256))
_ALNUM_VALUES: Final = bytes(_ALNUM.find(chr(byte)) % 256 for byte in range(256))
# MOD 37,36 as a machine: a row for each state of its product, in it the next state for each value.
_MOD37_36: Final = tuple(
    bytes(((product + value) % 36 or 36) * 2 % 37 for value in range(256)) for product in range(37)
)
_LICENCE_ROOT: Final = "1.2.156.3005.2."
_LICENCE_FORM: Final = re.compile(
    r"1\.2\.156\.3005\.2\.(?P<type>[0-9A-Z]{18}[0-9]{3})\.(?P<issuer>[0-9A-Z]{18})"
    r"\.(?P<serial>[0-9A-Z]{1,64})\.(?P<version>[0-9]{3})\.(?P<check>[0-9A-Z])\Z"
)


def parse_uscc(text: str) -> str:
    """A unified social credit code (统一社会信用代码, GB 32100-2015), both its checks tested.

    Raises `Malformed`: USCC_MISSING, USCC_LEGACY_15 (a registration number of before 2015), USCC_FORM, USCC_CHECK, or
    USCC_ORG_CHECK (the organisation code inside, GB 11714).
    """
    code = _uscc_fault(text)
    if code is not None:
        raise Malformed(code, _USCC_SENTENCES[code])
    return text


_USCC_SENTENCES: Final = {
    Code.USCC_MISSING: "a unified social credit code is required",
    Code.USCC_LEGACY_15: "a 15-digit registration number is no unified social credit code: ask for the 18-digit one",
    Code.USCC_FORM: "a unified social credit code has 18 characters of its alphabet, upper case, without blanks",
    Code.USCC_CHECK: "the last character of the unified social credit code does not match the others",
    Code.USCC_ORG_CHECK: "the organisation code inside the unified social credit code does not match its check",
}


@lru_cache(maxsize=65_536)  # the same departments and firms come again and again; 65,536 codes take about 10 MiB
def _uscc_fault(text: str) -> Code | None:
    if not text:
        return Code.USCC_MISSING
    if not _USCC_FORM.match(text):
        return Code.USCC_LEGACY_15 if _LEGACY_15.match(text) else Code.USCC_FORM
    raw = text.encode()
    if _USCC_ALPHABET[-sum(map(mul, raw.translate(_USCC_VALUES), _USCC_WEIGHTS)) % 31] != text[17]:
        return Code.USCC_CHECK
    if "0123456789X"[-sum(map(mul, raw[8:16].translate(_ALNUM_VALUES), _ORG_WEIGHTS)) % 11] != text[16]:
        return Code.USCC_ORG_CHECK
    return None


def parse_citizen_number(text: str) -> str:
    """A citizen identification number (公民身份号码, GB 11643-1999).

    The area is not looked up: it is the area at the time of assignment, and codes retire. Raises `Malformed`:
    CITIZEN_FORM (also the 15-digit first generation and a lower-case x), CITIZEN_DATE, CITIZEN_CHECK.
    """
    if not _CITIZEN_FORM.match(text):
        raise Malformed(Code.CITIZEN_FORM, "a citizen number has 17 digits and a digit or X, upper case")
    try:
        date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError as exc:
        raise Malformed(Code.CITIZEN_DATE, "the birth date inside the citizen number is not a day") from exc
    digits = text.encode().translate(_ALNUM_VALUES)
    if _CITIZEN_CHECKS[sum(map(mul, digits, _CITIZEN_WEIGHTS)) % 11] != text[17]:
        raise Malformed(Code.CITIZEN_CHECK, "the last character of the citizen number does not match the others")
    return text


def mod37_36(body: str) -> str:
    """The check character of ISO/IEC 7064 MOD 37,36 over a body of `[0-9A-Z]`."""
    product = 36
    for value in body.encode().translate(_ALNUM_VALUES):
        product = _MOD37_36[product][value]
    return _ALNUM[(37 - product) % 36]


def _legacy_check(body: str) -> str:
    """What a broken generator, in use in the field, gives: letters count from 11, their sums are reduced by 37 first,
    and the result is one too low."""
    product = 36
    for value in body.encode().translate(_ALNUM_VALUES):
        total = product + value
        if value > 9:
            total = total + 1 if total < 37 else (total + 1) % 37
        product = (total % 36 or 36) * 2 % 37
    return _ALNUM[36 - product]


@dataclass(frozen=True, slots=True, kw_only=True)
class LicenceIdentifier:
    """An e-licence identifier (电子证照标识, GB/T 36904-2018): type, issuer, serial, version."""

    type_code: str
    issuer: str
    serial: str
    version: int

    @classmethod
    def parse(cls, text: str) -> LicenceIdentifier:
        """Raises `Malformed`: LICENCE_ID_FORM, LICENCE_ID_CHECK, or ID_CHECK_LEGACY_ALPHA.

        The last is a check character that is right only if letters count from 11: some issuers' software does. Such ids
        are quarantined, never accepted beside the right ones.
        """
        found = _LICENCE_FORM.match(text)
        if found is None:
            raise Malformed(
                Code.LICENCE_ID_FORM, "a licence identifier has ten parts, dots between, from 1.2.156.3005.2"
            )
        body = found["type"] + found["issuer"] + found["serial"] + found["version"]
        if mod37_36(body) != found["check"]:
            if _legacy_check(body) == found["check"]:
                raise Malformed(Code.ID_CHECK_LEGACY_ALPHA, "the check character counts letters from 11, not from 10")
            raise Malformed(Code.LICENCE_ID_CHECK, "the check character of the licence identifier does not match")
        for part in (found["type"][:18], found["issuer"]):
            if _uscc_fault(part) is not None:
                raise Malformed(Code.LICENCE_ID_FORM, "type and issuer of a licence identifier are credit codes")
        return cls(
            type_code=found["type"], issuer=found["issuer"], serial=found["serial"], version=int(found["version"])
        )

    def format(self) -> str:
        """The identifier as it stands on the wire."""
        parts = (self.type_code, self.issuer, self.serial, f"{self.version:03d}")
        return _LICENCE_ROOT + ".".join((*parts, mod37_36("".join(parts))))
