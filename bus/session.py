"""Sessions: a publisher's secret for at most 65,536 records and one hour, sealed to a gateway.

`Session` records travel on `bus.sessions` before the session's first record, signed by the issuer's record key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature

from bus import hpke
from bus.pki import Role, Signer
from bus.sealing import section_root
from bus.trust import KemKey, Trust, signed_text
from schemas.avro import wire_codec, wire_part, wire_schema
from schemas.errors import Code, Malformed, Refused
from schemas.identifiers import parse_uscc

TOPIC = "bus.sessions"
MAX_AGE = timedelta(hours=1)
CLOCK_TOLERANCE = timedelta(minutes=5)  # between the publisher's clock and the broker's
LATE_ADMISSION = timedelta(hours=24)  # a publisher that was cut off for a day still gets its batches in
SECRET_BYTES = 32
SEALED_BYTES = SECRET_BYTES + hpke.OVERHEAD
MAX_VALUE_BYTES = 4096

_CODEC = wire_codec("Session")
_FIELDS = tuple(field["name"] for field in wire_schema("Session")["fields"])
_UNSEALED = wire_part("Session", until="sealed")
_UNSIGNED = wire_part("Session", until="signature")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session as it travels. `recipient` is the id of the gateway's KemKey; `value` the record's exact bytes."""

    session: bytes
    issuer: str
    item: str
    schema: bytes
    created_at: datetime
    not_after: datetime
    recipient: bytes
    sealed: bytes
    signer: bytes
    signature: bytes
    value: bytes

    @property
    def key(self) -> bytes:
        """The Kafka key: `session ‖ issuer`."""
        return self.session + self.issuer.encode()


def create(
    signer: Signer, *, session: bytes, secret: bytes, item: str, schema: bytes, recipient: KemKey, now: datetime
) -> Session:
    """A new session of `signer`'s department; it ends in an hour, or with the recipient's key."""
    fields: dict[str, Any] = {
        "session": session,
        "issuer": signer.uscc,
        "item": item,
        "schema": schema,
        "created_at": now,
        "not_after": min(now + MAX_AGE, recipient.not_after),
        "recipient": recipient.id,
    }
    fields["sealed"] = recipient.key.seal(secret, _info(fields))
    fields["signer"] = signer.id
    fields["signature"] = signer.sign(signed_text("Session", _UNSIGNED.encode(fields)))
    return Session(**fields, value=_CODEC.encode(fields))


def parse(value: bytes) -> Session:
    """Raises `Malformed`."""
    if len(value) > MAX_VALUE_BYTES:
        raise Malformed(Code.RECORD_TOO_LARGE, f"a session record has at most {MAX_VALUE_BYTES} bytes")
    session = Session(**_CODEC.decode(value), value=value)
    parse_uscc(session.issuer)
    if len(session.sealed) != SEALED_BYTES:
        raise Malformed(Code.SESSION_INVALID, f"sealed has {len(session.sealed)} bytes, not {SEALED_BYTES}")
    if not session.created_at <= session.not_after <= session.created_at + MAX_AGE:
        raise Malformed(Code.SESSION_INVALID, "the session does not end within an hour after its beginning")
    return session


def verify(session: Session, trust: Trust, broker_time: datetime, kafka_key: bytes | None) -> KemKey:
    """The session may stand for its (session, issuer). The key that it is sealed to: its owner's gateways open it.

    Raises `Refused` (SESSION_INVALID, SIGNATURE_*, CERTIFICATE_*).
    """
    if kafka_key != session.key:
        raise Refused(Code.SESSION_INVALID, "the Kafka key is not session ‖ issuer")
    off = (session.created_at - broker_time).total_seconds()
    if abs(off) > CLOCK_TOLERANCE.total_seconds():
        way = "ahead of" if off > 0 else "behind"
        raise Refused(
            Code.SESSION_INVALID,
            f"the publisher's clock is {abs(off):.0f} s {way} the broker's, which is more than five minutes: set it, "
            "such as by NTP, and publish again",
        )
    recipient = trust.kem_key(session.recipient)
    if recipient is None or recipient.role != "GATEWAY" or session.not_after > recipient.not_after:
        raise Refused(Code.SESSION_INVALID, "the session is not sealed to a known gateway key that outlives it")
    key = trust.key(session.signer, Role.RECORD, broker_time, session.issuer)
    try:
        key.verify(session.signature, signed_text("Session", _UNSIGNED.encode(_as_fields(session))))
    except InvalidSignature as exc:
        raise Refused(Code.SIGNATURE_INVALID, "the session's signature does not hold") from exc
    return recipient


def roots(session: Session, private: hpke.PrivateKey, sections: tuple[str, ...]) -> Mapping[str, bytes]:
    """What a gateway keeps of a session: every section's root. Raises `Refused` (BODY_UNOPENABLE)."""
    secret = private.open(session.sealed, _info(_as_fields(session)))
    if len(secret) != SECRET_BYTES:
        raise Refused(Code.SESSION_INVALID, f"a session secret has {SECRET_BYTES} bytes")
    return {name: section_root(secret, name) for name in sections}


def _info(fields: Mapping[str, Any]) -> bytes:
    return b"deptbus/1 session\n" + _UNSEALED.encode(fields)


def _as_fields(session: Session) -> dict[str, Any]:
    return {name: getattr(session, name) for name in _FIELDS}
