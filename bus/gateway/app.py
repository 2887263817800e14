"""A gateway's HTTP face. Routes translate; what they call decides.

Every request under `/v1` and `/access/v1` is signed; the log's files under `/log` are open, but for its entries.
Refusals are JSON `{code, detail}` with the code from the closed list (under `/access/v1` a text, as AuthZEN has it),
and nobody caches them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from bus import authzen, httpsig, metrics
from bus.bodies import body_of
from bus.gateway.evaluating import OBLIGATION
from bus.gateway.logfiles import leaf_hash as parse_leaf_hash
from bus.gateway.openapi import PATH, document
from bus.gateway.service import Gateway
from bus.messages import MAX_REQUEST_BYTES, KeyRequest
from bus.people import web
from schemas.errors import Code, DeptbusError, Malformed, Misuse, Refused, Unavailable

MAX_JSON_BYTES = 1024 * 1024  # a thousand consents at once take half of it
MAX_LOGIN_BYTES = 32 * 1024  # a handle and a provider's answer
_STATUS = {
    Code.REQUEST_UNSIGNED: 401,
    Code.REQUEST_SIGNATURE: 401,
    Code.REQUEST_COMPONENTS: 401,
    Code.REQUEST_AUTHORITY: 421,
    Code.REQUEST_DIGEST: 401,
    Code.REQUEST_EXPIRED: 401,
    Code.REQUEST_REPLAYED: 401,
    Code.CERTIFICATE_UNKNOWN: 401,
    Code.CERTIFICATE_EXPIRED: 401,
    Code.CERTIFICATE_REVOKED: 401,
    Code.CERTIFICATE_ROLE: 401,
    Code.LOGIN_STATE: 401,
    Code.LOGIN_REFUSED: 401,
    Code.LOGIN_ENDED: 401,
    Code.REQUEST_TOO_LARGE: 413,
    Code.REQUEST_ENCODED: 415,
    Code.NOT_FOUND: 404,
    Code.STATE_INVALID: 409,
}
# 400, 403 and 503 by their kind, 404 and 405 also of the framework's own, 500 a defect; 408, 411 and 431 are the
# server's, of what became no request (`deploy.serving`).
STATUSES = {*_STATUS.values(), 400, 403, 405, 408, 411, 431, 500, 503}
_MOMENT = "public, max-age=1"  # a new checkpoint comes each second
_FOR_EVER = "max-age=31536000, immutable"

# msgspec names the path and the expected type, but quotes a field that it does not know and what is none of an enum.
_ECHO = re.compile(r"(unknown field|enum value) .*?(?=(?: - at `[^`]*`)?\Z)", re.DOTALL)

log = structlog.get_logger()


def create_app(gateway: Gateway, base_url: str | None = None) -> FastAPI:
    """The application over a started gateway.

    `base_url` is where enforcement points reach it, `https://<host>`: without one there is no AuthZEN discovery.
    Raises `Misuse` (CONFIG_INVALID) for any other form.
    """
    app = FastAPI(title="deptbus gateway", version="1", openapi_url=None)
    described = msgspec.json.encode(document(gateway.routes(), STATUSES))
    app.router.route_class = _Counted
    app.state.base_url = base_url

    @app.exception_handler(DeptbusError)
    async def refuse(request: Request, error: DeptbusError) -> Response:
        _count(request, error.code.value)
        answer = _json({"code": error.code.value, "detail": error.detail}, status_of(error))
        answer.headers["Cache-Control"] = "no-store"  # a tile that is not there now may be in a second
        return answer

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        """What the framework says itself: no such path (404), no such method (405, with `Allow`)."""
        code = Code.NOT_FOUND if error.status_code == 404 else Code.REQUEST_MALFORMED
        _count(request, code.value)
        answer = _json({"code": code.value, "detail": f"{error.detail}: see {PATH}"}, error.status_code)
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        """Ours: the traceback goes to the log, and nothing was released."""
        _count(request, Code.UNDECIDABLE.value)
        detail = "the gateway met a defect of its own: nothing was released; its log says more"
        return _json({"code": Code.UNDECIDABLE.value, "detail": detail}, 500)

    @app.get(PATH)
    async def openapi() -> Response:
        """This interface, described (OpenAPI 3.1)."""
        return Response(described, media_type="application/json")

    @app.get("/healthz")
    async def healthz() -> Response:
        """The process runs and its loop turns."""
        return _json({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        """Kafka and PostgreSQL answer: keys can be released."""
        await gateway.check()
        return _json({"status": "ready"})

    @app.post("/v1/keys")
    async def keys(request: Request) -> Response:
        """A `KeyRequest` in, a `Grant` out (Avro)."""
        signed, body = await _signed(request, gateway, MAX_REQUEST_BYTES)
        with metrics.RELEASE_SECONDS.time():
            grant = await gateway.releases.release(signed, KeyRequest.decode(body))
        return Response(grant, media_type="application/avro")

    @app.post("/v1/sets/{entry}/keys")
    async def keys_of_set(entry: str, request: Request) -> Response:
        """A `KeyRequest` for members of a granted set in, a `Grant` out (Avro)."""
        signed, body = await _signed(request, gateway, MAX_REQUEST_BYTES)
        with metrics.RELEASE_SECONDS.time():
            grant = await gateway.sets.keys(signed, parse_leaf_hash(entry), KeyRequest.decode(body))
        return Response(grant, media_type="application/avro")

    def route(path: str, call: Callable[[httpsig.Signed, Any], Awaitable[Any]], body_type: Any) -> None:
        """A JSON route: a closed body in, what `call` returns out."""

        async def endpoint(request: Request) -> Response:
            signed, body = await _signed(request, gateway, MAX_JSON_BYTES)
            return _json(await call(signed, _decode(body, body_type)))

        app.add_api_route(path, endpoint, methods=["POST"], name=path)

    for path, one in gateway.routes().items():
        route(path, one.call, one.body)

    async def admit(request: Request) -> tuple[authzen.Evaluator, bytes]:
        signed, body = await _signed(request, gateway, MAX_JSON_BYTES)
        return gateway.decisions.asked_by(signed, request.url.path.removeprefix("/access/v1/")), body

    async def read(request: Request, body_type: Any) -> Any:
        return _decode(await body_of(request, MAX_LOGIN_BYTES), body_type)

    app.router.routes.extend(web.create_router(gateway.logins, read, base_url, _Counted).routes)
    router = authzen.create_router(admit, status_of, base_url=base_url, obligations=[OBLIGATION])
    app.router.routes.extend(router.routes)  # flat, as all others: `include_router` would hide what routes there are

    @app.get("/v1/admitted/{leaf_hash}")
    async def admitted(leaf_hash: str, request: Request) -> Response:
        """Whether a record counts, and the log's entry that says since when."""
        await _signed(request, gateway, 0)
        return _json(await gateway.admitted(parse_leaf_hash(leaf_hash)))

    @app.get("/v1/audit/proofs/{entry}")
    async def proof(entry: str, request: Request) -> Response:
        """An entry's `.tlog-proof`."""
        signed, _ = await _signed(request, gateway, 0)
        return _note(await gateway.logfiles.proof(signed, parse_leaf_hash(entry)), "private, no-store")

    @app.get("/log/{region}/checkpoint")
    async def checkpoint(region: str) -> Response:
        """What the log states now."""
        return _note(await gateway.logfiles.checkpoint(region), _MOMENT)

    @app.get("/log/{region}/checkpoint/cosigned")
    async def cosigned(region: str) -> Response:
        """What witnesses have confirmed last."""
        return _note(await gateway.logfiles.cosigned(region), _MOMENT)

    @app.get("/log/{region}/tile/entries/{path:path}")
    async def bundle(region: str, path: str, request: Request) -> Response:
        """Entries, for a bearer of an auditor's token: no cache that others share keeps them."""
        authorization = request.headers.get("authorization", "")
        return _file(await gateway.logfiles.bundle(region, path, authorization), f"private, {_FOR_EVER}")

    @app.get("/log/{region}/tile/{path:path}")
    async def tile(region: str, path: str) -> Response:
        """Hashes of the tree."""
        return _file(await gateway.logfiles.tile(region, path), f"public, {_FOR_EVER}")

    @app.get("/schemas/ids/{number}")
    async def schema_by_id(number: str) -> Response:
        """Read-only schema registry: what generic Kafka tools ask. Open: schemas are public."""
        return Response(gateway.registry_schema(number), media_type="application/vnd.schemaregistry.v1+json")

    return app


class _Counted(APIRoute):
    """A route that counts what it answered; refusals are counted where they are answered."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def counted(request: Request) -> Response:
            response = await handle(request)
            _count(request, "ok")
            return response

        return counted


def _count(request: Request, outcome: str) -> None:
    route = getattr(request.scope.get("route"), "path", "none")  # the pattern, never the path itself
    metrics.REQUESTS.labels(route=route, outcome=outcome).inc()


def status_of(error: DeptbusError) -> int:
    """The HTTP status of an error: by its code, else by its kind."""
    if error.code in _STATUS:
        return _STATUS[error.code]
    if isinstance(error, Unavailable):
        return 503
    return 400 if isinstance(error, Malformed | Misuse) else 403


async def _signed(request: Request, gateway: Gateway, limit: int) -> tuple[httpsig.Signed, bytes]:
    """The body, no longer than `limit`, and who signed for it: a department, or else a person by her session."""
    data = await body_of(request, limit)
    if "signature" not in request.headers:
        token = web.token_of(request, web.origin_of(request, request.app.state.base_url))
        if token is not None:
            return await gateway.logins.asking(token, request.scope["route"].path, data), data
    message = httpsig.Message(method=request.method, url=str(request.url), headers=_headers(request))
    return await gateway.authenticate(message, data), data


def _headers(request: Request) -> dict[str, str]:
    """Headers by name; one that comes twice where one is signed would be read differently by others: refused."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        if name in headers and name in ("signature", "signature-input", "content-digest", "host"):
            raise Refused(Code.REQUEST_SIGNATURE, f"header {name} comes twice")
        headers[name] = value
    return headers


def _decode(body: bytes, body_type: Any) -> Any:
    """Strict JSON (I-JSON, RFC 7493), so that nobody can read another request out of the bytes that were signed."""
    try:
        decoded = msgspec.json.decode(body, type=body_type)
        json.loads(body, object_pairs_hook=_once)
        return decoded
    except RecursionError as exc:
        raise Malformed(Code.REQUEST_MALFORMED, "body: it is nested too deeply") from exc
    except (msgspec.ValidationError, msgspec.DecodeError) as exc:
        raise Malformed(Code.REQUEST_MALFORMED, "body: " + _ECHO.sub(r"\1", str(exc))) from exc
    except ValueError as exc:
        raise Malformed(Code.REQUEST_MALFORMED, "body: a number is longer than anybody reads") from exc


def _once(members: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in members}) < len(members):
        raise Malformed(Code.REQUEST_MALFORMED, "body: a name comes twice in one object")


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")


def _note(data: bytes, cached: str) -> Response:
    return Response(data, media_type="text/plain", headers={"Cache-Control": cached})


def _file(data: bytes, cached: str) -> Response:
    return Response(data, media_type="application/octet-stream", headers={"Cache-Control": cached})
