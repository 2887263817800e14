"""Who may do what at Kafka: access rules and quotas, from the catalogue and from what the bus's database says. Pure.

What nobody is allowed here is refused (`StandardAuthorizer`, `allow.everyone.if.no.acl.found=false`). A topic, who
writes it, who reads it:

- an item's: who has a power in force to issue it; whom an agreement in force shares it with as a stream, or a power to
  open; the recorder. Its issuer does not read it: others' records stand there, too.
- `bus.sessions`: who issues anything; the recorder.
- `bus.certificates`: the CA (the administrator), and gateways for the day's KemKey, which their certificate signs;
  every department, gateways, the recorder.
- `bus.catalogue`: gateways; every department, gateways.
- `audit.access`: gateways, the recorder; the recorder. Others ask a gateway, which logs that they did.
- `consent.records`: gateways, the recorder; nobody: it has everybody's rules, and Kafka cannot part them by party.
- `event.supervision`: the recorder; auditors.
- `event.impact.<code>`: the recorder; the department of that credit code.
- A provider's own gateway, `gateway.<code>`, writes `audit.access` and `bus.certificates`, as the bus's do, and reads
  certificates and the catalogue.
- `dlq.<code>.<group>`, `retry.<code>.<group>`, and the group `<code>.<group>`: that department alone.

A suspended department has nothing. Who may write a topic may start an idempotent producer (Kafka 3.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bus import audit, cataloguefeed, session, topics, trustfeed
from schemas.catalogue import Catalogue

MIB = 1024 * 1024
PROCESSES = ("gateway", "recorder")
_EVERYBODY = (trustfeed.TOPIC, cataloguefeed.TOPIC)  # is told of keys, and of who may issue what
DEFAULT = ""  # the quota of every user who has none of their own

# Bytes a second and broker; percent of one of its threads (it has eleven); partitions made or removed a second.
PRODUCE, FETCH, REQUEST, MUTATIONS = (
    "producer_byte_rate",
    "consumer_byte_rate",
    "request_percentage",
    "controller_mutation_rate",
)
# A province's whole register in an hour, and no more of a broker than a neighbour can spare.
QUOTA: Mapping[str, float] = MappingProxyType({PRODUCE: 16 * MIB, FETCH: 32 * MIB, REQUEST: 200, MUTATIONS: 5})
# The bus's own processes: what they do is bounded by what departments may.
UNBOUND: Mapping[str, float] = MappingProxyType({PRODUCE: 1024 * MIB, FETCH: 1024 * MIB, REQUEST: 10_000})
RECORD_BYTES = 16 * 1024  # a licence of several sections with its envelope
CATCH_UP_SECONDS = 3_600  # a day's records of an agreement that limits them come within an hour
LEAST_FETCH = 1 * MIB


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Binding:
    """One access rule. Words as Strimzi writes them; `principal` is `User:<name>`."""

    principal: str
    kind: str  # topic, group, cluster, transactionalId, delegationToken, user
    name: str
    prefix: bool = False
    operation: str
    host: str = "*"
    allow: bool = True

    def to_json(self) -> dict[str, Any]:
        """Field by field."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        may = "may" if self.allow else "may not"
        where = "" if self.host == "*" else f" from {self.host}"
        return f"{self.principal} {may} {self.operation} {self.kind} {self.name}{'*' if self.prefix else ''}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Department:
    """What the database says of a department. `opens` are the items that it may read as a stream; `records_a_day` is
    the sum of what its agreements limit it to, None if one of them has no limit.
    """

    uscc: str
    suspended: bool = False
    auditor: bool = False
    own_gateway: bool = False
    issues: frozenset[str] = frozenset()
    opens: frozenset[str] = frozenset()
    records_a_day: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Users, rules and quotas (by user, by key), as they should be or as a cluster has them."""

    users: frozenset[str]
    bindings: frozenset[Binding]
    quotas: Mapping[str, Mapping[str, float]]

    def of(self, user: str) -> Access:
        """One user's part."""
        return Access(
            users=self.users & {user},
            bindings=frozenset(one for one in self.bindings if one.principal == f"User:{user}"),
            quotas={name: values for name, values in self.quotas.items() if name == user},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What makes a cluster as it should be. A quota's None takes it away; users are for a person to make or remove."""

    add: frozenset[Binding]
    remove: frozenset[Binding]
    quotas: Mapping[str, Mapping[str, float | None]]
    missing_users: frozenset[str]
    extra_users: frozenset[str]

    def __len__(self) -> int:
        quotas = sum(map(len, self.quotas.values()))
        return len(self.add) + len(self.remove) + quotas + len(self.missing_users) + len(self.extra_users)

    def rows(self) -> Iterator[tuple[str, str]]:
        """For people: what to do, and with what."""
        yield from (("add", str(one)) for one in sorted(self.add))
        yield from (("set", _quota(user, key, value)) for user, key, value in self._quotas() if value is not None)
        yield from (("unset", _quota(user, key, value)) for user, key, value in self._quotas() if value is None)
        yield from (("remove", str(one)) for one in sorted(self.remove))
        yield from (("missing", f"user {one}: `deptbus org add` makes it") for one in sorted(self.missing_users))
        yield from (("unknown", f"user {one}: may log in, and may do nothing") for one in sorted(self.extra_users))

    def to_json(self) -> dict[str, Any]:
        """`add` and `remove` rules, `quotas` by user, users that are missing or nobody's."""
        return {
            "add": [one.to_json() for one in sorted(self.add)],
            "remove": [one.to_json() for one in sorted(self.remove)],
            "quotas": [{"user": user, "key": key, "value": value} for user, key, value in self._quotas()],
            "missing_users": sorted(self.missing_users),
            "extra_users": sorted(self.extra_users),
        }

    def _quotas(self) -> Iterator[tuple[str, str, float | None]]:
        for user, values in sorted(self.quotas.items()):
            yield from ((user, key, value) for key, value in sorted(values.items()))


def wanted(catalogue: Catalogue, departments: Iterable[Department]) -> Access:
    """Everything that anybody may do."""
    known = list(departments)
    bindings = {one for process in PROCESSES for one in _process(process, catalogue)}
    bindings |= {one for department in known for one in of_department(department, catalogue)}
    quotas = {DEFAULT: QUOTA} | dict.fromkeys(PROCESSES, UNBOUND)
    quotas |= {one.uscc: own for one in known if (own := quota(one))}
    users = {*PROCESSES, *(one.uscc for one in known), *(gateway_of(one.uscc) for one in known if one.own_gateway)}
    return Access(users=frozenset(users), bindings=frozenset(bindings), quotas=quotas)


def gateway_of(uscc: str) -> str:
    """The user that a provider's own gateways log in as."""
    return f"gateway.{uscc}"


def of_department(department: Department, catalogue: Catalogue) -> Iterator[Binding]:
    """A department's rules; a suspended one has none. Items that the catalogue does not know give nothing."""
    if department.suspended:
        return
    uscc = department.uscc
    if department.own_gateway:
        for operation, topics_ in (("Write", (audit.TOPIC, trustfeed.TOPIC)), ("Read", _EVERYBODY)):
            yield from (_may(gateway_of(uscc), operation, topic) for topic in topics_)
    for topic in _topics(catalogue, department.issues):
        yield _may(uscc, "Write", topic)
    if department.issues:
        yield _may(uscc, "Write", session.TOPIC)
    for topic in (*_EVERYBODY, topics.notices_of(uscc).name, *_topics(catalogue, department.opens)):
        yield _may(uscc, "Read", topic)
    if department.auditor:
        yield _may(uscc, "Read", topics.SUPERVISION)
    yield Binding(principal=f"User:{uscc}", kind="group", name=topics.group_of(uscc, ""), prefix=True, operation="Read")
    for made in (topics.dead_letters, topics.retries):
        for operation in ("Create", "Read", "Write"):
            yield _may(uscc, operation, made(topics.group_of(uscc, "")).name, prefix=True)


def quota(department: Department) -> Mapping[str, float]:
    """A department's own quota, whole; empty if it has everybody's. Bounds follow from its agreements' volumes."""
    if not department.opens or department.records_a_day is None:
        return {}
    needed = department.records_a_day * RECORD_BYTES / CATCH_UP_SECONDS
    fetch = float(min(QUOTA[FETCH], max(LEAST_FETCH, needed)))
    return {} if fetch == QUOTA[FETCH] else {**QUOTA, FETCH: fetch}


def changes(to: Access, found: Access) -> Changes:
    """What is to be done to a cluster that has `found`."""
    quotas: dict[str, dict[str, float | None]] = {}
    for user in to.quotas.keys() | found.quotas.keys():
        should, is_ = to.quotas.get(user, {}), found.quotas.get(user, {})
        different = {key: should.get(key) for key in should.keys() | is_.keys() if should.get(key) != is_.get(key)}
        if different:
            quotas[user] = different
    return Changes(
        add=to.bindings - found.bindings,
        remove=found.bindings - to.bindings,
        quotas=quotas,
        missing_users=to.users - found.users,
        extra_users=found.users - to.users,
    )


def _process(name: str, catalogue: Catalogue) -> Iterator[Binding]:
    writes: tuple[str, ...]
    reads: tuple[str, ...]
    if name == "gateway":
        writes = (audit.TOPIC, topics.RULES, cataloguefeed.TOPIC, trustfeed.TOPIC)
        reads = _EVERYBODY
    else:
        writes = (audit.TOPIC, topics.RULES, topics.SUPERVISION)
        reads = (*_topics(catalogue, catalogue.items), audit.TOPIC, session.TOPIC, trustfeed.TOPIC)
        yield _may(name, "Write", topics.NOTICES, prefix=True)
    yield from (_may(name, "Write", topic) for topic in writes)
    yield from (_may(name, "Read", topic) for topic in reads)


def _topics(catalogue: Catalogue, items: Iterable[str]) -> list[str]:
    return [catalogue.items[item].topic for item in sorted(items) if item in catalogue.items]


def _may(user: str, operation: str, topic: str, *, prefix: bool = False) -> Binding:
    return Binding(principal=f"User:{user}", kind="topic", name=topic, prefix=prefix, operation=operation)


def _quota(user: str, key: str, value: float | None) -> str:
    return f"{key} of {user or 'everybody without a quota of their own'}" + ("" if value is None else f" = {value:g}")
