"""Who people are to the bus, and what each of them may ask: a closed table, and everything else is refused.

One person has one role, so roles are apart by construction. A role belongs to one kind of department: auditors to
auditing ones, operators to the one that runs the bus, data officers (数据官) to all others. So who runs the bus can be
neither auditor nor officer, and an officer never meets the rights of an auditing department.

Nothing here opens a licence: keys are released to systems, by their certificates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a person does for her department."""

    AUDITOR = "AUDITOR"
    OFFICER = "OFFICER"
    OPERATOR = "OPERATOR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who asks in a session. `id` (32 bytes) stands where a department's certificate would."""

    id: bytes
    uscc: str
    role: Role


_READS = frozenset(
    {
        "/v1/audit/entries:query",
        "/v1/audit/counts:query",
        "/v1/audit/stories:show",
        "/v1/audit/readings:list",
        "/v1/audit/proofs",
        "/v1/audit/proofs/{entry}",
        "/v1/scorecards:show",
        "/v1/people:list",
    }
)
# A path as the gateway's routes have it. What is about a subject by name (consents, mandates, licences) is for the
# systems where subjects appear; only an auditor asks who opened a subject's data, as its entries in the log tell her.
ROUTES: Mapping[Role, frozenset[str]] = {
    Role.AUDITOR: _READS
    | {
        "/v1/audit/embargoes",
        "/v1/audit/embargoes:confirm",
        "/v1/audit/embargoes:list",
        "/v1/audit/findings:list",
        "/v1/audit/tokens",
        "/v1/policy:explain",
        "/v1/policy:replay",
        "/v1/subjects/usages:query",
    },
    Role.OFFICER: _READS
    | {
        "/v1/catalogue:list",
        "/v1/catalogue:show",
        "/v1/agreements:act",
        "/v1/agreements:list",
        "/v1/agreements:show",
        "/v1/corrections:act",
        "/v1/corrections:list",
        "/v1/corrections:show",
        "/v1/disputes",
        "/v1/disputes:act",
        "/v1/disputes:list",
        "/v1/disputes:show",
        "/v1/powers:list",
        "/v1/powers:show",
        "/v1/people:suspend",
    },
    Role.OPERATOR: frozenset(
        {"/v1/people:list", "/v1/people:suspend", "/v1/departments:suspend", "/v1/operations:show"}
    ),
}


def fits(role: Role, *, auditor: bool, operator: bool) -> bool:
    """Whether a department of this kind has people of this role."""
    if operator:
        return role is Role.OPERATOR
    return role is (Role.AUDITOR if auditor else Role.OFFICER)
