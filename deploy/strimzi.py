"""The bus's topics, users, rules and quotas as Strimzi's resources, for a Kafka that runs on Kubernetes.

KafkaTopic and KafkaUser of `kafka.strimzi.io/v1`, as the CRDs of strimzi-kafka-operator at 0f01f49 describe them. A
KafkaUser's password is made by Strimzi's User Operator, in a Secret of the user's name: a department is given that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from bus import access
from bus.access import Access, Binding
from bus.topics import Topic

API = "kafka.strimzi.io/v1"
_QUOTAS = {  # Strimzi's words; all but the last are whole numbers there
    access.PRODUCE: "producerByteRate",
    access.FETCH: "consumerByteRate",
    access.REQUEST: "requestPercentage",
    access.MUTATIONS: "controllerMutationRate",
}


def documents(topics: Iterable[Topic], wanted: Access, cluster: str, replicas: int) -> Iterator[dict[str, Any]]:
    """Topics, then users. `cluster` is the name of the Kafka resource. Everybody's quota is written with each user:
    Strimzi has none for everybody.
    """
    for topic in topics:
        spec = {"topicName": topic.name, "partitions": topic.partitions, "replicas": replicas, "config": topic.config}
        yield _resource("KafkaTopic", topic.name, cluster, spec)
    for user in sorted(wanted.users):
        quota = wanted.quotas.get(user, wanted.quotas[access.DEFAULT])
        spec = {
            "userName": user,
            "authentication": {"type": "scram-sha-512"},
            "authorization": {"type": "simple", "acls": list(_rules(wanted.of(user).bindings))},
            "quotas": {_QUOTAS[key]: int(value) for key, value in quota.items()},
        }
        yield _resource("KafkaUser", user, cluster, spec)


def _resource(kind: str, name: str, cluster: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    # Kubernetes' names are lower case: `topicName` and `userName` say what Kafka knows it as.
    metadata = {"name": name.lower(), "labels": {"strimzi.io/cluster": cluster}}
    return {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec}


def _rules(bindings: Iterable[Binding]) -> Iterator[dict[str, Any]]:
    for (kind, name, prefix), same in groupby(sorted(bindings, key=_resource_of), key=_resource_of):
        yield {
            "resource": {"type": kind, "name": name, "patternType": "prefix" if prefix else "literal"},
            "operations": sorted(one.operation for one in same),
        }


def _resource_of(one: Binding) -> tuple[str, str, bool]:
    return one.kind, one.name, one.prefix
