"""`python -m tests.chaos.load publisher|subscriber|citizen`: what a bus under faults has to carry, for ever.

Each notes in a file, by one write a batch, what it was told: then the checker holds the bus to it. A publisher issues
licences and changes them; the subscriber opens each into a sink; the citizen gives consents, has them used at both
gateways all the time, and withdraws them. Whichever ends, killed, for want of an engine or because its clock is wrong,
is started again, and goes on from its own store.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from adapters.sink import PostgresSink
from bus import audit, envelope
from bus.client import GatewayClient
from bus.identity import Identity
from bus.kafka import bounded, consumer, partitions_of
from bus.logs import configure
from bus.messages import Read
from bus.outbox import Outbox, Sealed
from bus.publisher import Publisher
from bus.sealer import Draft
from bus.subscriber import Opened, Subscriber, Wanted
from bus.transport import Cluster, Login
from bus.trust import Trust
from bus.trustfeed import TrustFeed
from schemas.catalogue import Catalogue
from schemas.errors import Code, DeptbusError, Refused, Unavailable
from schemas.operations import Operation
from tests.faults.firms import firm
from tests.faults.plant import CONSUMER, DUTY, ITEM, PROVIDER, PURPOSE, SECTION

ISSUED, CHANGED = 48, 16  # of a batch
BEHIND = 100  # batches until an issued licence is changed: by then its first version was read
CONSENTS = 8  # that are in use at a time
USED_SECONDS = 2.0  # before they are withdrawn, one after the other
APART_SECONDS = 0.2
RETRY_SECONDS = 0.3
END_SECONDS = 5.0


async def publisher(a: argparse.Namespace) -> None:
    """`--rate` records a second since it first began: after an outage as fast as it can, until it is where it would be.

    A department's work does not wait for the bus; nor for this process, which ends with an outage and is started again.
    """
    identity, progress = Identity.load(a.plant / "orgs" / PROVIDER[0]), a.folder / "batch"
    with Outbox(a.folder / "outbox.sqlite") as outbox:
        staged = outbox.pending()
        async with Publisher(identity, a.kafka, Catalogue.load(), outbox=outbox) as sdk:
            _note(a.folder / "acknowledged", [one.leaf_hash.hex() for one in staged])  # it sent them when it connected
            since = a.folder / "since"
            if not since.exists():
                _set(since, int(time.monotonic()))  # the machine's, which nobody steps
            begun = _number(since)
            for number in itertools.count(_number(progress)):
                await asyncio.sleep(begun + number * (ISSUED + CHANGED) / a.rate - time.monotonic())
                drafts = _batch(sdk, outbox, a.first, number)
                if drafts:
                    sealed = await sdk.publish(drafts)
                    _note(a.folder / "acknowledged", [one.leaf_hash.hex() for one in sealed])
                _set(progress, number + 1)


def _batch(sdk: Publisher, outbox: Outbox, first: int, number: int) -> list[Draft]:
    """New licences, and changes of old ones; but what was staged before the last end of this process."""
    fresh = range(first + number * ISSUED, first + (number + 1) * ISSUED)
    old = (
        range(first + (number - BEHIND) * ISSUED, first + (number - BEHIND) * ISSUED + CHANGED)
        if number >= BEHIND
        else ()
    )
    drafts = []
    for sequence, firms in ((1, fresh), (2, old)):
        for values in map(firm, firms):
            known = outbox.licence(sdk.reference(ITEM, values))
            if (known.sequence if known else 0) < sequence:
                drafts.append(_draft(values, sequence))
    return drafts


async def subscriber(a: argparse.Namespace) -> None:
    """Opens everything from where the sink stands."""
    identity = Identity.load(a.plant / "orgs" / CONSUMER[0])
    async with PostgresSink(a.dsn, a.table, {"name": "text", "uscc": "text"}) as sink:
        sdk = Subscriber(
            identity,
            a.kafka,
            a.gateways,
            Catalogue.load(),
            group=a.table,
            items=[ITEM],
            wanted=Wanted(
                sections=(SECTION,), purpose=PURPOSE, ground="STATUTORY_DUTY", operator="chaos", citation=DUTY
            ),
            offsets=await sink.offsets(),
        )

        async def handle(batch: Sequence[Opened]) -> None:
            # Before the sink has it: a crash here leaves a release that is noted, and is noted again.
            opened = [one for one in batch if one.sections]
            _note(a.folder / "released", [_release(one.leaf_hash, one.entry, one.sections) for one in opened])
            await sink.write(batch)

        await sdk.run(handle)


class Citizen:
    """Firms' consents: used at every gateway, withdrawn, and never used again."""

    def __init__(self, a: argparse.Namespace, trust: Trust, log_end: Callable[[], Awaitable[int]]) -> None:
        self._a = a
        self._trust = trust
        self._log_end = log_end
        self._provider = Identity.load(a.plant / "orgs" / PROVIDER[0])
        self._consumer = Identity.load(a.plant / "orgs" / CONSUMER[0])
        self._reads: list[Read] = []
        self._withdrawn: dict[bytes, float] = {}  # when the answer was there, by a clock that nobody steps

    async def run(self) -> None:
        """Round after round, each with new firms."""
        progress = self._a.folder / "round"
        with Outbox(self._a.folder / "outbox.sqlite") as outbox:
            staged = outbox.pending()
            async with Publisher(self._provider, self._a.kafka, Catalogue.load(), outbox=outbox) as sdk:
                self._acknowledged(staged)
                for number in itertools.count(_number(progress)):
                    _set(progress, number + 1)  # firms of a round that breaks off are not taken again
                    first = self._a.first + number * CONSENTS
                    await self._round(sdk, [firm(n) for n in range(first, first + CONSENTS)])

    async def _round(self, sdk: Publisher, firms: Sequence[dict[str, Any]]) -> None:
        sealed = await sdk.publish([_draft(values, 1) for values in firms])
        self._acknowledged(sealed)
        bodies = [
            {
                "subject": {"kind": "ORGANISATION", "id": values["uscc"]},
                "recipient": self._consumer.uscc,
                "purposes": [PURPOSE],
                "scopes": [{"item": ITEM, "sections": [SECTION]}],
                "valid_from": "2020-01-01",
            }
            for values in firms
        ]
        async with GatewayClient(self._provider, self._a.gateways) as client:
            consents = await client.post_json("/v1/consents", {"consents": bodies})
            self._reads = [Read(envelope.parse(one.value).claims_bytes, (SECTION,)) for one in sealed]
            async with asyncio.TaskGroup() as tasks:
                asking = [tasks.create_task(self._use(url)) for url in self._a.gateways]
                await asyncio.sleep(USED_SECONDS)
                for one, consent in zip(sealed, consents, strict=True):
                    await self._withdraw(client, one.leaf_hash, consent["id"])
                    await asyncio.sleep(APART_SECONDS)
                await asyncio.sleep(USED_SECONDS)
                for task in asking:
                    task.cancel()

    async def _withdraw(self, client: GatewayClient, leaf: bytes, consent: str) -> None:
        """Asks until it is answered: whether a lost answer was a yes, nobody knows."""
        while True:
            try:
                await client.post_json("/v1/consents:act", {"id": consent, "act": "WITHDRAW", "reason": ""})
            except Unavailable:
                await asyncio.sleep(RETRY_SECONDS)
            except Refused as exc:
                if exc.code is Code.STATE_INVALID:
                    break  # the lost answer was a yes
                await asyncio.sleep(RETRY_SECONDS)  # the gateway's clock is elsewhere
            else:
                break
        self._withdrawn[leaf] = time.monotonic()
        _note(self._a.folder / "withdrawn", [f"{leaf.hex()} {await self._log_end()}"])

    async def _use(self, gateway: str) -> None:
        """Asks one gateway for all of them, again and again."""
        wanted = Wanted(sections=(SECTION,), purpose=PURPOSE, ground="CONSENT", operator="chaos")
        async with GatewayClient(self._consumer, [gateway]) as client:
            while True:
                began = time.monotonic()
                try:
                    grant, keys = await client.keys(self._trust, self._reads, wanted)
                except DeptbusError:  # it is away, or its clock is elsewhere
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                entries = {one.leaf_hash: one.entry for one in grant.results}
                _note(self._a.folder / "released", [_release(leaf, entries[leaf], (name,)) for leaf, name in keys])
                late = [leaf for leaf, _ in keys if began > self._withdrawn.get(leaf, began)]
                _note(self._a.folder / "late", [leaf.hex() for leaf in late])
                await asyncio.sleep(APART_SECONDS)

    def _acknowledged(self, sealed: Sequence[Sealed]) -> None:
        _note(self._a.folder / "acknowledged", [one.leaf_hash.hex() for one in sealed])


async def citizen(a: argparse.Namespace) -> None:
    """Consents, round after round."""
    identity = Identity.load(a.plant / "orgs" / CONSUMER[0])
    feed = TrustFeed(Trust(identity.authority), identity.cluster(a.kafka), "citizen")
    # Nobody but the bus reads the log: as who observes all of this.
    reader = await consumer(Cluster(servers=a.internal, login=Login.load(a.observer)), "citizen")
    try:
        await feed.start()
        partitions = await partitions_of(reader, audit.TOPIC)

        async def log_end() -> int:
            while True:
                try:
                    ends = await bounded(reader.end_offsets(partitions), END_SECONDS, "reading the log's end")
                    return int(max(ends.values()))
                except Unavailable:
                    await asyncio.sleep(RETRY_SECONDS)

        await Citizen(a, feed.trust, log_end).run()
    finally:
        await feed.stop()
        await reader.stop()


def _draft(values: dict[str, Any], sequence: int) -> Draft:
    return Draft(
        item=ITEM,
        operation=Operation.ISSUED if sequence == 1 else Operation.CHANGED,
        values=values,
        sequence=sequence,
        occurred_at=datetime.now(UTC),
        region="330411",
    )


def _release(leaf: bytes, entry: bytes, sections: Iterable[str]) -> str:
    return f"{leaf.hex()} {entry.hex()} {','.join(sections)}"


def _note(path: Path, lines: Sequence[str]) -> None:
    """By one write, so that a process which is killed leaves no half line."""
    if lines:
        with path.open("ab", buffering=0) as file:
            file.write("".join(f"{line}\n" for line in lines).encode("ascii"))


def _number(path: Path) -> int:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return 0


def _set(path: Path, number: int) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(str(number), "ascii")
    temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("publisher", "subscriber", "citizen"))
    parser.add_argument("--plant", type=Path, required=True, help="where the departments' keys are")
    parser.add_argument("--folder", type=Path, required=True, help="this process's own")
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--internal", default="")
    parser.add_argument("--observer", type=Path)
    parser.add_argument("--gateway", dest="gateways", action="append", default=[])
    parser.add_argument("--dsn", default="")
    parser.add_argument("--table", default="")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0)
    arguments = parser.parse_args()
    configure(arguments.what)
    work = {"publisher": publisher, "subscriber": subscriber, "citizen": citizen}[arguments.what]
    try:
        uvloop.run(work(arguments))
    except DeptbusError as exc:
        print(exc, file=sys.stderr)
        sys.exit(exc.exit_code)


if __name__ == "__main__":
    main()
