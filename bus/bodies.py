"""The body of a request: bounded, as it came, and nothing that unpacks to something else."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from schemas.errors import Code, Malformed


async def body_of(request: Request, limit: int) -> bytes:
    """The body, no longer than `limit`.

    Raises `Malformed`: REQUEST_TOO_LARGE, REQUEST_ENCODED, or REQUEST_MALFORMED if it never came whole. How long it may
    take is the server's to bound (`deploy.serving`).
    """
    # Its digest is of the packed bytes, and a few of them unpack to gigabytes: nobody here unpacks.
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Malformed(Code.REQUEST_ENCODED, "the body is read as it comes: no Content-Encoding")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise Malformed(Code.REQUEST_TOO_LARGE, f"the body has more than {limit} bytes")
    except ClientDisconnect as exc:  # nobody reads this answer; it is counted
        raise Malformed(Code.REQUEST_MALFORMED, "the connection ended before the body did") from exc
    return bytes(body)
