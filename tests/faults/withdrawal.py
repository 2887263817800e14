"""Consents are withdrawn while two gateways release on them, as much as they can; then one of them loses PostgreSQL.

A consent is withdrawn when the answer to its withdrawal is there. From then on no request that begins brings its keys,
and no permit on it comes into the log (by the broker's clock) but one that is voided there. A gateway that is cut off
from PostgreSQL releases nothing, and what it had decided when the line broke is voided.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

import httpx
import psutil

from bus import audit
from bus.messages import KeyRequest, open_grant
from bus.outbox import Sealed
from bus.pki import write_private
from schemas.errors import Code
from tests.faults.cut import Line
from tests.faults.plant import Plant
from tests.faults.stall import two_gateways
from tests.integration.bus import LICENCE, PURPOSE, Parties, World, fresh_number, key_request, reads

WITHDRAWALS = 200
CUT_OFF = 5  # consents that the gateway without PostgreSQL is asked about
CLIENTS = 3  # requests under way at each gateway: it never waits for one
READS = 20  # records a request: as many consents that may just be withdrawn
APART_SECONDS = 0.05  # from one withdrawal to the next
WATCH_SECONDS, ASK_SECONDS = 2.0, 0.2  # without PostgreSQL: how long it is asked anew, and how often
BOUND_SECONDS = 60.0  # for whatever hangs in its own bounds: a statement has 20, a connection 10
BACK_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One key request: when it began, what it asked about, and what came."""

    began: float
    request: KeyRequest
    asked: tuple[Sealed, ...]
    status: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawals:
    """What became of consents that were withdrawn under load. `late` ones are what must not be."""

    withdrawn: int
    opened_before: int  # of those, how many opened something until then
    decisions_a_second: float
    voided: int  # permits that a withdrawal overtook
    late_keys: int  # brought by a request that began after the answer
    late_permits: int  # in the log after the answer, and not voided
    codes: tuple[str, ...]  # what requests that began after the answer were told

    @property
    def good(self) -> bool:
        """Each was in use, and then at once of no use."""
        told = self.codes == (Code.CONSENT_WITHDRAWN,)
        return 0 < self.withdrawn == self.opened_before and told and not (self.late_keys or self.late_permits)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOff:
    """What a gateway said from the moment on in which its line to PostgreSQL was cut."""

    silent: bool
    answers: int
    said: tuple[str, ...]  # status and code of each answer to a request that began then
    permits: int  # in the log since then, and not voided
    seconds: float  # until the last request was answered
    back: tuple[str, ...]  # with PostgreSQL again: of the consent that was withdrawn meanwhile elsewhere, of the others

    @property
    def good(self) -> bool:
        """Nothing but 'ask again', and afterwards it knows what was withdrawn."""
        denied = self.said == (f"503 {Code.POSTGRES_UNAVAILABLE}",) and self.answers > 0 and self.permits == 0
        return denied and self.back == (Code.CONSENT_WITHDRAWN, Code.PERMIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """Both."""

    under_load: Withdrawals
    cut_off: CutOff

    @property
    def good(self) -> bool:
        """Whether consent counts when it is withdrawn, and only while anybody can say so."""
        return self.under_load.good and self.cut_off.good


async def withdrawal(plant: Plant, count: int = WITHDRAWALS, *, silent: bool = True) -> Withdrawal:
    """On the plant's gateway and a second one, whose line to PostgreSQL is cut in the end."""
    async with Line(plant.postgres_port) as line:
        dsn = plant.folder / "dsn-by-line"
        write_private(dsn, plant.dsn.replace(f":{plant.postgres_port}/", f":{line.port}/").encode())
        async with two_gateways(plant, dsn) as world:
            under_load = await withdrawals(world, count)
            return Withdrawal(under_load=under_load, cut_off=await cut_off(world, line, silent=silent))


async def withdrawals(world: World, count: int) -> Withdrawals:
    """Withdraws one after the other while both gateways are asked for all.

    The other gateway stands still from just before the withdrawal until its answer: what it has decided by then, it
    writes into the log afterwards.
    """
    processes = [_process(url) for url in world.place.gateways]
    parties = await world.parties()
    sealed, consents = await _consented(world, parties, count)
    before = len(await world.on_topic(audit.TOPIC))
    answered: dict[bytes, float] = {}
    begun = time.time()
    async with _load(world, parties, sealed, (0, 1)) as answers:
        await world.until(lambda: _all_asked(answers, sealed))
        for at, (one, consent) in enumerate(zip(sealed, consents, strict=True)):
            processes[1 - at % 2].suspend()
            try:
                await world.withdraw(parties, consent, at % 2)
                answered[one.leaf_hash] = time.time()
            finally:
                processes[1 - at % 2].resume()
            await asyncio.sleep(APART_SECONDS)
        enough = len(answers) + 10 * CLIENTS
        await world.until(lambda: _so_many(answers, enough))
    seconds = time.time() - begun
    opened: set[bytes] = set()
    late_keys, codes = 0, set()
    for answer in answers:
        for leaf, (code, key) in _codes(world, parties, answer).items():
            if key:
                opened.add(leaf)
            if answer.began > answered[leaf]:
                late_keys += key
                codes.add(code)
    entries = (await world.on_topic(audit.TOPIC))[before:]
    late = [leaf for leaf, at in _permits(entries) if leaf in answered and at > answered[leaf]]
    return Withdrawals(
        withdrawn=len(answered),
        opened_before=len(opened),
        decisions_a_second=round(sum(len(answer.asked) for answer in answers) / seconds),
        voided=sum(audit.parse(entry.value)[0].kind == "Voided" for entry in entries),
        late_keys=late_keys,
        late_permits=len(late),
        codes=tuple(sorted(codes)),
    )


async def cut_off(world: World, line: Line, *, silent: bool) -> CutOff:
    """Cuts the second gateway off under load, withdraws at the first, and mends the line."""
    parties = await world.parties()
    sealed, consents = await _consented(world, parties, CUT_OFF)
    leaves = {one.leaf_hash for one in sealed}
    async with _load(world, parties, sealed, (1,)) as answers:
        await world.until(lambda: _all_asked(answers, sealed))
        began = time.time()
        (line.silence if silent else line.reset)()
        asking: list[asyncio.Task[Answer]] = []
        while time.time() < began + WATCH_SECONDS:  # new ones: those under way hold on until they give up
            asking.append(asyncio.create_task(_ask(world, parties, sealed, 1)))
            await asyncio.sleep(ASK_SECONDS)
        await world.withdraw(parties, consents[0], 0)
        since = await world.within(asyncio.gather(*asking), BOUND_SECONDS)
    seconds = time.time() - began
    permits = [leaf for leaf, at in _permits(await world.on_topic(audit.TOPIC)) if leaf in leaves and at > began]
    line.mend()
    await world.until(lambda: _releases(world, parties, sealed[1]), BACK_SECONDS)
    back = [(await world.codes(parties.consumer, one, 1, **BY_CONSENT))[0] for one in sealed]
    return CutOff(
        silent=silent,
        answers=len(since),
        said=tuple(sorted({_said(one) for one in since})),
        permits=len(permits),
        seconds=round(seconds, 1),
        back=tuple(dict.fromkeys(back)),
    )


BY_CONSENT = {"ground": "CONSENT", "citation": ""}


async def _consented(world: World, parties: Parties, count: int) -> tuple[list[Sealed], list[Mapping[str, Any]]]:
    """Firms' licences with a consent each."""
    sealed, values = await world.firms(parties.provider, count)
    bodies = [
        {
            "subject": {"kind": "ORGANISATION", "id": one["uscc"]},
            "recipient": parties.consumer.uscc,
            "purposes": [PURPOSE],
            "scopes": [{"item": LICENCE, "sections": ["identity"]}],
            "valid_from": "2020-01-01",
        }
        for one in values
    ]
    return sealed, await world.post(parties.provider, "/v1/consents", {"consents": bodies})


@asynccontextmanager
async def _load(
    world: World, parties: Parties, sealed: Sequence[Sealed], gateways: Sequence[int]
) -> AsyncIterator[list[Answer]]:
    """Asks all the time; at the end waits for what is under way."""
    answers: list[Answer] = []
    done = asyncio.Event()
    random = Random(fresh_number())

    async def ask(gateway: int) -> None:
        while not done.is_set():
            some = random.sample(sealed, min(READS, len(sealed)))
            answers.append(await _ask(world, parties, some, gateway))

    async with asyncio.timeout(None) as bound, asyncio.TaskGroup() as tasks:
        for gateway in gateways:
            for _ in range(CLIENTS):
                tasks.create_task(ask(gateway))
        try:
            yield answers
        finally:
            done.set()
            bound.reschedule(asyncio.get_running_loop().time() + BOUND_SECONDS)


def _process(url: str) -> psutil.Process:
    """The gateway that listens there."""
    wanted = {"deploy.process", "gateway", url.rpartition(":")[2]}
    return next(one for one in psutil.process_iter(["cmdline"]) if wanted <= set(one.info["cmdline"] or ()))


async def _ask(world: World, parties: Parties, asked: Sequence[Sealed], gateway: int) -> Answer:
    request = key_request(parties.consumer, reads(asked), **BY_CONSENT)
    began = time.time()
    answer = await world.send(parties.consumer, request.encode(), gateway=world.place.gateways[gateway])
    return Answer(began=began, request=request, asked=tuple(asked), status=answer.status_code, body=answer.content)


def _codes(world: World, parties: Parties, answer: Answer) -> dict[bytes, tuple[str, bool]]:
    """By record: the section's code, and whether its key came."""
    assert answer.status == httpx.codes.OK, answer.body
    now = datetime.now(UTC)
    grant, keys = open_grant(answer.body, answer.request.request, parties.consumer.kem, world.trust, now)
    there = {leaf for leaf, _ in keys}
    return {one.leaf_hash: (dict(one.sections)["identity"], one.leaf_hash in there) for one in grant.results}


def _permits(entries: Sequence[Any]) -> list[tuple[bytes, float]]:
    """Records that entries permit something of, and when the broker had each, but for those that were voided."""
    parsed = [(audit.parse(entry.value)[0], entry.timestamp / 1_000) for entry in entries]
    voided = {entry.body["entry"] for entry, _ in parsed if entry.kind == "Voided"}
    return [
        (entry.body["record"], at)
        for entry, at in parsed
        if entry.kind == "Decision"
        and any(section["code"] == Code.PERMIT for section in entry.body["sections"])
        and entry.leaf_hash not in voided
    ]


async def _all_asked(answers: Sequence[Answer], sealed: Sequence[Sealed]) -> bool:
    return {one.leaf_hash for answer in answers for one in answer.asked} >= {one.leaf_hash for one in sealed}


async def _so_many(answers: Sequence[Answer], count: int) -> bool:
    return len(answers) >= count


async def _releases(world: World, parties: Parties, sealed: Sealed) -> bool:
    return (await _ask(world, parties, [sealed], 1)).status == httpx.codes.OK


def _said(answer: Answer) -> str:
    if answer.status == httpx.codes.OK:
        return "200"
    return f"{answer.status} {httpx.Response(answer.status, content=answer.body).json()['code']}"
