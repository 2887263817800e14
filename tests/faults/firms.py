"""Synthetic firms: valid credit codes that belong to nobody."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

_USCC = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_ALNUM = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WEIGHTS = [pow(3, i, 31) for i in range(17)]
_INNER = (3, 7, 9, 10, 5, 8, 4, 2)
BASE = len(_USCC)


def credit_code(number: int) -> str:
    """The `number`th code under 9133 0411 (synthetic), both checks right. Up to 31⁶ of them."""
    digits = []
    for _ in range(6):
        number, digit = divmod(number, BASE)
        digits.append(_USCC[digit])
    organisation = "MA" + "".join(reversed(digits))
    inner = 11 - sum(_ALNUM.index(c) * w for c, w in zip(organisation, _INNER, strict=True)) % 11
    body = "91330411" + organisation + "0123456789X0"[inner]
    return body + _USCC[-sum(_USCC.index(c) * w for c, w in zip(body, _WEIGHTS, strict=True)) % 31]


def firm(number: int) -> dict[str, Any]:
    """A business licence's values."""
    return {
        "name": f"测试{number}号贸易有限公司",
        "uscc": credit_code(number),
        "established_on": date(2019, 1, 1 + number % 28),
        "company_type": "有限责任公司",
        "business_scope": "水产养殖；水产品批发；初级农产品收购。",
        "region": "330411",
        "address": f"浙江省嘉兴市测试路{number}号",
        "legal_representative": "王测试",
    }


def numbers(first: int, count: int, step: int) -> Iterator[range]:
    """Batches of firm numbers."""
    for start in range(first, first + count, step):
        yield range(start, min(start + step, first + count))
