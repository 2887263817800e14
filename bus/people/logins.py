"""Logins and sessions of people: begun at the gateway, proven at their OpenID provider, kept in PostgreSQL.

A session is a row: it ends after 15 minutes without a request, 8 hours after it began, or at once on every gateway when
the person, her department or she herself ends it. What she holds is 32 random bytes; the row has their SHA-256. A login
that begins is bound to a secret that only its browser or command keeps, counts once, and for ten minutes.

The log says when a session begins and ends (`Reading`, `people/sessions:begin` and `:end`): `operator` and `signer` are
the person, `signature` the token's SHA-256, and of a beginning `digest` is that of the ID token. Later entries of the
session carry the same two: with them an entry leads to the login that it rests on. What binds is the gateway's own
signature and the provider's record of that token; no key of hers does.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg

from bus.db import queries
from bus.httpsig import Signed
from bus.people.openid import Login, Provider
from bus.people.roles import ROUTES, Person, Role, fits
from schemas.errors import Code, Refused, Unavailable

IDLE = timedelta(minutes=15)
LONGEST = timedelta(hours=8)  # a working day
LOGIN_LIFE = timedelta(minutes=10)  # to find a password and a second factor
MAX_LOGINS = 10_000  # begun by anybody: rows of some 100 bytes
MAX_SESSIONS = 8  # of one person: her desk, her command line, and what she forgot to end
TOKEN_BYTES = 32

Connect = Callable[[str], AbstractAsyncContextManager[asyncpg.Connection]]
LogReading = Callable[[Signed, bytes, str, str, list[bytes], int], Awaitable[bytes]]
Pseudonym = Callable[[str, str], bytes]  # of a provider's (issuer, subject)

SQL = queries(Path(__file__).with_name("logins.sql"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A login that waits for its answer: `handle` comes back with it, from the browser or command that has begun it."""

    handle: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Who is logged in. `token` is empty but for who has just logged in."""

    person: Person
    name: str
    ends_at: datetime
    token: str = ""

    def to_json(self) -> dict[str, Any]:
        """As every answer shows it, without the token."""
        return {
            "person": self.person.id.hex(),
            "name": self.name,
            "department": self.person.uscc,
            "role": self.person.role.value,
            "ends_at": self.ends_at.isoformat(),
        }


class Logins:
    """What browsers and commands of people do before and beside their questions. Without a provider nobody logs in."""

    def __init__(
        self, connect: Connect, log_reading: LogReading, pseudonym: Pseudonym, provider: Provider | None
    ) -> None:
        self._connect = connect
        self._log_reading = log_reading
        self._pseudonym = pseudonym
        self._provider = provider

    @property
    def provider(self) -> Provider:
        """Raises `Refused` (NOT_FOUND) if the bus was told none."""
        if self._provider is None:
            raise Refused(Code.NOT_FOUND, "this bus has no OpenID provider: nobody logs in here")
        return self._provider

    async def begin(self, redirect_uri: str) -> Begun:
        """A login that comes back to `redirect_uri`. Raises `Unavailable` (LOGIN_UNAVAILABLE, POSTGRES_UNAVAILABLE)."""
        handle = secrets.token_urlsafe(TOKEN_BYTES)
        url = await self.provider.authorization_url(Login.of(handle, redirect_uri))
        async with self._connect("beginning a login") as connection:
            await connection.execute(SQL["forget_logins"], LOGIN_LIFE)
            if await connection.fetchval(SQL["begin"], _hash(handle), redirect_uri, MAX_LOGINS) is None:
                raise Unavailable(Code.LOGIN_UNAVAILABLE, "too many logins have begun: try again in ten minutes")
        return Begun(handle=handle, url=url)

    async def complete(self, handle: str, answer: Mapping[str, str]) -> Session:
        """The session of who came back; the log has it before she does.

        Raises `Refused`: LOGIN_STATE, LOGIN_REFUSED, ID_TOKEN_*, PERSON_UNKNOWN, PERSON_SUSPENDED; or `Unavailable`.
        Whatever comes of it, the login is spent.
        """
        provider = self.provider
        async with self._connect("completing a login") as connection:
            redirect_uri = await connection.fetchval(SQL["take"], _hash(handle), LOGIN_LIFE)
        if redirect_uri is None:
            raise Refused(Code.LOGIN_STATE, "no such login waits here: it is spent, too old or another's; log in again")
        proven = await provider.proven(Login.of(handle, redirect_uri), answer)
        known = self._pseudonym(provider.registration.issuer, proven.subject)
        async with self._connect("looking up who logs in") as connection:
            row = await connection.fetchrow(SQL["person"], known)
        if row is None or row["state"] == "DISMISSED":
            raise Refused(Code.PERSON_UNKNOWN, f"no department has appointed {known.hex()}: `deptbus people appoint`")
        person = _standing(row)
        # A new token for each login: one that somebody planted before is none.
        token = secrets.token_urlsafe(TOKEN_BYTES)
        signed = Signed(caller=person, digest=proven.digest, signature=_hash(token), person=person.id.hex())
        await self._log_reading(signed, proven.digest[:16], "", "people/sessions:begin", [], 0)
        async with self._connect("opening a session") as connection, connection.transaction():
            ends_at = await connection.fetchval(SQL["open"], person.id, _hash(token), LONGEST)
            await connection.execute(SQL["trim"], person.id, IDLE, MAX_SESSIONS)
        if ends_at is None:
            raise _suspended()
        return Session(person=person, name=row["name"], ends_at=ends_at, token=token)

    async def session(self, token: str) -> Session:
        """Whose it is. Raises `Refused` (LOGIN_ENDED, PERSON_SUSPENDED)."""
        async with self._connect("looking up a session") as connection:
            row = await connection.fetchrow(SQL["seen"], _hash(token), IDLE)
        if row is None:
            raise Refused(Code.LOGIN_ENDED, "the session is over, or was ended: log in again")
        return Session(person=_standing(row), name=row["name"], ends_at=row["ends_at"])

    async def asking(self, token: str, route: str, body: bytes) -> Signed:
        """Who asks, if her role may ask this `route` (a path of the gateway's routes).

        Raises as `session`, and `Refused` (ROLE_FORBIDDEN).
        """
        person = (await self.session(token)).person
        if route not in ROUTES[person.role]:
            raise Refused(Code.ROLE_FORBIDDEN, f"{route} is not for people of the role {person.role}")
        return Signed(caller=person, digest=sha256(body).digest(), signature=_hash(token), person=person.id.hex())

    async def end(self, token: str) -> None:
        """Ends a session; the log says so. Raises as `session`."""
        person = (await self.session(token)).person
        async with self._connect("ending a session") as connection:
            await connection.execute(SQL["close"], _hash(token))
        nothing = sha256(b"").digest()
        signed = Signed(caller=person, digest=nothing, signature=_hash(token), person=person.id.hex())
        await self._log_reading(signed, _hash(token)[:16], "", "people/sessions:end", [], 0)


def _standing(row: Any) -> Person:
    """Raises `Refused` (PERSON_SUSPENDED) unless she and her department may ask now."""
    role = Role(row["role"])
    kind = fits(role, auditor=row["auditor"], operator=row["operator"])
    if row["state"] != "ACTIVE" or row["suspended"] or not kind:
        raise _suspended()
    return Person(id=row["id"], uscc=row["uscc"], role=role)


def _suspended() -> Refused:
    return Refused(Code.PERSON_SUSPENDED, "you or your department are suspended: your department says why")


def _hash(token: str) -> bytes:
    return sha256(token.encode()).digest()
