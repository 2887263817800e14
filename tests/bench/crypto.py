"""`seal` and `open`: no engines, our sealing beside a field-encrypting serialiser."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from bus import envelope, sealing, session
from bus.opening import open_section
from bus.outbox import Sealed
from bus.proof import ProofVerifier
from schemas.item import ItemSchema
from tests.bench.department import ORIGIN, Department, department
from tests.bench.measure import Outcome, Said, compare
from tests.bench.peer import FieldEncryption
from tests.bench.sample import BATCH, drafts, item, licences

OUR_RECORDS = 48 * BATCH  # about a second a round
PEER_RECORDS = 16 * BATCH

# By record: the section secrets, as a grant would give them.
Keys = Sequence[tuple[tuple[str, bytes], ...]]


def seal(said: Said) -> Outcome:
    """Validate, seal, sign; beside validate-less encode and encrypt of four fields."""
    with TemporaryDirectory() as folder:
        issuer = department(Path(folder))
        sealer = issuer.sealer()
        sealer.open_session(issuer.recipient, datetime.now(UTC))
        library = FieldEncryption(item().schema)

        def ours(number: int) -> float:
            batches = list(drafts(OUR_RECORDS, number * OUR_RECORDS))
            began = time.perf_counter()
            for batch in batches:
                sealer.seal(batch)
            return OUR_RECORDS / (time.perf_counter() - began)

        def peer(number: int) -> float:
            values = list(licences(PEER_RECORDS, number * PEER_RECORDS))
            began = time.perf_counter()
            for one in values:
                library.encode(one)
            return PEER_RECORDS / (time.perf_counter() - began)

        return compare(ours, peer, floor=2.0, said=said)


def open_records(said: Said) -> Outcome:
    """Parse, verify signature and place, open and decode all three sections; beside decrypt and decode."""
    with TemporaryDirectory() as folder:
        issuer = department(Path(folder))
        library = FieldEncryption(item().schema)
        schema = item().schema

        def ours(number: int) -> float:
            sealed, keys = _sealed(issuer, number)
            verifier = ProofVerifier()  # a new one a round: nothing is remembered from the round before
            now = datetime.now(UTC)
            began = time.perf_counter()
            for one, secrets in zip(sealed, keys, strict=True):
                _open(one, secrets, schema, issuer, verifier, now)
            return OUR_RECORDS / (time.perf_counter() - began)

        def peer(number: int) -> float:
            values = [library.encode(one) for one in licences(PEER_RECORDS, number * PEER_RECORDS)]
            began = time.perf_counter()
            for value in values:
                library.decode(value)
            return PEER_RECORDS / (time.perf_counter() - began)

        return compare(ours, peer, floor=1.5, said=said)


def _sealed(issuer: Department, number: int) -> tuple[list[Sealed], Keys]:
    """A round's records, and their keys made the way a gateway makes them."""
    sealer = issuer.sealer()
    opened = sealer.open_session(issuer.recipient, datetime.now(UTC))
    roots = session.roots(opened, issuer.gateway, item().schema.sections)
    trees = {name: sealing.LeafKeys(root) for name, root in roots.items()}
    sealed = [one for batch in drafts(OUR_RECORDS, number * OUR_RECORDS) for one in sealer.seal(batch)]
    records = [envelope.parse(one.value) for one in sealed]
    keys = [
        tuple((name, sealing.section_secret(tree.node(r.claims.leaf), r.prefix)) for name, tree in trees.items())
        for r in records
    ]
    return sealed, keys


def _open(
    sealed: Sealed,
    secrets: tuple[tuple[str, bytes], ...],
    schema: ItemSchema,
    issuer: Department,
    verifier: ProofVerifier,
    now: datetime,
) -> None:
    record = envelope.parse(sealed.value)
    envelope.check_place(record, sealed.topic, sealed.key)
    envelope.verify(record, ORIGIN, issuer.trust, verifier, now)
    for name, secret in secrets:
        open_section(schema, record, name, secret)
