"""Other people's verifiers as programs: Tessera's fsck, a checker and a witness made of x/mod and transparency-dev."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from bus.envelope import Record, batch_origin
from bus.pki import Role
from bus.tlog.note import Verifier
from bus.trust import Trust

MODULES = Path(__file__).parent
PACKAGES = ("./verify", "./witness", "github.com/transparency-dev/tessera/cmd/fsck")
BUILD_SECONDS = 600  # with the modules to fetch
RUN_SECONDS = 60
FSCK_WORKERS = 8


class Verdict(NamedTuple):
    """Whether it holds, and what the program said."""

    holds: bool
    says: str


class Witness(NamedTuple):
    """A running witness."""

    url: str
    verifier: Verifier


@dataclass(frozen=True, slots=True)
class Programs:
    """Where they are, and who certifies the servers that they speak to."""

    folder: Path
    tls_authority: Path | None = None

    @classmethod
    def build(cls, go: str, folder: Path) -> Programs:
        """From the pinned modules, into a folder outside of the project."""
        command = [
            go,
            "build",
            "-C",
            str(MODULES),
            "-mod=readonly",
            "-buildvcs=false",
            "-o",
            f"{folder.resolve()}/",
            *PACKAGES,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        return cls(folder)

    def verify(self, *arguments: str | Path) -> Verdict:
        """`verify proof|consistency|batch|tree`: see its first lines."""
        done = self._run("verify", *arguments)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return Verdict(done.returncode == 0, done.stdout.strip())

    def fsck(self, where: str, vkey: Path, token: str = "") -> Verdict:
        """Tessera's fsck over a log at a URL, file:// too.

        It exits with 0 whatever it finds: what it says counts. Each bad tile ends one of its workers, and without any
        left it waits for ever (transparency-dev/tessera#1098): hence more than the one by default.
        """
        arguments = [f"--storage_url={where}/", f"--public_key={vkey}", f"--bearer_token={token}"]
        arguments += ["--ui=false", f"--N={FSCK_WORKERS}"]
        says = self._run("fsck", *arguments).stderr
        return Verdict("Successfully fsck'd log" in says and "fsck failed" not in says, says)

    @contextmanager
    def witness(self, log_vkey: str) -> Iterator[Witness]:
        """A witness that has seen nothing yet."""
        command = [str(self.folder / "witness"), "--log-vkey", log_vkey]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            try:
                assert child.stdout is not None
                ready = json.loads(child.stdout.readline())
                yield Witness(ready["url"], Verifier.from_vkey(ready["vkey"]))
            finally:
                child.kill()

    def _run(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [self.folder / program, *arguments]
        environment = os.environ | ({"SSL_CERT_FILE": str(self.tls_authority)} if self.tls_authority else {})
        return subprocess.run(
            command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False, env=environment
        )


def batch_proof(record: Record, trust: Trust, bus: str, at: datetime) -> dict[str, Any]:
    """A record's proof as `verify batch` reads it: all that stands behind the leaf, and nothing of the record."""
    claims, proof = record.claims, record.proof
    return {
        "origin": batch_origin(bus, claims.issuer, claims.session, claims.leaf - proof.index),
        "size": proof.size,
        "index": proof.index,
        "leaf": record.leaf_hash.hex(),
        "path": [one.hex() for one in proof.path],
        "signature": proof.signature.hex(),
        "public_key": trust.certificate(proof.signer, Role.RECORD, at, claims.issuer).key.public_bytes_raw().hex(),
    }
