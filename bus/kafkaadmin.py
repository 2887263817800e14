"""Kafka's administration that aiokafka has no calls for: users, access rules, quotas. As its administrator.

The requests are Kafka's own (its protocol guide: DescribeAcls, CreateAcls, DeleteAcls; KIP-546 for quotas, KIP-554 for
SCRAM), sent through aiokafka's client: no second client library, and no thread. Each call is bounded by the client's
request timeout. A broker answers once the controller has taken a change, and knows it itself a moment later.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.admin import CreateAclsRequest_v1, DeleteAclsRequest_v1, DescribeAclsRequest_v1
from aiokafka.protocol.admin import DescribeClientQuotasRequest_v0 as DescribeQuotas
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Float64,
    Int8,
    Int16,
    Int32,
    Schema,
    String,
    TaggedFields,
)

from bus.access import Access, Binding, Changes
from bus.kafka import kafka_errors
from bus.topics import connected
from bus.transport import Cluster

ITERATIONS = 4_096  # Kafka's least: passwords here are 256 random bits, which nobody guesses at any cost
AT_ONCE = 1_000  # rules of one request: a controller takes at most 10,000 records in one
KNOWN_SECONDS = 10.0
LOOK_SECONDS = 0.02
_SHA_512 = 2
_NOT_FOUND = 91  # RESOURCE_NOT_FOUND: no such user
_ANY, _MATCH_DEFAULT = 1, 1
_KINDS = {2: "topic", 3: "group", 4: "cluster", 5: "transactionalId", 6: "delegationToken", 7: "user"}
_OPERATIONS = {
    **{2: "All", 3: "Read", 4: "Write", 5: "Create", 6: "Delete", 7: "Alter", 8: "Describe", 9: "ClusterAction"},
    **{10: "DescribeConfigs", 11: "AlterConfigs", 12: "IdempotentWrite", 13: "CreateTokens", 14: "DescribeTokens"},
    15: "TwoPhaseCommit",
}
_LITERAL, _PREFIXED = 3, 4
_DENY, _ALLOW = 2, 3
_KIND_NUMBERS = {word: number for number, word in _KINDS.items()}
_OPERATION_NUMBERS = {word: number for number, word in _OPERATIONS.items()}
_TAGS = ("tags", TaggedFields)


def _request(number: int, asks: Schema, answers: Schema, *, flexible: bool = False) -> Any:
    """A request of Kafka's protocol in its version 0, and its response."""
    version = {"API_KEY": number, "API_VERSION": 0}
    response = type("Answer", (Response,), {**version, "SCHEMA": answers})
    words = {**version, "SCHEMA": asks, "RESPONSE_TYPE": response, "FLEXIBLE_VERSION": flexible}
    return type("Request", (RequestStruct,), words)


_entity = Array(("type", String()), ("name", String()))
_AlterQuotas = _request(
    49,
    Schema(
        (
            "entries",
            Array(("entity", _entity), ("ops", Array(("key", String()), ("value", Float64), ("remove", Boolean)))),
        ),
        ("validate_only", Boolean),
    ),
    Schema(
        ("throttle_time_ms", Int32),
        ("entries", Array(("error_code", Int16), ("error_message", String()), ("entity", _entity))),
    ),
)
_user_answer = (("user", CompactString()), ("error_code", Int16), ("error_message", CompactString()))
_DescribeUsers = _request(
    50,
    Schema(("users", CompactArray(("name", CompactString()), _TAGS)), _TAGS),
    Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("error_message", CompactString()),
        (
            "results",
            CompactArray(
                *_user_answer, ("credentials", CompactArray(("mechanism", Int8), ("iterations", Int32), _TAGS)), _TAGS
            ),
        ),
        _TAGS,
    ),
    flexible=True,
)
_AlterUsers = _request(
    51,
    Schema(
        ("deletions", CompactArray(("name", CompactString()), ("mechanism", Int8), _TAGS)),
        (
            "upsertions",
            CompactArray(
                ("name", CompactString()),
                ("mechanism", Int8),
                ("iterations", Int32),
                ("salt", CompactBytes),
                ("salted_password", CompactBytes),
                _TAGS,
            ),
        ),
        _TAGS,
    ),
    Schema(("throttle_time_ms", Int32), ("results", CompactArray(*_user_answer, _TAGS)), _TAGS),
    flexible=True,
)


class _Ready:
    """A request whose version is settled: aiokafka asks each for the form that the broker takes."""

    def __init__(self, made: RequestStruct) -> None:
        self._made = made

    def prepare(self, _: Mapping[int, tuple[int, int]]) -> RequestStruct:
        return self._made


class Administrator:
    """Kafka's users, rules and quotas, read and changed. `administrator` connects it."""

    def __init__(self, client: AIOKafkaAdminClient) -> None:
        self._client = client

    async def access(self, user: str | None = None) -> Access:
        """What the cluster has: all of it, or one user's. Raises `Unavailable`."""
        async with kafka_errors("reading who may do what"):
            return Access(
                users=await self._users(),
                bindings=await self._bindings(None if user is None else f"User:{user}"),
                quotas=await self._quotas(),
            )

    async def apply(self, changes: Changes) -> None:
        """Adds before it removes, so that nobody loses what stays theirs; may be repeated. Raises `Unavailable`.

        A crash half-way leaves less done: the next look finds the rest.
        """
        async with kafka_errors("saying who may do what"):
            for some in _parts(sorted(changes.add)):
                answer = await self._ask(CreateAclsRequest_v1([_numbers(one) for one in some]))
                _check(error for error, _ in answer.creation_responses)
            if changes.quotas:
                entries = [
                    (
                        [("user", user or None)],
                        [(key, 0.0 if value is None else value, value is None) for key, value in values.items()],
                    )
                    for user, values in changes.quotas.items()
                ]
                answer = await self._ask(_AlterQuotas(entries, False))
                _check(error for error, *_ in answer.entries)
            for some in _parts(sorted(changes.remove)):
                answer = await self._ask(DeleteAclsRequest_v1([_numbers(one) for one in some]))
                _check(error for error, *_ in answer.filter_responses)

    async def settle(self, user: str, bindings: frozenset[Binding]) -> None:
        """Waits until the broker that is asked knows these rules of a user."""
        async with kafka_errors(f"waiting for the rules of {user}"), asyncio.timeout(KNOWN_SECONDS):
            while not bindings <= await self._bindings(f"User:{user}"):  # noqa: ASYNC110 - the broker's news
                await asyncio.sleep(LOOK_SECONDS)

    async def put_user(self, user: str, password: str) -> None:
        """A user who logs in by SCRAM-SHA-512, or a new password for one (RFC 5802). Raises `Unavailable`."""
        salt = secrets.token_bytes(32)
        salted = hashlib.pbkdf2_hmac("sha512", password.encode("ascii"), salt, ITERATIONS)
        async with kafka_errors("adding a user"):
            answer = await self._ask(_AlterUsers([], [(user, _SHA_512, ITERATIONS, salt, salted, {})], {}))
            _check(error for _user, error, *_ in answer.results)

    async def remove_user(self, user: str) -> None:
        """Nobody logs in as this user any more; who has done so stays until the connection ends."""
        async with kafka_errors("removing a user"):
            answer = await self._ask(_AlterUsers([(user, _SHA_512, {})], [], {}))
            _check(error for _, error, *_ in answer.results if error != _NOT_FOUND)

    async def _users(self) -> frozenset[str]:
        answer = await self._ask(_DescribeUsers(None, {}))
        _check([answer.error_code])
        return frozenset(user for user, error, *_ in answer.results if not error)

    async def _bindings(self, principal: str | None) -> frozenset[Binding]:
        answer = await self._ask(DescribeAclsRequest_v1(_ANY, None, _ANY, principal, None, _ANY, _ANY))
        _check([answer.error_code])
        return frozenset(
            Binding(
                principal=who,
                kind=_KINDS.get(kind, str(kind)),
                name=name,
                prefix=pattern == _PREFIXED,
                operation=_OPERATIONS.get(operation, str(operation)),
                host=host,
                allow=permission == _ALLOW,
            )
            for kind, name, pattern, rules in answer.resources
            for who, host, operation, permission in rules
        )

    async def _quotas(self) -> dict[str, dict[str, float]]:
        answer = await self._ask(DescribeQuotas([("user", 2, None)], True))
        _check([answer.error_code])
        return {entity[0][1] or "": dict(values) for entity, values in answer.entries}

    async def _ask(self, made: RequestStruct) -> Any:
        return await self._client._send_to_controller(_Ready(made))


@asynccontextmanager
async def administrator(cluster: Cluster) -> AsyncIterator[Administrator]:
    """The calls above. Raises `Unavailable`."""
    async with connected(cluster, "administering Kafka") as client:
        yield Administrator(client)


async def put_user(cluster: Cluster, user: str, password: str) -> None:
    """A user who logs in by SCRAM-SHA-512, or a new password for one. Raises `Unavailable`."""
    async with administrator(cluster) as admin:
        await admin.put_user(user, password)


def _numbers(one: Binding) -> tuple[int, str, int, str, str, int, int]:
    return (
        _KIND_NUMBERS[one.kind],
        one.name,
        _PREFIXED if one.prefix else _LITERAL,
        one.principal,
        one.host,
        _OPERATION_NUMBERS[one.operation],
        _ALLOW if one.allow else _DENY,
    )


def _parts(found: Sequence[Binding]) -> Iterable[Sequence[Binding]]:
    return (found[at : at + AT_ONCE] for at in range(0, len(found), AT_ONCE))


def _check(errors: Iterable[int]) -> None:
    for error in errors:
        if error:
            raise for_code(error)
