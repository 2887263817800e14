"""What data may be asked for: a closed list, with the Chinese names that a clerk knows."""

from __future__ import annotations

from types import MappingProxyType

PURPOSES = MappingProxyType(
    {
        "business-establishment": "企业开办",
        "seal-registration": "印章刻制备案",
        "tax-registration": "税务登记",
        "social-insurance-registration": "社会保险登记",
        "account-opening": "银行开户",
        "credit-assessment": "信贷审查",
        "food-business-permit": "食品经营许可",
        "property-registration": "不动产登记",
        "advertisement-approval": "广告审查",
        "utility-service": "水电气等公共服务开通",
        "subsidy-matching": "免申即享政策匹配",
        "supervision": "事中事后监管",
        "statistics": "统计",
        "service-counter": "政务服务窗口核验",
    }
)

# What a request may stand on, with its Chinese name: `consent.model.Ground`.
GROUNDS = MappingProxyType({"STATUTORY_DUTY": "法定职责", "CONSENT": "同意"})
