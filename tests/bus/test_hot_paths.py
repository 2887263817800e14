"""The quick paths give what the plain ones give: compiled writers beside fastavro, keyed copies beside new HMACs."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import envelope, pseudonyms, sealing
from bus.sealer import record_ids
from schemas import reading, writing
from schemas.avro import Codec, wire_codec, wire_schema
from schemas.compiling import compiled
from schemas.errors import Malformed
from schemas.identifiers import mod37_36
from tests.bus.test_properties import WIRE, hashes, values
from tests.vectors.world import GOOD

CLAIMS = envelope.parse(GOOD.value).claims
FEW = settings(max_examples=50, deadline=None)
FIELDS = (
    "null",
    "boolean",
    "int",
    "long",
    "string",
    "bytes",
    {"type": "string"},
    {"type": "int", "logicalType": "date"},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2},
    {"type": "fixed", "name": "Two", "size": 2},
    {"type": "enum", "name": "Letter", "symbols": ["A", "B"]},
    {"type": "array", "items": ["null", "int"]},
    ["null", "string"],
    ["string", "null"],
    ["null", {"type": "int", "logicalType": "date"}],
    ["null", {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}],
    ["null", "int", "string"],
    {"type": "record", "name": "Inner", "fields": [{"name": "a", "type": ["null", "long"]}]},
    ["null", {"type": "record", "name": "Maybe", "fields": [{"name": "a", "type": "int"}]}],
)
# Right and wrong for each of them, with what libraries like to convert.
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.integers(-70_000, 70_000),
    st.floats(),
    st.text(max_size=200),
    st.binary(max_size=4),
    st.dates(),
    st.datetimes(datetime(1971, 1, 2), datetime(2037, 1, 1)),  # without a zone: this machine's local time
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(timezone(timedelta(hours=8)))),
    st.decimals(-(10**8), 10**8),
    st.decimals(-(10**7), 10**7, places=2),
    st.sampled_from(
        [
            "A",
            "B",
            Decimal("-1.28"),
            Decimal("1E+3"),
            Decimal("NaN"),
            Decimal("Infinity"),
            Decimal("-0"),
            date.min,
            datetime.max,
            "\ud800",
        ]
    ),
    st.lists(st.one_of(st.none(), st.integers(-5, 5))),
    st.fixed_dictionaries({"a": st.one_of(st.none(), st.integers(), st.text(max_size=3))}),
    st.just({}),
)


def _both(codec: Codec, value: Any) -> tuple[bytes | None, bytes | None]:
    """What the codec writes, and what the library alone writes; none for a refusal."""
    found: list[bytes | None] = []
    for encode in (codec.encode, codec._library):
        try:
            found.append(encode(value))
        except Malformed:
            found.append(None)
    return found[0], found[1]


@pytest.mark.parametrize("kind", FIELDS, ids=str)
@given(value=ANYTHING)
@FEW
def test_a_compiled_writer_takes_refuses_and_writes_as_the_library_does(kind: Any, value: Any) -> None:
    codec = Codec({"type": "record", "name": "Outer", "fields": [{"name": "field", "type": kind}]})
    quick, slow = _both(codec, {"field": value})
    assert quick == slow
    assert _both(codec, {})[0] == _both(codec, {})[1]


@pytest.mark.parametrize("name", WIRE)
@given(data=st.data())
@FEW
def test_every_wire_format_is_compiled_and_written_as_the_library_does(name: str, data: st.DataObject) -> None:
    codec = wire_codec(name)
    value = data.draw(values(wire_schema(name)))
    assert compiled(codec._schema, writing.PARTS) is not None
    assert compiled(codec._schema, reading.PARTS) is not None
    encoded = codec._library(value)
    assert codec._write(value) == encoded
    assert codec.encode(_in_order(codec.decode(encoded))) == encoded


def _in_order(value: Any) -> Any:
    """Records as tuples of their fields; a union's branch keeps its name before it."""
    if isinstance(value, Mapping):
        return tuple(_in_order(part) for part in value.values())
    if isinstance(value, tuple):
        return value[0], _in_order(value[1])
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_in_order(part) for part in value]
    return value


@pytest.mark.parametrize("name", WIRE)
@given(data=st.data())
@FEW
def test_a_compiled_reader_reads_and_refuses_as_the_library_does(name: str, data: st.DataObject) -> None:
    codec = wire_codec(name)
    encoded = bytearray(codec.encode(data.draw(values(wire_schema(name)))))
    assert codec._read(bytes(encoded), 0) == codec._library_read(bytes(encoded), 0)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(encoded)))
        encoded[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        assert _read(codec, codec.read, encoded) == _read(codec, codec._library_read, encoded)


@pytest.mark.parametrize("kind", FIELDS, ids=str)
@given(data=st.binary(max_size=12))
@settings(max_examples=300, deadline=None)
def test_a_compiled_reader_of_any_bytes_is_as_strict_as_the_library(kind: Any, data: bytes) -> None:
    codec = Codec({"type": "record", "name": "Outer", "fields": [{"name": "field", "type": kind}]})
    assert _read(codec, codec.read, data) == _read(codec, codec._library_read, data)


@pytest.mark.parametrize("kind", FIELDS, ids=str)
@given(value=ANYTHING)
@FEW
def test_a_compiled_reader_reads_what_is_written(kind: Any, value: Any) -> None:
    codec = Codec({"type": "record", "name": "Outer", "fields": [{"name": "field", "type": kind}]})
    encoded = _both(codec, {"field": value})[0]
    if encoded is not None:
        assert _read(codec, codec.read, encoded) == _read(codec, codec._library_read, encoded)


def _read(codec: Codec, read: Callable[[bytes, int], tuple[Any, int]], data: bytes | bytearray) -> Any:
    try:
        value, end = read(bytes(data), 0)
    except Malformed as exc:
        return exc.code
    return repr(value), end  # also the types: 1 is not True, and 1.0 not 1.00


def test_a_decimal_of_a_billion_digits_is_refused_at_once() -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}
    codec = Codec({"type": "record", "name": "Outer", "fields": [{"name": "field", "type": ["null", decimal]}]})
    with pytest.raises(Malformed):
        codec.encode({"field": Decimal("1E+999999999")})


def test_an_hour_that_comes_twice_is_two_hours() -> None:
    kind = {"type": "long", "logicalType": "timestamp-micros"}
    codec = Codec({"type": "record", "name": "Outer", "fields": [{"name": "field", "type": kind}]})
    first = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    encoded = [codec.encode({"field": one}) for one in (first, first.replace(fold=1))]
    assert encoded == [codec._library({"field": one}) for one in (first, first.replace(fold=1))]


def test_a_tuple_of_another_length_is_refused() -> None:
    codec = wire_codec("Secrets")
    with pytest.raises(Malformed):
        codec.encode([(bytes(32), "identity")])


@pytest.mark.parametrize(
    "kind",
    ["float", {"type": "long", "logicalType": "timestamp-millis"}, {"type": "map", "values": "int"}, ["int", "string"]],
    ids=str,
)
def test_what_only_the_library_writes_is_left_to_it(kind: Any) -> None:
    codec = Codec({"type": "record", "name": "Outer", "fields": [{"name": "field", "type": kind}]})
    assert codec._write == codec._library


@given(key=hashes, messages=st.lists(st.binary(max_size=100), max_size=4))
def test_a_keyed_copy_is_an_hmac_of_its_own(key: bytes, messages: list[bytes]) -> None:
    keyed = sealing.keyed(key)
    assert [sealing.digest(keyed, m) for m in messages] == [hmac.digest(key, m, "sha256") for m in messages]


@given(key=hashes, number=st.text(st.characters(exclude_categories=["Cs", "C", "Z"]), min_size=1, max_size=20))
def test_pseudonyms_are_those_of_the_format(key: bytes, number: str) -> None:
    plain = hmac.digest(key, f"subject\nPERSON\n{number}".encode(), "sha256")
    assert pseudonyms.subject(key, "PERSON", number) == plain


@given(body=st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", max_size=70))
def test_the_check_character_follows_the_standard(body: str) -> None:
    product = 36
    for character in body:
        product = ((product + int(character, 36)) % 36 or 36) * 2 % 37
    assert int(mod37_36(body), 36) == (37 - product) % 36


def test_record_ids_are_of_version_7_and_differ() -> None:
    made = record_ids(500)
    assert len(set(made)) == 500
    assert {(one.version, one.variant) for one in made} == {(7, made[0].variant)}
    assert made[0].variant.startswith("specified in RFC 4122")


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("item", {"item": "A"}),
        ("sections", {"sections": (("a", bytes(32)), ("a", bytes(32)))}),
        ("sections of ERASED", {"operation": "ERASED"}),
        ("subjects", {"subjects": CLAIMS.subjects * 65}),
        ("parents", {"parents": (bytes(32),) * 65}),
        ("region", {"region": "33041"}),
        ("sequence", {"sequence": 0}),
        ("pseudonyms", {"pseudonyms": 0}),
        ("leaf", {"leaf": 65_536}),
        ("validity", {"valid_from": date(2020, 1, 2), "valid_until": date(2020, 1, 1)}),
    ],
)
def test_claims_out_of_range_are_named(what: str, changed: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match=f"claims: {what} is out"):
        envelope.check_claims(replace(CLAIMS, **changed))


@pytest.mark.parametrize(
    "unscaled", [0, 1, 127, 128, -1, -127, -128, -129, 32767, -32768, -32769, 10**20 - 1, 1 - 10**20]
)
def test_a_decimal_is_the_shortest_of_its_sign_too(unscaled: int) -> None:
    """`bus/FORMATS.md`: the shortest two's complement. The library takes a byte more for -128."""
    codec = Codec({"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2})
    value = Decimal(unscaled).scaleb(-2)
    encoded = codec.encode(value)
    raw = encoded[1:]
    assert int.from_bytes(raw, "big", signed=True) == unscaled
    assert len(raw) == 1 or not -(2 ** (8 * len(raw) - 9)) <= unscaled < 2 ** (8 * len(raw) - 9)
    assert codec.decode(encoded) == value
