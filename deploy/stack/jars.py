"""`python -m deploy.stack.jars FILE COORDINATES...`: Kafka's jars, fetched once; their paths go to FILE as a JSON list.

A process of its own, because jgo's downloads cannot be interrupted and a registry that trickles would hold up `up` and
its Ctrl-C. What comes back is compared with `kafka.sha256`: a download that broke off, or a file that the registry has
changed, is thrown away and fetched once more; then it is an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import sys
from importlib import resources
from pathlib import Path

COORDINATES_FILE = "kafka.sha256"
REFUSED = 4  # exit status: fetched, and not what it should be


def main() -> None:
    """The process; see above."""
    from jgo.config import GlobalSettings

    answer, coordinates = Path(sys.argv[1]), sys.argv[2:]
    settings = GlobalSettings.load()
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    # jgo writes jars in place: two that fetch at once would read each other's halves.
    with (settings.cache_dir / "deptbus.lock").open("w") as lock, contextlib.redirect_stdout(sys.stderr):
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            found = _fetch(coordinates)
            if damaged(found):
                _throw_away(found, settings.repo_cache)
                found = _fetch(coordinates)
        except Exception as exc:  # jgo raises what its HTTP client, its parser or the file system met
            sys.exit(f"{type(exc).__name__}: {str(exc)[:300]}")
        wrong = damaged(found)
    if wrong:
        print(f"not the published files: {', '.join(wrong)}", file=sys.stderr)  # noqa: T201 - this is a program
        sys.exit(REFUSED)
    answer.write_text(json.dumps([str(jar) for jar in found]), "utf-8")


def _fetch(coordinates: list[str]) -> list[Path]:
    """Each resolved by itself (together, one's dependency management would change the other's); a name once."""
    import jgo

    found: dict[str, Path] = {}
    for one in coordinates:
        for jar in jgo.build(one).all_jars:
            found.setdefault(jar.name, jar)
    return list(found.values())


def expected() -> dict[str, str]:
    """SHA-256 by file name, in `sha256sum`'s format."""
    lines = resources.files("deploy.stack").joinpath(COORDINATES_FILE).read_text("ascii").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def damaged(jars: list[Path]) -> list[str]:
    """Names of jars that are missing, unknown, or other than expected."""
    wanted = expected()
    found = {jar.name: _digest(jar) for jar in jars}
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _throw_away(found: list[Path], repository: Path) -> None:
    """The environments, and what is wrong in Maven's cache, whence it would come again."""
    for name in damaged(found):
        for copy in repository.rglob(name):
            copy.unlink(missing_ok=True)
    for environment in {jar.parent.parent for jar in found}:
        shutil.rmtree(environment, ignore_errors=True)


if __name__ == "__main__":
    main()
