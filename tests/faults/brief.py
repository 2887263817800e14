"""`python -m tests.faults.brief …`: `deploy.process`, with a gateway's KEM keys that live for seconds.

An erasure is complete when the KEM key of its session's time is destroyed, which takes 37 hours. The product has no
switch for that: what it takes for its keys' lives is replaced from outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from bus.gateway import keyring
from bus.gateway.keyring import Lives
from deploy import process

# Long enough for a publisher to learn of the next one on a busy machine.
LIVES = Lives(kem=timedelta(seconds=30), renew_before=timedelta(seconds=18), destroy_after=timedelta(seconds=2))


@contextmanager
def brief() -> Iterator[None]:
    """Inside, keyrings that are opened in this process make such keys."""
    real = keyring.Lives
    setattr(keyring, "Lives", lambda: LIVES)  # noqa: B010 - mypy refuses an assignment to a class
    try:
        yield
    finally:
        setattr(keyring, "Lives", real)  # noqa: B010


if __name__ == "__main__":
    with brief():
        process.main()
