"""Vectors of certificates: whose key counts, for what, when, with a department's own CA between it and the bus CA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from bus.pki import Role, Signer
from bus.trust import revocation_value
from tests.vectors.world import AT, BEGIN, CONSUMER, END, ISSUER, authority, below, trusted

Case = tuple[str, str, dict[str, Any]]
DAY = timedelta(days=1)

BUS = authority(path=1)
DIRECT = below("direct", BUS, uscc=ISSUER, role=Role.RECORD)
OWN = below("department ca", BUS, uscc=ISSUER, role=None)
RECORD = below("below a ca", OWN, uscc=ISSUER, role=Role.RECORD)


def chain(
    note: str,
    values: Sequence[bytes],
    expect: str = "ok",
    *,
    signer: Signer = RECORD,
    role: Role = Role.RECORD,
    owner: str = ISSUER,
    at: datetime = AT,
    by: Signer = BUS,
    chained: Sequence[Signer] = (OWN, RECORD),
) -> dict[str, Any]:
    """A vector's fields: may this signer's key sign as this role of the owner at this time?"""
    fields: dict[str, Any] = {
        "note": note,
        "expect": expect,
        "authority": by.der.hex(),
        "certificates": [one.hex() for one in values],
        "signer": signer.id.hex(),
        "role": role.name,
        "owner": owner,
        "at": f"{at:%Y-%m-%dT%H:%M:%SZ}",
    }
    if expect == "ok":
        fields["chain"] = [one.der.hex() for one in chained]
    return fields


def cases() -> Iterator[Case]:
    for name, fields in {**_good(), **_bad()}.items():
        yield "certificate", name, fields


def _good() -> dict[str, dict[str, Any]]:
    ended = revocation_value(OWN.id, AT + DAY, AT, BUS)
    return {
        "ok-direct": chain("A key under the bus CA.", trusted(DIRECT), signer=DIRECT, chained=[DIRECT]),
        "ok-below": chain("A key under its department's CA, which is under the bus CA.", trusted(OWN, RECORD)),
        "ok-ca-later": chain("The topic gives the CA after the key: the order says nothing.", trusted(RECORD, OWN)),
        "ok-before-revocation": chain(
            "The CA is revoked from the next day on: until then its keys count, though in doubt.",
            [*trusted(OWN, RECORD), ended],
        ),
        "ok-another-ca-revokes": chain(
            "Another department's CA says that it revokes the key: it is not its own.",
            [*trusted(OWN, RECORD, other := below("other ca", BUS, uscc=CONSUMER, role=None)),
             revocation_value(RECORD.id, AT - DAY, None, other)],
        ),
    }  # fmt: skip


def _bad() -> dict[str, dict[str, Any]]:
    short = authority()
    flat = below("department ca", short, uscc=ISSUER, role=None)
    department = below("wrong department", OWN, uscc=CONSUMER, role=Role.RECORD)
    second = below("second ca", OWN, uscc=ISSUER, role=None)
    third = below("below two", second, uscc=ISSUER, role=Role.RECORD)
    gateway = below("gateway", OWN, uscc=ISSUER, role=Role.GATEWAY)
    brief = below("brief ca", BUS, uscc=ISSUER, role=None, end=AT - DAY)
    outlives = below("outlives its ca", brief, uscc=ISSUER, role=Role.RECORD)
    again = below("below a ca", OWN, uscc=ISSUER, role=Role.RECORD, end=END + DAY)
    young = below("young ca", BUS, uscc=ISSUER, role=None, begin=AT + DAY)
    early = below("before its ca", young, uscc=ISSUER, role=Role.RECORD, begin=BEGIN)
    return {
        "ca-unknown": chain("The department's CA is not there.", trusted(RECORD), "CERTIFICATE_UNKNOWN"),
        "wrong-department": chain(
            "A department's CA certifies a key of another department.",
            trusted(OWN, department),
            "CERTIFICATE_OWNER",
            signer=department,
            owner=CONSUMER,
        ),
        "path-too-long": chain(
            "A CA below a department's CA.", trusted(OWN, second, third), "CERTIFICATE_INVALID", signer=third
        ),
        "bus-ca-of-path-0": chain(
            "A department's CA below a bus CA of path length 0.", trusted(flat, RECORD), "CERTIFICATE_INVALID", by=short
        ),
        "gateway-below": chain(
            "A department's CA certifies a gateway's key.",
            trusted(OWN, gateway),
            "CERTIFICATE_ROLE",
            signer=gateway,
            role=Role.GATEWAY,
        ),
        "ca-as-leaf": chain("A department's CA signs itself.", trusted(OWN), "CERTIFICATE_ROLE", signer=OWN),
        "role": chain("A record key signs a request.", trusted(OWN, RECORD), "CERTIFICATE_ROLE", role=Role.DEPARTMENT),
        "ca-revoked": chain(
            "The bus CA revoked the department's CA at this very moment: everything below falls.",
            [*trusted(OWN, RECORD), revocation_value(OWN.id, AT, None, BUS)],
            "CERTIFICATE_REVOKED",
        ),
        "revoked-by-bus-ca": chain(
            "The bus CA revoked a key under a department's CA.",
            [*trusted(OWN, RECORD), revocation_value(RECORD.id, AT, None, BUS)],
            "CERTIFICATE_REVOKED",
        ),
        "revoked-by-own-ca": chain(
            "The department's CA revoked its key; that stands before key and CA.",
            [revocation_value(RECORD.id, AT, None, OWN), *trusted(RECORD, OWN)],
            "CERTIFICATE_REVOKED",
        ),
        "ca-ended-in-between": chain(
            "The CA's certificate ended the day before; the key's has months to go.",
            trusted(brief, outlives),
            "CERTIFICATE_EXPIRED",
            signer=outlives,
        ),
        "ca-not-yet-valid": chain(
            "The CA's certificate begins the day after; the key's began months ago.",
            trusted(young, early),
            "CERTIFICATE_EXPIRED",
            signer=early,
        ),
        "same-key-twice": chain(
            "A CA certifies one public key a second time.", trusted(OWN, RECORD, again), "CERTIFICATE_INVALID"
        ),
        "key-of-another-ca": chain(
            "A department's CA certifies a key that the bus CA has certified for it.",
            trusted(DIRECT, OWN, below("direct", OWN, uscc=ISSUER, role=Role.RECORD)),
            "CERTIFICATE_INVALID",
            signer=DIRECT,
        ),
    }
