"""A small OpenID provider (OpenID Connect Core 1.0, Discovery 1.0): one client, local accounts, the code flow, PKCE.

It keeps no session of its own: each login asks for the password, and logging out at the gateway is logging out. The
page runs no script. Whoever guesses is slowed down by account and by address, at a price: who guesses on purpose shuts
an account out for a quarter of an hour.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import secrets
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

from fastapi import FastAPI, Request, Response
from joserfc import jwt

from bus.bodies import body_of
from bus.people.openid import Registration
from deploy.accounts.store import Granted, Store
from schemas.errors import DeptbusError

TOKEN_SECONDS = 300
MAX_FORM_BYTES = 16 * 1024
MAX_FIELD = 2_048  # characters
HASHERS = 2  # at once: 19 MiB each
FIELDS = ("response_type", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge")
_LOOPBACK = re.compile(r"http://127\.0\.0\.1:[1-9][0-9]{0,4}/\Z")  # RFC 8252, 7.3: a command's, any port
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_HERE = Path(__file__).parent
_WRONG = "账号或密码不对。 Wrong account or password."
_WAIT = "失败次数过多,请十五分钟后再试。 Too many failures: try again in a quarter of an hour."


def id_token(store: Store, claims: Mapping[str, Any]) -> str:
    """Signed by the newest key."""
    key = store.signing_keys()[0]
    return jwt.encode({"alg": "ES256", "kid": key.kid}, dict(claims), key, algorithms=["ES256"])


def create_app(store: Store, client: Registration, redirect_uris: frozenset[str]) -> FastAPI:
    """The provider of `client.issuer`. `redirect_uris` are exact; a command's port on loopback is added."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    issuer = client.issuer
    page, style = Template((_HERE / "page.html").read_text("utf-8")), (_HERE / "login.css").read_bytes()
    hashing = asyncio.Semaphore(HASHERS)

    @app.exception_handler(DeptbusError)
    async def refuse(request: Request, error: DeptbusError) -> Response:
        return _json({"error": "invalid_request"}, 400)

    @app.get("/.well-known/openid-configuration")
    async def configuration() -> Response:
        return _json(
            {
                "issuer": issuer,
                "authorization_endpoint": f"{issuer}/authorize",
                "token_endpoint": f"{issuer}/token",
                "jwks_uri": f"{issuer}/keys",
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code"],
                "subject_types_supported": ["public"],
                "scopes_supported": ["openid"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    @app.get("/keys")
    async def keys() -> Response:
        return _json({"keys": [key.as_dict(private=False) for key in store.signing_keys()]})

    @app.get("/login.css")
    async def css() -> Response:
        return Response(style, media_type="text/css")

    @app.get("/authorize")
    async def ask(request: Request) -> Response:
        """The page that asks for the password; a client or address that is not registered is sent nothing."""
        asked = _fields(list(request.query_params.multi_items()))
        return _known(asked) or _bad(asked) or show(asked)

    @app.post("/authorize")
    async def login(request: Request) -> Response:
        """Back to the client with a code, or the page again."""
        form = _fields(parse_qsl((await body_of(request, MAX_FORM_BYTES)).decode("utf-8", "replace")))
        refused = _known(form) or _bad(form)
        if refused is not None:
            return refused
        if request.headers.get("origin") not in (None, issuer):
            return _text("the form was sent from another page", 403)
        name, password = form.get("name", ""), form.get("password", "")
        address = request.client.host if request.client else ""
        if not await asyncio.to_thread(store.may_try, name, address):
            return show(form, _WAIT, 429)
        async with hashing:
            subject = await asyncio.to_thread(store.proven, name, password, address)
        if subject is None:
            return show(form, _WRONG, 401)
        granted = Granted(
            subject=subject,
            redirect_uri=form["redirect_uri"],
            challenge=form["code_challenge"],
            nonce=form["nonce"],
        )
        return _back(form, {"code": await asyncio.to_thread(store.grant, granted)})

    @app.post("/token")
    async def token(request: Request) -> Response:
        """An ID token for a code, once, to the client that shows its secret and the code's verifier."""
        form = _fields(parse_qsl((await body_of(request, MAX_FORM_BYTES)).decode("utf-8", "replace")))
        if not _is_client(request.headers.get("authorization", "")):
            return _json({"error": "invalid_client"}, 401, {"WWW-Authenticate": "Basic"})
        if form.get("grant_type") != "authorization_code":
            return _json({"error": "unsupported_grant_type"}, 400)
        granted = await asyncio.to_thread(store.take, form.get("code", ""))
        challenge = urlsafe_b64encode(sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        if (
            granted is None
            or granted.redirect_uri != form.get("redirect_uri")
            or not hmac.compare_digest(granted.challenge, challenge)
        ):
            return _json({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            "iss": issuer,
            "sub": granted.subject,
            "aud": client.client_id,
            "exp": now + TOKEN_SECONDS,
            "iat": now,
            "nonce": granted.nonce,
        }
        # OAuth wants an access token; there is nothing here that it would open.
        said = {"access_token": secrets.token_urlsafe(16), "token_type": "Bearer", "expires_in": TOKEN_SECONDS}
        return _json(said | {"id_token": id_token(store, claims)})

    def show(asked: Mapping[str, str], said: str = "", status: int = 200) -> Response:
        hidden = "\n".join(
            f'<input type="hidden" name="{name}" value="{escape(asked[name])}">'
            for name in (*FIELDS, "code_challenge_method")
        )
        target = urlsplit(asked["redirect_uri"])
        # Browsers hold a form's redirects against `form-action`, too.
        policy = (
            f"default-src 'none'; style-src 'self'; form-action 'self' {target.scheme}://{target.netloc}; "
            "frame-ancestors 'none'; base-uri 'none'"
        )
        text = page.substitute(hidden=hidden, said=escape(said))
        return Response(text, status, {**_NOT_KEPT, "Content-Security-Policy": policy}, "text/html")

    def _known(asked: Mapping[str, str]) -> Response | None:
        """Nobody is redirected to where no client is."""
        uri = asked.get("redirect_uri", "")
        if asked.get("client_id") != client.client_id or not (uri in redirect_uris or _LOOPBACK.match(uri)):
            return _text("no such client is registered at this address", 400)
        return None

    def _bad(asked: Mapping[str, str]) -> Response | None:
        if asked.get("response_type") != "code":
            return _back(asked, {"error": "unsupported_response_type"})
        if "openid" not in asked.get("scope", "").split() or not asked.get("state") or not asked.get("nonce"):
            return _back(asked, {"error": "invalid_request"})
        if asked.get("code_challenge_method") != "S256" or not _CHALLENGE.match(asked.get("code_challenge", "")):
            return _back(asked, {"error": "invalid_request"})
        if asked.get("prompt") == "none":
            return _back(asked, {"error": "login_required"})
        return None

    def _back(asked: Mapping[str, str], said: Mapping[str, str]) -> Response:
        state = {"state": asked["state"]} if "state" in asked else {}
        where = f"{asked['redirect_uri']}?{urlencode({**said, **state, 'iss': issuer})}"
        return Response(status_code=303, headers={**_NOT_KEPT, "Location": where})

    def _is_client(authorization: str) -> bool:
        scheme, _, basic = authorization.partition(" ")
        try:
            user, _, password = b64decode(basic, validate=True).decode().partition(":")
        except ValueError:
            return False
        known = hmac.compare_digest(unquote_plus(password).encode(), client.client_secret.encode())
        return scheme.lower() == "basic" and unquote_plus(user) == client.client_id and known

    return app


_NOT_KEPT = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def _fields(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Bounded; of a field that comes twice nothing is believed."""
    names = [name for name, _ in pairs]
    return {name: value for name, value in pairs if names.count(name) == 1 and len(value) <= MAX_FIELD}


def _json(value: Any, status: int = 200, more: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(value), status, {**_NOT_KEPT, **(more or {})}, "application/json")


def _text(text: str, status: int) -> Response:
    return Response(text, status, _NOT_KEPT, "text/plain")
