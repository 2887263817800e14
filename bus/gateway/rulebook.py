"""The rulebook: agreements, consents, powers, the catalogue's entries and what is disputed about them, as documents.

Each act is checked against its kind's table (`consent.lifecycle`), signed into the trail by its author's own signature,
and kept with its reason. An act that opens something is in the trail before it counts; one that closes something counts
first, and its entry stands in the same transaction (`bus.gateway.revisions` says what a crash leaves).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import msgspec

from bus.db import queries
from bus.gateway import revisions
from bus.gateway.revisions import Done, Revisions
from bus.gateway.shapes import Reason
from bus.httpsig import Signed
from bus.messages import check_texts
from consent import lifecycle
from consent.documents import Document
from consent.lifecycle import Act, Role
from consent.model import (
    Agreement,
    CatalogueEntry,
    Consent,
    Correction,
    Dispute,
    Mandate,
    Power,
    parties,
)
from schemas.errors import Code, Refused

LIST_LIMIT = 1_000
MAX_REASON = 500  # characters: a clerk's sentence, kept in the trail
PARSED = 131_072  # revisions kept parsed: about 1 KiB each

SQL = queries(Path(__file__).with_name("rulebook.sql"))

D = TypeVar("D", bound=Document)
Connect = Callable[[str], AbstractAsyncContextManager[asyncpg.Connection]]
Announce = Callable[[Sequence[Document]], Awaitable[None]]
Follows = Callable[[asyncpg.Connection, Any], Awaitable[list[Done]]]

KINDS: dict[str, type[Document]] = {
    kind.kind: kind for kind in (Agreement, Consent, Power, Mandate, CatalogueEntry, Correction, Dispute)
}


class IdBody(msgspec.Struct, forbid_unknown_fields=True):
    """Names one document."""

    id: UUID


class ListBody(msgspec.Struct, forbid_unknown_fields=True):
    """Lists; nothing to say."""


class ActBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An act on one document, with its reason where one is needed."""

    id: UUID
    act: Act
    reason: Reason = ""


class Rulebook:
    """Reads and writes documents for a gateway's routes. Holds no state of its own."""

    def __init__(self, connect: Connect, revisions: Revisions, announce: Announce, operator: str) -> None:
        self.connect = connect
        self._revisions = revisions
        self._announce = announce
        self._operator = operator

    async def add(self, signed: Signed, documents: Sequence[Document]) -> None:
        """In the trail, then in force: all or none. Each is at its beginning (`consent.lifecycle.BEGINNINGS`)."""
        acts = [lifecycle.BEGINNINGS[type(one)][one.state] for one in documents]
        said = [(one, act, "") for one, act in zip(documents, acts, strict=True)]
        await self._revisions.log(signed, said)
        async with self.connect(f"storing {documents[0].kind}") as connection, connection.transaction():
            await insert(connection, documents, signed.caller.uscc)
        await self._announce(documents)

    async def act(
        self, signed: Signed, kind: type[D], body: ActBody, changed: D | None = None, follows: Follows | None = None
    ) -> D:
        """The document after an act of the caller. `changed` is the new body where an act brings one (RESUBMIT);
        `follows` says what the act does to other documents, in the same transaction.

        Raises `Refused`: NOT_FOUND to whoever is no party to it, and what `consent.lifecycle.act` refuses.
        """
        check_texts(body.reason, most=MAX_REASON)
        async with self.connect(f"changing {kind.kind}") as connection:
            async with connection.transaction():
                before, done = await self._locked(connection, signed, kind, body.id)
                roles = await self.roles(connection, signed, before)
                after = lifecycle.act(before, body.act, roles, reason=body.reason, done=done)
                if changed is not None:
                    after = replace(changed, id=after.id, revision=after.revision, state=after.state)
                said: list[Done] = [(after, body.act, body.reason)]
                if follows is not None:  # stored first: what comes in their place may need it
                    said = [*await follows(connection, after), *said]
                if lifecycle.opens(kind, before.state, body.act):
                    await self._revisions.log(signed, said)
                else:
                    await revisions.keep(connection, self._revisions.entries(signed, said))
                for one, what, reason in said:
                    await update(connection, one, what, signed.caller.uscc, reason)
            await self._revisions.flush_soon(connection)
        await self._announce([one for one, _, _ in said])
        return after

    async def show(self, signed: Signed, kind: type[D], identifier: UUID) -> D:
        """One, for its parties. Raises `Refused` (NOT_FOUND) for everybody else."""
        async with self.connect(f"reading {kind.kind}") as connection:
            row = await connection.fetchrow(SQL["one"], identifier, kind.kind)
            if row is None:
                raise _unknown(kind)
            found = stored(kind, identifier, row["revision"], row["state"], row["hash"], row["body"])
            if not await self.roles(connection, signed, found):
                raise _unknown(kind)
        return found

    async def history(self, identifier: UUID) -> list[dict[str, Any]]:
        """Every act on a document, in order."""
        async with self.connect("reading acts") as connection:
            return [
                dict(row) | {"at": row["at"].isoformat()} for row in await connection.fetch(SQL["acts"], identifier)
            ]

    async def mine(self, signed: Signed, kind: type[D]) -> list[D]:
        """The caller's own, on either side, at most `LIST_LIMIT`."""
        async with self.connect(f"reading {kind.kind}") as connection:
            return read(kind, await connection.fetch(SQL["of_party"], signed.caller.uscc, kind.kind, LIST_LIMIT))

    async def all(self, kind: type[D]) -> list[D]:
        """Every one of a kind that is public, at most `LIST_LIMIT`."""
        async with self.connect(f"reading {kind.kind}") as connection:
            return read(kind, await connection.fetch(SQL["of_kind"], kind.kind, LIST_LIMIT))

    async def about(
        self, signed: Signed, kind: type[D], subjects: Sequence[bytes], *, everyone: bool = False
    ) -> list[D]:
        """Those about these pseudonyms that the caller is a party to; `everyone`'s for who asks for the subject."""
        async with self.connect(f"reading {kind.kind}") as connection:
            found = read(kind, await connection.fetch(SQL["of_subjects"], subjects, kind.kind, LIST_LIMIT))
            return [one for one in found if everyone or await self.roles(connection, signed, one)]

    async def roles(self, connection: asyncpg.Connection, signed: Signed, document: Document) -> frozenset[Role]:
        """What the caller is to a document; nothing if it is none of its business."""
        caller = signed.caller.uscc
        grantor, grantee = parties(document)
        found = {Role.PROVIDER} if caller == grantor else set()
        if caller == grantee:
            found.add(Role.CONSUMER)
        if self.is_operator(signed):
            found.add(Role.OPERATOR)
        if isinstance(document, Consent):
            items = [scope.item for scope in document.scopes]
            if await connection.fetchval(SQL["issues_any"], items, caller):
                found.add(Role.ISSUER)
        return frozenset(found)

    def is_operator(self, signed: Signed) -> bool:
        """Whether it is the bus's operator (主管部门) who asks."""
        return signed.caller.uscc == self._operator

    async def _locked(
        self, connection: asyncpg.Connection, signed: Signed, kind: type[D], identifier: UUID
    ) -> tuple[D, frozenset[Act]]:
        row = await connection.fetchrow(SQL["lock"], identifier, kind.kind)
        if row is None:
            raise _unknown(kind)
        before = stored(kind, identifier, row["revision"], row["state"], row["hash"], row["body"])
        if not await self.roles(connection, signed, before):
            raise _unknown(kind)
        done = frozenset(Act(one["act"]) for one in await connection.fetch(SQL["acts"], identifier))
        return before, done


async def insert(connection: asyncpg.Connection, documents: Sequence[Document], author: str) -> None:
    """Stores new documents, inside the caller's transaction."""
    rows = [
        (
            one.id,
            one.kind,
            one.revision,
            one.state.value,
            one.hash,
            *parties(one),
            getattr(one, "item", ""),
            last_day(one),
            json.dumps(one.body()),
        )
        for one in documents
    ]
    await connection.executemany(SQL["put"], rows)
    scopes = [(subject, item, parties(one)[1], one.id) for one in documents for item, subject in about(one)]
    if scopes:
        await connection.executemany(SQL["put_scope"], scopes)
    acts = [
        (one.id, one.revision, lifecycle.BEGINNINGS[type(one)][one.state].value, one.state.value, author, "")
        for one in documents
    ]
    await connection.executemany(SQL["put_act"], acts)


async def update(connection: asyncpg.Connection, document: Document, act: Act, author: str, reason: str) -> None:
    """Stores a document's next revision, inside the caller's transaction, under the row's lock."""
    await connection.execute(
        SQL["change"],
        document.id,
        document.revision,
        document.state.value,
        document.hash,
        last_day(document),
        json.dumps(document.body()),
    )
    await connection.execute(
        SQL["put_act"], document.id, document.revision, act.value, document.state.value, author, reason
    )


def about(document: Document) -> list[tuple[str, bytes]]:
    """(item, pseudonym) of everyone whom a document is about."""
    match document:
        case Consent():
            return [(scope.item, scope.subject) for scope in document.scopes]
        case Mandate():
            return [(holder.item, holder.subject) for holder in document.subjects]
    return []


def last_day(document: Document) -> date | None:
    """The day after which the clock ends a document; none if it has no end, or is at its end already."""
    if (document.state, Act.EXPIRE) not in lifecycle.TABLES[type(document)]:
        return None
    until: date | None = getattr(document, "valid_until", None)
    return until


def stored(kind: type[D], identifier: UUID, revision: int, state: str, known: bytes | None, body: str) -> D:
    """A row's document. `known` is its hash, if the row has it."""
    found: D = _parsed(kind.kind, identifier, revision, state, known, body)
    return found


def from_row(row: Any) -> Any:
    """The document of a row of `id, kind, revision, state, hash, body`."""
    return _parsed(row["kind"], row["id"], row["revision"], row["state"], row["hash"], row["body"])


@lru_cache(maxsize=PARSED)
def _parsed(kind: str, _identifier: UUID, revision: int, state: str, known: bytes | None, body: str) -> Any:
    """A revision never changes, so it is parsed once."""
    return KINDS[kind].stored(json.loads(body), revision, state, known)


def read(kind: type[D], rows: Sequence[Any]) -> list[D]:
    """Rows of `id, revision, state, hash, body`."""
    return [stored(kind, row["id"], row["revision"], row["state"], row["hash"], row["body"]) for row in rows]


def _unknown(kind: type[Document]) -> Refused:
    return Refused(Code.NOT_FOUND, f"you have no {kind.kind} of this id")
