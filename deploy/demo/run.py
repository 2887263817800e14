"""The main job, from an export to the auditor's answer, on a bus of its own (see `deploy/demo/departments.py` for who).

What must come out stands in `expected.json`; any difference is an error.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import signal
import sys
import time
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from adapters import config
from adapters.exports import Exports
from adapters.feed import Feed, Result, plan
from adapters.mapping import Accepted, Row
from bus import audit, db
from bus.audit import Entry
from bus.client import GatewayClient
from bus.identity import Identity
from bus.kafka import everything
from bus.messages import open_grant
from bus.outbox import Outbox
from bus.publisher import Publisher
from bus.transport import Cluster
from bus.trust import Trust
from bus.trustfeed import TrustFeed
from deploy import bootstrap, check
from deploy.demo.agreeing import agree
from deploy.demo.departments import AUDITOR, DEPARTMENTS, INSURANCE_LAW, LICENCE, MARKET, SEAL_RULE, TAX_LAW
from deploy.demo.watch import Watch
from deploy.home import Home, Stack
from deploy.stack.child import Child, log_tail, start
from schemas.catalogue import Catalogue
from schemas.errors import Code, Unavailable

PACED_ROWS = 400  # the last rows of the export come at the pace of a busy counter
PACE = 20.0  # firms a second
WITHDRAWALS = 100
NO_CONSENT = 4  # firm n gives none if n mod 5 is this
CONSENTS_AT_ONCE = 500
SETTLE_SECONDS = 180.0  # without any progress
POLL_SECONDS = 0.5
CERTIFICATE_SECONDS = 60.0
QUIET_SECONDS = 1.0  # without a certificate: none is on its way
GRACE_SECONDS = 15

T = TypeVar("T")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Firms:
    """The export's firms, numbered by their first accepted line."""

    rows: list[Accepted]
    changing: frozenset[str]

    def number(self, uscc: str) -> int:
        """A firm's number: the order of first accepted lines, from 0."""
        return self._numbers()[uscc]

    def consents(self, uscc: str) -> bool:
        """Whether the firm gives the bank its consent."""
        return self.number(uscc) % 5 != NO_CONSENT

    def withdrawing(self) -> tuple[list[str], list[str]]:
        """Those that withdraw: before their change, and the first others of those that consent; 100 in all."""
        order = [str(row.values["uscc"]) for row in self.rows]
        changing = [uscc for uscc in order if uscc in self.changing and self.consents(uscc)]
        others = [uscc for uscc in order if uscc not in self.changing and self.consents(uscc)]
        return changing, others[: WITHDRAWALS - len(changing)]

    def _numbers(self) -> Mapping[str, int]:
        return {str(row.values["uscc"]): number for number, row in enumerate(self.rows)}


def sample() -> tuple[Path, dict[str, Any]]:
    """The export, and what must become of it."""
    folder = resources.files("deploy") / "demo"
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    with resources.as_file(folder / "market-licences.csv") as path:
        return path, expected


async def demo(home: Home, stack: Stack, say: Say) -> dict[str, Any]:
    """Runs everything on a fresh, running stack; returns what `build/demo.json` holds."""
    begun = time.monotonic()
    catalogue = Catalogue.load()
    path, expected = sample()
    department = config.load(_department_file(), catalogue)
    _, accepted = plan(path, department, catalogue)
    firms = Firms(
        rows=[row for row, change in accepted if not change],
        changing=frozenset(str(row.values["uscc"]) for row, change in accepted if change),
    )
    say(f"{len(firms.rows)} firms in the export; five departments join")
    identities = await _join(home, stack)
    say("Agreements, and the consents of four firms in five")
    consents = await _agree(stack, identities, firms)
    async with AsyncExitStack() as opened:
        watch = await opened.enter_async_context(Watch(stack.administrator, catalogue))
        children = _start_departments(home, stack)
        opened.callback(lambda: _stop(children))
        await _subscribed(children)
        run = _Run(home, stack, catalogue, identities, firms, consents, watch, children)
        say("Market regulation feeds its export; four others open what they may and issue their own")
        fed, result = await run.feed(path, department, opened)
        say("Waiting for the last certificates and withdrawals")
        await run.settle(expected["demo"])
        latencies = watch.latencies(fed)
    say("The auditor asks; everything is counted again from Kafka and PostgreSQL")
    return await _report(stack, catalogue, identities, firms, result, watch, latencies, begun)


class _Run:
    """The moving part: feed, withdrawals, the bank's second questions."""

    def __init__(
        self,
        home: Home,
        stack: Stack,
        catalogue: Catalogue,
        identities: Mapping[str, Identity],
        firms: Firms,
        consents: Mapping[str, str],
        watch: Watch,
        children: list[Child],
    ) -> None:
        self._home = home
        self._stack = stack
        self._catalogue = catalogue
        self._identities = identities
        self._firms = firms
        self._consents = consents
        self._watch = watch
        self._children = children
        self._asked_again = 0

    async def feed(self, path: Path, department: config.Department, opened: AsyncExitStack) -> tuple[float, Result]:
        """Feeds the export, the last rows at a counter's pace; returns when (Unix seconds) that pace began."""
        market = self._identities[MARKET.name]
        outbox = opened.enter_context(Outbox(self._home.path / "outbox" / f"{MARKET.name}.sqlite"))
        publisher = await opened.enter_async_context(
            Publisher(market, self._stack.kafka, self._catalogue, outbox=outbox)
        )
        client = await opened.enter_async_context(GatewayClient(market, self._stack.gateways))
        bank = await opened.enter_async_context(GatewayClient(self._identities["bank"], self._stack.gateways))
        trust = TrustFeed(Trust(market.authority), market.cluster(self._stack.kafka), "demo")
        await trust.start()
        opened.push_async_callback(trust.stop)
        before, others = self._firms.withdrawing()
        pace = _Pace(sum(1 for _ in path.open("rb")), self._watch)

        async def before_change(row: Accepted) -> None:
            uscc = str(row.values["uscc"])
            if uscc in before:
                await self._withdraw(publisher, client, row)

        feed = Feed(
            department,
            self._catalogue,
            lambda _: (publisher, outbox),
            self._home.path / "quarantine" / department.name,
            Exports(self._home.path / "outbox" / f"{department.name}.exports.json"),
            before_change=before_change,
            before_row=pace.row,
        )
        rows = {str(row.values["uscc"]): row for row in self._firms.rows}
        async with asyncio.TaskGroup() as tasks:
            fed = tasks.create_task(feed.run(path))
            tasks.create_task(self._withdraw_others(publisher, client, bank, trust.trust, [rows[u] for u in others]))
        return pace.began, fed.result()

    async def _withdraw_others(
        self, publisher: Publisher, client: GatewayClient, bank: GatewayClient, trust: Trust, rows: list[Accepted]
    ) -> None:
        for row in rows:
            await self._withdraw(publisher, client, row)
            await self._ask_again(bank, trust, str(row.values["uscc"]))

    async def _withdraw(self, publisher: Publisher, client: GatewayClient, row: Accepted) -> None:
        """After its bank certificate, so that the withdrawal has something to stop."""
        licence = publisher.reference(LICENCE, row.values)
        bank = self._identities["bank"].uscc
        await _within(self._watch.certificate(licence, bank), CERTIFICATE_SECONDS, "a bank certificate")
        await client.post_json("/v1/consents:act", {"id": self._consents[str(row.values["uscc"])], "act": "WITHDRAW"})

    async def _ask_again(self, bank: GatewayClient, trust: Trust, uscc: str) -> None:
        """The bank's own check looks the firm up, and must be refused."""
        identity = bank.identity
        request = secrets.token_bytes(16)
        answer = await bank.post_json(
            "/v1/licences:search",
            {
                "item": LICENCE,
                "subject": {"kind": "ORGANISATION", "id": uscc},
                "sections": ["identity"],
                "request": request.hex(),
                "recipient": identity.kem.id.hex(),
                "purpose": "account-opening",
                "ground": "CONSENT",
                "operator": "account-recheck-sync",
            },
        )
        _, secrets_ = open_grant(b64decode(answer["grant"]), request, identity.kem, trust, datetime.now(UTC))
        if secrets_:
            raise Unavailable(Code.CONSENT_WITHDRAWN, "a key left after its consent was withdrawn")
        self._asked_again += 1

    async def settle(self, expected: Mapping[str, Any]) -> None:
        """Until every certificate that is due is there and a checkpoint covers it all, or nothing moves any more."""
        due = {_uscc(name): count for name, count in expected["certificates"].items()}
        refused = sum(expected["refused"].values())
        moved, seen = time.monotonic(), (-1, -1)
        while True:
            certificates = self._watch.issued()
            covered = await _covered(self._stack.postgres)
            if all(certificates.get(uscc, 0) >= count for uscc, count in due.items()):
                asked, entries = await _count_refused(self._stack.administrator)
                if asked >= refused and covered >= entries:
                    return
            if (sum(certificates.values()), covered) != seen:
                moved, seen = time.monotonic(), (sum(certificates.values()), covered)
            _raise_if_dead(self._children)
            if time.monotonic() - moved > SETTLE_SECONDS:
                return  # the report says what is missing
            await asyncio.sleep(POLL_SECONDS)


class _Pace:
    """Full speed, then, once all of that is through, twenty rows a second."""

    def __init__(self, lines: int, watch: Watch) -> None:
        self._from = lines - PACED_ROWS
        self._watch = watch
        self._next = 0.0
        self.began = 0.0

    async def row(self, row: Row) -> None:
        if row.line < self._from:
            return
        if not self.began:
            # What still waits from the full feed is another measurement's.
            await _within(self._watch.quiet(QUIET_SECONDS), CERTIFICATE_SECONDS, "the end of the full feed")
            self.began, self._next = time.time(), time.monotonic()
        now = time.monotonic()
        await asyncio.sleep(max(0.0, self._next - now))
        self._next = max(self._next, now - 1 / PACE) + 1 / PACE


async def _join(home: Home, stack: Stack) -> dict[str, Identity]:
    bus = home.load_bus()
    joined: dict[str, Identity] = {}
    parties = [
        (MARKET.name, MARKET.uscc, [(LICENCE, "")], [], False),
        (AUDITOR.name, AUDITOR.uscc, [], [], True),
        *((d.name, d.uscc, [(d.item, "")], [LICENCE], False) for d in DEPARTMENTS),
    ]
    for name, uscc, issues, receives, auditor in parties:
        joined[name] = await bootstrap.add_org(
            bus,
            home.org_folder(name),
            stack.administrator,
            stack.postgres,
            name=name,
            uscc=uscc,
            issues=issues,
            receives=receives,
            auditor=auditor,
        )
    return joined


async def _agree(stack: Stack, identities: Mapping[str, Identity], firms: Firms) -> dict[str, str]:
    """The agreements of market regulation with each, and the firms' consents for the bank: their ids by credit code."""
    duties = {"tax": TAX_LAW, "human-resources": INSURANCE_LAW, "public-security": SEAL_RULE}
    consents: dict[str, str] = {}
    async with GatewayClient(identities[MARKET.name], stack.gateways) as client:
        for d in DEPARTMENTS:
            body = {
                "provider": identities[MARKET.name].uscc,
                "item": LICENCE,
                "sections": list(d.wanted.sections),
                "purposes": [d.wanted.purpose],
                "grounds": [d.wanted.ground],
                "duties": [duties[d.name]] if d.name in duties else [],
                "valid_from": "2025-08-01",
                # A firm may have changed before its first version is opened: each version is still its due.
                "superseded": True,
            }
            async with GatewayClient(identities[d.name], stack.gateways) as consumer:
                await agree(client, consumer, body)
        giving = [str(row.values["uscc"]) for row in firms.rows if firms.consents(str(row.values["uscc"]))]
        bank = identities["bank"].uscc
        for start_ in range(0, len(giving), CONSENTS_AT_ONCE):
            part = giving[start_ : start_ + CONSENTS_AT_ONCE]
            bodies = [_consent(uscc, bank) for uscc in part]
            made = await client.post_json("/v1/consents", {"consents": bodies})
            consents |= {uscc: one["id"] for uscc, one in zip(part, made, strict=True)}
    return consents


def _consent(uscc: str, recipient: str) -> dict[str, Any]:
    return {
        "subject": {"kind": "ORGANISATION", "id": uscc},
        "recipient": recipient,
        "purposes": ["account-opening"],
        "scopes": [{"item": LICENCE, "sections": ["identity"]}],
        "valid_from": "2025-08-01",
    }


def _start_departments(home: Home, stack: Stack) -> list[Child]:
    gateways = [part for url in stack.gateways for part in ("--gateway", url)]
    return [
        start(
            d.name,
            [
                *(sys.executable, "-m", "deploy.demo.department", d.name, "--home", home.path),
                *("--kafka", stack.kafka, *gateways),
            ],
            home.logs / f"{d.name}.log",
        )
        for d in DEPARTMENTS
    ]


def _stop(children: list[Child]) -> None:
    for child in children:
        child.signal_group(signal.SIGTERM)
    for child in children:
        try:
            child.process.wait(GRACE_SECONDS)
        except Exception:
            child.signal_group(signal.SIGKILL)
            child.process.wait()


async def _subscribed(children: list[Child]) -> None:
    """Every department's consumer has its partitions: then a latency is a latency, not a start."""
    deadline = time.monotonic() + CERTIFICATE_SECONDS
    while not all('"event": "subscribed"' in log_tail(child.log) for child in children):
        _raise_if_dead(children)
        if time.monotonic() > deadline:
            raise Unavailable(Code.CHILD_DEAD, "the departments did not subscribe: see their logs")
        await asyncio.sleep(POLL_SECONDS)


def _raise_if_dead(children: list[Child]) -> None:
    for child in children:
        error = child.dead()
        if error is not None:
            raise error


async def _report(
    stack: Stack,
    catalogue: Catalogue,
    identities: Mapping[str, Identity],
    firms: Firms,
    result: Result,
    watch: Watch,
    latencies: Mapping[str, Any],
    begun: float,
) -> dict[str, Any]:
    names = {d.uscc: d.name for d in DEPARTMENTS}
    opened, refused, waited = await _audited(stack.administrator, names)
    findings = await check.check(stack.administrator, stack.postgres, catalogue)
    shown = str(firms.rows[0].values["uscc"])
    async with GatewayClient(identities[AUDITOR.name], stack.gateways) as client:
        body = {"subject": {"kind": "ORGANISATION", "id": shown}, "kind": "Decision", "limit": 100}
        story = (await client.post_json("/v1/audit/entries:query", body))["entries"]
    fed = result.to_json()
    del fed["outcomes"]
    return {
        **fed,
        "firms": len(firms.rows),
        "certificates": {names[uscc]: count for uscc, count in sorted(watch.issued().items()) if uscc in names},
        "opened": opened,
        "refused": refused,
        "asked_before_admission": waited,
        "audit_entries": findings.entries,
        "releases_without_audit": len(findings.unaudited),
        "lost": len(findings.lost),
        "duplicated": len(findings.duplicated),
        "supervision_findings": await _within(_supervised(stack.postgres), CERTIFICATE_SECONDS, "supervision"),
        **latencies,
        "seconds": round(time.monotonic() - begun, 1),
        "outcomes": result.outcomes,
        "story": {"firm": shown, "entries": story},
    }


async def _audited(kafka: Cluster, names: Mapping[str, str]) -> tuple[dict[str, int], dict[str, int], int]:
    """Openings a department, refusals a code, and questions that came before the record was admitted."""
    opened: dict[bytes, str] = {}
    refused: Counter[str] = Counter()
    async for entry in _entries(kafka):
        if entry.kind == "Voided":
            opened.pop(entry.body["entry"], None)
        elif entry.kind == "Decision":
            codes = {section["code"] for section in entry.body["sections"]}
            if Code.PERMIT in codes:
                opened[entry.leaf_hash] = names.get(entry.body["consumer"], "")
            refused.update(codes - {Code.PERMIT.value})
    waited = refused.pop(Code.NOT_ADMITTED.value, 0)
    return dict(Counter(name for name in opened.values() if name)), dict(refused), waited


async def _count_refused(kafka: Cluster) -> tuple[int, int]:
    """Refusals of admitted records, and entries at all."""
    count = entries = 0
    async for entry in _entries(kafka):
        entries += 1
        if entry.kind == "Decision":
            codes = {section["code"] for section in entry.body["sections"]}
            count += bool(codes - {Code.PERMIT.value}) and Code.NOT_ADMITTED not in codes
    return count, entries


async def _covered(dsn: str) -> int:
    """How many entries the newest checkpoint covers."""
    connection = await db.connect(dsn)
    try:
        return int(await connection.fetchval("SELECT size FROM log_checkpoint") or 0)
    finally:
        await connection.close()


async def _supervised(dsn: str) -> int:
    """How much supervision found, once it has read everything that is published now."""
    connection = await db.connect(dsn)
    try:
        size = await connection.fetchval("SELECT size FROM log_checkpoint") or 0
        while await connection.fetchval("SELECT next_index FROM supervision_position") < size:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        return int(await connection.fetchval("SELECT count(*) FROM supervision_finding"))
    finally:
        await connection.close()


async def _entries(kafka: Cluster) -> AsyncIterator[Entry]:
    async for message in everything(kafka, [audit.TOPIC]):
        yield audit.parse(message.value)[0]


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What is not as it must be, in words."""
    wanted = {key: value for key, value in expected.items() if key not in ("demo", "outcomes")}
    wanted |= {key: expected["demo"][key] for key in ("firms", "certificates", "refused")}
    wanted |= {"releases_without_audit": 0, "lost": 0, "duplicated": 0, "supervision_findings": 0}
    wrong = [f"{key}: {found.get(key)} instead of {value}" for key, value in wanted.items() if found.get(key) != value]
    for line in sorted(expected["outcomes"].keys() | found["outcomes"].keys(), key=int):
        is_, should = found["outcomes"].get(line), expected["outcomes"].get(line)
        if is_ != should:
            wrong.append(f"line {line}: {is_ or 'a new licence'} instead of {should or 'a new licence'}")
    return wrong


def fresh(folder: Path) -> Home:
    """An empty home for the demo's bus: what it counts must not depend on an earlier run."""
    if folder.exists():
        shutil.rmtree(folder)
    return Home(folder.absolute())


async def _within(work: Awaitable[T], seconds: float, what: str) -> T:
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError as exc:
        raise Unavailable(Code.CHILD_DEAD, f"{what} did not come within {seconds:.0f} s: see the logs") from exc


def _uscc(name: str) -> str:
    return next(d.uscc for d in DEPARTMENTS if d.name == name)


def _department_file() -> Path:
    with resources.as_file(resources.files("adapters") / "departments" / "market-regulation.toml") as path:
        return path
