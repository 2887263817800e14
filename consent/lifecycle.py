"""Which state follows which, by whose act: one table a kind of document. What is not in it is refused.

The clock's act is EXPIRE; nobody else can call it. A state without a row is final.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

from consent.documents import Document
from consent.model import (
    Agreement,
    AgreementState,
    CatalogueEntry,
    Consent,
    ConsentState,
    Correction,
    CorrectionState,
    Dispute,
    DisputeState,
    EntryState,
    Mandate,
    Power,
    PowerState,
)
from schemas.errors import Code, Refused

D = TypeVar("D", bound=Document)


class Role(StrEnum):
    """Who acts on a document: which side of it, or the bus itself."""

    PROVIDER = "PROVIDER"  # of an agreement; the grantor of a power; who recorded a consent or mandate
    CONSUMER = "CONSUMER"  # of an agreement; the recipient of a consent; the grantee of a power
    ISSUER = "ISSUER"  # a department that issues an item of a consent: it may stop what opens its records
    OPERATOR = "OPERATOR"  # the bus's operator (主管部门), who reviews and coordinates
    CLOCK = "CLOCK"  # the day came


class Act(StrEnum):
    """What is done to a document."""

    SUBMIT = "SUBMIT"
    RETURN = "RETURN"
    RESUBMIT = "RESUBMIT"
    ACCEPT = "ACCEPT"
    APPROVE = "APPROVE"
    REFUSE = "REFUSE"
    PROVISION = "PROVISION"
    ACTIVATE = "ACTIVATE"
    SUSPEND = "SUSPEND"
    RESUME = "RESUME"
    END = "END"
    EXPIRE = "EXPIRE"
    REQUEST = "REQUEST"
    GIVE = "GIVE"
    DECLINE = "DECLINE"
    PAUSE = "PAUSE"
    WITHDRAW = "WITHDRAW"
    DRAFT = "DRAFT"
    REVIEW = "REVIEW"
    PUBLISH = "PUBLISH"
    RETIRE = "RETIRE"
    FIX = "FIX"
    CONFIRM = "CONFIRM"
    SETTLE = "SETTLE"
    COORDINATE = "COORDINATE"
    DECIDE = "DECIDE"


@dataclass(frozen=True, slots=True)
class Step:
    """An act's outcome. `roles` may do it; `reason` says that it needs one; `opens` that more is allowed afterwards."""

    state: Any
    roles: frozenset[Role]
    reason: bool = False
    opens: bool = False


Table = Mapping[tuple[Any, Act], Step]


def _step(state: Any, *roles: Role, reason: bool = False, opens: bool = False) -> Step:
    return Step(state, frozenset(roles), reason, opens)


_A, _C, _E, _P = AgreementState, ConsentState, EntryState, PowerState
_PROVIDER, _CONSUMER, _OPERATOR, _CLOCK = Role.PROVIDER, Role.CONSUMER, Role.OPERATOR, Role.CLOCK
_BOTH = (_PROVIDER, _CONSUMER)

# 政务数据共享条例: applied for, answered, provided, used. A return (补正) comes once: the second `RETURN` is refused.
AGREEMENT: Table = {
    (_A.SUBMITTED, Act.ACCEPT): _step(_A.ACCEPTED, _PROVIDER),
    (_A.SUBMITTED, Act.RETURN): _step(_A.RETURNED, _PROVIDER, reason=True),
    (_A.SUBMITTED, Act.END): _step(_A.TERMINATED, _CONSUMER),
    (_A.RETURNED, Act.RESUBMIT): _step(_A.SUBMITTED, _CONSUMER),
    (_A.RETURNED, Act.END): _step(_A.TERMINATED, _CONSUMER),
    (_A.ACCEPTED, Act.APPROVE): _step(_A.APPROVED, _PROVIDER),
    (_A.ACCEPTED, Act.REFUSE): _step(_A.REFUSED, _PROVIDER, reason=True),
    (_A.ACCEPTED, Act.END): _step(_A.TERMINATED, _CONSUMER),
    (_A.APPROVED, Act.PROVISION): _step(_A.PROVISIONED, _PROVIDER),
    (_A.APPROVED, Act.END): _step(_A.TERMINATED, *_BOTH, reason=True),
    (_A.PROVISIONED, Act.ACTIVATE): _step(_A.ACTIVE, _CONSUMER, opens=True),
    (_A.PROVISIONED, Act.END): _step(_A.TERMINATED, *_BOTH, reason=True),
    (_A.ACTIVE, Act.SUSPEND): _step(_A.SUSPENDED, *_BOTH, reason=True),
    (_A.ACTIVE, Act.END): _step(_A.TERMINATED, *_BOTH),
    (_A.SUSPENDED, Act.RESUME): _step(_A.ACTIVE, _PROVIDER, opens=True),
    (_A.SUSPENDED, Act.END): _step(_A.TERMINATED, *_BOTH),
} | {
    (state, Act.EXPIRE): _step(_A.EXPIRED, _CLOCK)
    for state in (_A.SUBMITTED, _A.RETURNED, _A.ACCEPTED, _A.APPROVED, _A.PROVISIONED, _A.ACTIVE, _A.SUSPENDED)
}

# Withdrawal as easy as giving (PIPL art. 15): whoever could record it, get it or issue what it opens takes it back.
_ANY = (_PROVIDER, _CONSUMER, Role.ISSUER)
CONSENT: Table = {
    (_C.REQUESTED, Act.GIVE): _step(_C.ACTIVE, _PROVIDER, opens=True),
    (_C.REQUESTED, Act.DECLINE): _step(_C.DECLINED, _PROVIDER),
    (_C.REQUESTED, Act.WITHDRAW): _step(_C.WITHDRAWN, *_ANY),
    (_C.ACTIVE, Act.PAUSE): _step(_C.PAUSED, *_ANY),
    (_C.ACTIVE, Act.WITHDRAW): _step(_C.WITHDRAWN, *_ANY),
    (_C.PAUSED, Act.RESUME): _step(_C.ACTIVE, _PROVIDER, opens=True),
    (_C.PAUSED, Act.WITHDRAW): _step(_C.WITHDRAWN, *_ANY),
} | {(state, Act.EXPIRE): _step(_C.EXPIRED, _CLOCK) for state in (_C.REQUESTED, _C.ACTIVE, _C.PAUSED)}

POWER: Table = {
    (_P.ACTIVE, Act.END): _step(_P.ENDED, *_BOTH),
    (_P.ACTIVE, Act.EXPIRE): _step(_P.EXPIRED, _CLOCK),
}

# Drafted by a provider, reviewed and published by the operator (主管部门).
ENTRY: Table = {
    (_E.DRAFT, Act.REVIEW): _step(_E.REVIEWED, _OPERATOR),
    (_E.DRAFT, Act.RETIRE): _step(_E.RETIRED, _PROVIDER, _OPERATOR),
    (_E.REVIEWED, Act.RETURN): _step(_E.DRAFT, _OPERATOR, reason=True),
    (_E.REVIEWED, Act.PUBLISH): _step(_E.PUBLISHED, _OPERATOR, opens=True),
    (_E.PUBLISHED, Act.RETIRE): _step(_E.RETIRED, _OPERATOR, reason=True),
    (_E.PUBLISHED, Act.EXPIRE): _step(_E.RETIRED, _CLOCK),
}

CORRECTION: Table = {
    (CorrectionState.REQUESTED, Act.FIX): _step(CorrectionState.FIXED, _PROVIDER, reason=True),
    (CorrectionState.REQUESTED, Act.CONFIRM): _step(CorrectionState.CONFIRMED, _PROVIDER, reason=True),
}

DISPUTE: Table = {
    (DisputeState.DISPUTED, Act.SETTLE): _step(DisputeState.SETTLED, *_BOTH, reason=True),
    (DisputeState.DISPUTED, Act.COORDINATE): _step(DisputeState.COORDINATED, _OPERATOR, reason=True),
    (DisputeState.COORDINATED, Act.SETTLE): _step(DisputeState.SETTLED, *_BOTH, reason=True),
    (DisputeState.COORDINATED, Act.DECIDE): _step(DisputeState.DECIDED, _OPERATOR, reason=True),
}

TABLES: Mapping[type[Document], Table] = MappingProxyType(
    {
        Agreement: AGREEMENT,
        Consent: CONSENT,
        Power: POWER,
        Mandate: POWER,
        CatalogueEntry: ENTRY,
        Correction: CORRECTION,
        Dispute: DISPUTE,
    }
)
# How a document of each kind may begin, and by which act.
BEGINNINGS: Mapping[type[Document], Mapping[Any, Act]] = MappingProxyType(
    {
        Agreement: {_A.SUBMITTED: Act.SUBMIT},
        Consent: {_C.REQUESTED: Act.REQUEST, _C.ACTIVE: Act.GIVE},
        Power: {_P.ACTIVE: Act.GIVE},
        Mandate: {_P.ACTIVE: Act.GIVE},
        CatalogueEntry: {_E.DRAFT: Act.DRAFT},
        Correction: {CorrectionState.REQUESTED: Act.REQUEST},
        Dispute: {DisputeState.DISPUTED: Act.REQUEST},
    }
)


def act(document: D, what: Act, roles: frozenset[Role], *, reason: str = "", done: frozenset[Act] = frozenset()) -> D:
    """The document's next revision.

    `roles` are the caller's; `done` the acts that were done to it before. Raises `Refused`: STATE_INVALID if its state
    does not allow that, REQUEST_FORBIDDEN if the caller may not, REASON_MISSING if one is needed.
    """
    step = TABLES[type(document)].get((document.state, what))
    if step is None:
        raise Refused(Code.STATE_INVALID, f"{document.kind} is {document.state}: it cannot {what}")
    if not roles & step.roles:
        who = " or ".join(sorted(role.lower() for role in step.roles))
        raise Refused(
            Code.REQUEST_FORBIDDEN, f"{what} of a {document.kind} that is {document.state} is its {who}'s act"
        )
    if what is Act.RETURN and isinstance(document, Agreement) and Act.RETURN in done:
        raise Refused(
            Code.STATE_INVALID, "an application is returned once (一次性告知): accept it, then approve or refuse"
        )
    if step.reason and not reason:
        raise Refused(Code.REASON_MISSING, f"{what} needs a reason: what the other side should know")
    return replace(document, state=step.state, revision=document.revision + 1)


def opens(kind: type[Document], before: Any, what: Act) -> bool:
    """Whether the act allows something that was not allowed before: such an act is logged before it counts."""
    step = TABLES[kind].get((before, what))
    return step is not None and step.opens
