"""Who may do what at Kafka: rules follow from the catalogue and the database, and nothing else is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import access, topics
from bus.access import Access, Binding, Changes, Department, changes, wanted
from deploy import strimzi
from schemas.catalogue import Catalogue
from tests.faults.firms import credit_code

CATALOGUE = Catalogue.load()
ITEMS = sorted(CATALOGUE.items)
CODES = [credit_code(number) for number in range(6)]
SHARED = {"bus.certificates", "bus.catalogue"}

departments = st.lists(
    st.builds(
        Department,
        uscc=st.sampled_from(CODES),
        suspended=st.booleans(),
        auditor=st.booleans(),
        own_gateway=st.booleans(),
        issues=st.frozensets(st.sampled_from(ITEMS), max_size=3),
        opens=st.frozensets(st.sampled_from(ITEMS), max_size=3),
        records_a_day=st.none() | st.integers(0, 10**9),
    ),
    unique_by=lambda one: one.uscc,
    max_size=len(CODES),
)
foreign = st.builds(
    Binding,
    principal=st.sampled_from([*(f"User:{code}" for code in CODES), "User:*", "User:somebody"]),
    kind=st.sampled_from(["topic", "group", "cluster"]),
    name=st.sampled_from(["*", "audit.access", "licence.business-licence", "kafka-cluster"]),
    prefix=st.booleans(),
    operation=st.sampled_from(["All", "Read", "Write", "Alter"]),
    host=st.sampled_from(["*", "192.0.2.7"]),
    allow=st.booleans(),
)


def may(given_: Access, user: str, operation: str, kind: str, name: str) -> bool:
    """As Kafka's authorizer answers where there are only rules that allow."""
    return any(
        one.principal == f"User:{user}"
        and one.kind == kind
        and one.operation == operation
        and (name.startswith(one.name) if one.prefix else name == one.name)
        for one in given_.bindings
    )


@given(known=departments)
def test_a_department_may_what_its_powers_and_agreements_say(known: list[Department]) -> None:
    made = wanted(CATALOGUE, known)
    assert all(one.allow and one.host == "*" for one in made.bindings)
    names = [*(item.topic for item in CATALOGUE.items.values()), *SHARED, "audit.access", "consent.records"]
    names += ["bus.sessions", "event.supervision", *(topics.notices_of(code).name for code in CODES)]
    for one in known:
        reads = {name for name in names if may(made, one.uscc, "Read", "topic", name)}
        writes = {name for name in names if may(made, one.uscc, "Write", "topic", name)}
        gateway = access.gateway_of(one.uscc)
        assert (gateway in made.users) is one.own_gateway
        released = one.own_gateway and not one.suspended
        assert {name for name in names if may(made, gateway, "Read", "topic", name)} == (SHARED if released else set())
        told = {name for name in names if may(made, gateway, "Write", "topic", name)}
        assert told == ({"audit.access", "bus.certificates"} if released else set())
        if one.suspended:
            assert made.of(one.uscc).bindings == frozenset()
            continue
        auditing = {"event.supervision"} if one.auditor else set()
        own = {topics.notices_of(one.uscc).name}
        assert reads == SHARED | own | auditing | {CATALOGUE.items[item].topic for item in one.opens}
        assert writes == {CATALOGUE.items[item].topic for item in one.issues} | (
            {"bus.sessions"} if one.issues else set()
        )
        for other in CODES:
            group = topics.group_of(other, "any")
            letters = [topics.dead_letters(group).name, topics.retries(group).name]
            allowed = other == one.uscc
            assert may(made, one.uscc, "Read", "group", group) is allowed
            for operation in ("Create", "Read", "Write"):
                assert [may(made, one.uscc, operation, "topic", name) for name in letters] == [allowed, allowed]


@given(known=departments, more=st.frozensets(foreign), users=st.frozensets(st.text("ab", min_size=1)))
def test_what_is_applied_is_not_due_again(
    known: list[Department], more: frozenset[Binding], users: frozenset[str]
) -> None:
    """From a cluster that has some of it, and much of somebody else's."""
    made = wanted(CATALOGUE, known)
    some = frozenset(sorted(made.bindings)[::2])
    found = Access(users=users, bindings=some | more, quotas={"somebody": {access.PRODUCE: 1.0}, access.DEFAULT: {}})
    todo = changes(made, found)
    assert todo.remove == more - made.bindings
    assert todo.extra_users == users - made.users
    assert todo.quotas["somebody"] == {access.PRODUCE: None}
    assert len(list(todo.rows())) == len(todo)
    left = changes(made, _applied(found, todo))
    assert (left.add, left.remove, left.quotas) == (frozenset(), frozenset(), {})


def _applied(found: Access, todo: Changes) -> Access:
    quotas = {user: dict(values) for user, values in found.quotas.items()}
    for user, values in todo.quotas.items():
        for key, value in values.items():
            own = quotas.setdefault(user, {})
            if value is None:
                own.pop(key)
            else:
                own[key] = value
    return Access(users=found.users, bindings=(found.bindings | todo.add) - todo.remove, quotas=quotas)


@pytest.mark.parametrize(
    ("records", "fetch"),
    [(None, None), (0, 1024**2), (1_000_000, 1_000_000 * 16 * 1024 / 3600), (10**9, None)],
    ids=["no limit", "the least", "by volume", "never more than everybody's"],
)
def test_a_limited_department_reads_no_faster_than_its_agreements_need(
    records: int | None, fetch: float | None
) -> None:
    one = Department(uscc=CODES[0], opens=frozenset({ITEMS[0]}), records_a_day=records)
    assert access.quota(one).get(access.FETCH) == (pytest.approx(fetch) if fetch else None)


# The CRDs of strimzi-kafka-operator at 0f01f49 (044-Crd-kafkauser.yaml, 043-Crd-kafkatopic.yaml): what they allow of
# the fields that are written here.
_NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}  # Kubernetes: RFC 1123


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _whole(least: int = 0) -> dict[str, Any]:
    return {"type": "integer", "minimum": least}


def _strimzi(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    labels = {"type": "object", "required": ["strimzi.io/cluster"]}
    return _object(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "kafka.strimzi.io/v1"},
        kind={"const": kind},
        metadata=_object(["name", "labels"], name=_NAME, labels=labels),
        spec=spec,
    )


_RESOURCE = _object(
    ["type"],
    type={"enum": ["topic", "group", "cluster", "transactionalId"]},
    name={"type": "string"},
    patternType={"enum": ["literal", "prefix"]},
)
_OPERATIONS = ["Read", "Write", "Create", "Delete", "Alter", "Describe", "ClusterAction", "AlterConfigs"]
_ACL = _object(
    ["resource", "operations"],
    resource=_RESOURCE,
    operations={"type": "array", "items": {"enum": [*_OPERATIONS, "DescribeConfigs", "IdempotentWrite", "All"]}},
)
_KINDS = {
    "KafkaTopic": _strimzi(
        "KafkaTopic",
        _object([], topicName={"type": "string"}, partitions=_whole(1), replicas=_whole(1), config={"type": "object"}),
    ),
    "KafkaUser": _strimzi(
        "KafkaUser",
        _object(
            [],
            userName={"type": "string"},
            authentication=_object(["type"], type={"enum": ["tls", "tls-external", "scram-sha-512"]}),
            authorization=_object(["acls", "type"], type={"const": "simple"}, acls={"type": "array", "items": _ACL}),
            quotas=_object(
                [],
                producerByteRate=_whole(),
                consumerByteRate=_whole(),
                requestPercentage=_whole(),
                controllerMutationRate={"type": "number", "minimum": 0},
            ),
        ),
    ),
}


@given(known=departments)
def test_strimzi_takes_it_and_it_says_the_same(known: list[Department]) -> None:
    made = wanted(CATALOGUE, known)
    documents = list(strimzi.documents(topics.topics(CATALOGUE, single_broker=False), made, "bus", 3))
    validators = {kind: jsonschema_rs.validator_for(schema) for kind, schema in _KINDS.items()}
    for one in documents:
        validators[one["kind"]].validate(one)
    assert len({(one["kind"], one["metadata"]["name"]) for one in documents}) == len(documents)
    said = {
        Binding(
            principal=f"User:{one['spec']['userName']}",
            kind=rule["resource"]["type"],
            name=rule["resource"]["name"],
            prefix=rule["resource"]["patternType"] == "prefix",
            operation=operation,
        )
        for one in documents
        if one["kind"] == "KafkaUser"
        for rule in one["spec"]["authorization"]["acls"]
        for operation in rule["operations"]
    }
    assert said == made.bindings
