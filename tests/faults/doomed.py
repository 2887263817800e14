"""`python -m tests.faults.doomed POINT before|after N …`: a recorder that kills itself at a commit point.

POINT is where something becomes true that a crash must not half undo; at its Nth time the process gets SIGKILL, just
before or just after. The product knows nothing of it: what commits is wrapped from outside. The rest of the arguments
are those of `deploy.process`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import asyncpg
from asyncpg.transaction import Transaction

from bus.recorder.guard import Guard
from bus.recorder.log import SQL, Log
from deploy import process

# The log's rows and the topic's offset; the guard; the checkpoint; the witnesses' signatures.
POINTS = ("integrate", "guard", "publish", "cosign")
WHEN = ("before", "after")


def doom(point: str, when: str, nth: int) -> None:
    """From now on, this process dies there."""
    owners = {"integrate": Transaction, "guard": Guard, "publish": asyncpg.Connection, "cosign": asyncpg.Connection}
    methods = {"integrate": "__aexit__", "guard": "swap", "publish": "fetchval", "cosign": "execute"}
    owner, method = owners[point], methods[point]
    real, is_it = getattr(owner, method), _recogniser(point)
    met = 0

    async def wrapped(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal met
        here = is_it(self, arguments)
        met += here
        if here and met == nth and when == "before":
            _die()
        answer = await real(self, *arguments, **named)
        if here and met == nth:
            _die()
        return answer

    setattr(owner, method, wrapped)


def _recogniser(point: str) -> Callable[[Any, tuple[Any, ...]], bool]:
    if point == "guard":
        return lambda guard, arguments: True
    if point != "integrate":
        return lambda connection, arguments: arguments[0] == SQL[point]
    # The recorder has other transactions: the log's is the one in which its rows were written last.
    writing: list[Any] = []
    real = Log._write

    async def write(self: Log, connection: asyncpg.Connection, before: Any, grown: Any) -> None:
        await real(self, connection, before, grown)
        writing[:] = [connection]

    setattr(Log, "_write", write)  # noqa: B010 - mypy refuses an assignment to a method

    def commits(transaction: Any, _: tuple[Any, ...]) -> bool:
        found = transaction._connection in writing
        writing.clear()
        return found

    return commits


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Wraps, then becomes the recorder."""
    point, when, nth, *rest = sys.argv[1:]
    doom(point, when, int(nth))
    sys.argv = [sys.argv[0], *rest]
    process.main()


if __name__ == "__main__":
    main()
