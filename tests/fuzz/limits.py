"""What one input may do: return, or raise one of the project's own errors, in bounded time and memory."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from schemas.errors import DeptbusError

CPU_SECONDS = 1.0  # the process's own: a machine that is busy with others is no finding
MEMORY_BYTES = 200 * 1024**2
REBASED = 1_000  # inputs: what an engine keeps of them grows, and is no input's memory
ROOT = Path(__file__).parents[2]
_ROOMS = ("schemas", "consent", "bus", "adapters", "deploy")


class Slow(BaseException):
    """Over `CPU_SECONDS`. No `Exception`: what the code under test catches as such shall not swallow it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that did what none may. `what` is the same for inputs that do the same: error and place."""

    target: str
    what: str
    data: bytes


class Limits:
    """Runs inputs one by one, in the main thread; while it is open, memory of the process is limited.

    The address space may grow by `MEMORY_BYTES` only: what asks for more gets a MemoryError, before the machine
    suffers. Code in C that never comes back to Python is not interrupted here: whoever started the process ends it.
    """

    def __init__(self) -> None:
        self._count = 0
        self._running = False
        self._before: tuple[Any, tuple[int, int]] | None = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGPROF, self._interrupt), resource.getrlimit(resource.RLIMIT_AS)
        self._rebase()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._before is not None
        handler, limit = self._before
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, limit)

    def run(self, target: str, call: Callable[[bytes], object], data: bytes) -> Finding | None:
        """What is wrong with how the input was taken; nothing: it was accepted, or refused as it should be."""
        self._count += 1
        if self._count % REBASED == 0:
            self._rebase()
        self._running = True
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            call(data)
        except DeptbusError as refused:
            return Finding(target, _memory(refused), data) if _memory(refused) else None
        except (Exception, Slow) as found:
            return Finding(target, _what(found), data)
        finally:
            self._running = False
            signal.setitimer(signal.ITIMER_PROF, 0)
        return None

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._running:
            raise Slow

    def _rebase(self) -> None:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES, hard))


def _memory(error: BaseException | None) -> str:
    """Memory that ran out is no refusal, whatever was made of it."""
    while error is not None:
        if isinstance(error, MemoryError):
            return _what(error)
        error = error.__cause__ or error.__context__
    return ""


def _what(error: BaseException) -> str:
    """`KeyError at bus/session.py:84 parse`: the deepest line of the project's own."""
    found = "the target itself"
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        path = Path(code.co_filename)
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in _ROOMS:
            found = f"{path.relative_to(ROOT)}:{trace.tb_lineno} {code.co_qualname}"
        trace = trace.tb_next
    name = f"over {CPU_SECONDS:g} s" if isinstance(error, Slow) else type(error).__name__
    return f"{name} at {found}"
