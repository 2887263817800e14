"""How values are written on the gateway's HTTP interface, for its description (`bus/gateway/openapi.py`).

Bounds of numbers and the offset of a time are held where a body is read. A pattern is only described: what does not
fit it is refused where it is used, by a code that says more than a pattern does.
"""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from functools import cache
from types import GenericAlias
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import Meta

from bus.audit import KINDS
from schemas.errors import Code, Malformed

_BIGGEST = 2**63 - 1
_HEX = "[0-9a-fA-F]"

# In requests
Hash = Annotated[str, Meta(extra_json_schema={"pattern": f"^{_HEX}{{64}}$"}, description="32 bytes in hex")]
RequestId = Annotated[str, Meta(extra_json_schema={"pattern": f"^{_HEX}{{32}}$"}, description="16 bytes in hex")]
CreditCode = Annotated[
    str,
    Meta(
        extra_json_schema={"pattern": "^[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}$"},
        description="统一社会信用代码, GB 32100: 18 characters, the last one a check character",
    ),
]
Text = Annotated[
    str,
    Meta(
        extra_json_schema={"maxLength": 200, "pattern": r"^[^\x00-\x1f\x7f]*$"},
        description="a text that the audit trail keeps: printable, and no citizen number in it",
    ),
]
Name = Annotated[
    str,
    Meta(
        extra_json_schema={"minLength": 1, "maxLength": 200, "pattern": r"^[^\x00-\x1f\x7f]*$"},
        description="as a text, and not empty",
    ),
]
Reason = Annotated[
    str, Meta(extra_json_schema={"maxLength": 500, "pattern": r"^[^\x00-\x1f\x7f]*$"}, description="printable")
]
SubjectKind = Annotated[str, Meta(extra_json_schema={"enum": ["PERSON", "ORGANISATION", "DEPARTMENT"]})]
SubjectId = Annotated[
    str,
    Meta(
        extra_json_schema={"pattern": "^[0-9A-HJ-NPQRTUWXY]{18}$"},
        description="公民身份号码 (GB 11643) of a person, else 统一社会信用代码 (GB 32100)",
    ),
]
Region = Annotated[
    str,
    Meta(extra_json_schema={"pattern": "^([0-9]{2}){1,3}$"}, description="a division prefix (GB/T 2260) of 2, 4 or 6"),
]
Some = {"minItems": 1, "maxItems": 64}
Amount = Annotated[int, Meta(ge=1, le=2**31)]
Time = Annotated[datetime, Meta(tz=True, description="RFC 3339, with an offset")]
Limit = Annotated[int, Meta(ge=1, le=1_000, description="a page has at most so many")]
After = Annotated[int, Meta(ge=-_BIGGEST, le=_BIGGEST, description="the `next` of the page before")]
Next = Annotated[int | None, Meta(description="to be given for the next page; null: there are no more now")]

# In answers
Id = Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9a-f]{32}$"}, description="16 bytes in hex")]
Base64 = Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Za-z0-9+/]*={0,2}$", "contentEncoding": "base64"})]
Count = Annotated[int, Meta(ge=0)]
Codes = Annotated[dict[str, int], Meta(extra_json_schema={"propertyNames": {"$ref": "#/components/schemas/Code"}})]

EntryKind = Annotated[str, Meta(extra_json_schema={"enum": list(KINDS)})]
EntryBody = Annotated[
    dict[str, Any],
    Meta(extra_json_schema={"anyOf": [{"$ref": f"#/components/schemas/Entry.{kind}"} for kind in KINDS]}),
]


class CheckpointAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The checkpoint of the log that an answer is true at; `root` in base64."""

    origin: str
    size: Count
    root: Base64


class PercentilesAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Of some durations."""

    p50: float
    p95: float


class EntryAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An entry of the log: `index` is its place, `logged_at` its own time, `request` groups one call's entries."""

    index: Count
    entry: Hash
    logged_at: Time
    time: Time
    kind: EntryKind
    request: Id
    logged_by: Hash
    body: EntryBody


class ActAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An act on a document: its `author` did it, and gave a reason where one is needed."""

    revision: int
    act: str
    state: str
    author: CreditCode
    reason: str
    at: Time


@cache
def shown(kind: type, **more: Any) -> Any:
    """How a document's `to_json` looks: a dataclass's fields, its hash, and what its route adds."""
    hints = get_type_hints(kind)
    described: list[Any] = [(field.name, hints[field.name]) for field in fields(kind)]
    described += [("hash", Hash), *more.items()]
    name = kind.__name__ + "".join(map(str.title, more))
    return msgspec.defstruct(
        name, described, forbid_unknown_fields=True, kw_only=True, namespace={"__doc__": kind.__doc__}
    )


def listed(answer: Any) -> Any:
    """A list of what `shown` says."""
    return GenericAlias(list, (answer,))


def from_hex(text: str, size: int) -> bytes:
    """So many bytes. Raises `Malformed` (REQUEST_MALFORMED)."""
    try:
        data = bytes.fromhex(text)
    except ValueError as exc:
        raise Malformed(Code.REQUEST_MALFORMED, f"{size} bytes in hex are needed") from exc
    if len(data) != size or len(text) != 2 * size:
        raise Malformed(Code.REQUEST_MALFORMED, f"{size} bytes in hex are needed")
    return data
