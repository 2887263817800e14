"""The peer of the log: Tessera's POSIX log under its own load generator, built from the modules that tests/go pins.

`posix` is Tessera's conformance server as it comes: in-memory deduplication alone, batches of 256 or a second, every
file synced to disk before it counts, a checkpoint a second. `hammer` adds distinct leaves of our entries' size from
2,000 writers over loopback HTTP/1.1 and reads nothing; 500 or 4,000 writers get less through. A leaf counts once a
checkpoint covers it.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bus.tlog.note import NoteSigner
from tests.bench.measure import Absent
from tests.bench.world import free_port

MODULES = Path(__file__).parents[1] / "go"
SERVER = "github.com/transparency-dev/tessera/cmd/conformance/posix"
LOAD = "github.com/transparency-dev/tessera/internal/hammer"
NAME = "bench.local/tessera"
WRITERS = 2_000
MOST_A_SECOND = 100_000  # no bound: what the machine gives
WARM_SECONDS = 4.0
SECONDS = 12.0
READY_SECONDS = 15.0
POLL_SECONDS = 0.02


def built(folder: Path) -> Path:
    """The folder with `posix` and `hammer`. Raises `Absent` without Go."""
    if shutil.which("go") is None:
        raise Absent("Go is not installed: Tessera cannot be built")
    command = ["go", "build", "-C", str(MODULES), "-mod=readonly", "-o", f"{folder.resolve()}/", SERVER, LOAD]
    subprocess.run(command, check=True)
    return folder


def integrated(programs: Path, leaf_bytes: int) -> float:
    """Leaves a second that a new log's checkpoints come to cover while it is kept busy."""
    with TemporaryDirectory(prefix="deptbus-tessera-") as place:
        folder = Path(place)
        signer = NoteSigner.create(folder / "key", NAME)
        url, checkpoint = f"127.0.0.1:{free_port()}", folder / "log" / "checkpoint"
        server = [f"--listen={url}", f"--private_key={folder}/key", f"--storage_dir={checkpoint.parent}"]
        load = [
            *(f"--log_url=http://{url}", f"--log_public_key={signer.verifier.vkey}", "--max_read_ops=0"),
            *(f"--num_writers={WRITERS}", f"--max_write_ops={MOST_A_SECOND}", f"--leaf_min_size={leaf_bytes}"),
            *("--dup_chance=0", "--show_ui=false"),
        ]
        with _running(programs / "posix", server, folder / "posix.log"):
            _until_there(checkpoint)
            with _running(programs / "hammer", load, folder / "hammer.log"):
                time.sleep(WARM_SECONDS)
                began, first = _next(checkpoint)
                time.sleep(SECONDS)
                ended, last = _next(checkpoint)
    return (last - first) / (ended - began)


@contextmanager
def _running(program: Path, arguments: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        child = subprocess.Popen([program, *arguments], stdout=output, stderr=output)
    try:
        yield
    except TimeoutError as exc:
        raise SystemExit(f"{exc}; the log of {program.name} ends:\n{log.read_text('utf-8')[-2000:]}") from exc
    finally:
        child.kill()
        child.wait()


def _until_there(checkpoint: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not checkpoint.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("Tessera published no checkpoint")
        time.sleep(POLL_SECONDS)


def _next(checkpoint: Path) -> tuple[float, int]:
    """When the next checkpoint appears, and its size: between two of these moments a rate is exact."""
    size = _size(checkpoint)
    deadline = time.monotonic() + READY_SECONDS
    while (now := _size(checkpoint)) == size:
        if time.monotonic() > deadline:
            raise TimeoutError(f"Tessera's checkpoints stay at {size:,} leaves")
        time.sleep(POLL_SECONDS)
    return time.perf_counter(), now


def _size(checkpoint: Path) -> int:
    return int(checkpoint.read_text("utf-8").splitlines()[1])  # replaced by rename: never half a file
