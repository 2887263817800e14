"""Every vector gives what its file says, with exactly its own code.

The files are checked as another implementation would: from the JSON alone, without the generator that wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bus import audit, disclosure, envelope, hpke, merkle, messages, pseudonyms, sealing, session, sets
from bus.opening import decode_section, open_section
from bus.pki import Role
from bus.proof import ProofVerifier
from bus.trust import Trust
from schemas.errors import Code, DeptbusError, Malformed, Refused
from schemas.item import ItemSchema
from tests.vectors import generate

VECTORS = Path(__file__).parents[1] / "vectors"
Vector = Mapping[str, Any]


def check_record(v: Vector) -> None:
    record = envelope.parse(_bytes(v["value"]))
    envelope.check_place(record, v["topic"], _bytes(v["key"]))
    checkpoint, _ = envelope.verify(record, v["origin"], _trust(v), ProofVerifier(), _time(v["broker_time"]))
    assert checkpoint.hex() == v["checkpoint"]
    assert record.leaf_hash.hex() == v["leaf_hash"]
    assert (record.claims_bytes.hex(), record.prefix.hex()) == (v["claims"], v["prefix"])
    assert [{"name": name, "commitment": c.hex()} for name, c in record.claims.sections] == v["sections"]
    assert len(v["secrets"]) == len(record.bodies)
    for name, secret in v["secrets"].items():
        at = [section["name"] for section in v["sections"]].index(name)
        sealing.open_body(_bytes(secret), record.claims.sections[at][1], record.bodies[at])


def check_example(v: Vector) -> None:
    """Step by step with the functions that publishers and readers use."""
    schema = ItemSchema.parse(_bytes(v["schema_document"]))
    assert schema.digest.hex() == v["schema_digest"]
    key = pseudonyms.item_key(_bytes(v["pseudonym_root"]), "example-licence", 1)
    assert key.hex() == v["pseudonym_key"]
    assert pseudonyms.licence(key, [v["values"]["uscc"]]).hex() == v["key"] == v["prefix_fields"]["licence"]
    root = sealing.section_root(_bytes(v["session_secret"]), "identity")
    node = sealing.LeafKeys(root).node(v["leaf"])
    secret = sealing.section_secret(node, _bytes(v["prefix"]))
    assert [one.hex() for one in (root, node, secret)] == [v["root"], v["node"], v["secret"]]
    assert sealing.salt_of(secret).hex() == v["salt"]
    commitment, body = sealing.seal(secret, schema.encode(v["values"])["identity"])
    assert (commitment.hex(), body.hex()) == (v["commitment"], v["body"])
    record = envelope.parse(_bytes(v["value"]))
    envelope.check_place(record, v["topic"], _bytes(v["key"]))
    checkpoint, _ = envelope.verify(record, v["origin"], _trust(v), ProofVerifier(), _time(v["broker_time"]))
    assert checkpoint.decode() == v["checkpoint"]
    assert merkle.root([_bytes(v["other_leaf_hash"]), record.leaf_hash]).hex() == v["batch_root"]
    assert "".join(v["prefix_fields"].values()) == v["prefix"] == record.prefix.hex()
    assert envelope.encode_prefix(record.claims).hex() == v["prefix"]
    claims_bytes = record.prefix + envelope.encode_sections([("identity", commitment)])
    assert claims_bytes.hex() == v["claims"]
    assert envelope.encode_value(1, claims_bytes, [body], record.proof).hex() == v["value"]
    fields, plain = open_section(schema, record, "identity", secret)
    assert (fields, plain.hex()) == (v["values"], v["plain"])


def check_section(v: Vector) -> None:
    plain = sealing.open_body(_bytes(v["secret"]), _bytes(v["commitment"]), _bytes(v["body"]))
    fields = decode_section(ItemSchema.parse(_bytes(v["schema"])), v["section"], plain)
    assert plain.hex() == v["plain"]
    assert _json(fields) == v["fields"]


def check_session(v: Vector) -> None:
    record = session.parse(_bytes(v["value"]))
    session.verify(record, _trust(v), _time(v["broker_time"]), _bytes(v["key"]))
    roots = session.roots(record, hpke.PrivateKey(_bytes(v["kem_private_key"])), tuple(v["roots"]))
    assert {name: root.hex() for name, root in roots.items()} == v["roots"]
    secret = _bytes(v["secret"])
    assert all(sealing.section_root(secret, name) == root for name, root in roots.items())


def check_grant(v: Vector) -> None:
    private = hpke.PrivateKey(_bytes(v["kem_private_key"]))
    grant, secrets = messages.open_grant(_bytes(v["value"]), _bytes(v["request"]), private, _trust(v), _time(v["at"]))
    assert _json([_slots(result) for result in grant.results]) == v["results"]
    found = [{"leaf_hash": leaf.hex(), "section": name, "secret": s.hex()} for (leaf, name), s in secrets.items()]
    assert found == v["secrets"]


def check_key_request(v: Vector) -> None:
    request = messages.KeyRequest.decode(_bytes(v["value"]))
    assert request.encode().hex() == v["value"]
    assert _json(_slots(request) | {"reads": [_slots(read) for read in request.reads]}) == v["fields"]


def check_audit_entry(v: Vector) -> None:
    entry = audit.verify(_bytes(v["value"]), v["origin"], _trust(v), ProofVerifier())
    assert (entry.kind, entry.leaf_hash.hex(), entry.group.hex()) == (v["kind"], v["leaf_hash"], v["group"])
    assert _json(entry.body) == v["body"]


def check_disclosure(v: Vector) -> None:
    shown = disclosure.verify(_bytes(v["value"]), _bytes(v["authority"]), v["origin"])
    assert shown.leaf_hash.hex() == v["leaf_hash"]
    assert _json(shown.sections) == v["sections"]


def check_merkle(v: Vector) -> None:
    if "inputs" in v:
        assert merkle.root([merkle.leaf_hash(_bytes(data)) for data in v["inputs"]]).hex() == v["root"]
        return
    path = [_bytes(one) for one in v["path"]]
    root = merkle.root_from_path(_bytes(v["leaf_hash"]), v["index"], v["size"], path)
    assert root.hex() == v["root"]


def check_set(v: Vector) -> None:
    members = [
        sets.Member(record=_bytes(one["record"]), subjects=tuple(map(_bytes, one["subjects"]))) for one in v["members"]
    ]
    path, root = [_bytes(one) for one in v["path"]], _bytes(v["root"])
    sets.verify(members[v["position"]], v["position"], len(members), path, root)
    assert merkle.root([one.leaf for one in members]) == root
    assert [one.record for one in members] == sorted({one.record for one in members})


def check_ggm(v: Vector) -> None:
    node = sealing.LeafKeys(_bytes(v["root"])).node(v["leaf"])
    assert sealing.section_root(_bytes(v["session_secret"]), v["section"]).hex() == v["root"]
    assert node.hex() == v["node"]
    assert sealing.section_secret(node, _bytes(v["prefix"])).hex() == v["secret"]


def check_pseudonym(v: Vector) -> None:
    key = pseudonyms.item_key(_bytes(v["root_key"]), v["item"], v["generation"])
    assert key.hex() == v["key"]
    if "identifying" in v:
        assert pseudonyms.licence(key, v["identifying"]).hex() == v["licence"]
    else:
        assert pseudonyms.subject(key, v["kind"], v["id"]).hex() == v["pseudonym"]


def check_certificate(v: Vector) -> None:
    """Whether the signer's key counts for the role and owner at the time."""
    trust = Trust(_bytes(v["authority"]))
    for value in map(_bytes, v["certificates"]):
        try:
            trust.add(value)
        except Refused as exc:
            if exc.code is not Code.CERTIFICATE_UNKNOWN:  # which may come yet
                raise
    found = trust.certificate(_bytes(v["signer"]), Role[v["role"]], _time(v["at"]), v["owner"])
    assert [one.hex() for one in trust.chain(found.id)] == v["chain"]
    offline = Trust(_bytes(v["authority"]))
    assert [offline.add_certificate(_bytes(one)).id for one in v["chain"]][-1] == found.id


CHECKS: Mapping[str, Callable[[Vector], None]] = {
    "example": check_example,
    "record": check_record,
    "section": check_section,
    "session": check_session,
    "grant": check_grant,
    "key-request": check_key_request,
    "audit-entry": check_audit_entry,
    "disclosure": check_disclosure,
    "merkle": check_merkle,
    "set": check_set,
    "ggm": check_ggm,
    "pseudonym": check_pseudonym,
    "certificate": check_certificate,
}
FILES = sorted(path for name in CHECKS for path in (VECTORS / name).glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_vector(path: Path) -> None:
    vector = json.loads(path.read_text("utf-8"))
    try:
        CHECKS[path.parent.name](vector)
        found = "ok"
    except DeptbusError as exc:
        found = exc.code.value
    assert found == vector["expect"]


def test_vectors_are_what_the_generator_writes() -> None:
    written = {path: path.read_text("utf-8") for path in FILES}
    assert written == {file.path: file.text() for file in generate.files() if file.format in CHECKS}


def test_every_vector_expects_ok_or_a_code_and_says_why() -> None:
    for path in FILES:
        vector = json.loads(path.read_text("utf-8"))
        assert vector["expect"] == "ok" or vector["expect"] in Code.__members__, path
        assert path.stem.startswith("ok") == (vector["expect"] == "ok"), path
        assert vector["note"].endswith("."), path


# Too large for files.


def test_record_over_1_mib() -> None:
    with pytest.raises(Malformed) as refused:
        envelope.parse(bytes(envelope.MAX_VALUE_BYTES + 1))
    assert refused.value.code is Code.RECORD_TOO_LARGE


def test_record_of_1_mib_is_not_too_large() -> None:
    with pytest.raises(Malformed) as refused:
        envelope.parse(bytes(envelope.MAX_VALUE_BYTES))
    assert refused.value.code is not Code.RECORD_TOO_LARGE


@pytest.mark.parametrize("size", [0, audit.MAX_VALUE_BYTES + 1])
def test_audit_value_of_a_size_that_the_log_cannot_hold(size: int) -> None:
    with pytest.raises(Malformed) as refused:
        audit.parse(bytes(size))
    assert refused.value.code is Code.RECORD_TOO_LARGE


def test_section_that_the_claims_do_not_name() -> None:
    vector = json.loads((VECTORS / "record" / "ok.json").read_text("utf-8"))
    schema = ItemSchema.parse(_bytes(json.loads((VECTORS / "section" / "ok.json").read_text("utf-8"))["schema"]))
    with pytest.raises(Refused) as refused:
        open_section(schema, envelope.parse(_bytes(vector["value"])), "other", bytes(32))
    assert refused.value.code is Code.SECTION_UNKNOWN


def _trust(v: Vector) -> Trust:
    trust = Trust(_bytes(v["authority"]))
    for value in v["certificates"]:
        trust.add(_bytes(value))
    return trust


def _bytes(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _slots(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _json(value: Any) -> Any:
    """Fields as the vectors spell them: bytes in hex, dates in ISO 8601, decimals as text."""
    match value:
        case bytes():
            return value.hex()
        case datetime():
            return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        case date():
            return value.isoformat()
        case Decimal():
            return str(value)
        case Mapping():
            return {name: _json(one) for name, one in value.items()}
        case list() | tuple():
            return [_json(one) for one in value]
        case _:
            return value
