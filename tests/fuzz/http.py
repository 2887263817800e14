"""Targets: what a gateway reads of a request, and what commands read of their options."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OKPKey
from msgspec import inspect

import bus.gateway
from adapters import tracker
from bus import authzen, client, httpsig, terms
from bus.authzen import Evaluation
from bus.gateway import app, evaluating, logfiles, shapes
from bus.messages import check_texts
from bus.people import openid
from bus.pki import Role
from bus.trust import Trust
from deploy.commands import auditlog, cert, filters, options, record
from schemas.errors import DeptbusError
from schemas.identifiers import LicenceIdentifier, parse_citizen_number, parse_uscc
from tests.fuzz.target import VECTORS, Target, as_json, chosen, text
from tests.vectors import world

AUTHORITY = "https://bus.example"
BODY = b'{"id":"1"}'
WORDS = ("business-licence", "identity", "tax-registration", world.ISSUER, "33", "ab" * 32, "STATUTORY_DUTY", "CONSENT")


@cache
def bodies() -> tuple[type[msgspec.Struct], ...]:
    """Every struct that the gateway reads, by itself or in another; answers it only writes."""
    for module in pkgutil.iter_modules(bus.gateway.__path__):
        importlib.import_module(f"{bus.gateway.__name__}.{module.name}")
    found: list[Any] = [one for one in _subclasses(msgspec.Struct) if one.__module__.startswith("bus.gateway.")]
    read = [one for one in found if not one.__name__.endswith(("Answer", "Refusal", "Probe"))]
    return tuple(sorted(read, key=lambda one: (one.__module__, one.__qualname__)))


def _subclasses(kind: Any) -> Iterator[Any]:
    for one in kind.__subclasses__():
        yield one
        yield from _subclasses(one)


def _body(data: bytes) -> None:
    if data:
        app._decode(data[1:], bodies()[data[0] % len(bodies())])


@cache
def _bodies() -> st.SearchStrategy[bytes]:
    return st.one_of([_numbered(number, kind) for number, kind in enumerate(bodies())])


def _numbered(number: int, kind: Any) -> st.SearchStrategy[bytes]:
    return of_type(kind).map(lambda value: bytes([number]) + msgspec.json.encode(value))


def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """JSON values of a type, as msgspec reads them."""
    return _of(inspect.type_info(kind))


def _of(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.Metadata():
            return _of(info.type)
        case inspect.StructType():
            needed = {one.encode_name: _of(one.type) for one in info.fields if one.required}
            return st.fixed_dictionaries(
                needed, optional={one.encode_name: _of(one.type) for one in info.fields if not one.required}
            )
        case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
            return st.lists(_of(info.item_type), min_size=1, max_size=3)
        case inspect.TupleType():
            return st.tuples(*map(_of, info.item_types))
        case inspect.DictType():
            return st.dictionaries(st.text(max_size=5), _of(info.value_type), max_size=2)
        case inspect.UnionType():
            return st.one_of([_of(one) for one in info.types])
        case inspect.EnumType():
            return st.sampled_from([one.value for one in info.cls])
        case inspect.LiteralType():
            return st.sampled_from(list(info.values))
        case inspect.IntType():
            return st.integers(info.ge if info.ge is not None else -9, info.le if info.le is not None else 2**40)
        case inspect.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.DateTimeType():
            return st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
        case inspect.DateType():
            return st.dates().map(str)
        case inspect.StrType():
            return st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    return st.none() | st.text(max_size=5) | st.dictionaries(st.text(max_size=5), st.integers(), max_size=2)


@cache
def _samples(count: int = 100) -> list[bytes]:
    """Bodies, the same ones each time."""
    found: list[bytes] = []

    @seed(0)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
    )
    @given(_bodies())
    def keep(data: bytes) -> None:
        found.append(data)

    keep()
    return found


# AuthZEN


def _asked(parse: Callable[[Any], Any]) -> Callable[[bytes], object]:
    def run(data: bytes) -> None:
        read = authzen._read(data, parse)
        items = read.items if isinstance(read, authzen.Batch) else [read]
        for one in items:
            if isinstance(one, Evaluation):
                evaluating._read(one)
                evaluating._of_now([one], datetime.now(UTC))

    return run


def _evaluation(**more: Any) -> dict[str, Any]:
    return {
        "subject": {"type": "department", "id": world.CONSUMER, "properties": {}},
        "action": {"name": "tax-registration"},
        "resource": {"type": "record", "id": "ab" * 32, "properties": {"sections": ["identity"]}},
        "context": {"ground": "CONSENT", "operator": "clerk", "time": datetime.now(UTC).isoformat(), "mode": "STREAM"},
    } | more


def _evaluations() -> Iterator[bytes]:
    place = {"provider": world.ISSUER, "region": "330411"}
    section = {"type": "section", "id": "business-licence/identity", "properties": place}
    yield as_json(_evaluation())
    yield as_json(_evaluation(resource=section))
    yield as_json({"evaluations": [{}, {"resource": section}, 7], **_evaluation()})
    yield as_json(_evaluation() | {"evaluations": [{}], "options": {"evaluations_semantic": "deny_on_first_deny"}})


def _searches() -> Iterator[bytes]:
    search = authzen.parse_search(_evaluation(), authzen.Kind.RESOURCE)
    yield as_json(_evaluation())
    yield as_json(_evaluation(page={"limit": 5}))
    yield as_json(_evaluation(page={"token": authzen._token(search)}))


# Signatures


@cache
def _department() -> tuple[Any, Trust]:
    signer = world.signer(Role.DEPARTMENT, world.CONSUMER, label="fuzz", end=datetime(2124, 1, 1, tzinfo=UTC))
    known = Trust(world.CA.der)
    known.add_certificate(signer.der)
    return signer, known


def _signed(data: bytes) -> None:
    """Headers as a server has them, Latin 1, one a line."""
    lines = (line.partition(": ") for line in data.decode("latin-1").split("\n"))
    headers = {name: value for name, _, value in lines}
    message = httpsig.Message(method="POST", url=f"{AUTHORITY}/v1/keys", headers=headers)
    httpsig.verify(message, BODY, _department()[1], datetime.now(UTC))


def _signed_seeds() -> Iterator[bytes]:
    headers = httpsig.sign(_department()[0], "POST", f"{AUTHORITY}/v1/keys", BODY)
    yield "\n".join(f"{name}: {value}" for name, value in headers.items()).encode("latin-1")


# Words


def _word(data: bytes) -> None:
    dimension, _, value = text(data).partition(":")
    terms.term(terms.asked(dimension, value))


def _words() -> Iterator[bytes]:
    usual = {"region": "3304", "request": "ab" * 16, "operator": "clerk", "item": "business-licence"}
    for name in sorted(terms.DIMENSIONS):
        value = usual.get(name) or terms.CHOICES.get(name, ("ab" * 32,))[0]
        yield f"{name}:{world.ISSUER if name in ('consumer', 'provider', 'party') else value}".encode()


def _identifier(data: bytes) -> None:
    given = text(data)
    for parse in (parse_uscc, parse_citizen_number, lambda one: LicenceIdentifier.parse(one).format()):
        with suppress(DeptbusError):
            assert parse(given) == given


def _identifiers() -> Iterator[bytes]:
    for name in ("uscc", "citizen", "licence"):
        for one in msgspec.json.decode((VECTORS / "identifiers" / f"{name}.json").read_bytes()):
            yield one["value"].encode()


def _text(data: bytes) -> None:
    check_texts(text(data))


# Logins


@cache
def _login_key() -> OKPKey:
    return OKPKey.generate_key("Ed25519", {"kid": "1"})


def _token(data: bytes) -> None:
    """A token, and behind a line break the keys that a provider publishes."""
    token, _, keys = data.partition(b"\n")
    try:
        published = json.loads(keys)
    except (ValueError, RecursionError):
        return
    if isinstance(published, dict):
        claims = openid.read_id_token(token.decode("ascii", "replace"), published)
        openid.check_claims(claims, issuer="https://login.example", client="bus", nonce="n", now=1_750_000_000)


def _tokens() -> Iterator[bytes]:
    key = _login_key()
    said = {"iss": "https://login.example", "aud": "bus", "nonce": "n", "sub": "7", "iat": 1_750_000_000}
    for claims in (said | {"exp": 1_750_000_100}, said | {"aud": ["bus"], "azp": "bus", "exp": 1e12}, {}):
        token = jws.serialize_compact({"alg": "Ed25519", "kid": "1"}, as_json(claims), key, algorithms=["Ed25519"])
        yield token.encode() + b"\n" + as_json({"keys": [key.as_dict(private=False)]})


def _answer(data: bytes) -> None:
    client._error(422, data, AUTHORITY)
    client.json_of(data)


_AUTHZEN_RUN, _AUTHZEN_SEEDS = chosen(
    *((_asked(parse), _searches if "search" in path else _evaluations) for path, parse in authzen._ENDPOINTS.values())
)
_WORDS_RUN, _WORDS_SEEDS = chosen(
    (_word, _words),
    (_identifier, _identifiers),
    (_text, lambda: ("税收征收管理法 第十五条".encode(), b"11010519491231002X")),
    (lambda data: shapes.from_hex(text(data), 32), lambda: [b"ab" * 32]),
    (lambda data: logfiles.leaf_hash(text(data)), lambda: [b"ab" * 32]),
    (lambda data: options.subject("ORGANISATION:" + text(data)), lambda: [world.ISSUER.encode()]),
    (lambda data: options.subject("+" + text(data)), lambda: [b"PERSON:1"]),
    (lambda data: options.verifier_key(text(data)), lambda: [b"/dev/null"]),
    (lambda data: filters.time_of("since", text(data)), lambda: [b"2026-03-01", b"2026-03-01T08:00:00+08:00"]),
    (lambda data: cert._moment(text(data)), lambda: [b"2026-03-01T08:00:00+08:00"]),
    (lambda data: cert._id(text(data)), lambda: [b"ab" * 32]),
    (lambda data: record._day(text(data)), lambda: [b"2026-03-01"]),
    (lambda data: auditlog._leaf_hash(text(data)), lambda: [b"ab" * 32]),
    (lambda data: tracker._time(text(data)), lambda: [b"2026-03-01T08:00:00Z"]),
    (_answer, lambda: [b'{"code": "NOT_FOUND", "detail": "no such record"}']),
)

TARGETS = (
    Target(name="bodies", run=_body, seeds=_samples, drawn=_bodies),
    Target(name="authzen", run=_AUTHZEN_RUN, seeds=_AUTHZEN_SEEDS),
    Target(name="http-signature", run=_signed, seeds=_signed_seeds),
    Target(name="id-token", run=_token, seeds=_tokens),
    Target(name="words", run=_WORDS_RUN, seeds=_WORDS_SEEDS),
)
