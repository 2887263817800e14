"""The worked example that opens `bus/FORMATS.md`: one small record, from values to Kafka value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bus import merkle, pseudonyms, sealing
from bus.envelope import batch_origin
from schemas.item import ItemSchema
from tests.vectors import world
from tests.vectors.records import Case
from tests.vectors.world import ISSUER, LEAF, ORIGIN, PREFIX, RECORD, SESSION_ID, SESSION_SECRET, array, make, text

ITEM = "example-licence"
SECTION = "identity"
SCHEMA = ItemSchema.parse(
    b'{"type":"record","name":"ExampleLicence","namespace":"deptbus.items","fields":['
    b'{"name":"name","type":"string","section":"identity"},{"name":"uscc","type":"string","section":"identity"}]}'
)
VALUES = {"name": "辉恒纺织有限公司", "uscc": "91330106MA26Y2B582"}
KEY = pseudonyms.item_key(world.PSEUDONYM_ROOT, ITEM, 1)
CHANGED: Mapping[str, bytes] = {
    "item": text(ITEM),
    "schema": SCHEMA.digest,
    "subjects": array([world.subject(pseudonym=pseudonyms.subject(KEY, "ORGANISATION", VALUES["uscc"]))]),
    "licence": pseudonyms.licence(KEY, [VALUES["uscc"]]),
}
PLAIN = text(VALUES["name"]) + text(VALUES["uscc"])
MADE = make(prefix=CHANGED, plain={SECTION: PLAIN}, index=1, size=2)


def cases() -> Iterator[Case]:
    root = sealing.section_root(SESSION_SECRET, SECTION)
    commitment = MADE.sections[0][1]
    secret = MADE.secrets[SECTION]
    fields: dict[str, Any] = {
        "note": "Every step from values to the Kafka value of one small record.",
        "expect": "ok",
        "origin": ORIGIN,
        "authority": world.CA.der.hex(),
        "certificates": [one.hex() for one in world.trusted(RECORD)],
        "broker_time": f"{world.AT:%Y-%m-%dT%H:%M:%SZ}",
        "topic": f"licence.{ITEM}",
        "key": CHANGED["licence"].hex(),
        "schema_document": SCHEMA.document.hex(),
        "schema_digest": SCHEMA.digest.hex(),
        "values": VALUES,
        "pseudonym_root": world.PSEUDONYM_ROOT.hex(),
        "pseudonym_key": KEY.hex(),
        "prefix_fields": {name: raw.hex() for name, raw in {**PREFIX, **CHANGED}.items()},
        "prefix": MADE.prefix.hex(),
        "session_secret": SESSION_SECRET.hex(),
        "leaf": LEAF,
        "root": root.hex(),
        "node": sealing.LeafKeys(root).node(LEAF).hex(),
        "secret": secret.hex(),
        "salt": sealing.salt_of(secret).hex(),
        "plain": (PLAIN + bytes(-len(PLAIN) % sealing.PAD_TO)).hex(),
        "commitment": commitment.hex(),
        "body_key": sealing.expand(secret, b"deptbus/1 key" + commitment).hex(),
        "body": MADE.bodies[3:-1].hex(),
        "claims": MADE.claims.hex(),
        "leaf_hash": MADE.leaf_hash.hex(),
        "other_leaf_hash": merkle.leaf_hash(b"another record 0").hex(),
        "batch_root": MADE.root.hex(),
        "batch_origin": batch_origin(ORIGIN, ISSUER, SESSION_ID, LEAF - 1),
        "checkpoint": MADE.checkpoint.decode(),
        "signing_key": world.fixed(f"key RECORD {ISSUER}").hex(),
        "signer": RECORD.id.hex(),
        "signature": RECORD.sign(MADE.checkpoint).hex(),
        "bodies": MADE.bodies.hex(),
        "proof": MADE.proof.hex(),
        "value": MADE.value.hex(),
    }
    yield "example", "ok", fields
