"""The catalogue and the powers to issue as they travel on `bus.catalogue`: what a publisher needs, and Kafka has.

Signed by a gateway of the bus, one value a document, compacted. The database is what decides: these are its copies, so
that a record that would not be admitted is refused before it is sealed.
"""

from __future__ import annotations

import json
from datetime import datetime
from uuid import UUID

from cryptography.exceptions import InvalidSignature

from bus.feed import Feed
from bus.pki import Role, Signer
from bus.transport import Cluster
from bus.trust import signed_text
from bus.trustfeed import TrustFeed
from consent.documents import canonical
from consent.issuing import Issuing, standing
from consent.model import CatalogueEntry, Power, PowerKind
from schemas.avro import wire_codec, wire_part
from schemas.errors import Code, Malformed, Refused

TOPIC = "bus.catalogue"
MAX_VALUE_BYTES = 64 * 1024  # a power over a thousand items in a thousand divisions has 40 KiB

_CODEC = wire_codec("Standing")
_UNSIGNED = wire_part("Standing", until="signature")
_KINDS: dict[str, type[CatalogueEntry | Power]] = {"item": CatalogueEntry, "power": Power}


def travels(document: object) -> bool:
    """Whether others are told of a document here: powers to open are nobody else's business."""
    return isinstance(document, CatalogueEntry) or (isinstance(document, Power) and document.right is PowerKind.ISSUE)


def standing_value(document: CatalogueEntry | Power, since: datetime, signer: Signer) -> bytes:
    """A `bus.catalogue` value, signed by a gateway's key. Its Kafka key is the document's id, 16 bytes."""
    fields = {
        "kind": document.kind,
        "body": canonical(document.body()),
        "revision": document.revision,
        "state": document.state.value,
        "since": since,
        "signer": signer.id,
    }
    fields["signature"] = signer.sign(signed_text("Standing", _UNSIGNED.encode(fields)))
    return _CODEC.encode(fields)


class CatalogueFeed(Feed):
    """Keeps an `Issuing` in step with the topic. `operator` owns the gateways whose word counts."""

    def __init__(self, trust: TrustFeed, operator: str, cluster: Cluster, client_id: str) -> None:
        super().__init__(TOPIC, cluster, f"{client_id}-catalogue")
        self._trust = trust
        self._operator = operator
        self.issuing = Issuing(operator)
        self.revisions: dict[UUID, int] = {}

    async def accept(self, key: bytes | None, value: bytes, at: datetime) -> None:
        """One document's standing. An old revision that comes again changes nothing."""
        if len(value) > MAX_VALUE_BYTES:
            raise Malformed(Code.RECORD_TOO_LARGE, f"a standing has at most {MAX_VALUE_BYTES} bytes")
        fields = _CODEC.decode(value)
        await self._verify(fields, at)
        kind = _KINDS.get(fields["kind"])
        if kind is None:
            raise Malformed(Code.RECORD_MALFORMED, "a standing is of an item or a power")
        try:
            body = json.loads(fields["body"])
        except ValueError as exc:
            raise Malformed(Code.RECORD_MALFORMED, "the body of a standing is no JSON") from exc
        document = kind.stored(body, fields["revision"], fields["state"])
        if key != document.id.bytes:
            raise Refused(Code.KEY_MISMATCH, "the Kafka key is not the document's id")
        if self.revisions.get(document.id, 0) < document.revision:
            self.revisions[document.id] = document.revision
            if (found := standing(document, fields["since"])) is not None:
                self.issuing.put(found)

    async def _verify(self, fields: dict[str, object], at: datetime) -> None:
        signer = fields["signer"]
        assert isinstance(signer, bytes)
        try:
            key = self._trust.trust.key(signer, Role.GATEWAY, at, self._operator)
        except Refused as exc:
            if exc.code is not Code.CERTIFICATE_UNKNOWN:
                raise
            await self._trust.catch_up()  # of a gateway that joined a moment ago: its certificate came first
            key = self._trust.trust.key(signer, Role.GATEWAY, at, self._operator)
        try:
            key.verify(fields["signature"], signed_text("Standing", _UNSIGNED.encode(fields)))  # type: ignore[arg-type]
        except InvalidSignature as exc:
            raise Refused(Code.SIGNATURE_INVALID, "the standing's signature does not hold") from exc
