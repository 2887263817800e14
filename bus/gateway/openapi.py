"""The gateway's HTTP interface as a closed OpenAPI 3.1 document: built from the routes, so that it cannot say less."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from bus.httpsig import Signed


class Route(NamedTuple):
    """A JSON route: what it calls, the body that this takes, and the answer that it returns.

    `body` is a `msgspec.Struct`. `answer` is any type that msgspec makes a JSON schema of: a Struct with
    `forbid_unknown_fields=True`, a dataclass, a list of them. What is returned may be plain dicts of the same shape.
    """

    call: Callable[[Signed, Any], Awaitable[Any]]
    body: Any
    answer: Any
