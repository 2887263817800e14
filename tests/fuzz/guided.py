"""Coverage-guided fuzzing (atheris, libFuzzer) of targets, each in a process of its own: `python -m tests.fuzz.guided`.

Findings do not end a target: they are written down, and it goes on. What ends its process (a crash, or code in C that
does not come back) is a finding, too, and it begins anew with the time that is left. A line of JSON a target on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from importlib import import_module, util
from pathlib import Path
from typing import Any

from tests.fuzz.limits import Finding, Limits

PACKAGES = ("schemas", "consent", "bus", "adapters", "deploy", "http_sfv", "http_message_signatures", "tomllib", "yaml")
HANGS_SECONDS = 20  # until libFuzzer ends an input that nothing else could
ENDS_SECONDS = 60  # for a last input, and for the statistics
RESTARTS = 5
LONGEST = 4_096  # bytes of an input, unless a seed has more
_AT = re.compile(rb"^#(\d+)\t.*?cov: (\d+)", re.MULTILINE)
_WORD = re.compile(rb"[A-Za-z][A-Za-z0-9_.-]{2,24}")
_WORDS = 500


def available() -> bool:
    """Whether atheris is there: it has wheels for Linux on x86-64 alone."""
    return util.find_spec("atheris") is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, required=True, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("targets", nargs="*")
    given = parser.parse_args()
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=list(PACKAGES)):
        all_of = import_module("tests.fuzz.targets").TARGETS
    wanted = [all_of[name] for name in given.targets or all_of]
    for target in wanted:
        said = _fuzz(atheris, target, given.folder / target.name, given.seconds / len(wanted), given.seed)
        print(json.dumps(said), flush=True)


def _fuzz(atheris: Any, target: Any, folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    seeds = [*target.seeds(), *target.regressions().values()]
    for number, data in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(data)
    words = sorted({word for data in seeds for word in _WORD.findall(data)})[:_WORDS]
    (folder / "words").write_bytes(b"".join(b'"%s"\n' % word for word in words))
    begun, inputs, edges = time.monotonic(), 0, 0
    for turn in range(RESTARTS):
        left = begun + seconds - time.monotonic()
        if left < 1 and turn:
            break
        log = folder / f"log-{turn}"
        options = [
            "fuzz",
            str(corpus),
            f"-seed={seed + turn + 1}",  # 0 is another one each time
            f"-max_total_time={max(1, round(left))}",
            f"-max_len={max(LONGEST, *map(len, seeds))}",
            f"-timeout={HANGS_SECONDS}",
            f"-dict={folder / 'words'}",
            f"-artifact_prefix={folder}/ended-",
            "-rss_limit_mb=0",  # memory is limited input by input
            "-malloc_limit_mb=0",
            "-print_final_stats=1",
        ]
        child = os.fork()
        if child == 0:
            _run(atheris, target, folder, log, options)
        _wait(child, left + ENDS_SECONDS)
        done = _AT.findall(log.read_bytes())
        inputs += int(done[-1][0]) if done else 0
        edges = max(edges, *(int(cov) for _, cov in done)) if done else edges
    return {
        "target": target.name,
        "inputs": inputs,
        "edges": edges,
        "seconds": time.monotonic() - begun,
        "findings": list(_found(folder)),
    }


def _run(atheris: Any, target: Any, folder: Path, log: Path, options: list[str]) -> None:
    """In a process of its own, which libFuzzer ends."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    known: set[str] = set()
    limits = Limits()

    def one(data: bytes) -> None:
        found = limits.run(target.name, target.run, data)
        if found is not None and found.what not in known:
            known.add(found.what)
            with (folder / "findings").open("a") as out:
                out.write(json.dumps({"what": found.what, "data": b64encode(data).decode()}) + "\n")

    with limits:
        atheris.Setup(options, one)
        atheris.Fuzz()
    os._exit(0)


def _wait(child: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.05)


def _found(folder: Path) -> Iterator[dict[str, str]]:
    file = folder / "findings"
    yield from map(json.loads, file.read_text("ascii").splitlines() if file.exists() else ())
    for ended in sorted(folder.glob("ended-*")):  # ended-timeout-<hash>, ended-crash-<hash>
        what = f"the process ended: {ended.name.split('-')[1]}"
        yield {"what": what, "data": b64encode(ended.read_bytes()).decode()}


def findings(said: dict[str, Any]) -> dict[str, Finding]:
    """A line's findings, by what they do."""
    return {one["what"]: Finding(said["target"], one["what"], b64decode(one["data"])) for one in said["findings"]}


if __name__ == "__main__":
    main()
