"""Every target, by name."""

from __future__ import annotations

from tests.fuzz import exports, http, logs, rules, wire
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {one.name: one for module in (wire, logs, http, rules, exports) for one in module.TARGETS}
