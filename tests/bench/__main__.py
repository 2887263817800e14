"""`python -m tests.bench`: every case, `build/bench.json`, exit 1 if one is below its floor."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping

from rich.console import Console

from tests.bench.crypto import open_records, seal
from tests.bench.decide import beside_casbin, beside_cedarpy, growth
from tests.bench.log import index, published, tiles
from tests.bench.measure import Absent, Outcome, Said
from tests.bench.publish import publish
from tests.bench.release import release
from tests.bench.sample import SEED
from tests.bench.security import secure_publish, secure_release
from tests.bench.world import quiet
from tests.report import write_report

CASES: Mapping[str, Callable[[Said], Outcome]] = {
    "seal": seal,
    "publish": publish,
    "open": open_records,
    "release": release,
    "tiles": tiles,
    "index": index,
    "published": published,
    "casbin": beside_casbin,
    "cedarpy": beside_cedarpy,
    "agreements": growth,
    "secure-publish": secure_publish,
    "secure-release": secure_release,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--case", choices=sorted(CASES), help="only this one")
    parser.add_argument("--json", action="store_true", help="print the document on stdout")
    arguments = parser.parse_args()
    quiet()
    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    outcomes = {name: _run(console, name) for name in ([arguments.case] if arguments.case else CASES)}
    document = write_report(
        "bench",
        seconds=time.monotonic() - began,
        seed=SEED,
        cases={name: {"absent": one} if isinstance(one, str) else one.to_json() for name, one in outcomes.items()},
    )
    if arguments.json:
        print(json.dumps(document))
    return 0 if all(isinstance(one, str) or one.good for one in outcomes.values()) else 1


def _run(console: Console, name: str) -> Outcome | str:
    """A case's figures, or why it has none here."""
    try:
        with console.status(f"[bold]{name}[/]: starting") as status:
            outcome = CASES[name](lambda text: status.update(f"[bold]{name}[/]: {text}"))
    except Absent as exc:
        console.print(f"[bold]{name:14}[/] [yellow]absent[/]: {exc}")
        return str(exc)
    beside = "" if outcome.peer is None else f", peer {outcome.peer:,.0f}"
    colour = "green" if outcome.good else "red"
    floor = f"{outcome.floor:g} of the peer" if outcome.peer is not None else f"{outcome.floor:,g} {outcome.unit}"
    ours = f"{outcome.ours:,.0f}" if outcome.ours >= 10 else f"{outcome.ours:.2f}"
    console.print(
        f"[bold]{name:14}[/] {ours} {outcome.unit}{beside}: [{colour}]{outcome.ratio:.2f}[/]"
        f" (floor {floor}, spread {outcome.spread:.0%})"
    )
    for key, value in outcome.more.items():
        console.print(f"{'':14} {key} {value}")
    return outcome


if __name__ == "__main__":
    sys.exit(main())
