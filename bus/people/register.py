"""Who may speak for a department: appointed, suspended, resumed and dismissed by it, each act an entry of the log.

A department appoints by a request that its own key signs: nobody in a session adds people or rights, to herself least
of all. Its data officer suspends its people. Who runs the bus suspends people and departments, and can do nothing else
to them: people are resumed by their department's key, departments by the key of the competent authority (主管部门).

The entries are `Revision`s of kind `person` (`id`: the pseudonym in hex) and `department` (`id`: the credit code). An
act that opens is in the log before it counts; one that closes counts at once and ends every session of hers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from prometheus_client import generate_latest

from bus import audit
from bus.db import queries
from bus.gateway import revisions
from bus.gateway.revisions import Revisions
from bus.gateway.shapes import CreditCode, Hash, Name, Reason, Time, from_hex
from bus.httpsig import Signed
from bus.messages import check_texts
from bus.people.openid import MAX_SUBJECT, is_subject
from bus.people.roles import Person, Role, fits
from bus.pki import Signer
from consent.documents import canonical
from schemas.errors import Code, Malformed, Refused
from schemas.identifiers import parse_uscc

MAX_REASON = 500  # characters: a sentence, kept in the trail
PAGE = 1_000

Connect = Callable[[str], AbstractAsyncContextManager[asyncpg.Connection]]
Append = Callable[[Sequence[bytes]], Awaitable[None]]

SQL = queries(Path(__file__).with_name("register.sql"))


class State(StrEnum):
    """Where a person stands. Who was dismissed may be appointed again, also by another department."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    DISMISSED = "DISMISSED"


class AppointBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/people`: `subject` is what the bus's OpenID provider calls her (`sub`); only a pseudonym of it is kept.

    `name` is the department's own id of her, never a citizen number.
    """

    subject: str
    role: Role
    name: Name


class PersonBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Names a person by her pseudonym, and says why."""

    id: Hash
    reason: Reason = ""


class DepartmentBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Names a department, and says why."""

    uscc: CreditCode
    reason: Name


class NothingBody(msgspec.Struct, forbid_unknown_fields=True):
    """Nothing to say."""


class PersonAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A person. `name` is for her own department; to others it is empty."""

    id: Hash
    department: CreditCode
    role: Role
    name: str
    state: State
    changed_at: Time


class DepartmentAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Whether a department is suspended: then it is given no key, and its people may not ask."""

    uscc: CreditCode
    name: str
    suspended: bool


class OperationsAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What ops scrape of this gateway: Prometheus' text format, without any id of a person or a firm."""

    metrics: str


class Register:
    """What departments and people ask about people, over a gateway's connections."""

    def __init__(
        self,
        connect: Connect,
        append: Append,
        revisions: Revisions,
        pseudonym: Callable[[str], bytes],
        signer: Signer,
        origin: str,
    ) -> None:
        self._connect = connect
        self._append = append
        self._revisions = revisions
        self._pseudonym = pseudonym
        self._signer = signer
        self._origin = origin

    async def appoint(self, signed: Signed, body: AppointBody) -> Any:
        """A person of the caller's, with one role; only by the department's own key.

        Raises `Refused`: REQUEST_FORBIDDEN (a role that this kind of department does not have), STATE_INVALID (she is
        appointed already).
        """
        check_texts(body.name)
        if not body.name or not is_subject(body.subject):
            raise Malformed(Code.REQUEST_MALFORMED, f"a name, and a subject of 1 to {MAX_SUBJECT} ASCII characters")
        known, uscc = self._pseudonym(body.subject), signed.caller.uscc
        async with self._connect("appointing a person") as connection, connection.transaction():
            org = await connection.fetchrow(SQL["org"], uscc)
            if org is None or org["suspended"]:
                raise Refused(Code.REQUEST_FORBIDDEN, "only a department that has joined and is not suspended appoints")
            if not fits(body.role, auditor=org["auditor"], operator=org["operator"]):
                raise Refused(Code.REQUEST_FORBIDDEN, f"a department of this kind has no {body.role}")
            before = await connection.fetchrow(SQL["lock"], known)
            if before is not None and before["state"] != State.DISMISSED:
                raise Refused(Code.STATE_INVALID, "she is appointed already: who appointed her dismisses her first")
            revision = 0 if before is None else before["revision"]
            made = {"id": known, "uscc": uscc, "role": body.role, "revision": revision + 1}
            await self._append(self._entries(signed, _person(made, "APPOINT", State.ACTIVE, "")))
            stored = await connection.fetchval(SQL["appoint"], known, uscc, body.role.value, body.name, revision)
            if stored is None:
                raise Refused(Code.STATE_INVALID, "she was appointed at the same moment: look at the list")
        return await self._shown(signed, known)

    async def suspend(self, signed: Signed, body: PersonBody) -> Any:
        """From now on, everywhere, and her sessions are over. By her department, its officers, or who runs the bus."""
        return await self._change(signed, body, "SUSPEND", State.SUSPENDED, (State.ACTIVE,))

    async def resume(self, signed: Signed, body: PersonBody) -> Any:
        """She may log in again. By her department's own key, whoever suspended her."""
        return await self._change(signed, body, "RESUME", State.ACTIVE, (State.SUSPENDED,))

    async def dismiss(self, signed: Signed, body: PersonBody) -> Any:
        """She is nobody's any more. By her department's own key."""
        return await self._change(signed, body, "DISMISS", State.DISMISSED, (State.ACTIVE, State.SUSPENDED))

    async def people(self, signed: Signed, body: NothingBody) -> Any:
        """The caller's department's people; for a person who runs the bus everybody's, without names. At most 1,000."""
        runs = _runs_the_bus(signed)
        async with self._connect("reading people") as connection:
            rows = await connection.fetch(SQL["people"], signed.caller.uscc, runs, PAGE)
        return [_shown(row, signed) for row in rows]

    async def suspend_department(self, signed: Signed, body: DepartmentBody) -> Any:
        """From now on it is given no key, and its people may not ask. By who runs the bus."""
        return await self._change_department(signed, body, suspended=True)

    async def resume_department(self, signed: Signed, body: DepartmentBody) -> Any:
        """It is a department like others again. By the key of who runs the bus, in no session."""
        return await self._change_department(signed, body, suspended=False)

    async def operations(self, signed: Signed, body: NothingBody) -> Any:
        """This gateway's metrics, for who runs the bus."""
        async with self._connect("reading who asks") as connection:
            await self._check_operator(connection, signed)
        return {"metrics": generate_latest().decode()}

    async def _change(self, signed: Signed, body: PersonBody, act: str, after: State, before: tuple[State, ...]) -> Any:
        check_texts(body.reason, most=MAX_REASON)
        if not body.reason:
            raise Refused(Code.REASON_MISSING, f"{act} needs a reason: it stays in the log")
        known = from_hex(body.id, 32)
        async with self._connect("changing a person") as connection:
            async with connection.transaction():
                row = await connection.fetchrow(SQL["lock"], known)
                if row is None or not (row["uscc"] == signed.caller.uscc or _runs_the_bus(signed)):
                    raise Refused(Code.NOT_FOUND, "your department has no such person")
                if row["state"] not in before:
                    raise Refused(Code.STATE_INVALID, f"she is {row['state']}: {act} changes nothing")
                done = _person({**row, "revision": row["revision"] + 1}, act, after, body.reason)
                entries = self._entries(signed, done)
                if after is State.ACTIVE:
                    await self._append(entries)
                else:
                    await revisions.keep(connection, entries)
                    await connection.execute(SQL["end_sessions"], known)
                await connection.execute(SQL["change"], known, after.value)
            await self._revisions.flush_soon(connection)
        return await self._shown(signed, known)

    async def _change_department(self, signed: Signed, body: DepartmentBody, *, suspended: bool) -> Any:
        uscc, reason = parse_uscc(body.uscc), body.reason
        check_texts(reason)
        if not reason:
            raise Refused(Code.REASON_MISSING, "a department is told why: it stays in the log")
        async with self._connect("changing a department") as connection:
            async with connection.transaction():
                await self._check_operator(connection, signed)
                row = await connection.fetchrow(SQL["lock_org"], uscc)
                if row is None:
                    raise Refused(Code.NOT_FOUND, "no department of this code has joined")
                if row["suspended"] == suspended:
                    raise Refused(Code.STATE_INVALID, "the department is so already")
                act, state = ("SUSPEND", "SUSPENDED") if suspended else ("RESUME", "ACTIVE")
                said = {"kind": "department", "id": uscc, "revision": row["revision"] + 1, "grantor": uscc}
                body_hash = sha256(canonical({"uscc": uscc})).digest()
                entries = self._entries(
                    signed, said | {"act": act, "state": state, "reason": reason, "hash": body_hash}
                )
                if suspended:
                    await revisions.keep(connection, entries)
                else:
                    await self._append(entries)
                await connection.execute(SQL["put_org"], uscc, suspended)
            await self._revisions.flush_soon(connection)
        return {"uscc": uscc, "name": row["name"], "suspended": suspended}

    async def _check_operator(self, connection: asyncpg.Connection, signed: Signed) -> None:
        org = await connection.fetchrow(SQL["org"], signed.caller.uscc)
        if org is None or not org["operator"]:
            raise Refused(Code.REQUEST_FORBIDDEN, "this is for who runs the bus")

    async def _shown(self, signed: Signed, known: bytes) -> dict[str, Any]:
        async with self._connect("reading a person") as connection:
            return _shown(await connection.fetchrow(SQL["one"], known), signed)

    def _entries(self, signed: Signed, done: dict[str, Any]) -> list[bytes]:
        body = {"items": [], "subjects": [], "recipient": "", **done, "author": signed.caller.uscc, **signed.kept}
        return audit.log_values(self._signer, self._origin, signed.digest[:16], [("Revision", body)], datetime.now(UTC))


def _runs_the_bus(signed: Signed) -> bool:
    """A person of the role does. The operator's key is its department's, and has its own people alone."""
    return isinstance(signed.caller, Person) and signed.caller.role is Role.OPERATOR


def _person(row: Any, act: str, state: State, reason: str) -> dict[str, Any]:
    """A `Revision`'s fields. Its body is who she is to whom: `hash` is of its canonical JSON."""
    body = {"person": row["id"].hex(), "department": row["uscc"], "role": str(row["role"])}
    return {
        "kind": "person",
        "id": row["id"].hex(),
        "revision": row["revision"],
        "act": act,
        "reason": reason,
        "state": state.value,
        "grantor": row["uscc"],
        "hash": sha256(canonical(body)).digest(),
    }


def _shown(row: Any, signed: Signed) -> dict[str, Any]:
    return {
        "id": row["id"].hex(),
        "department": row["uscc"],
        "role": row["role"],
        "name": row["name"] if row["uscc"] == signed.caller.uscc else "",
        "state": row["state"],
        "changed_at": row["changed_at"].isoformat(),
    }
