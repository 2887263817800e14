"""Signed requests: HTTP Message Signatures (RFC 9421) over the body's digest (RFC 9530).

Label `sig1`, `alg="ed25519"`, components `@method`, `@authority`, `@path`, `content-digest`; parameters `created`,
`expires` at most 60 s later, `keyid` = hex SHA-256 of the department's certificate, `nonce`, `tag="deptbus-1"`. The
gateway keeps digest and signature in the audit entry: neither side can deny what was asked.

The nonce makes two requests differ that say the same in one second, for a gateway answers a signature once
(`bus.gateway.replays`).
"""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Protocol
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    InvalidSignature,
    algorithms,
)
from http_message_signatures.exceptions import HTTPMessageSignaturesException

from bus.pki import Role, Signer
from bus.trust import Trust
from schemas.errors import Code, Refused

LABEL = "sig1"
TAG = "deptbus-1"
COMPONENTS = ("@method", "@authority", "@path", "content-digest")
VALID_FOR = timedelta(seconds=60)
CLOCK_SKEW = timedelta(seconds=5)
NONCE_BYTES = 16
MIN_NONCE, MAX_NONCE = 16, 64  # characters; of what others send
_PORTS = {"http": ":80", "https": ":443"}
_KEY_ID = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is signed of a request: method in upper case, absolute URL, headers."""

    method: str
    url: str
    headers: dict[str, str]


class Caller(Protocol):
    """Whoever asks: a department by its certificate, or one of its people (`bus.people`)."""

    @property
    def id(self) -> bytes:
        """32 bytes: the certificate's, or the person's pseudonym."""

    @property
    def uscc(self) -> str:
        """The department that answers for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A request that somebody answers for: who sent it, and what the audit trail keeps of it.

    A department signed it. Or `person` (hex) sent it in her session, and the session token's SHA-256 stands where
    the signature would. `once` is what no second request may have: 32 bytes, empty for a person's, whose session is
    bound to her browser.
    """

    caller: Caller
    digest: bytes
    signature: bytes
    person: str = ""
    once: bytes = b""

    @property
    def kept(self) -> dict[str, bytes]:
        """The fields by which every entry of the log binds who asked."""
        return {"digest": self.digest, "signer": self.caller.id, "signature": self.signature}

    def operator(self, said: str) -> str:
        """Who of the caller's asks: a department is believed, and a person is who her session says.

        Raises `Refused` (REQUEST_FORBIDDEN) if she says that she is somebody else.
        """
        if self.person and said not in ("", self.person):
            raise Refused(Code.REQUEST_FORBIDDEN, "your session says who you are: leave the operator out")
        return self.person or said


class _Keys(HTTPSignatureKeyResolver):
    """Resolves one key: the library asks for it by id."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def resolve_private_key(self, key_id: str) -> Any:
        return self._key

    def resolve_public_key(self, key_id: str) -> Any:
        return self._key


def content_digest(body: bytes) -> str:
    """The `Content-Digest` field: `sha-256=:<base64>:`."""
    return f"sha-256=:{b64encode(sha256(body).digest()).decode()}:"


def sign(signer: Signer, method: str, url: str, body: bytes, now: datetime | None = None) -> dict[str, str]:
    """The headers that make a request the signer's: `Content-Digest`, `Signature-Input`, `Signature`."""
    created = now or datetime.now(UTC)
    message = Message(method=method, url=url, headers={"Content-Digest": content_digest(body)})
    HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=_Keys(signer.private_key)).sign(
        message,
        key_id=signer.id.hex(),
        created=created,
        expires=created + VALID_FOR,
        nonce=secrets.token_urlsafe(NONCE_BYTES),
        label=LABEL,
        tag=TAG,
        covered_component_ids=COMPONENTS,
        use_existing_digest=True,
    )
    return message.headers


def verify(message: Message, body: bytes, trust: Trust, now: datetime, names: Collection[str] = ()) -> Signed:
    """Who signed this request.

    `names` are the authorities (`host[:port]`) that the reader answers to: which one was signed is the sender's word,
    so that without them a request to another gateway would do here, too; none means any.

    Raises `Refused`: REQUEST_UNSIGNED, _DIGEST, _COMPONENTS (it covers or says something else than it must), _EXPIRED,
    _AUTHORITY, _SIGNATURE (it does not hold for this method, authority, path or digest) or CERTIFICATE_*.
    """
    headers = {name.lower(): value for name, value in message.headers.items()}
    if "signature" not in headers or "signature-input" not in headers:
        raise Refused(Code.REQUEST_UNSIGNED, "every request carries Signature and Signature-Input (RFC 9421)")
    if not hmac.compare_digest(headers.get("content-digest", "").encode(), content_digest(body).encode()):
        raise Refused(Code.REQUEST_DIGEST, "Content-Digest is missing or not the body's sha-256")
    parameters = _parameters(headers)
    key_id, nonce = _key_id(parameters), _nonce(parameters)
    caller = trust.certificate(key_id, Role.DEPARTMENT, now)
    _check_times(parameters, now)
    if names and authority(message.url) not in names:
        raise Refused(Code.REQUEST_AUTHORITY, "the request is for another host: this gateway was told other names")
    _check_signature(message, caller.key)
    return Signed(
        caller=caller,
        digest=sha256(body).digest(),
        signature=_signature(headers),
        once=sha256(key_id + nonce.encode()).digest(),
    )


def authority(url: str) -> str:
    """What `@authority` is of a URL (RFC 9421 §2.2.3): in lower case, without the scheme's own port."""
    split = urlsplit(url)
    return split.netloc.lower().removesuffix(_PORTS.get(split.scheme, ""))


def _parameters(headers: Mapping[str, str]) -> Mapping[str, Any]:
    """The parameters of `sig1`, which must cover exactly the components above."""
    try:
        inputs = HTTPMessageVerifier._parse_signature_dictionary(headers["signature-input"])
        entry = inputs[LABEL]
        covered = tuple(str(component.value) for component in entry)
        parameters = dict(entry.params)
    except (HTTPMessageSignaturesException, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise Refused(Code.REQUEST_COMPONENTS, f"Signature-Input has no readable {LABEL}") from exc
    if covered != COMPONENTS or any(component.params for component in entry):
        raise Refused(Code.REQUEST_COMPONENTS, f"the signature must cover {', '.join(COMPONENTS)}, in this order")
    if parameters.get("alg") != "ed25519" or parameters.get("tag") != TAG:
        raise Refused(Code.REQUEST_COMPONENTS, f'the signature needs alg="ed25519" and tag="{TAG}"')
    return parameters


def _key_id(parameters: Mapping[str, Any]) -> bytes:
    key_id = parameters.get("keyid")
    if not isinstance(key_id, str) or not _KEY_ID.match(key_id):
        raise Refused(Code.REQUEST_COMPONENTS, "keyid is not the hex SHA-256 of a certificate")
    return bytes.fromhex(key_id)


def _nonce(parameters: Mapping[str, Any]) -> str:
    nonce = parameters.get("nonce")
    if not isinstance(nonce, str) or not MIN_NONCE <= len(nonce) <= MAX_NONCE:
        raise Refused(Code.REQUEST_COMPONENTS, f"nonce is missing, or has not {MIN_NONCE} to {MAX_NONCE} characters")
    return nonce


def _check_times(parameters: Mapping[str, Any], now: datetime) -> None:
    created, expires = parameters.get("created"), parameters.get("expires")
    if type(created) is not int or type(expires) is not int:
        raise Refused(Code.REQUEST_COMPONENTS, "created and expires are required")
    seconds, skew = now.timestamp(), CLOCK_SKEW.total_seconds()
    if not 0 <= expires - created <= VALID_FOR.total_seconds():
        raise Refused(Code.REQUEST_EXPIRED, "expires is more than 60 s after created")
    if created > seconds + skew or expires < seconds - skew:
        raise Refused(Code.REQUEST_EXPIRED, "the request was signed for another time: check both clocks")


def _check_signature(message: Message, key: Ed25519PublicKey) -> None:
    verifier = HTTPMessageVerifier(signature_algorithm=algorithms.ED25519, key_resolver=_Keys(key))
    try:
        verifier.verify(message, max_age=VALID_FOR, expect_tag=TAG, expect_label=LABEL, require_components=COMPONENTS)
    except (InvalidSignature, HTTPMessageSignaturesException, ValueError) as exc:
        raise Refused(Code.REQUEST_SIGNATURE, "the request's signature does not hold") from exc


def _signature(headers: Mapping[str, str]) -> bytes:
    return bytes(HTTPMessageVerifier._parse_signature_dictionary(headers["signature"])[LABEL].value)
