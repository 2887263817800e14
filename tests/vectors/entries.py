"""Vectors of audit entries and disclosures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from bus import merkle, sealing
from bus.pki import Role, Signer
from bus.proof import checkpoint_body
from tests.vectors import sections, trees, world
from tests.vectors.records import Case
from tests.vectors.world import (
    AT,
    CA,
    GATEWAY,
    GOOD,
    ORIGIN,
    RECORD,
    RECORDER,
    Made,
    array,
    blob,
    fixed,
    make,
    micros,
    nullable,
    text,
    trusted,
    zigzag,
)

GROUP = fixed("group", 16)
ADMITTED = blob(GOOD.checkpoint) + RECORD.id + blob(RECORD.sign(GOOD.checkpoint))


def cases() -> Iterator[Case]:
    for format_, made in (("audit-entry", _entries()), ("disclosure", _disclosures())):
        for name, fields in made.items():
            yield format_, name, fields


# Audit entries


def entry_value(
    *,
    format_: bytes = b"\x02",
    branch: bytes = b"\x02",
    body: bytes = ADMITTED,
    group: bytes = GROUP,
    signed_group: bytes | None = None,
    by: Signer = RECORDER,
    origin: str = ORIGIN,
    changed: bytes | None = None,
    proof: Mapping[str, bytes] | None = None,
    tail: bytes = b"",
) -> bytes:
    """The first of a call's two entries, signed as if it were right."""
    entry = format_ + fixed("salt", 16) + zigzag(micros(AT)) + group + branch + body
    path = [fixed("the other entry of the call")]
    root = merkle.root_from_path(merkle.leaf_hash(entry), 0, 2, path)
    where = f"{origin}/entries/{by.id.hex()}/{(signed_group or group).hex()}"
    fields = {"index": zigzag(0), "size": zigzag(2), "path": array(path), "signer": by.id}
    fields["signature"] = blob(by.sign(checkpoint_body(where, 2, root)))
    return blob(entry if changed is None else changed) + b"".join({**fields, **(proof or {})}.values()) + tail


def entry(
    note: str,
    value: bytes,
    expect: str = "ok",
    *,
    trust: list[bytes] | None = None,
    at: datetime = AT,
    origin: str = ORIGIN,
) -> dict[str, Any]:
    return {
        "note": note,
        "expect": expect,
        "origin": origin,
        "authority": CA.der.hex(),
        "certificates": [one.hex() for one in (trusted(RECORDER, GATEWAY, RECORD) if trust is None else trust)],
        "at": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "value": value.hex(),
    }


def _ok(value: bytes, kind: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"leaf_hash": merkle.leaf_hash(value).hex(), "group": GROUP.hex(), "kind": kind, "body": body}


def _entries() -> dict[str, dict[str, Any]]:
    loose, broken, forged = "RECORD_NOT_CANONICAL", "RECORD_MALFORMED", "SIGNATURE_INVALID"
    admitted = entry_value()
    said = {
        "checkpoint": GOOD.checkpoint.hex(),
        "signer": RECORD.id.hex(),
        "signature": RECORD.sign(GOOD.checkpoint).hex(),
    }
    voided = entry_value(branch=zigzag(6), body=fixed("entry") + text("FACTS_CHANGED"), by=GATEWAY)
    sections_ = array([text("identity") + text("PERMIT") + text("rule@1")])
    texts = ("tax-registration", "STATUTORY_DUTY", "税收征收管理法 15", "2025-0001", "clerk-7")
    decision = b"".join(
        (
            text(world.CONSUMER),
            *map(text, texts),
            nullable(None),
            text("STREAM"),
            text(""),
            zigzag(0),
            GOOD.leaf_hash,
            text(world.ITEM),
            text("330411"),
            text(world.ISSUER),
            world.LICENCE,
            array([world.HOLDER]),
            sections_,
            array([fixed("the rule's body")]),
            array([text("agreement:0@1") + text("RATE_EXCEEDED")]),
            fixed("digest"),
            world.DEPARTMENT.id,
            blob(fixed("the request's signature", 64)),
            text("01972a4f4c007abc8def0123456789ab"),
        )
    )
    decided = entry_value(branch=zigzag(0), body=decision, by=GATEWAY)
    evidence = [fixed("the first entry"), fixed("the last entry")]
    finding = b"".join(
        (
            fixed("finding", 16),
            *map(text, ("burst", "WARNING")),
            zigzag(micros(AT)),
            *map(text, (world.CONSUMER, "clerk-7")),
            *map(zigzag, (7, 8, 2)),
            array(evidence),
            text("2 look-ups and decisions within 1 s (the rule: 2 within 60 s)"),
        )
    )
    found = entry_value(branch=zigzag(9), body=finding)
    derived = ("the derived record", "the derived licence", "the parent")
    impact = b"".join(
        (
            fixed("notice", 16),
            fixed("the revoking record"),
            world.LICENCE,
            *map(text, (world.ITEM, world.ISSUER, "REVOKED")),
            zigzag(micros(AT)),
            fixed("the entry that admitted it"),
            text(world.CONSUMER),
            array([GOOD.leaf_hash]),
            zigzag(2),
            array(evidence),
            array([fixed(derived[0]) + fixed(derived[1]) + text("tax-registration") + fixed(derived[2])]),
        )
    )
    noticed = entry_value(branch=zigzag(10), body=impact)
    due = {
        "kind": "agreement",
        "id": "00000000-0000-4000-8000-000000000001",
        "limit": "DATA_LIFE_OVER",
        "due": "2025-10-25",
        "provider": world.ISSUER,
        "consumer": world.CONSUMER,
        "item": world.ITEM,
    }
    came = entry_value(branch=zigzag(13), body=b"".join(map(text, due.values())) + zigzag(7))
    asked = [
        ("tax-registration", GOOD.leaf_hash.hex(), "PERMIT", "agreement:01972a4f-4c00-7abc-8def-0123456789ab@5"),
        ("supervision", f"{world.ITEM}/identity", "AGREEMENT_PURPOSE", ""),
        ("", "", "REQUEST_MALFORMED", ""),
    ]
    evaluation = b"".join(
        (
            *map(text, (world.CONSUMER, "evaluations", "clerk-7")),
            array([text(world.CONSUMER if one[0] else "") + b"".join(map(text, one)) for one in asked]),
            zigzag(3),
            fixed("digest"),
            world.DEPARTMENT.id,
            blob(fixed("the request's signature", 64)),
        )
    )
    evaluated = entry_value(branch=zigzag(11), body=evaluation, by=GATEWAY)
    of_set = ("tax-registration", "STATUTORY_DUTY", "税收征收管理法 15", "", "matcher", world.ITEM, "3304")
    granted = b"".join(
        (
            *map(text, (world.CONSUMER, *of_set, world.ISSUER)),
            array([text("identity"), text("business")]),
            zigzag(len(trees.MEMBERS)),
            trees.SET_ROOT,
            text("agreement:0@4 power:1@1"),
            array([fixed("the agreement's body"), fixed("the power's body")]),
            fixed("digest"),
            world.DEPARTMENT.id,
            blob(fixed("the request's signature", 64)),
        )
    )
    matched = entry_value(branch=zigzag(12), body=granted, by=GATEWAY)
    unfounded = fixed("salt", 16)
    changed = b"\x02" + fixed("another salt", 16) + zigzag(micros(AT)) + GROUP + b"\x02" + ADMITTED
    return {
        "ok-admitted": entry("A recorder admits a batch.", admitted) | _ok(admitted, "Admitted", said),
        "ok-voided": entry("A gateway takes a decision back.", voided)
        | _ok(voided, "Voided", {"entry": fixed("entry").hex(), "code": "FACTS_CHANGED"}),
        "ok-decision": entry("A gateway's decision.", decided)
        | _ok(
            decided,
            "Decision",
            {
                "consumer": world.CONSUMER,
                **dict(zip(("purpose", "ground", "citation", "case", "operator"), texts, strict=True)),
                "agent": None,
                "mode": "STREAM",
                "onward_to": "",
                "set_size": 0,
                "record": GOOD.leaf_hash.hex(),
                "item": world.ITEM,
                "region": "330411",
                "provider": world.ISSUER,
                "licence": world.LICENCE.hex(),
                "subjects": [world.HOLDER.hex()],
                "sections": [{"name": "identity", "code": "PERMIT", "rule": "rule@1"}],
                "hashes": [fixed("the rule's body").hex()],
                "used_up": [{"rule": "agreement:0@1", "code": "RATE_EXCEEDED"}],
                "digest": fixed("digest").hex(),
                "signer": world.DEPARTMENT.id.hex(),
                "signature": fixed("the request's signature", 64).hex(),
                "trace": "01972a4f4c007abc8def0123456789ab",
            },
        ),
        "ok-finding": entry("A recorder's supervision found something.", found)
        | _ok(
            found,
            "Finding",
            {
                "id": fixed("finding", 16).hex(),
                "rule": "burst",
                "severity": "WARNING",
                "at": f"{AT:%Y-%m-%dT%H:%M:%S.%fZ}",
                "consumer": world.CONSUMER,
                "operator": "clerk-7",
                "first": 7,
                "last": 8,
                "count": 2,
                "entries": [one.hex() for one in evidence],
                "detail": "2 look-ups and decisions within 1 s (the rule: 2 within 60 s)",
            },
        ),
        "ok-impact": entry("A recorder tells who opened a licence, and derived from it, that it was revoked.", noticed)
        | _ok(
            noticed,
            "Impact",
            {
                "id": fixed("notice", 16).hex(),
                "record": fixed("the revoking record").hex(),
                "licence": world.LICENCE.hex(),
                "item": world.ITEM,
                "issuer": world.ISSUER,
                "operation": "REVOKED",
                "occurred_at": f"{AT:%Y-%m-%dT%H:%M:%S.%fZ}",
                "admitted": fixed("the entry that admitted it").hex(),
                "addressee": world.CONSUMER,
                "opened": [GOOD.leaf_hash.hex()],
                "count": 2,
                "entries": [one.hex() for one in evidence],
                "derived": [
                    {
                        "record": fixed(derived[0]).hex(),
                        "licence": fixed(derived[1]).hex(),
                        "item": "tax-registration",
                        "parent": fixed(derived[2]).hex(),
                    }
                ],
            },
        ),
        "ok-due": entry("A recorder's clock: seven records are to be deleted, the day after.", came)
        | _ok(came, "Due", due | {"count": 7}),
        "ok-set": entry("A gateway granted the set of `set/ok-owners`.", matched)
        | _ok(
            matched,
            "SetDecision",
            {
                "consumer": world.CONSUMER,
                **dict(
                    zip(
                        ("purpose", "ground", "citation", "case", "operator", "item", "region"),
                        of_set,
                        strict=True,
                    )
                ),
                "provider": world.ISSUER,
                "sections": ["identity", "business"],
                "count": len(trees.MEMBERS),
                "root": trees.SET_ROOT.hex(),
                "rule": "agreement:0@4 power:1@1",
                "hashes": [fixed("the agreement's body").hex(), fixed("the power's body").hex()],
                "digest": fixed("digest").hex(),
                "signer": world.DEPARTMENT.id.hex(),
                "signature": fixed("the request's signature", 64).hex(),
            },
        ),
        "ok-evaluation": entry("A gateway answered a batch that opens nothing.", evaluated)
        | _ok(
            evaluated,
            "Evaluation",
            {
                "caller": world.CONSUMER,
                "api": "evaluations",
                "operator": "clerk-7",
                "answers": [
                    {
                        "consumer": world.CONSUMER if purpose else "",
                        "purpose": purpose,
                        "resource": resource,
                        "code": code,
                        "rule": rule,
                    }
                    for purpose, resource, code, rule in asked
                ],
                "returned": 3,
                "digest": fixed("digest").hex(),
                "signer": world.DEPARTMENT.id.hex(),
                "signature": fixed("the request's signature", 64).hex(),
            },
        ),
        "format-2": entry("A format that this page does not define.", entry_value(format_=b"\x04"), "FORMAT_UNKNOWN"),
        "kind-out-of-range": entry("Branch 64: there is none.", entry_value(branch=zigzag(64), body=unfounded), broken),
        "group-of-another-call": entry(
            "Signed for another group: an entry does not move to another call.",
            entry_value(signed_group=fixed("another group", 16)),
            forged,
        ),
        "entry-changed": entry("Another salt after signing.", entry_value(changed=changed), forged),
        "path-too-long": entry(
            "A hash too many.", entry_value(proof={"path": array([fixed("a"), fixed("b")])}), "PROOF_INVALID"
        ),
        "other-bus": entry("The same bytes on another bus.", admitted, forged, origin="bus.example/other"),
        "certificate-role": entry("A department's record key signed.", entry_value(by=RECORD), "CERTIFICATE_ROLE"),
        "certificate-unknown": entry(
            "Nobody published the recorder's certificate.", admitted, "CERTIFICATE_UNKNOWN", trust=[]
        ),
        "entry-left-over-byte": entry("One byte after the entry, inside.", entry_value(body=ADMITTED + b"\x00"), loose),
        "left-over-byte": entry("One byte after the value.", entry_value(tail=b"\x00"), loose),
        "long-varint": entry("format 1 in two bytes.", entry_value(format_=zigzag(1, longer=1)), loose),
    }


# Disclosures


def disclosure_value(
    made: Made = GOOD,
    *,
    name: str = "business",
    salt: bytes | None = None,
    plain: bytes | None = None,
    times: int = 1,
    schema: bytes = world.SCHEMA_DOCUMENT,
    certificates: tuple[bytes, ...] = (RECORD.der,),
    proof: bytes | None = None,
    tail: bytes = b"",
) -> bytes:
    salt = sealing.salt_of(made.secrets["business"]) if salt is None else salt
    shown = text(name) + salt + blob(sections.padded(sections.PLAIN) if plain is None else plain)
    parts = [blob(made.claims), made.proof if proof is None else proof, array([shown] * times), blob(schema)]
    return b"".join(parts) + array([blob(one) for one in certificates]) + nullable(None) + tail


def disclosure(note: str, value: bytes, expect: str = "ok", *, origin: str = ORIGIN) -> dict[str, Any]:
    return {"note": note, "expect": expect, "origin": origin, "authority": CA.der.hex(), "value": value.hex()}


def _disclosures() -> dict[str, dict[str, Any]]:
    uncommitted, unknown = "COMMITMENT_MISMATCH", "SECTION_UNKNOWN"
    good = disclosure_value()
    changed = sections.padded(sections.business(staff=b"\x1a"))
    over = make(plain={"identity": b"", "business": sections.padded(sections.PLAIN, bytes(64))})
    foreign = make(plain={"business": sections.PLAIN, "other": b""})
    loose = sections.business(online=b"\x02")
    role = world.signer(Role.DEPARTMENT, world.ISSUER)
    stranger = world.signer(Role.RECORD, world.ISSUER, label="of another CA", by="another ca")
    shown = {"capital": "5000000.00", "online": True, "size": "LARGE", "sites": ["杭州", "嘉兴"], "staff": 12}
    other_salt = sealing.salt_of(foreign.secrets["other"])
    return {
        "ok": disclosure("One section of two.", good)
        | {"leaf_hash": GOOD.leaf_hash.hex(), "sections": {"business": shown}},
        "salt-changed": disclosure("Another salt.", disclosure_value(salt=fixed("salt")), uncommitted),
        "plain-changed": disclosure("Another number of staff.", disclosure_value(plain=changed), uncommitted),
        "section-of-another-name": disclosure(
            "business shown as identity.", disclosure_value(name="identity"), uncommitted
        ),
        "section-unknown": disclosure("The claims name no such section.", disclosure_value(name="other"), unknown),
        "section-not-in-schema": disclosure(
            "The claims name the section, the schema has none of this name.",
            disclosure_value(foreign, name="other", salt=other_salt, plain=b""),
            unknown,
        ),
        "section-twice": disclosure("One section shown twice.", disclosure_value(times=2), unknown),
        "section-not-canonical": disclosure(
            "The issuer sealed a boolean of 2.",
            disclosure_value(make(plain={"business": loose}), plain=sections.padded(loose)),
            "SECTION_MALFORMED",
        ),
        "padding-64-too-many": disclosure(
            "The issuer sealed 64 zero bytes too many.",
            disclosure_value(over, plain=sections.padded(sections.PLAIN, bytes(64))),
            "PADDING_INVALID",
        ),
        "schema-other": disclosure(
            "A schema that the claims don't name.",
            disclosure_value(schema=world.SCHEMA_DOCUMENT + b"\n"),
            "SCHEMA_UNKNOWN",
        ),
        "certificate-missing": disclosure(
            "Without the issuer's certificate.", disclosure_value(certificates=()), "CERTIFICATE_UNKNOWN"
        ),
        "certificate-of-another-ca": disclosure(
            "The issuer's certificate is by a CA of the same name.",
            disclosure_value(make(by=stranger), certificates=(stranger.der,)),
            "CERTIFICATE_INVALID",
        ),
        "certificate-role": disclosure(
            "A department key signed.", disclosure_value(make(by=role), certificates=(role.der,)), "CERTIFICATE_ROLE"
        ),
        "claims-changed": disclosure(
            "The region changed after signing.",
            disclosure_value(make(after_signing=(text("330411"), text("330402")))),
            "SIGNATURE_INVALID",
        ),
        "other-bus": disclosure(
            "The same bytes on another bus.", good, "SIGNATURE_INVALID", origin="bus.example/other"
        ),
        "left-over-byte": disclosure(
            "One byte after the disclosure.", disclosure_value(tail=b"\x00"), "RECORD_NOT_CANONICAL"
        ),
    }
