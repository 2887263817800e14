"""Who takes part in the demo: five departments, one bank, one auditor. All credit codes are synthetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

from adapters.issuing import Certificate
from bus.subscriber import Opened, Wanted

LICENCE = "business-licence"
TAX_LAW = "税收征收管理法 第十五条"
INSURANCE_LAW = "社会保险法 第五十七条"
SEAL_RULE = "印铸刻字业暂行管理规则 第五条"


@dataclass(frozen=True, slots=True, kw_only=True)
class Department:
    """One that opens business licences and issues its own certificate."""

    name: str
    zh: str
    uscc: str
    item: str
    wanted: Wanted
    values: Callable[[Opened], dict[str, Any]]

    def make(self, opened: Opened) -> Certificate:
        """The certificate that it issues for an opened licence."""
        return Certificate(values=self.values(opened), region=opened.claims.region)


@dataclass(frozen=True, slots=True, kw_only=True)
class Organisation:
    """One that only publishes or only audits."""

    name: str
    zh: str
    uscc: str


MARKET = Organisation(name="market-regulation", zh="市场监管", uscc="11330411MB2A00011E")
AUDITOR = Organisation(name="auditor", zh="审计", uscc="112106000050000185")


def _base(opened: Opened) -> dict[str, Any]:
    identity = opened.sections["identity"]
    return {"name": identity["name"], "uscc": identity["uscc"], "issued_on": date.today()}


def _tax(opened: Opened) -> dict[str, Any]:
    region = opened.sections["business"]["region"]
    return _base(opened) | {
        "region": region,
        "taxpayer_number": opened.sections["identity"]["uscc"],
        "taxes": ["增值税", "企业所得税"],
    }


def _insurance(opened: Opened) -> dict[str, Any]:
    kinds = ["PENSION", "MEDICAL", "UNEMPLOYMENT", "WORK_INJURY"]
    return _base(opened) | {"pool_region": opened.claims.region, "kinds": kinds}


def _seal(opened: Opened) -> dict[str, Any]:
    identity = opened.sections["identity"]
    return _base(opened) | {
        "region": opened.claims.region,
        # A firm's first official seal; the code is the firm's, so a second opening finds it registered.
        "seal_code": f"{identity['uscc']}01",
        "seal_name": identity["name"],
        "seal_type": "OFFICIAL",
    }


def _account(opened: Opened) -> dict[str, Any]:
    return _base(opened) | {
        "region": opened.claims.region,
        "bank_name": "示范银行",
        "bank_code": "000000000000",
        "reservation_number": opened.sections["identity"]["uscc"],
        "account_kind": "BASIC",
        "currency": "CNY",
    }


DEPARTMENTS = (
    Department(
        name="tax",
        zh="税务",
        uscc="12350600400000018P",
        item="tax-registration",
        wanted=Wanted(
            sections=("identity", "business"),
            purpose="tax-registration",
            ground="STATUTORY_DUTY",
            operator="tax-sync",
            citation=TAX_LAW,
        ),
        values=_tax,
    ),
    Department(
        name="human-resources",
        zh="人社",
        uscc="1132080001400001X7",
        item="social-insurance-registration",
        wanted=Wanted(
            sections=("identity",),
            purpose="social-insurance-registration",
            ground="STATUTORY_DUTY",
            operator="insurance-sync",
            citation=INSURANCE_LAW,
        ),
        values=_insurance,
    ),
    Department(
        name="public-security",
        zh="公安",
        uscc="93350600MA3C00011X",
        item="seal-registration",
        wanted=Wanted(
            sections=("identity",),
            purpose="seal-registration",
            ground="STATUTORY_DUTY",
            operator="seal-sync",
            citation=SEAL_RULE,
        ),
        values=_seal,
    ),
    Department(
        name="bank",
        zh="银行",
        uscc="91330411MA2B00019F",
        item="bank-pre-account",
        wanted=Wanted(sections=("identity",), purpose="account-opening", ground="CONSENT", operator="account-sync"),
        values=_account,
    ),
)
