"""Where things are: DEPTBUS_HOME (default `.deptbus/`) and the `stack.json` that every command finds."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bus.identity import Identity
from bus.pki import write_private
from bus.transport import Cluster
from schemas.errors import Code, Misuse, Unavailable
from schemas.identifiers import parse_uscc

if TYPE_CHECKING:
    from deploy.bootstrap import Bus

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="The bus's folder (default: $DEPTBUS_HOME, else .deptbus/).")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A running stack, as `stack.json` says it."""

    version: int
    kafka: str
    kafka_login: str
    postgres: str
    gateways: list[str]
    metrics: dict[str, str]
    pids: dict[str, int]
    ca: str
    tls_ca: str
    logs: dict[str, str]

    @property
    def administrator(self) -> Cluster:
        """Its Kafka as seen by whoever may do everything: for topics, users, access rules, and looking at it all."""
        return Cluster.of(self.kafka, Path(self.kafka_login))


@dataclass(frozen=True, slots=True)
class Home:
    """The folder and what is in it."""

    path: Path

    @classmethod
    def find(cls, given: Path | None = None) -> Home:
        """The folder given, else DEPTBUS_HOME, else `.deptbus` here."""
        return cls((given or Path(os.environ.get("DEPTBUS_HOME") or ".deptbus")).absolute())

    @property
    def stack_file(self) -> Path:
        """There while a stack runs."""
        return self.path / "stack.json"

    @property
    def bus(self) -> Path:
        """The bus's own folder: CA, gateway and recorder keys."""
        return self.path / "bus"

    @property
    def logs(self) -> Path:
        """A log file a process."""
        return self.path / "logs"

    def stack(self) -> Stack:
        """The running stack. Raises `Unavailable` (STACK_NOT_RUNNING)."""
        try:
            return Stack(**json.loads(self.stack_file.read_text("utf-8")))
        except FileNotFoundError:
            raise Unavailable(
                Code.STACK_NOT_RUNNING, f"no stack runs in {self.path}: start it with `deptbus up`"
            ) from None
        except (OSError, ValueError, TypeError, RecursionError) as exc:
            raise Misuse(
                Code.DATA_CORRUPT, f"{self.stack_file} cannot be read: remove it and run `deptbus up`"
            ) from exc

    def write_stack(self, stack: Stack) -> None:
        """Mode 0600: the DSN has a password."""
        write_private(self.stack_file, json.dumps(asdict(stack), indent=2).encode())

    def load_bus(self) -> Bus:
        """Raises `Misuse` (CONFIG_INVALID) if no bus was ever started here."""
        from deploy.bootstrap import Bus  # half of a command's start, and few commands need it

        return Bus.load(self.bus)

    def org_folder(self, name: str) -> Path:
        """Where a department's keys are."""
        return self.path / "orgs" / name

    def uscc_of(self, department: str) -> str:
        """A department's credit code, from its name here or from the code itself. Raises `Malformed` (USCC_*)."""
        about = self.org_folder(department) / "org.json"
        return self.identity(department).uscc if about.exists() else parse_uscc(department)

    def names(self) -> dict[str, str]:
        """The departments that joined here: their names by credit code."""
        folders = sorted((self.path / "orgs").glob("*/org.json"))
        return {(one := Identity.load(path.parent)).uscc: one.name for path in folders}

    def identity(self, name: str) -> Identity:
        """A department that joined here. Raises `Misuse`."""
        folder = self.org_folder(name)
        if not (folder / "org.json").exists():
            known = sorted(p.parent.name for p in (self.path / "orgs").glob("*/org.json"))
            raise Misuse(Code.CONFIG_INVALID, f"no department {name} here (known: {', '.join(known) or 'none'})")
        return Identity.load(folder)
