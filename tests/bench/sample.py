"""What every case publishes: the first licence of the sample export, its 21 fields filled, each for another firm."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from bus.sealer import Draft
from schemas.catalogue import Catalogue, Item
from schemas.identifiers import LicenceIdentifier
from schemas.operations import Operation

EXPORT = Path(__file__).parents[2] / "deploy" / "demo" / "market-licences.csv"
BATCH = 64
ITEM = "business-licence"
ISSUER = "11330411MB2A00011E"  # synthetic
SEED = 20_250_101  # the number of the first firm: every value follows from it
_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_ORG_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CITIZEN_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def item() -> Item:
    """The business licence of the catalogue."""
    return Catalogue.load().item(ITEM)


def licences(count: int, start: int = 0) -> Iterator[dict[str, Any]]:
    """`count` licences, equal but for who holds them: firm `start`, `start + 1`, ... after the seed"""
    base = _face()
    for number in range(SEED + start, SEED + start + count):
        uscc = credit_code(base["region"], number)
        yield base | {
            "uscc": uscc,
            "licence_number": uscc,
            "licence_identifier": LicenceIdentifier(
                type_code=base["type_code"], issuer=ISSUER, serial=uscc, version=1
            ).format(),
            "representative_id": citizen_number(base["region"], number),
        }


def drafts(count: int, start: int = 0) -> Iterator[list[Draft]]:
    """The same as batches of 64, newly issued."""
    now = datetime.now(UTC)
    batch: list[Draft] = []
    for values in licences(count, start):
        batch.append(
            Draft(
                item=ITEM,
                operation=Operation.ISSUED,
                values=values,
                sequence=1,
                occurred_at=now,
                region=values["region"],
                valid_from=values["valid_from"],
                valid_until=values["valid_until"],
            )
        )
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def credit_code(region: str, number: int) -> str:
    """A synthetic credit code (GB 32100) with both checks right."""
    body = f"MA{_base(number, 6)}"
    total = sum(_ORG_ALPHABET.index(c) * w for c, w in zip(body, (3, 7, 9, 10, 5, 8, 4, 2), strict=True))
    code = f"91{region}{body}{'0123456789X'[-total % 11]}"
    return code + _ALPHABET[-sum(_ALPHABET.index(c) * pow(3, at, 31) for at, c in enumerate(code)) % 31]


def citizen_number(region: str, number: int) -> str:
    """A synthetic citizen number (GB 11643): a birthday a firm, born 1950 to 2000."""
    day = date.fromordinal(date(1950, 1, 1).toordinal() + number % 18_000)
    digits = f"{region}{day:%Y%m%d}{number // 18_000 % 1_000:03d}"
    return digits + "10X98765432"[sum(int(c) * w for c, w in zip(digits, _CITIZEN_WEIGHTS, strict=True)) % 11]


def _face() -> dict[str, Any]:
    """The export's first row in the item's fields; what the row leaves out is filled with what a licence would say."""
    with EXPORT.open(encoding="utf-8-sig", newline="") as file:
        row = next(csv.DictReader(file))
    kind = row["企业类型"]
    face = {
        "licence_name": "营业执照",
        "type_code": item().type_code,
        "issuer_name": f"{row['所在省份']}省{row['地区']}市市场监督管理局",
        "issuer_code": ISSUER,
        "issued_on": date.fromisoformat(row["注册日期"]),
        "name": row["企业名称"],
        "company_type": "有限责任公司（自然人投资或控股）" if kind == "N/A" else kind,
        "established_on": date.fromisoformat(row["注册日期"]),
        "registered_capital": Decimal(re.sub(r"[^0-9.].*", "", row["注册资金"].replace(",", ""))) * 10_000,
        "capital_currency": "CNY",
        "business_scope": row["经营范围"],
        "region": row["统一社会信用代码"][2:8],  # the registering body's division stands in the code
        "address": row["注册地址"],
        "valid_from": date.fromisoformat(row["注册日期"]),
        "valid_until": date.fromisoformat(row["注册日期"]).replace(year=2049),
        "legal_representative": row["法人代表"],
        "representative_phone": "13800000000",
    }
    return face


def _base(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
