"""Vectors of sessions, key requests and grants."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bus import hpke, sealing
from bus.pki import Role, Signer
from bus.trust import kem_key_value, signed_text
from tests.vectors import world
from tests.vectors.records import OTHER_ISSUER, Case
from tests.vectors.world import (
    AT,
    CA,
    CONSUMER_KEM,
    CONSUMER_KEM_VALUE,
    DEPARTMENT,
    GATEWAY,
    GATEWAY_KEM,
    GATEWAY_KEM_VALUE,
    ISSUER,
    ITEM,
    ORIGIN,
    RECORD,
    SESSION_ID,
    SESSION_SECRET,
    array,
    blob,
    fixed,
    micros,
    nullable,
    text,
    trusted,
    zigzag,
)

# Sealing takes fresh randomness that no library lets us choose: what was sealed once is kept, by what it holds.
KEPT = Path(__file__).parent / "sealed.json"
REQUEST_ID = fixed("request", 16)
_kept: dict[str, str] = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}


def cases() -> Iterator[Case]:
    for format_, made in (("session", _sessions()), ("key-request", _requests()), ("grant", _grants())):
        for name, fields in made.items():
            yield format_, name, fields


def sealed_to(private: hpke.PrivateKey, plain: bytes, info: bytes) -> bytes:
    """HPKE `enc ‖ ct`, the same each time."""
    name = sealing.expand(fixed("kept"), private.id + info + b"\x00" + plain).hex()
    if name not in _kept:
        _kept[name] = hpke.PublicKey(private.public).seal(plain, info).hex()
        KEPT.write_text(json.dumps(_kept, indent=1, sort_keys=True) + "\n", "utf-8")
    return bytes.fromhex(_kept[name])


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


# Sessions


def session_value(
    *,
    created: datetime = AT,
    ends: datetime = AT + timedelta(hours=1),
    issuer: str = ISSUER,
    recipient: hpke.PrivateKey = GATEWAY_KEM,
    opens: hpke.PrivateKey | None = None,
    secret: bytes = SESSION_SECRET,
    about: bytes | None = None,
    cut: int = 0,
    by: Signer = RECORD,
    label: str = "Session",
    flip: bool = False,
    tail: bytes = b"",
) -> bytes:
    """The usual session with parts replaced, sealed and signed as if they were right."""
    fields = [SESSION_ID, text(issuer), text(ITEM), world.SCHEMA.digest]
    fields += [zigzag(micros(created)), zigzag(micros(ends)), recipient.id]
    unsealed = b"".join(fields)
    sealed = sealed_to(opens or recipient, secret, b"deptbus/1 session\n" + (unsealed if about is None else about))
    unsigned = unsealed + blob(sealed[: len(sealed) - cut]) + by.id
    signature = by.sign(signed_text(label, unsigned))
    if flip:
        signature = bytes([signature[0] ^ 1]) + signature[1:]
    return unsigned + blob(signature) + tail


def session(
    note: str,
    value: bytes,
    expect: str = "ok",
    *,
    trust: list[bytes] | None = None,
    broker_time: datetime = AT,
    key: bytes = SESSION_ID + ISSUER.encode(),
) -> dict[str, Any]:
    known = [*trusted(RECORD, GATEWAY, DEPARTMENT), GATEWAY_KEM_VALUE, CONSUMER_KEM_VALUE] if trust is None else trust
    return {
        "note": note,
        "expect": expect,
        "authority": CA.der.hex(),
        "certificates": [one.hex() for one in known],
        "broker_time": f"{broker_time:%Y-%m-%dT%H:%M:%SZ}",
        "key": key.hex(),
        "value": value.hex(),
        "kem_private_key": GATEWAY_KEM.private_bytes().hex(),
        "secret": SESSION_SECRET.hex(),
        "roots": {name: sealing.section_root(SESSION_SECRET, name).hex() for name in world.SCHEMA.sections},
    }


def _sessions() -> dict[str, dict[str, Any]]:
    invalid, forged = "SESSION_INVALID", "SIGNATURE_INVALID"
    good = session_value()
    hour = timedelta(hours=1)
    other = hpke.PrivateKey(fixed("kem other", hpke.PRIVATE_BYTES))
    short = hpke.PrivateKey(fixed("kem short", hpke.PRIVATE_BYTES))
    short_value = kem_key_value(short.public, world.OPERATOR, "GATEWAY", world.BEGIN, AT + seconds(3599), GATEWAY)
    role = world.signer(Role.DEPARTMENT, ISSUER)
    owner = world.signer(Role.RECORD, OTHER_ISSUER)
    recipients = [GATEWAY_KEM_VALUE, CONSUMER_KEM_VALUE]
    return {
        "ok": session("The usual session: an hour, to a gateway's key.", good),
        "ok-clock-behind-5-minutes": session(
            "The broker's clock is five minutes ahead.", good, broker_time=AT + seconds(300)
        ),
        "clock-behind": session(
            "The broker's clock is 5 minutes and a second ahead.", good, invalid, broker_time=AT + seconds(301)
        ),
        "clock-ahead": session(
            "The broker's clock is 5 minutes and a second behind.", good, invalid, broker_time=AT - seconds(301)
        ),
        "key-mismatch": session("The Kafka key is the session alone.", good, invalid, key=SESSION_ID),
        "ends-after-an-hour": session("An hour and a second.", session_value(ends=AT + hour + seconds(1)), invalid),
        "ends-before-it-begins": session(
            "not_after is before created_at.", session_value(ends=AT - seconds(1)), invalid
        ),
        "sealed-cut-short": session("sealed has 1,167 bytes.", session_value(cut=1), invalid),
        "secret-of-31-bytes": session(
            "A secret of 31 bytes: sealed is a byte too short.", session_value(secret=SESSION_SECRET[:31]), invalid
        ),
        "recipient-unknown": session("Nobody published the recipient's key.", session_value(recipient=other), invalid),
        "recipient-is-a-consumer": session(
            "Sealed to a consumer's key.", session_value(recipient=CONSUMER_KEM), invalid
        ),
        "recipient-ends-earlier": session(
            "The recipient's key ends a second before the session.",
            session_value(recipient=short),
            invalid,
            trust=[*trusted(RECORD, GATEWAY), short_value],
        ),
        "signature-flipped": session("One bit of the signature.", session_value(flip=True), forged),
        "signature-with-another-label": session("Signed as a Grant.", session_value(label="Grant"), forged),
        "certificate-role": session(
            "A department key signed.",
            session_value(by=role),
            "CERTIFICATE_ROLE",
            trust=[*trusted(GATEWAY, DEPARTMENT, role), *recipients],
        ),
        "certificate-owner": session(
            "Another department's key signed.",
            session_value(by=owner),
            "CERTIFICATE_OWNER",
            trust=[*trusted(GATEWAY, DEPARTMENT, owner), *recipients],
        ),
        "issuer-check-character": session(
            "The issuer's last character.",
            session_value(issuer=ISSUER[:-1] + "F"),
            "USCC_CHECK",
            key=SESSION_ID + (ISSUER[:-1] + "F").encode(),
        ),
        "sealed-to-another-key": session(
            "Sealed to a key that is not the recipient.", session_value(opens=other), "BODY_UNOPENABLE"
        ),
        "sealed-for-another-session": session(
            "Sealed with the fields of another session: whoever copies sealed gets nothing.",
            session_value(about=b""),
            "BODY_UNOPENABLE",
        ),
        "left-over-byte": session("One byte after the record.", session_value(tail=b"\x00"), "RECORD_NOT_CANONICAL"),
        "cut-short": session("The last byte is missing.", good[:-1], "RECORD_MALFORMED"),
    }


# Key requests


def request_value(
    *,
    purpose: str = "tax-registration",
    operator: str = "clerk-7",
    case: str = "2025-0001",
    agent: bytes | None = None,
    citation: bytes | None = None,
    reads: bytes | None = None,
    tail: bytes = b"",
) -> bytes:
    citation = text("税收征收管理法 15") if citation is None else citation
    read = blob(world.GOOD.claims) + array([text("identity"), text("business")])
    fields = [REQUEST_ID, text(purpose), text("STATUTORY_DUTY"), text(operator), citation, text(case)]
    fields += [nullable(None) if agent is None else agent, CONSUMER_KEM.id]
    return b"".join(fields) + (array([read]) if reads is None else reads) + tail


def _requests() -> dict[str, dict[str, Any]]:
    malformed, large = "REQUEST_MALFORMED", "REQUEST_TOO_LARGE"

    def request(note: str, value: bytes, expect: str = "ok") -> dict[str, Any]:
        return {"note": note, "expect": expect, "value": value.hex()}

    usual = {
        "request": REQUEST_ID.hex(),
        "purpose": "tax-registration",
        "ground": "STATUTORY_DUTY",
        "operator": "clerk-7",
        "citation": "税收征收管理法 15",
        "case": "2025-0001",
        "agent": None,
        "recipient": CONSUMER_KEM.id.hex(),
        "reads": [{"claims": world.GOOD.claims.hex(), "sections": ["identity", "business"]}],
    }
    state = array([blob(world.GOOD.claims) + array([])])
    empty_read = blob(b"") + array([])
    return {
        "ok": request("Two sections of one record.", request_value()) | {"fields": usual},
        "ok-state-only": request(
            "No sections: the state only.", request_value(reads=state, agent=nullable(text("代理人")))
        )
        | {"fields": usual | {"agent": "代理人", "reads": [{"claims": world.GOOD.claims.hex(), "sections": []}]}},
        "ok-200-characters": request(
            "Texts have at most 200 characters, whatever their bytes.", request_value(case="案" * 200)
        )
        | {"fields": usual | {"case": "案" * 200}},
        "text-201-characters": request("A case of 201 characters.", request_value(case="案" * 201), malformed),
        "text-control-character": request("A line feed in the case.", request_value(case="a\nb"), malformed),
        "text-citizen-number": request(
            "A citizen number in the case.", request_value(case="证件11010519491231002X。"), "PERSONAL_ID"
        ),
        "agent-citizen-number": request(
            "The agent by citizen number.", request_value(agent=nullable(text("11010519491231002X"))), "PERSONAL_ID"
        ),
        "purpose-empty": request("No purpose.", request_value(purpose=""), malformed),
        "operator-empty": request("No operator.", request_value(operator=""), malformed),
        "reads-none": request("Nothing is read.", request_value(reads=array([])), large),
        "reads-1001": request("1,001 records.", request_value(reads=array([empty_read] * 1_001)), large),
        "reads-in-two-blocks": request(
            "A block for each read.", request_value(reads=(zigzag(1) + empty_read) * 2 + b"\x00"), malformed
        ),
        "long-varint": request("A length in two bytes.", request_value(citation=zigzag(1, longer=1) + b"1"), malformed),
        "union-index-out-of-range": request("Branch 2 of two.", request_value(agent=zigzag(2)), malformed),
        "string-invalid-utf-8": request("A continuation byte alone.", request_value(citation=blob(b"\x80")), malformed),
        "left-over-byte": request("One byte after the request.", request_value(tail=b"\x00"), malformed),
        "cut-short": request("The last byte is missing.", request_value()[:-1], malformed),
    }


# Grants


def grant_value(
    *,
    request: bytes = REQUEST_ID,
    state: bytes = b"\x00",
    plain: bytes | None = None,
    opens: hpke.PrivateKey = CONSUMER_KEM,
    about: bytes = REQUEST_ID,
    by: Signer = GATEWAY,
    label: str = "Grant",
    flip: bool = False,
    tail: bytes = b"",
) -> bytes:
    codes = array([text("identity") + text("PERMIT"), text("business") + text("CONSENT_NONE")])
    results = array([world.GOOD.leaf_hash + state + codes + fixed("entry")])
    plain = array([secret()]) if plain is None else plain
    unsigned = request + results + blob(sealed_to(opens, plain, b"deptbus/1 grant\n" + about)) + by.id
    signature = by.sign(signed_text(label, unsigned))
    if flip:
        signature = bytes([signature[0] ^ 1]) + signature[1:]
    return unsigned + blob(signature) + tail


def secret() -> bytes:
    return world.GOOD.leaf_hash + text("identity") + world.GOOD.secrets["identity"]


def grant(
    note: str, value: bytes, expect: str = "ok", *, trust: list[bytes] | None = None, at: datetime = AT
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "note": note,
        "expect": expect,
        "origin": ORIGIN,
        "authority": CA.der.hex(),
        "certificates": [one.hex() for one in (trusted(GATEWAY) if trust is None else trust)],
        "at": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "request": REQUEST_ID.hex(),
        "kem_private_key": CONSUMER_KEM.private_bytes().hex(),
        "value": value.hex(),
    }
    if expect != "ok":
        return fields
    leaf = world.GOOD.leaf_hash.hex()
    codes = [["identity", "PERMIT"], ["business", "CONSENT_NONE"]]
    fields["results"] = [{"leaf_hash": leaf, "state": "ADMITTED", "sections": codes, "entry": fixed("entry").hex()}]
    fields["secrets"] = [{"leaf_hash": leaf, "section": "identity", "secret": world.GOOD.secrets["identity"].hex()}]
    return fields


def _grants() -> dict[str, dict[str, Any]]:
    forged, closed = "SIGNATURE_INVALID", "BODY_UNOPENABLE"
    other = fixed("another request", 16)
    recorder = world.signer(Role.RECORDER, world.OPERATOR)
    two_blocks = (zigzag(1) + secret()) * 2 + b"\x00"
    return {
        "ok": grant("One section of two.", grant_value()),
        "request-of-another": grant(
            "The answer to another request.", grant_value(request=other, about=other), "GRANT_INVALID"
        ),
        "signature-flipped": grant("One bit of the signature.", grant_value(flip=True), forged),
        "signature-with-another-label": grant("Signed as a Session.", grant_value(label="Session"), forged),
        "certificate-unknown": grant(
            "Nobody published the gateway's certificate.", grant_value(), "CERTIFICATE_UNKNOWN", trust=[]
        ),
        "certificate-role": grant(
            "A recorder's key signed.", grant_value(by=recorder), "CERTIFICATE_ROLE", trust=trusted(recorder)
        ),
        "certificate-ended": grant(
            "The gateway's certificate has ended.", grant_value(), "CERTIFICATE_EXPIRED", at=world.END + seconds(1)
        ),
        "sealed-to-another-key": grant("Sealed to the gateway's own key.", grant_value(opens=GATEWAY_KEM), closed),
        "sealed-for-another-request": grant("Sealed with another request's id.", grant_value(about=other), closed),
        "secrets-in-two-blocks": grant(
            "A block for each secret.", grant_value(plain=two_blocks), "RECORD_NOT_CANONICAL"
        ),
        "secrets-left-over-byte": grant(
            "One byte after the secrets.", grant_value(plain=array([secret()]) + b"\x00"), "RECORD_NOT_CANONICAL"
        ),
        "state-out-of-range": grant("State 4 of four.", grant_value(state=zigzag(4)), "RECORD_MALFORMED"),
        "left-over-byte": grant("One byte after the grant.", grant_value(tail=b"\x00"), "RECORD_NOT_CANONICAL"),
    }
