"""Avro readers compiled from a schema: strict while they read, instead of fastavro's reading and then writing again.

A reader accepts only canonical bytes and raises on everything else; `schemas.avro.Codec` then asks fastavro, which says
what is wrong. So a reader may refuse, but what it returns is what fastavro returns (tested).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, Final

from schemas.compiling import Parts, Unusual
from schemas.writing import twos_complement_size

Reader = Callable[[bytes, int], tuple[Any, int]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.toordinal()


def _long(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return byte >> 1 ^ -(byte & 1), at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 or shift > 63:
            break
    if not 0 < byte < 0x80 or value >> 64:
        raise Unusual
    return value >> 1 ^ -(value & 1), at + 1


def _int(data: bytes, at: int) -> tuple[int, int]:
    value, at = _long(data, at)
    if not -(1 << 31) <= value < 1 << 31:
        raise Unusual
    return value, at


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size = data[at]
    if size < 0x80 and not size & 1:  # nearly every length; a call less for each
        size, at = size >> 1, at + 1
    else:
        size, at = _long(data, at)
    end = at + size
    if size < 0 or end > len(data):
        raise Unusual
    return data[at:end], end


def _text(data: bytes, at: int) -> tuple[str, int]:
    value, at = _bytes(data, at)
    return value.decode(), at


def _boolean(data: bytes, at: int) -> tuple[bool, int]:
    if data[at] > 1:
        raise Unusual
    return data[at] == 1, at + 1


def _null(data: bytes, at: int) -> tuple[None, int]:
    return None, at


def _date(data: bytes, at: int) -> tuple[date, int]:
    value, at = _long(data, at)
    return date.fromordinal(value + _EPOCH_DAY), at


def _micros(data: bytes, at: int) -> tuple[datetime, int]:
    value, at = _long(data, at)
    return _EPOCH + timedelta(microseconds=value), at


def _decimal(schema: Mapping[str, Any]) -> Reader:
    precision, scale = schema["precision"], schema.get("scale", 0)
    context = Context(prec=precision)
    limit = 10**precision

    def read(data: bytes, at: int) -> tuple[Decimal, int]:
        raw, at = _bytes(data, at)
        value = int.from_bytes(raw, "big", signed=True)
        if len(raw) != twos_complement_size(value) or not -limit < value < limit:
            raise Unusual
        return Decimal(value).scaleb(-scale, context), at

    return read


def _fixed(size: int) -> Reader:
    def read(data: bytes, at: int) -> tuple[bytes, int]:
        end = at + size
        if end > len(data):
            raise Unusual
        return data[at:end], end

    return read


def _enum(symbols: Sequence[str]) -> Reader:
    by_index = dict(enumerate(symbols))

    def read(data: bytes, at: int) -> tuple[str, int]:
        index, at = _long(data, at)
        return by_index[index], at

    return read


def _array(item: Reader) -> Reader:
    def read(data: bytes, at: int) -> tuple[list[Any], int]:
        count, at = _long(data, at)
        if count == 0:
            return [], at
        if not 0 < count <= len(data) - at:  # a second block, a sized one, or a count that memory would be taken for
            raise Unusual
        values = []
        for _ in range(count):
            value, at = item(data, at)
            values.append(value)
        if data[at]:
            raise Unusual
        return values, at + 1

    return read


def _record(fields: Sequence[tuple[str, Reader]]) -> Reader:
    def read(data: bytes, at: int) -> tuple[dict[str, Any], int]:
        values = {}
        for name, field in fields:
            values[name], at = field(data, at)
        return values, at

    return read


def _union(branches: Sequence[tuple[str, Reader]]) -> Reader:
    """Where several branches are records, one is returned as `(name, fields)`."""
    by_index = dict(enumerate(branches))
    several = sum(bool(name) for name, _ in branches) > 1

    def read(data: bytes, at: int) -> tuple[Any, int]:
        index, at = _long(data, at)
        name, branch = by_index[index]
        value, at = branch(data, at)
        return ((name, value) if several and name else value), at

    return read


PARTS: Final[Parts[Reader]] = Parts(
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
    defaults=True,
)
