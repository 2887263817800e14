"""Ends the stack's processes when their supervisor is gone, however it went.

Reads process ids from stdin, a line each: `<id> <signal>` for one that runs, `-<id>` for one that has ended. End of
file without `stop` means that the supervisor was killed: PostgreSQL gets SIGQUIT (its immediate shutdown, which takes
its backends along), everything else SIGKILL, by process group. It holds the home's lock with the supervisor, so nobody
else starts there before this is done. Portable: no parent-death signal, which a change of user would clear.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

PATIENCE_SECONDS = 1.5  # together well under the five seconds that nothing may outlive


def main() -> None:
    # The terminal's Ctrl-C and a stray SIGTERM are the supervisor's business.
    """Runs until its supervisor is gone or says that all is stopped."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, int] = {}
    for line in sys.stdin:
        word = line.split()
        if word == ["stop"]:
            return
        if word[0].startswith("-"):
            groups.pop(int(word[0][1:]), None)
        else:
            groups[int(word[0])] = int(word[1])
    if len(sys.argv) > 1:
        os.ftruncate(int(sys.argv[1]), 0)  # the lock's file: its owner is gone, wait for this to end
    for group, first in groups.items():
        with suppress(ProcessLookupError):
            os.killpg(group, first)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and any(map(_lives, groups)):
        time.sleep(0.05)
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
