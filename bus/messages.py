"""Key requests and grants: what a consumer asks a gateway, and what it gets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidSignature

from bus import hpke
from bus.pki import Role, Signer
from bus.trust import Trust, signed_text
from schemas.avro import Codec, wire_codec, wire_part
from schemas.errors import Code, Malformed, Refused
from schemas.identifiers import parse_citizen_number

MAX_READS = 1_000
MAX_REQUEST_BYTES = 8 * 1024 * 1024  # 1,000 claims of some KiB
MAX_TEXT = 200  # GB/T 36906: the reason for use (useCause) has at most 200 characters

_REQUEST = wire_codec("KeyRequest")
_GRANT = wire_codec("Grant")
_SECRETS = wire_codec("Secrets")
_GRANT_SIGNED = wire_part("Grant", until="signature")
_SIGNATURE = Codec("bytes", name="signature")
_EIGHTEEN = re.compile(r"[0-9]{17}[0-9X]")


@dataclass(frozen=True, slots=True)
class Read:
    """One record asked for: its claims as they stand in the record, and sections; none asks for the state only."""

    claims: bytes
    sections: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """`request` (16 bytes) is unique for a consumer; `recipient` the id of its KemKey; `agent` acts for the subject."""

    request: bytes
    purpose: str
    ground: str
    operator: str
    citation: str
    case: str
    agent: str | None
    recipient: bytes
    reads: tuple[Read, ...]

    def encode(self) -> bytes:
        """The request's body."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields["reads"] = [{"claims": r.claims, "sections": r.sections} for r in self.reads]
        return _REQUEST.encode(fields)

    @classmethod
    def decode(cls, data: bytes) -> KeyRequest:
        """Raises `Malformed` (REQUEST_MALFORMED, REQUEST_TOO_LARGE, PERSONAL_ID)."""
        if len(data) > MAX_REQUEST_BYTES:
            raise Malformed(Code.REQUEST_TOO_LARGE, f"a key request has at most {MAX_REQUEST_BYTES} bytes")
        try:
            fields = _REQUEST.decode(data)
        except Malformed as exc:
            raise Malformed(Code.REQUEST_MALFORMED, exc.detail) from exc
        reads = tuple(Read(r["claims"], tuple(r["sections"])) for r in fields.pop("reads"))
        if not 1 <= len(reads) <= MAX_READS:
            raise Malformed(Code.REQUEST_TOO_LARGE, f"a key request reads 1 to {MAX_READS} records, not {len(reads)}")
        request = cls(**fields, reads=reads)
        check_asked(request.purpose, request.ground, request.operator, request.citation, request.case, request.agent)
        return request


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a gateway says of one read. `sections` are (name, code); `entry` is the leaf hash of the audit entry."""

    leaf_hash: bytes
    state: str
    sections: tuple[tuple[str, str], ...]
    entry: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A gateway's signed answer: the consumer's receipt. `secrets` is known only after `open_grant`."""

    request: bytes
    results: tuple[Result, ...]
    value: bytes


def check_texts(*texts: str | None, most: int = MAX_TEXT) -> None:
    """Free texts of a request go into the audit trail: bounded, printable, and no citizen number in them."""
    for text in texts:
        if text is None:
            continue
        if len(text) > most or not (text.isprintable() or not text):
            raise Malformed(Code.REQUEST_MALFORMED, f"a text is longer than {most} characters or not printable")
        for candidate in _EIGHTEEN.findall(text):
            try:
                parse_citizen_number(candidate)
            except Malformed:
                continue
            raise Refused(
                Code.PERSONAL_ID, "a citizen number stands in a text that the audit trail keeps: leave it out"
            )


def check_asked(purpose: str, ground: str, operator: str, *texts: str | None) -> None:
    """Raises `Malformed` (REQUEST_MALFORMED) if nobody asks, or for nothing; else as `check_texts` does."""
    check_texts(purpose, ground, operator, *texts)
    if not (purpose and ground and operator):
        raise Malformed(Code.REQUEST_MALFORMED, "purpose, ground and operator are required: who asks, and for what")


def make_grant(
    request: bytes,
    results: Sequence[Result],
    secrets: Sequence[tuple[bytes, str, bytes]],
    recipient: hpke.PublicKey,
    signer: Signer,
) -> bytes:
    """The encoded grant. `secrets` are (leaf hash, section, secret) of what was permitted, and of nothing else."""
    sealed = recipient.seal(_SECRETS.encode(secrets), _info(request))
    shown = [(r.leaf_hash, r.state, r.sections, r.entry) for r in results]
    unsigned = _GRANT_SIGNED.encode((request, shown, sealed, signer.id))
    return unsigned + _SIGNATURE.encode(signer.sign(signed_text("Grant", unsigned)))


def open_grant(
    value: bytes, request: bytes, private: hpke.PrivateKey, trust: Trust, now: datetime, owner: str | None = None
) -> tuple[Grant, Mapping[tuple[bytes, str], bytes]]:
    """The grant and its secrets by (leaf hash, section). `owner`: whose gateway was asked; None: whose ever.

    Signature and request come first. Raises `Malformed` or `Refused` (GRANT_INVALID, SIGNATURE_INVALID, CERTIFICATE_*).
    """
    fields = _GRANT.decode(value)
    key = trust.key(fields["signer"], Role.GATEWAY, now, owner)
    try:
        key.verify(fields["signature"], signed_text("Grant", _GRANT_SIGNED.encode(fields)))
    except InvalidSignature as exc:
        raise Refused(Code.SIGNATURE_INVALID, "the grant's signature does not hold") from exc
    if fields["request"] != request:
        raise Refused(Code.GRANT_INVALID, "the grant answers another request")
    results = tuple(
        Result(
            leaf_hash=r["leaf_hash"],
            state=r["state"],
            sections=tuple((s["name"], s["code"]) for s in r["sections"]),
            entry=r["entry"],
        )
        for r in fields["results"]
    )
    secrets = {
        (s["leaf_hash"], s["section"]): s["secret"]
        for s in _SECRETS.decode(private.open(fields["sealed"], _info(request)))
    }
    return Grant(request=request, results=results, value=value), secrets


def _info(request: bytes) -> bytes:
    return b"deptbus/1 grant\n" + request
