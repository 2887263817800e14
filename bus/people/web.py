"""Login and logout over HTTP, for browsers and for commands.

A browser's session is a cookie that it sends to this host alone, over TLS alone, to no script, and on no request that
another site began (`__Host-`, Secure, HttpOnly, SameSite=Strict). A request that changes something with it also names
this site as its origin. A command's is a bearer token: no browser sends that by itself.

A command has no cookie for its login: it keeps the handle, and the provider sends the browser to a port of the machine
that the command runs on (RFC 8252, 7.3). So whoever lets somebody else open a link gets no session of hers.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from bus.people.logins import LOGIN_LIFE, LONGEST, Logins
from schemas.errors import Code, Malformed, Refused

SESSION, LOGIN = "__Host-deptbus", "__Host-deptbus-login"
SAFE = frozenset({"GET", "HEAD"})  # RFC 9110, 9.2.1; others change something
MAX_ANSWER = 4_096  # characters of a provider's answer, each: a code is some dozens
_LOOPBACK = re.compile(r"http://127\.0\.0\.1:[1-9][0-9]{0,4}/\Z")
_NOT_KEPT = {"Cache-Control": "no-store", "Referrer-Policy": "same-origin"}


class LoginBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /people/logins`: a command's, with a port where it listens, `http://127.0.0.1:<port>/`."""

    redirect_uri: str


class LoginAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`url` is for a browser, `handle` stays with the command."""

    handle: str
    url: str


class SessionBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /people/sessions`: the handle, and the parameters with which the browser came back."""

    handle: str
    state: str
    code: str | None = None
    iss: str | None = None
    error: str | None = None


class WhoAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Who is logged in, until when at most."""

    person: str
    name: str
    department: str
    role: str
    ends_at: str


class SessionAnswer(WhoAnswer, forbid_unknown_fields=True, kw_only=True):
    """The same, with the bearer token."""

    token: str


class EndedAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The session is over. `provider` is where she ends that at her provider, too, if it has one."""

    provider: str | None


Read = Callable[[Request, Any], Awaitable[Any]]


def token_of(request: Request, base_url: str) -> str | None:
    """The session token that a request carries, if any.

    Raises `Refused` (LOGIN_ORIGIN) if a browser sent it for another site's page.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token
    cookie = request.cookies.get(SESSION)
    if cookie and request.method not in SAFE and request.headers.get("origin") != base_url:
        raise Refused(Code.LOGIN_ORIGIN, "a browser's request names its own site: it came from another page")
    return cookie or None


def origin_of(request: Request, base_url: str | None) -> str:
    """Where browsers reach this gateway."""
    return base_url or f"{request.url.scheme}://{request.url.netloc}"


def create_router(logins: Logins, read: Read, base_url: str | None, counted: type[APIRoute]) -> APIRouter:
    """`read` gives a request's body as a type. The routes are described in `bus.gateway.openapi`."""
    router = APIRouter(route_class=counted)

    @router.get("/people/login")
    async def login(request: Request) -> Response:
        """To the provider, and back to `/people/callback`."""
        begun = await logins.begin(f"{origin_of(request, base_url)}/people/callback")
        answer = Response(status_code=302, headers={**_NOT_KEPT, "Location": begun.url})
        # Lax: it comes back on a link of the provider's.
        _set(answer, LOGIN, begun.handle, int(LOGIN_LIFE.total_seconds()), "lax")
        return answer

    @router.get("/people/callback")
    async def callback(request: Request) -> Response:
        """The provider's answer to a browser: a session in a cookie."""
        handle = request.cookies.get(LOGIN, "")
        if not handle:
            raise Refused(Code.LOGIN_STATE, "this browser has begun no login: log in again")
        session = await logins.complete(handle, _answer(request.query_params))
        answer = _json(session.to_json())
        _set(answer, SESSION, session.token, int(LONGEST.total_seconds()), "strict")
        _set(answer, LOGIN, "", 0, "lax")
        return answer

    @router.post("/people/logins")
    async def begin(request: Request) -> Response:
        """A command begins a login."""
        body: LoginBody = await read(request, LoginBody)
        if not _LOOPBACK.match(body.redirect_uri):
            raise Malformed(Code.REQUEST_MALFORMED, "redirect_uri is http://127.0.0.1:<port>/")
        begun = await logins.begin(body.redirect_uri)
        return _json({"handle": begun.handle, "url": begun.url})

    @router.post("/people/sessions")
    async def complete(request: Request) -> Response:
        """A command completes it: a session as a bearer token."""
        body: SessionBody = await read(request, SessionBody)
        session = await logins.complete(body.handle, _answer(msgspec.to_builtins(body)))
        return _json({**session.to_json(), "token": session.token})

    @router.get("/people/me")
    async def me(request: Request) -> Response:
        """Whose session it is."""
        return _json((await logins.session(_token(request))).to_json())

    @router.post("/people/logout")
    async def logout(request: Request) -> Response:
        """Ends it, here and on every other gateway."""
        token = _token(request)
        await logins.end(token)
        answer = _json({"provider": await logins.provider.end_url()})
        _set(answer, SESSION, "", 0, "strict")
        return answer

    def _token(request: Request) -> str:
        token = token_of(request, origin_of(request, base_url))
        if token is None:
            raise Refused(Code.LOGIN_ENDED, "no session: log in first")
        return token

    return router


def _answer(parameters: Mapping[str, str | None]) -> dict[str, str]:
    """What a provider says in a redirect, once each and bounded."""
    said = {name: text for name in ("code", "state", "iss", "error") if (text := parameters.get(name)) is not None}
    if any(len(value) > MAX_ANSWER for value in said.values()):
        raise Malformed(Code.REQUEST_TOO_LARGE, f"a parameter has more than {MAX_ANSWER} characters")
    return said


def _set(answer: Response, name: str, value: str, seconds: int, same_site: Any) -> None:
    answer.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite=same_site)


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers=_NOT_KEPT)
