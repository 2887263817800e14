"""What can happen to a licence."""

from __future__ import annotations

from enum import StrEnum


class Operation(StrEnum):
    """A record's act. Chinese terms as in the licence feeds of the field."""

    ISSUED = "ISSUED"  # 新发
    CHANGED = "CHANGED"  # 变更
    RENEWED = "RENEWED"  # 延续
    SUSPENDED = "SUSPENDED"  # 暂扣
    RESUMED = "RESUMED"  # 暂扣发还
    CANCELLED = "CANCELLED"  # 注销: ends now
    REVOKED = "REVOKED"  # 撤销: void from the start
    PUNISHED = "PUNISHED"  # 吊销: taken away as a penalty
    CORRECTED = "CORRECTED"  # 更正
    ERASED = "ERASED"  # 删除
