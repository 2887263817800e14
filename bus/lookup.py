"""The clerk's side of the SDK: look a subject's licences up, or one record, verified and opened in the same call.

A record that does not verify is refused as a whole: nothing unverified is shown to a clerk.
"""

from __future__ import annotations

import secrets
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from bus import envelope
from bus.client import GatewayClient, Wanted
from bus.envelope import Record
from bus.messages import Read, Result, open_grant
from bus.opening import OpenedRecord, Secrets, elsewhere, open_record, schema_of
from bus.proof import ProofVerifier
from bus.trust import Trust
from schemas.catalogue import Catalogue
from schemas.errors import Code, Malformed


async def search(
    client: GatewayClient,
    trust: Trust,
    catalogue: Catalogue,
    item: str,
    subject: Mapping[str, str],
    wanted: Wanted,
    as_of: date | None = None,
) -> list[OpenedRecord]:
    """A subject's licences in force today, or as they stood on a day. `subject` is `{kind, id}`.

    Raises `Unavailable`, `Refused`, `Malformed`. Sections that may not be opened are in each record's `refused`.
    """
    client.identity.refresh()
    request, kem = secrets.token_bytes(16), client.identity.kem
    answer = await client.post_json(
        "/v1/licences:search",
        {
            "item": item,
            "subject": dict(subject),
            "sections": wanted.sections,
            "request": request.hex(),
            "recipient": kem.id.hex(),
            "purpose": wanted.purpose,
            "ground": wanted.ground,
            "operator": wanted.operator,
            "citation": wanted.citation,
            "case": wanted.case,
            "agent": wanted.agent,
            "as_of": None if as_of is None else as_of.isoformat(),
        },
    )
    if answer["grant"] is None:
        return []
    grant, keys = open_grant(
        b64decode(answer["grant"]), request, kem, trust, datetime.now(UTC), client.identity.gateway_owner
    )
    results = {result.leaf_hash: result for result in grant.results}
    opened: list[OpenedRecord] = []
    for text in answer["records"]:
        record = envelope.parse(b64decode(text))
        if record.leaf_hash not in results:
            raise Malformed(Code.GRANT_INVALID, "the grant does not speak of a record that came with it")
        verify(record, trust, client.identity.origin)
        result, found = results[record.leaf_hash], keys
        if elsewhere(result):
            sections = tuple(name for name, _ in result.sections)
            result, found = await _key_of(client, trust, record, sections, wanted)
        opened.append(open_record(record, schema_of(catalogue, record), result, found))
    return opened


async def fetch(client: GatewayClient, record: str) -> bytes:
    """A record's sealed value (Kafka bytes) by its leaf hash in hex, for those that may read its topic."""
    answer: Any = await client.post_json("/v1/records:show", {"record": record})
    return b64decode(answer["value"])


async def open_one(
    client: GatewayClient, trust: Trust, catalogue: Catalogue, value: bytes, wanted: Wanted
) -> OpenedRecord:
    """A sealed value, verified, and opened as far as the gateway allows. Raises as `search`."""
    record = envelope.parse(value)
    verify(record, trust, client.identity.origin)
    there = {name for name, _ in record.claims.sections}
    sections = tuple(name for name in wanted.sections if name in there)
    return open_record(record, schema_of(catalogue, record), *await _key_of(client, trust, record, sections, wanted))


async def _key_of(
    client: GatewayClient, trust: Trust, record: Record, sections: tuple[str, ...], wanted: Wanted
) -> tuple[Result, Secrets]:
    """What the gateway that opens the record's session answers."""
    for owner in client.owners(trust, record.claims.issuer):
        grant, keys = await client.keys(trust, [Read(record.claims_bytes, sections)], wanted, owner=owner)
        if not elsewhere(grant.results[0]):
            break
    return grant.results[0], keys


async def may_pass_on(client: GatewayClient, record: Record, to: str, wanted: Wanted) -> dict[str, Code]:
    """Whether sections of a record may go on to a department or firm by its credit code (转提供): a code for each.

    The answer is an entry of the audit log. Raises as `search`.
    """
    body = {
        "record": record.leaf_hash.hex(),
        "sections": wanted.sections,
        "to": to,
        "purpose": wanted.purpose,
        "ground": wanted.ground,
        "operator": wanted.operator,
        "citation": wanted.citation,
        "case": wanted.case,
        "agent": wanted.agent,
    }
    answer: Any = await client.post_json("/v1/disclosures:check", body)
    return {one["section"]: Code(one["code"]) for one in answer["sections"]}


def verify(record: Record, trust: Trust, origin: str) -> None:
    """The issuer's signature holds, by a certificate that was valid when the record says it was made.

    That time is the issuer's word; that the record is admitted is the gateway's, and stands in its grant.
    """
    envelope.verify(record, origin, trust, ProofVerifier(), envelope.made_at(record.claims))
