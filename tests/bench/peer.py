"""The peer of `seal` and `open`: confluent-kafka's Avro serialiser with client-side field encryption.

The same item schema; the four fields above sensitivity L1 are tagged and encrypted under one rule, with a local key
service and the library's in-memory registry, so nothing waits for a network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from confluent_kafka.schema_registry import Rule, RuleKind, RuleMode, RuleParams, RuleSet, Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.rules.encryption.encrypt_executor import FieldEncryptionExecutor
from confluent_kafka.schema_registry.rules.encryption.localkms.local_driver import LocalKmsDriver
from confluent_kafka.serialization import MessageField, SerializationContext

from schemas.item import ItemSchema

TAG = "PII"
ENCRYPTED_FIELDS = 4


class FieldEncryption:
    """A serialiser and a deserialiser of one item over one mock registry. The data key is made at the first record."""

    def __init__(self, item: ItemSchema) -> None:
        FieldEncryptionExecutor.register()  # type: ignore[no-untyped-call]
        LocalKmsDriver.register()
        topic = f"licence.{item.name}"
        registry = {"url": "mock://deptbus-bench"}
        client = SchemaRegistryClient.new_client(registry)
        client.register_schema(
            f"{topic}-value",
            Schema(json.dumps(_tagged(item.document)), "AVRO", [], None, RuleSet([], [_rule()])),
        )
        rules = {"secret": "bench"}
        self._serialise = AvroSerializer(
            client,
            conf={"auto.register.schemas": False, "use.latest.version": True},
            rule_conf=rules,
        )
        self._deserialise = AvroDeserializer(client, rule_conf=rules)
        self._context = SerializationContext(topic, MessageField.VALUE)

    def encode(self, values: Mapping[str, Any]) -> bytes:
        value: bytes = self._serialise(dict(values), self._context)
        return value

    def decode(self, value: bytes) -> Mapping[str, Any]:
        values: Mapping[str, Any] = self._deserialise(value, self._context)
        return values


def _tagged(document: bytes) -> Any:
    schema = json.loads(document)
    sensitive = [field for field in schema["fields"] if field["sensitivity"] != "L1"]
    assert len(sensitive) == ENCRYPTED_FIELDS
    for field in sensitive:
        field["confluent:tags"] = [TAG]
    return schema


def _rule() -> Rule:
    params = RuleParams({"encrypt.kek.name": "bench", "encrypt.kms.type": "local-kms", "encrypt.kms.key.id": "bench"})
    return Rule(
        "encrypt", "", RuleKind.TRANSFORM, RuleMode.WRITEREAD, "ENCRYPT", [TAG], params, None, None, "ERROR,NONE", False
    )
