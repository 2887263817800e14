"""Disputes (争议) over agreements: the parties talk, the operator (主管部门) coordinates, somebody decides."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import msgspec

from bus.gateway.deadlines import Deadlines
from bus.gateway.rulebook import MAX_REASON, ActBody, IdBody, ListBody, Rulebook
from bus.httpsig import Signed
from bus.messages import check_texts
from consent.model import Agreement, Dispute, DisputeState
from schemas.errors import Code, Refused


class DisputeBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/disputes`: an agreement, whatever its state, and what is wrong with it."""

    agreement: UUID
    reason: str


class Disputes:
    """The routes of disputes."""

    def __init__(self, rulebook: Rulebook, deadlines: Deadlines) -> None:
        self._rulebook = rulebook
        self._deadlines = deadlines

    async def raise_(self, signed: Signed, body: DisputeBody) -> Any:
        """Raises a dispute with the other party of an agreement: DISPUTED.

        Raises `Refused` (NOT_FOUND) for who is no party to it.
        """
        check_texts(body.reason, most=MAX_REASON)
        if not body.reason:
            raise Refused(Code.REASON_MISSING, "a dispute says what is wrong")
        over = await self._rulebook.show(signed, Agreement, body.agreement)
        caller = signed.caller.uscc
        if caller not in (over.provider, over.consumer):
            raise Refused(Code.REQUEST_FORBIDDEN, "a dispute is raised by a party of the agreement")
        made = Dispute(
            id=uuid4(),
            revision=1,
            agreement=over.id,
            provider=over.provider,
            consumer=over.consumer,
            raised_by=caller,
            reason=body.reason,
            state=DisputeState.DISPUTED,
        )
        await self._rulebook.add(signed, [made])
        return made.to_json()

    async def act(self, signed: Signed, body: ActBody) -> Any:
        """SETTLE by a party; COORDINATE and DECIDE by the operator. The agreement itself is changed by its own acts."""
        return (await self._rulebook.act(signed, Dispute, body)).to_json()

    async def list(self, signed: Signed, body: ListBody) -> Any:
        """The caller's own, on either side; to the operator all. Each with its deadline."""
        if self._rulebook.is_operator(signed):
            found = await self._rulebook.all(Dispute)
        else:
            found = await self._rulebook.mine(signed, Dispute)
        return await self._deadlines.listed(self._rulebook, found)

    async def show(self, signed: Signed, body: IdBody) -> Any:
        """One, for its parties and the operator, with its deadline, and every act on it."""
        found = await self._rulebook.show(signed, Dispute, body.id)
        return await self._deadlines.whole(self._rulebook, found)
