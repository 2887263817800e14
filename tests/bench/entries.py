"""Audit entries for benches: what a province's gateways would log in a year, signed, of real size and skewed.

2,500 departments, 20,000 operators, 30 items, 5,000,000 firms, a million cases; few of each do most. Everything follows
from the seed and the entry's number but salts and signatures, so parts can be made in processes side by side. The log's
times run over the year before today; what an entry says of itself is now, when its signer's certificate holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from random import Random
from typing import Any
from uuid import UUID

from bus import audit
from bus.envelope import batch_origin
from bus.pki import Signer
from bus.proof import checkpoint_body
from schemas.errors import Code
from tests.bench.department import ORIGIN
from tests.bench.sample import SEED, credit_code

DEPARTMENTS = 2_500
OPERATORS = 20_000
ITEMS = 30
FIRMS = 5_000_000
CASES = 1_000_000
AGENTS = 200
PURPOSES = 40
REGIONS = tuple(f"33{city:02d}{county:02d}" for city in range(1, 12) for county in range(1, 10))
YEAR = timedelta(days=365)
FIRST = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - YEAR
GROUP = 50  # the entries of one request, at most
_CITATIONS = ("税收征收管理法 15", "社会保险法 57", "印章治安管理办法 9", "行政许可法 33")
_REFUSALS = (Code.AGREEMENT_NONE, Code.CONSENT_NONE, Code.STATUS_EXPIRED, Code.SUPERSEDED, Code.AGREEMENT_PURPOSE)
_SECTIONS = ("identity", "business", "representative")


@dataclass(frozen=True, slots=True)
class Group:
    """The log values of one call, and the moment that the broker took them."""

    time: datetime
    values: list[bytes]


def department(number: int) -> str:
    """A synthetic credit code."""
    return credit_code(REGIONS[number % len(REGIONS)], number)


_USCCS = [department(number) for number in range(DEPARTMENTS)]
_OPERATORS = [f"operator-{number:05d}" for number in range(OPERATORS)]
_ITEM_NAMES = [f"licence-kind-{number:02d}" for number in range(ITEMS)]
_PURPOSE_NAMES = [f"purpose-{number:02d}" for number in range(PURPOSES)]


def groups(
    signer: Signer, start: int, count: int, total: int, *, whole: bool = False, bus: str = ORIGIN
) -> Iterator[Group]:
    """Entries `start` ≤ n < `start + count` of a year that has `total`; `whole` groups are all of 50."""
    random = Random(f"{SEED}/{start}")
    at, end = start, start + count
    while at < end:
        size = min(GROUP if whole else _few(random), end - at)
        values = audit.log_values(signer, bus, random.randbytes(16), _bodies(random, size), datetime.now(UTC))
        yield Group(FIRST + YEAR * (at / total), values)
        at += size


def _few(random: Random) -> int:
    """How many records a call asks for: most one, at a counter; half of all records stand in large calls."""
    return 1 if random.random() < 0.6 else random.randint(2, GROUP)


def _bodies(random: Random, count: int) -> list[tuple[str, Any]]:
    kind = random.random()
    if kind < 0.01:
        return [_admitted(random) for _ in range(count)]
    if kind < 0.02:
        return [_reading(random) for _ in range(count)]
    return _decisions(random, count)


def _decisions(random: Random, count: int) -> list[tuple[str, Any]]:
    """One call's: one operator of one department asks for one item, for one purpose."""
    operator = _skewed(random, OPERATORS)
    item = _skewed(random, ITEMS)
    consumer = operator % DEPARTMENTS
    consent = random.random() < 0.3
    sections = _SECTIONS[: 1 + item % len(_SECTIONS)]
    agreement = f"agreement:{UUID(int=consumer * ITEMS + item + 1)}@1"
    called = {
        "consumer": _USCCS[consumer],
        "purpose": _PURPOSE_NAMES[(consumer + item) % PURPOSES],
        "ground": "CONSENT" if consent else "STATUTORY_DUTY",
        "citation": "" if consent else _CITATIONS[item % len(_CITATIONS)],
        "case": f"2025-{random.randrange(CASES):07d}" if random.random() < 0.3 else "",
        "operator": _OPERATORS[operator],
        "agent": f"agent-{_skewed(random, AGENTS):03d}" if random.random() < 0.05 else None,
        "mode": "STREAM",
        "onward_to": "",
        "set_size": 0,
        "item": _ITEM_NAMES[item],
        "digest": random.randbytes(32),
        "signer": sha256(b"signer %d" % consumer).digest(),
        "signature": random.randbytes(64),
    }
    return [("Decision", called | _decided(random, item, sections, agreement, consent)) for _ in range(count)]


def _decided(random: Random, item: int, sections: tuple[str, ...], agreement: str, consent: bool) -> dict[str, Any]:
    firm = int(FIRMS * random.random() ** 1.5)
    region = REGIONS[firm % len(REGIONS)]
    code = Code.PERMIT if random.random() < 0.95 else random.choice(_REFUSALS)
    rule = f"{agreement} consent:{UUID(int=firm + 1)}@1" if consent and code is Code.PERMIT else agreement
    return {
        "record": sha256(b"record %d %d %d" % (item, firm, random.randrange(2))).digest(),
        "region": region,
        "provider": _USCCS[(item * len(REGIONS) + firm % len(REGIONS)) % DEPARTMENTS],
        "licence": sha256(b"licence %d %d" % (item, firm)).digest(),
        "subjects": (subject(item, firm),),
        "sections": [{"name": name, "code": code.value, "rule": rule} for name in sections],
        "hashes": [random.randbytes(32) for _ in rule.split()] if code is Code.PERMIT else [],
        "used_up": [],
        "trace": f"{random.getrandbits(128):032x}",
    }


def subject(item: int, firm: int) -> bytes:
    """A firm's pseudonym for an item, 32 bytes."""
    return sha256(b"subject %d %d" % (item, firm)).digest()


def _admitted(random: Random) -> tuple[str, Any]:
    origin = batch_origin(ORIGIN, _USCCS[_skewed(random, DEPARTMENTS)], random.randbytes(16), 64)
    checkpoint = checkpoint_body(origin, 64, random.randbytes(32))
    return "Admitted", {"checkpoint": checkpoint, "signer": random.randbytes(32), "signature": random.randbytes(64)}


def _reading(random: Random) -> tuple[str, Any]:
    return "Reading", {
        "reader": _USCCS[_skewed(random, DEPARTMENTS)],
        "operator": _OPERATORS[_skewed(random, OPERATORS)],
        "what": "audit:query",
        "subjects": (subject(_skewed(random, ITEMS), random.randrange(FIRMS)),),
        "returned": random.randrange(50),
        "digest": random.randbytes(32),
        "signer": random.randbytes(32),
        "signature": random.randbytes(64),
    }


def _skewed(random: Random, count: int) -> int:
    """0 ≤ n < `count`: the first hundredth has a fifth of all."""
    return int(count * random.random() ** 3)
