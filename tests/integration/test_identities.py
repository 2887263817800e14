"""Identities on a running bus: keys renewed while in use, departments' own CAs, stolen keys, replayed requests."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from typer.testing import CliRunner

from bus import envelope, pki
from bus.client import GatewayClient, Wanted
from bus.gateway.app import create_app
from bus.httpsig import sign
from bus.identity import Identity
from bus.outbox import Sealed
from bus.pki import CertificateAuthority
from bus.publisher import Publisher
from bus.subscriber import Opened
from bus.trust import Trust, revocation_value
from bus.trustfeed import TrustFeed
from deploy import bootstrap, certificates
from deploy.certificates import PROCESSES, Holder, Kind
from deploy.cli import app
from deploy.home import Home
from schemas.errors import Code
from tests.faults.firms import credit_code
from tests.integration.bus import (
    DUTY,
    LICENCE,
    PURPOSE,
    Parties,
    World,
    draft,
    fresh_firm,
    fresh_number,
    key_request,
    reads,
)

WANTED = Wanted(sections=("identity",), purpose=PURPOSE, ground="STATUTORY_DUTY", operator="test", citation=DUTY)
_OTHER = "1132080001400001X7"
SECOND = 1.0  # a process looks at its folder as often


def folder_of(identity: Identity) -> Path:
    assert identity.folder is not None
    return identity.folder


# Renewed while they are used


class Traffic:
    """A department that publishes and one that asks for the keys, at both gateways, without a pause."""

    def __init__(self, world: World, parties: Parties) -> None:
        self.world, self.parties = world, parties
        self.sealed: list[Sealed] = []
        self.granted: list[tuple[bytes, bytes]] = []  # (record, who signed the grant)
        self.asked_by: set[bytes] = set()
        self.recipients: set[bytes] = set()

    def done(self, gateway: bytes) -> bool:
        """Whether each new key was used, too."""
        grants = [signer for _, signer in self.granted]
        return len(self.asked_by) == len(self.recipients) == 2 and grants[-2:] == [gateway, gateway]

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._publish()), asyncio.create_task(self._ask())]
        try:
            yield
            for task in tasks:
                assert not task.done(), task.exception()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _publish(self) -> None:
        provider = self.parties.provider
        async with Publisher(provider, self.world.place.servers, self.world.catalogue) as publisher:
            while True:
                self.sealed.extend(await publisher.publish([draft(fresh_firm())]))
                await asyncio.sleep(0.05)

    async def _ask(self) -> None:
        consumer, place = self.parties.consumer, self.world.place
        feed = TrustFeed(Trust(consumer.authority), place.kafka, "test")
        await feed.start()
        following = asyncio.create_task(feed.follow())
        try:
            async with GatewayClient(consumer, place.gateways) as client:
                while True:
                    newest = self.sealed[-1:]
                    if newest and newest[0].leaf_hash not in dict(self.granted):
                        await self._ask_for(client, feed, newest[0])
                    client.line.urls.append(client.line.urls.pop(0))  # the other gateway next
                    await asyncio.sleep(0.02)
        finally:
            following.cancel()
            await feed.stop()

    async def _ask_for(self, client: GatewayClient, feed: TrustFeed, sealed: Sealed) -> None:
        grant, keys = await client.keys(feed.trust, reads([sealed]), WANTED, learn=feed.catch_up)
        (result,) = grant.results
        if result.state == "ADMITTED":
            assert dict(result.sections) == {"identity": "PERMIT"}
            assert self.world.open(sealed, keys)
            self.granted.append((sealed.leaf_hash, _signer(grant.value)))
        self.asked_by.add(client.identity.department.id)
        self.recipients.add(client.identity.kem.id)


def _signer(grant: bytes) -> bytes:
    return grant[-98:-66]  # signer, the signature's length (two bytes), the signature


@pytest.fixture
def kept(world: World) -> Iterator[None]:
    """The processes' keys are as they were when other tests go on: they count still."""
    bus = world.place.bus.folder
    files = [bus / kind / f"{kind}.{end}" for kind in PROCESSES for end in ("key", "pem")]
    before = {file: file.read_bytes() for file in files}
    yield
    for file, data in before.items():
        pki.write_private(file, data)


@pytest.mark.usefixtures("kept")
async def test_every_key_is_renewed_without_a_rejected_record(world: World) -> None:
    """Record, department and KEM keys, the gateways' and the recorder's, one after the other, while both sides work."""
    parties = await world.parties()
    place, provider, consumer = world.place, parties.provider, parties.consumer
    authority, traffic = place.bus.authority, Traffic(world, parties)
    old = {kind: place.bus.signer(kind).id for kind in PROCESSES}

    def own() -> list[bytes]:
        return [provider.record.id, consumer.department.id, consumer.kem.id]

    before = own()
    refused = await world.db.fetchval("SELECT count(*) FROM refusal WHERE code LIKE 'CERTIFICATE%'")
    async with traffic.flowing():
        await world.until(lambda: _said(len(traffic.granted) >= 3))
        for kind in (Kind.RECORD, Kind.DEPARTMENT, *PROCESSES):
            identity = {Kind.RECORD: provider, Kind.DEPARTMENT: consumer}.get(kind)
            folder = None if identity is None else folder_of(identity)
            holder = Holder.of(kind, place.bus, identity, folder)
            await certificates.renew(holder, authority, authority.signer.der, place.kafka)
        await certificates.renew_kem(consumer, folder_of(consumer), place.kafka)
        new = {kind: place.bus.signer(kind).id for kind in PROCESSES}
        await world.until(lambda: _said(traffic.done(new[Kind.GATEWAY])))
        await asyncio.sleep(SECOND)
    await world.judged(traffic.sealed)
    # Nothing was refused, everything is admitted, old and new keys were in use, and no other.
    leaves = {one.leaf_hash for one in traffic.sealed}
    admitted = await world.db.fetch("SELECT leaf_hash FROM record WHERE leaf_hash = ANY($1)", [*leaves])
    assert {row["leaf_hash"] for row in admitted} == leaves
    assert await world.db.fetchval("SELECT count(*) FROM refusal WHERE code LIKE 'CERTIFICATE%'") == refused
    signers = {envelope.parse(one.value).proof.signer for one in traffic.sealed}
    assert [signers, traffic.asked_by, traffic.recipients] == [
        {was, now}
        for was, now in zip(before, [provider.record.id, consumer.department.id, consumer.kem.id], strict=True)
    ]
    assert {signer for _, signer in traffic.granted} == {old[Kind.GATEWAY], new[Kind.GATEWAY]}
    assert {*old.values(), *new.values()} <= {e.signer for k in ("Admitted", "Decision") for e in await world.logged(k)}
    # Publishers seal to a KEM key that the new gateway key signed: the one before would fall with its signer.
    async with certificates.knowing(authority.signer.der, place.kafka) as trust:
        assert trust.gateway_key(place.bus.operator, datetime.now(UTC)).signer == new[Kind.GATEWAY]
    ends = await _metrics(world)
    for kind in PROCESSES:
        assert ends[kind] == pytest.approx(place.bus.signer(kind).certificate.not_valid_after_utc.timestamp())


async def _said(answer: bool) -> bool:
    return answer


async def _metrics(world: World) -> dict[str, float]:
    found: dict[str, float] = {}
    for url in world.place.metrics:
        for line in (await world.http.get(url)).text.splitlines():
            if line.startswith("bus_certificate_expiry_timestamp_seconds{"):
                found[line.split('"')[1]] = float(line.rpartition(" ")[2])
    return found


# Departments' own CAs, and keys that were stolen


async def own_ca(world: World, identity: Identity) -> CertificateAuthority:
    """The department's own CA, certified by the bus CA and known to all."""
    bus = world.place.bus
    holder = Holder.of(Kind.CA, bus, identity, folder_of(identity))
    await certificates.renew(holder, bus.authority, bus.authority.signer.der, world.place.kafka)
    return CertificateAuthority(holder.folder)


async def test_a_department_certifies_its_own_keys_until_its_ca_falls(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They count everywhere. With a CA everything below falls, back-dated or not; what was admitted is in doubt."""
    parties = await world.parties()
    provider, consumer, bus, kafka = parties.provider, parties.consumer, world.place.bus, world.place.kafka
    authority, group = bus.authority.signer.der, await world.group(consumer)
    cas = [await own_ca(world, one) for one in (provider, consumer)]
    for ca, identity, kind in zip(cas, (provider, consumer), (Kind.RECORD, Kind.DEPARTMENT), strict=True):
        await certificates.renew(Holder.of(kind, bus, identity, folder_of(identity)), ca, authority, kafka)
        assert identity.refresh()
    (sealed,), _ = await world.firms(provider)
    assert envelope.parse(sealed.value).proof.signer == provider.record.id
    # A stranger's CA revokes nothing, at any gateway.
    now = datetime.now(UTC)
    await bootstrap.publish_certificates(kafka, [revocation_value(consumer.department.id, now, None, cas[0].signer)])
    for gateway in range(len(world.place.gateways)):
        assert await world.codes(consumer, sealed, gateway) == ["PERMIT"]
    # The provider's CA turns out to have been compromised before it published.
    sealer = await world.sealer(provider)
    since = now - timedelta(hours=1)
    await certificates.revoke(bus.authority, authority, cas[0].signer.id, since, kafka)
    before = now - timedelta(minutes=1)  # which the thief says that it was: in the claims, and in the record's id
    made = int(before.timestamp() * 1000) << 80 | 0x7 << 76 | 0x2 << 62 | secrets.randbits(62)
    monkeypatch.setattr("bus.sealer.record_ids", lambda count: [UUID(int=made)])
    (late,) = sealer.seal([draft(fresh_firm(), occurred_at=before)])
    (at,) = await world.produce((late.topic, late.key, late.value))
    await world.judged([late])
    assert await world.refusals(late.topic, [at]) == [Code.CERTIFICATE_REVOKED]
    async with GatewayClient(consumer, world.place.gateways) as client:
        states = [await client.get_json(f"/v1/admitted/{one.leaf_hash.hex()}") for one in (sealed, late)]
    assert [one["state"] for one in states] == ["ADMITTED", "WAITING"]  # the other has no place in the index
    assert states[0]["doubted"]
    async with certificates.knowing(authority, kafka) as trust:
        doubts = await certificates.in_doubt(trust, provider.uscc, since, world.place.dsn)
    assert doubts == [sealed.leaf_hash.hex()]
    handed: list[Opened] = []

    async def handle(batch: Any) -> None:
        handed.extend(batch)

    await world.within(world.subscriber(consumer, group).drain(handle))
    assert [(one.leaf_hash, one.doubted) for one in handed] == [(sealed.leaf_hash, True)]
    # The consumer's own CA revokes its request key: refused at once at every gateway.
    await certificates.revoke(cas[1], authority, consumer.department.id, None, kafka)
    for gateway_ in world.place.gateways:
        await world.until(lambda gateway=gateway_: _refused(world, consumer, sealed, gateway))  # type: ignore[misc]


async def _refused(world: World, consumer: Identity, sealed: Sealed, gateway: str) -> bool:
    answer = await world.send(consumer, key_request(consumer, reads([sealed])).encode(), gateway=gateway)
    return answer.status_code == 401 and answer.json()["code"] == Code.CERTIFICATE_REVOKED


# Replayed requests


async def test_a_request_counts_once_on_every_gateway(world: World) -> None:
    """Sent again, it is refused where it was sent before and at the other; one that reads, too. Only once is logged."""
    parties = await world.parties()
    (sealed,), _ = await world.firms(parties.provider)
    consumer, (first, second) = parties.consumer, world.place.gateways
    body = key_request(consumer, reads([sealed])).encode()
    url = first + "/v1/keys"
    headers = sign(consumer.department, "POST", url, body)
    host = first.removeprefix("https://")

    async def send(gateway: str, **more: str) -> tuple[int, str]:
        answer = await world.http.post(f"{gateway}/v1/keys", content=body, headers=headers | more)
        return answer.status_code, "" if answer.status_code == 200 else answer.json()["code"]

    # Caught on its way, and sent to the other gateway first, under the name that was signed: that is none of its names.
    assert await send(second, Host=host) == (421, Code.REQUEST_AUTHORITY)
    assert await send(second) == (401, Code.REQUEST_SIGNATURE)
    for name in ("Signature", "Signature-Input", "Content-Digest"):
        twice = [*headers.items(), (name, headers[name])]
        doubled = await world.http.post(url, content=body, headers=twice)
        assert (doubled.status_code, doubled.json()["code"]) == (401, Code.REQUEST_SIGNATURE), name
    assert await send(first) == (200, "")
    assert await send(first) == (401, Code.REQUEST_REPLAYED)
    assert await _at_another(world, host, body, headers) == Code.REQUEST_REPLAYED
    listed = sign(consumer.department, "POST", first + "/v1/agreements:list", b"{}")
    again = [await world.http.post(first + "/v1/agreements:list", content=b"{}", headers=listed) for _ in range(3)]
    assert [one.status_code for one in again] == [200, 401, 401]
    raced = await asyncio.gather(*(_raced(world, consumer, body, first) for _ in range(3)))
    assert all(sorted(one) == [200, 401, 401, 401] for one in raced)


async def _at_another(world: World, name: str, body: bytes, headers: Mapping[str, str]) -> str:
    """What another gateway says that goes by the same name, as behind one balancer."""
    async with world.gateway(names=[name]) as gateway:
        transport = httpx.ASGITransport(create_app(gateway))
        async with httpx.AsyncClient(transport=transport, base_url=f"https://{name}") as client:
            answer = await client.post("/v1/keys", content=body, headers=dict(headers))
    said: str = answer.json()["code"]
    return said


async def _raced(world: World, consumer: Identity, body: bytes, gateway: str) -> list[int]:
    """One request, sent four times at once."""
    headers = sign(consumer.department, "POST", gateway + "/v1/keys", body)
    sent = [world.http.post(gateway + "/v1/keys", content=body, headers=headers) for _ in range(4)]
    return [one.status_code for one in await asyncio.gather(*sent)]


# The command


def test_the_command_from_request_to_revocation(home: Home, tmp_path: Path) -> None:
    """A department's CA is crossed, a key of its own asked for, issued, put in place, listed and revoked."""
    name = f"cert-{secrets.token_hex(4)}"

    def run(*arguments: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, [*arguments, "--json", "--home", str(home.path)])
        assert done.exit_code == code, done.output
        # In a process of its own a command's log goes to stderr; here it is the test's, before the document.
        return done.output if code else json.loads(done.stdout.splitlines()[-1])

    joined = run("org", "add", name, "--uscc", credit_code(fresh_number()), "--issues", LICENCE)
    files = {one: str(tmp_path / one) for one in ("ca.csr", "ca.pem", "record.csr", "record.pem")}
    run("cert", "request", "ca", "--as", name, "--out", files["ca.csr"])
    ours, theirs = ("--for", name, "--out", files["ca.pem"]), ("--for", _OTHER, "--out", files["ca.pem"])
    assert "CERTIFICATE_ROLE" in run("cert", "issue", "record", files["ca.csr"], *ours, code=1)
    assert "CERTIFICATE_OWNER" in run("cert", "cross", files["ca.csr"], *theirs, code=1)
    run("cert", "cross", files["ca.csr"], *ours)
    run("cert", "install", "ca", files["ca.pem"], "--as", name)
    run("cert", "request", "record", "--as", name, "--out", files["record.csr"])
    asked = ("record", files["record.csr"], "--for", name, "--out", files["record.pem"])
    assert "CERTIFICATE_ROLE" in run("cert", "issue", "gateway", *asked[1:], code=1)
    issued = run("cert", "issue", *asked, "--by", name)
    twice = run("cert", "issue", *asked, code=1)
    assert "CERTIFICATE_INVALID" in twice  # the bus CA, too, knows what a department's has certified
    installed = run("cert", "install", "record", files["record.pem"], "--as", name)
    assert installed["certificate"] == issued["certificate"] != joined["record_certificate"]
    assert run("cert", "renew", "kem", "--as", name)["certificate"] != joined["kem_key"]
    rows = {one["id"]: one for one in run("cert", "list")}
    mine = [(one["role"], one["issuer"], one["state"]) for one in rows.values() if one["name"] == name]
    assert sorted(mine) == [
        ("ca", "bus", "good"),
        ("consumer kem", "", "good"),
        ("consumer kem", "", "good"),
        ("department", "bus", "good"),
        ("record", joined["uscc"], "good"),
        ("record", "bus", "good"),
    ]
    assert 390 < rows[issued["certificate"]]["days_left"] < 398
    by_other = run("cert", "revoke", joined["record_certificate"], "--by", name, code=1)
    assert "CERTIFICATE_OWNER" in by_other
    since = "2026-01-01T00:00+08:00"
    done = run("cert", "revoke", files["record.pem"], "--by", name, "--compromised-since", since)
    assert (done["certificate"], done["records_in_doubt"]) == (issued["certificate"], [])
    gone = {one["id"]: one for one in run("cert", "list", "--ended")}[issued["certificate"]]
    assert (gone["state"], gone["compromised_since"]) == ("revoked", "2025-12-31T16:00:00+00:00")
