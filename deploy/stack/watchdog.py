"""Ends the stack's processes when their supervisor is gone, however it went.

Reads process ids from stdin, a line each. End of file without `stop` means that the supervisor was killed: PostgreSQL
gets SIGQUIT (its immediate shutdown, which takes its backends along), everything else SIGKILL, by process group.
Portable: no parent-death signal, which a change of user would clear.
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
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: list[tuple[int, int]] = []
    for line in sys.stdin:
        word = line.split()
        if word == ["stop"]:
            return
        groups.append((int(word[0]), int(word[1])))
    for group, first in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, first)
    time.sleep(PATIENCE_SECONDS)
    for group, _ in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
