"""A relying party of OpenID Connect Core 1.0: who has proven to a provider who she is.

Authorization code flow with PKCE (RFC 7636, S256), state and nonce; the answer's `iss` where the provider says that it
sends one (RFC 9207). An ID token counts if a key that the provider publishes *now* signed it, by an algorithm of the
closed list below, for us, for this login. Keys are fetched for each login: one that the provider took back counts no
more, a new one counts at once, and nobody makes us fetch more than that.

Of a token only `sub` is used. What she may do the bus knows itself (`bus.people.roles`).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote_plus, urlencode

import httpx
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey, import_key

from bus.pki import write_private
from bus.transport import UNPACKED, answer_of, client_context
from schemas.errors import Code, Malformed, Misuse, Refused, Unavailable

# Signatures only: `none` is no signature, and with HS256 a public key would be the secret.
ALGORITHMS: Mapping[str, str] = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "Ed25519": "OKP"}
RSA_BITS = 2048  # NIST SP 800-131A: less is no signature any more
SKEW_SECONDS = 30.0
FRESH_SECONDS = 300.0  # a token was made during this login, by a clock that is a little off
DISCOVERY_SECONDS = 600.0  # an endpoint moves once in years
ANSWER_SECONDS = 5.0  # someone waits before a browser
MAX_ANSWER_BYTES = 256 * 1024  # a provider's keys and configuration are a few KiB
MAX_SUBJECT = 255  # OpenID Connect Core 1.0, 2: ASCII characters
_ERROR = re.compile(r"[a-z_]{1,40}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """As what a provider knows the bus. `authority` (PEM) certifies the provider; empty: the system's CAs do."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    authority: str = ""

    def save(self, file: Path) -> None:
        """JSON (0600)."""
        said = {name: getattr(self, name) for name in ("issuer", "client_id", "client_secret", "authority")}
        write_private(file, json.dumps(said, indent=2).encode())

    @classmethod
    def load(cls, file: Path) -> Self | None:
        """None if there is no such file: then nobody can log in. Raises `Misuse` (CONFIG_INVALID)."""
        try:
            found = cls(**json.loads(file.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as exc:
            raise Misuse(Code.CONFIG_INVALID, f"{file}: no readable registration at an OpenID provider") from exc
        if not found.issuer.startswith("https://") or not found.client_id or not found.client_secret:
            raise Misuse(Code.CONFIG_INVALID, f"{file}: issuer (https), client_id and client_secret are required")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What one login is recognised by. All of it follows from a secret that only the browser or the command keeps."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str

    @classmethod
    def of(cls, handle: str, redirect_uri: str) -> Self:
        """The same for the same handle: nothing of it is stored."""

        def part(name: str) -> str:
            return hmac.digest(handle.encode(), f"deptbus/1 login {name}".encode(), "sha256").hex()

        return cls(state=part("state"), nonce=part("nonce"), verifier=part("verifier"), redirect_uri=redirect_uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """Whom a provider has recognised, and the token's SHA-256."""

    subject: str
    digest: bytes


class Provider:
    """One provider, over HTTPS. Closed by `aclose`."""

    def __init__(self, registration: Registration) -> None:
        self.registration = registration
        self._http = httpx.AsyncClient(
            timeout=ANSWER_SECONDS, trust_env=False, verify=client_context(registration.authority)
        )
        self._turn = asyncio.Lock()
        self._known: Mapping[str, Any] = {}
        self._known_at = 0.0

    async def aclose(self) -> None:
        """Lets go of its connections."""
        await self._http.aclose()

    async def authorization_url(self, login: Login) -> str:
        """Where she proves who she is. Raises `Unavailable` (LOGIN_UNAVAILABLE)."""
        challenge = _base64url(sha256(login.verifier.encode()).digest())
        asked = {
            "response_type": "code",
            "scope": "openid",
            "client_id": self.registration.client_id,
            "redirect_uri": login.redirect_uri,
            "state": login.state,
            "nonce": login.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint: str = (await self._discovered())["authorization_endpoint"]
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    async def end_url(self) -> str | None:
        """Where she ends her session at the provider, too, if it has such a place (RP-Initiated Logout 1.0)."""
        endpoint = (await self._discovered()).get("end_session_endpoint")
        return f"{endpoint}?{urlencode({'client_id': self.registration.client_id})}" if endpoint else None

    async def proven(self, login: Login, answer: Mapping[str, str]) -> Proven:
        """Who came back with `answer` (the redirect's parameters), the code of which is spent by this.

        Raises `Refused` (LOGIN_STATE, LOGIN_REFUSED, ID_TOKEN_*) or `Unavailable` (LOGIN_UNAVAILABLE).
        """
        if not hmac.compare_digest(answer.get("state", "").encode(), login.state.encode()):
            raise Refused(Code.LOGIN_STATE, "the provider's answer belongs to another login: log in again")
        known = await self._discovered()
        issuer = answer.get("iss")
        expected = self.registration.issuer
        if issuer is None and known.get("authorization_response_iss_parameter_supported") is True:
            raise Refused(Code.ID_TOKEN_ISSUER, "the answer does not say which provider it is of (RFC 9207)")
        if issuer is not None and issuer != expected:
            raise Refused(Code.ID_TOKEN_ISSUER, "the answer is of another provider (RFC 9207)")
        if "error" in answer or not answer.get("code"):
            said = answer.get("error", "")
            why = said if _ERROR.match(said) else "no code came"
            raise Refused(Code.LOGIN_REFUSED, f"the provider did not let her in ({why}): log in again")
        token = await self._exchange(known["token_endpoint"], login, answer["code"])
        keys = await self._json("GET", known["jwks_uri"])
        claims = read_id_token(token, keys)
        check_claims(claims, issuer=expected, client=self.registration.client_id, nonce=login.nonce, now=time.time())
        return Proven(subject=claims["sub"], digest=sha256(token.encode()).digest())

    async def _exchange(self, endpoint: str, login: Login, code: str) -> str:
        """The ID token for a code, by the client's secret and PKCE's verifier."""
        user, password = map(quote_plus, (self.registration.client_id, self.registration.client_secret))
        asked = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": login.redirect_uri,
            "code_verifier": login.verifier,
        }
        basic = b64encode(f"{user}:{password}".encode()).decode()
        said = await self._json("POST", endpoint, asked, {"Authorization": f"Basic {basic}"})
        token = said.get("id_token")
        if not isinstance(token, str):
            raise Refused(Code.ID_TOKEN_INVALID, "the provider gave no ID token")
        return token

    async def _discovered(self) -> Mapping[str, Any]:
        """The provider's configuration (OpenID Connect Discovery 1.0), at most ten minutes old."""
        async with self._turn:
            if not self._known or time.monotonic() - self._known_at > DISCOVERY_SECONDS:
                issuer = self.registration.issuer
                known = await self._json("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
                needed = [known.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
                optional = [known["end_session_endpoint"]] if "end_session_endpoint" in known else []
                if known.get("issuer") != issuer or not all(map(_is_https, needed + optional)):
                    raise Unavailable(
                        Code.LOGIN_UNAVAILABLE, f"{issuer} is not what its own configuration says: look at the issuer"
                    )
                self._known, self._known_at = known, time.monotonic()
            return self._known

    async def _json(
        self, method: str, url: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """An object, of bounded size. No redirect is followed: what was configured is what is asked."""
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._http.stream(method, url, data=form, headers={**(headers or {}), **UNPACKED}) as answer,
            ):
                said = json.loads(await answer_of(answer, MAX_ANSWER_BYTES))
        except (Malformed, httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, ValueError, RecursionError) as exc:
            raise Unavailable(
                Code.LOGIN_UNAVAILABLE, f"the OpenID provider did not answer ({type(exc).__name__}): try again later"
            ) from exc
        if answer.status_code == 400 and isinstance(said, dict) and "error" in said:
            raise Refused(
                Code.LOGIN_REFUSED, "the provider does not take the code (spent, late, another's): log in again"
            )
        if not answer.is_success or not isinstance(said, dict):
            raise Unavailable(Code.LOGIN_UNAVAILABLE, f"the OpenID provider answered {answer.status_code}")
        return said


def read_id_token(token: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """A token's claims, if one of the provider's keys (a JWK set, RFC 7517) signed it. They are not checked yet.

    Raises `Refused` (ID_TOKEN_SIGNATURE, ID_TOKEN_INVALID).
    """
    try:
        header = jws.extract_compact(token.encode()).headers()
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise Refused(Code.ID_TOKEN_SIGNATURE, f"ID tokens are signed by one of {', '.join(ALGORITHMS)}")
        key = _key(keys, kid, algorithm)
        claims = json.loads(jws.deserialize_compact(token.encode(), key, algorithms=[algorithm]).payload)
    except (JoseError, ValueError, TypeError, KeyError, RecursionError) as exc:
        raise Refused(Code.ID_TOKEN_SIGNATURE, "the ID token's signature does not hold") from exc
    if not isinstance(claims, dict):
        raise Refused(Code.ID_TOKEN_INVALID, "the ID token's claims are no object")
    return claims


def check_claims(claims: Mapping[str, Any], *, issuer: str, client: str, nonce: str, now: float) -> None:
    """OpenID Connect Core 1.0, 3.1.3.7, for a token of this login. `now` is POSIX time.

    Raises `Refused`: ID_TOKEN_ISSUER, _AUDIENCE, _NONCE, _EXPIRED or _INVALID.
    """
    if claims.get("iss") != issuer:
        raise Refused(Code.ID_TOKEN_ISSUER, "the ID token is of another issuer")
    audience = claims.get("aud")
    audience = [audience] if isinstance(audience, str) else audience
    party = claims.get("azp")
    if not isinstance(audience, list) or client not in audience:
        raise Refused(Code.ID_TOKEN_AUDIENCE, "the ID token is for another client")
    if party != client and (party is not None or len(audience) > 1):
        raise Refused(Code.ID_TOKEN_AUDIENCE, "the ID token was made for another client (azp)")
    said = claims.get("nonce")
    if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
        raise Refused(Code.ID_TOKEN_NONCE, "the ID token is of another login")
    times = [claims.get(name) for name in ("iat", "exp")]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in times):
        raise Refused(Code.ID_TOKEN_INVALID, "the ID token does not say when it was made and ends")
    made, ends = times
    if not (now - FRESH_SECONDS <= made <= now + SKEW_SECONDS and now - SKEW_SECONDS < ends):  # type: ignore[operator]
        raise Refused(Code.ID_TOKEN_EXPIRED, "the ID token is of another time: check the clocks")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not is_subject(subject):
        raise Refused(Code.ID_TOKEN_INVALID, "the ID token names nobody")


def is_subject(text: str) -> bool:
    """Whether a provider may call somebody so: 1 to 255 printable ASCII characters."""
    return 0 < len(text) <= MAX_SUBJECT and text.isascii() and text.isprintable()


def _key(keys: Mapping[str, Any], kid: Any, algorithm: str) -> RSAKey | ECKey | OKPKey:
    """The one key of this id that is made for this algorithm, and for signatures."""
    found = [one for one in keys.get("keys", ()) if isinstance(one, dict) and one.get("kid") == kid]
    if not isinstance(kid, str) or len(found) != 1:
        raise Refused(Code.ID_TOKEN_SIGNATURE, "the ID token names no key that the provider publishes")
    one = found[0]
    wrong = one.get("kty") != ALGORITHMS[algorithm] or one.get("use", "sig") != "sig"
    if wrong or one.get("alg", algorithm) != algorithm:
        raise Refused(Code.ID_TOKEN_SIGNATURE, "the key that the ID token names is for something else")
    if one["kty"] == "RSA" and 6 * len(one["n"]) < RSA_BITS:  # base64url
        raise Refused(Code.ID_TOKEN_SIGNATURE, f"the provider's RSA key has less than {RSA_BITS} bits")
    key = import_key(one)
    assert isinstance(key, RSAKey | ECKey | OKPKey)
    return key


def _is_https(url: Any) -> bool:
    return isinstance(url, str) and url.startswith("https://")


def _base64url(data: bytes) -> str:
    return b64encode(data, b"-_").rstrip(b"=").decode()
