"""`bus.catalogue`: whose word counts there, and which of several."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus.cataloguefeed import MAX_VALUE_BYTES, CatalogueFeed, standing_value, travels
from bus.pki import CertificateAuthority, Role, Signer
from bus.transport import Cluster
from bus.trust import Trust
from bus.trustfeed import TrustFeed
from consent.model import EntryState, PowerKind, PowerState
from schemas.errors import Code, DeptbusError, Refused
from tests.consent.test_issuing import BY_LAW, CITY, ENTRY, ITEM
from tests.faults.firms import credit_code

OPERATOR = credit_code(1)
LAW = replace(BY_LAW, grantor=OPERATOR)
SINCE = datetime(2026, 3, 1, tzinfo=UTC)
NOWHERE = Cluster(servers="127.0.0.1:1")

Issue = Callable[[Role, str], Signer]


@pytest.fixture
def known(tmp_path: Path) -> tuple[CatalogueFeed, Issue]:
    """A feed that nothing came to yet, and a CA whose certificates it knows."""
    authority = CertificateAuthority.create(tmp_path / "ca", "test", OPERATOR)
    trust = Trust(authority.signer.der)

    def issue(role: Role, owner: str) -> Signer:
        made = authority.issue(role, owner, "test")
        trust.add_certificate(made.der)
        return made

    return CatalogueFeed(TrustFeed(trust, NOWHERE, "test"), OPERATOR, NOWHERE, "test"), issue


def now() -> datetime:
    return datetime.now(UTC)


def entitled(feed: CatalogueFeed) -> bool:
    try:
        return feed.issuing.authority(ITEM, CITY, "330411", now()) == CITY
    except Refused:
        return False


async def test_the_newest_revision_counts_whatever_comes_again(known: tuple[CatalogueFeed, Issue]) -> None:
    feed, issue = known
    gateway = issue(Role.GATEWAY, OPERATOR)
    ended = replace(LAW, revision=2, state=PowerState.ENDED)
    for document, expected in ((ENTRY, False), (LAW, True), (ended, False), (LAW, False)):
        await feed.accept(document.id.bytes, standing_value(document, SINCE, gateway), now())
        assert entitled(feed) is expected


async def test_an_entry_that_was_never_published_opens_nothing(known: tuple[CatalogueFeed, Issue]) -> None:
    feed, issue = known
    gateway = issue(Role.GATEWAY, OPERATOR)
    for document in (LAW, replace(ENTRY, revision=2, state=EntryState.REVIEWED)):
        await feed.accept(document.id.bytes, standing_value(document, SINCE, gateway), now())
    with pytest.raises(Refused) as refused:
        feed.issuing.authority(ITEM, CITY, "330411", now())
    assert refused.value.code is Code.ITEM_NOT_PUBLISHED


@pytest.mark.parametrize(
    ("role", "owner", "code"),
    [
        (Role.DEPARTMENT, OPERATOR, Code.CERTIFICATE_ROLE),
        (Role.RECORDER, OPERATOR, Code.CERTIFICATE_ROLE),
        (Role.GATEWAY, credit_code(2), Code.CERTIFICATE_OWNER),
    ],
)
async def test_only_the_operators_gateways_are_heard(
    known: tuple[CatalogueFeed, Issue], role: Role, owner: str, code: Code
) -> None:
    feed, issue = known
    await feed.accept(ENTRY.id.bytes, standing_value(ENTRY, SINCE, issue(Role.GATEWAY, OPERATOR)), now())
    with pytest.raises(Refused) as refused:
        await feed.accept(LAW.id.bytes, standing_value(LAW, SINCE, issue(role, owner)), now())
    assert refused.value.code is code
    assert not entitled(feed)


async def test_what_was_changed_on_the_way_has_no_effect(known: tuple[CatalogueFeed, Issue]) -> None:
    """A region that was widened, a key of another document, a value that is too large, a body that is none."""
    feed, issue = known
    gateway = issue(Role.GATEWAY, OPERATOR)
    await feed.accept(ENTRY.id.bytes, standing_value(ENTRY, SINCE, gateway), now())
    value = standing_value(LAW, SINCE, gateway)
    body = json.dumps(LAW.body() | {"regions": ["3"]})
    strange = replace(LAW, state=EntryState.PUBLISHED)  # type: ignore[arg-type]
    for key, bad, code in (
        (LAW.id.bytes, value.replace(b'"3304"', b'"3306"'), Code.SIGNATURE_INVALID),
        (ENTRY.id.bytes, value, Code.KEY_MISMATCH),
        (None, value, Code.KEY_MISMATCH),
        (LAW.id.bytes, bytes(MAX_VALUE_BYTES + 1), Code.RECORD_TOO_LARGE),
        (LAW.id.bytes, body.encode(), Code.RECORD_MALFORMED),
        (LAW.id.bytes, standing_value(strange, SINCE, gateway), Code.DATA_CORRUPT),
    ):
        with pytest.raises(DeptbusError) as refused:
            await feed.accept(key, bad, now())
        assert refused.value.code is code
    assert not entitled(feed)
    await feed.accept(LAW.id.bytes, value, now())
    assert entitled(feed)


def test_powers_to_open_are_nobody_elses_business() -> None:
    assert [travels(one) for one in (ENTRY, LAW, replace(LAW, right=PowerKind.OPEN))] == [True, True, False]
