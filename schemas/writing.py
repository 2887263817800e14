"""Avro writers compiled from a schema: a third of fastavro's time, since a union is not tried branch by branch.

A writer takes the plain Python types that it was compiled for and raises on everything else; `schemas.avro.Codec` then
asks fastavro, whose word counts. So a writer may refuse, but what it writes is what fastavro writes (tested).

A record is a mapping, or, where a dict for each would cost more than writing it, a tuple of its fields in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from operator import call
from time import mktime
from typing import Any, Final

from schemas.compiling import Parts, Unusual
from schemas.errors import Code, Malformed

Writer = Callable[[Any], bytes]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.toordinal()
_MICROSECOND = timedelta(microseconds=1)


def _varint(value: int) -> bytes:
    """Zig-zag, little groups first, as short as it can be."""
    rest = value << 1 ^ value >> 63
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


# Lengths, counts, indices, most days: looked up instead of computed.
_SMALL = tuple(map(_varint, range(1 << 15)))
_LIMIT = len(_SMALL)


def _length(size: int) -> bytes:
    return _SMALL[size] if size < _LIMIT else _varint(size)


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise Unusual
    data = value.encode()
    size = len(data)
    return (_SMALL[size] if size < _LIMIT else _varint(size)) + data


def _bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise Unusual
    size = len(value)
    return (_SMALL[size] if size < _LIMIT else _varint(size)) + value


def _long(value: Any) -> bytes:
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise Unusual
    return _SMALL[value] if 0 <= value < _LIMIT else _varint(value)


def _int(value: Any) -> bytes:
    if type(value) is not int or not -(1 << 31) <= value < 1 << 31:
        raise Unusual
    return _SMALL[value] if 0 <= value < _LIMIT else _varint(value)


def _boolean(value: Any) -> bytes:
    if type(value) is not bool:
        raise Unusual
    return b"\x01" if value else b"\x00"


def _null(value: Any) -> bytes:
    if value is not None:
        raise Unusual
    return b""


def _date(value: Any) -> bytes:
    if not isinstance(value, date):
        raise Unusual
    return _int(value.toordinal() - _EPOCH_DAY)


def _micros(value: Any) -> bytes:
    if not isinstance(value, datetime):
        raise Unusual
    return _instant(value, value.fold)


@lru_cache(maxsize=16)  # a batch's records and entries are of one moment
def _instant(value: datetime, _fold: int) -> bytes:  # two values that differ in their fold alone are equal
    if value.tzinfo is None:  # this machine's local time
        return _long(int(mktime(value.timetuple())) * 1_000_000 + value.microsecond)
    return _long((value - _EPOCH) // _MICROSECOND)


def twos_complement_size(value: int) -> int:
    """The bytes of the shortest two's complement. (The library takes one more for some negative numbers: -128.)"""
    return ((value if value >= 0 else ~value).bit_length() + 8) // 8


def _decimal(schema: Mapping[str, Any]) -> Writer:
    precision, scale = schema["precision"], schema.get("scale", 0)
    shift = 10**scale

    def write(value: Any) -> bytes:
        if type(value) is not Decimal:
            raise Unusual
        _, digits, exponent = value.as_tuple()
        if len(digits) > precision or not isinstance(exponent, int) or exponent < -scale:
            raise Unusual  # an exponent that is no number is NaN or infinity
        if exponent > precision:  # fastavro would compute all its digits: 1E+999999999 never ends
            raise Malformed(Code.VALUE_INVALID, "a decimal has more digits than its precision")
        numerator, denominator = value.as_integer_ratio()
        unscaled = numerator * shift // denominator
        return _bytes(unscaled.to_bytes(twos_complement_size(unscaled), "big", signed=True))

    return write


def _fixed(size: int) -> Writer:
    def write(value: Any) -> bytes:
        if type(value) is not bytes or len(value) != size:
            raise Unusual
        return value

    return write


def _enum(symbols: Any) -> Writer:
    return {symbol: _varint(index) for index, symbol in enumerate(symbols)}.__getitem__


def _array(item: Writer) -> Writer:
    def write(values: Any) -> bytes:
        if not isinstance(values, (list, tuple)):
            raise Unusual
        if not values:
            return b"\x00"
        return _length(len(values)) + b"".join(map(item, values)) + b"\x00"

    return write


def _record(fields: Sequence[tuple[str, Writer]]) -> Writer:
    writers = [field for _, field in fields]
    count = len(writers)

    def write(value: Any) -> bytes:
        if isinstance(value, tuple):
            if len(value) != count:
                raise Unusual
            return b"".join(map(call, writers, value))
        get = value.get  # what is missing is None, and null or refused
        return b"".join([field(get(name)) for name, field in fields])

    return write


def _union(branches: Sequence[tuple[str, Writer]]) -> Writer:
    """Null, at most one type without a name, and records, which are given as `(name, fields)`."""
    tagged = {name: (_varint(at), write) for at, (name, write) in enumerate(branches) if name}
    plain = [(_varint(at), write) for at, (name, write) in enumerate(branches) if not name and write is not _null]
    null = next((_varint(at) for at, (_, write) in enumerate(branches) if write is _null), None)
    if len(plain) > 1 or (plain and tagged):
        raise Unusual
    index, other = plain[0] if plain else (b"", _refuse)

    def write_text(value: Any) -> bytes:  # what most of a licence's fields are: a call less for each
        if value is None and null is not None:
            return null
        if not isinstance(value, str):
            raise Unusual
        data = value.encode()
        size = len(data)
        return index + (_SMALL[size] if size < _LIMIT else _varint(size)) + data

    def write_plain(value: Any) -> bytes:
        if value is None and null is not None:
            return null
        return index + other(value)

    def write_tagged(value: Any) -> bytes:
        if type(value) is not tuple:
            return write_plain(value)
        name, fields = value
        tag, write = tagged[name]
        return tag + write(fields)

    if tagged:
        return write_tagged
    return write_text if other is _text else write_plain


def _refuse(value: Any) -> bytes:
    raise Unusual


PARTS: Final[Parts[Writer]] = Parts(
    primitive={
        "null": _null,
        "boolean": _boolean,
        "int": _int,
        "long": _long,
        "string": _text,
        "bytes": _bytes,
        "int-date": _date,
        "long-timestamp-micros": _micros,
    },
    record=_record,
    enum=_enum,
    fixed=_fixed,
    array=_array,
    union=_union,
    decimal=_decimal,
    defaults=False,  # the library writes a missing field as its default
)
