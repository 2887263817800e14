"""ID tokens: one wrong thing each, and each is refused with its own code."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from bus.people.openid import check_claims, read_id_token
from schemas.errors import Code, Refused

ISSUER, CLIENT, NONCE, NOW = "https://id.example", "deptbus", "n" * 43, 1_800_000_000.0
GOOD: Mapping[str, Any] = {
    "iss": ISSUER,
    "sub": "a-person",
    "aud": CLIENT,
    "iat": NOW - 2,
    "exp": NOW + 300,
    "nonce": NONCE,
}
EC = ECKey.generate_key("P-256", {"kid": "ec", "use": "sig"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
OKP = OKPKey.generate_key("Ed25519", {"kid": "okp"})
KEYS = {"keys": [key.as_dict(private=False) for key in (EC, RSA, OKP)]}


def token(key: Any, alg: str, claims: Any = GOOD, **header: Any) -> str:
    said = {"alg": alg, "kid": key.kid, **header}
    return jws.serialize_compact(said, json.dumps(claims), key, algorithms=[alg])


def part(value: Any) -> str:
    return encoded(json.dumps(value).encode())


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(header: Mapping[str, Any], secret: bytes | None = None) -> str:
    """What the library would not make: signed with the EC key, or with a shared secret (HS256)."""
    signed = f"{part(header)}.{part(GOOD)}"
    if secret is not None:
        return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), 'sha256'))}"
    r, s = decode_dss_signature(EC.private_key.sign(signed.encode(), ECDSA(SHA256())))  # type: ignore[union-attr]
    return f"{signed}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


@pytest.mark.parametrize(("key", "alg"), [(EC, "ES256"), (RSA, "RS256"), (RSA, "PS256"), (OKP, "Ed25519")])
def test_a_provider_signs_with_what_it_publishes(key: Any, alg: str) -> None:
    assert read_id_token(token(key, alg), KEYS) == GOOD


def test_no_signature_is_none() -> None:
    refused(Code.ID_TOKEN_SIGNATURE, f"{part({'alg': 'none', 'kid': 'ec'})}.{part(GOOD)}.", KEYS)
    refused(Code.ID_TOKEN_SIGNATURE, f"{part({'alg': 'None', 'kid': 'ec'})}.{part(GOOD)}.", KEYS)


def test_a_public_key_is_no_secret() -> None:
    """HS256 with what everybody reads: the PEM, the JWK, or the key as a set may have it."""
    for secret in (RSA.as_pem(private=False), json.dumps(RSA.as_dict(private=False)).encode()):
        signed = by_hand({"alg": "HS256", "kid": "rsa"}, secret)
        refused(Code.ID_TOKEN_SIGNATURE, signed, KEYS)
        refused(Code.ID_TOKEN_SIGNATURE, signed, {"keys": [{"kty": "oct", "kid": "rsa", "k": encoded(secret)}]})


def test_another_key_or_none() -> None:
    stranger = ECKey.generate_key("P-256", {"kid": "ec"})
    public = EC.as_dict(private=False)
    signed = token(EC, "ES256")
    refused(Code.ID_TOKEN_SIGNATURE, token(stranger, "ES256"), KEYS)
    refused(Code.ID_TOKEN_SIGNATURE, token(EC, "ES256", kid="gone"), KEYS)
    refused(Code.ID_TOKEN_SIGNATURE, by_hand({"alg": "ES256"}), KEYS)
    refused(Code.ID_TOKEN_SIGNATURE, by_hand({"alg": "ES256", "kid": None}), {"keys": [EC.as_dict() | {"kid": None}]})
    refused(Code.ID_TOKEN_SIGNATURE, signed, {"keys": [public, public]})
    refused(Code.ID_TOKEN_SIGNATURE, signed, {"keys": [public | {"use": "enc"}]})
    refused(Code.ID_TOKEN_SIGNATURE, signed, {"keys": [public | {"alg": "ES384"}]})
    refused(Code.ID_TOKEN_SIGNATURE, signed, {"keys": [public | {"kty": "RSA"}]})
    refused(Code.ID_TOKEN_SIGNATURE, signed, {})
    refused(Code.ID_TOKEN_SIGNATURE, signed, {"keys": [None, 1, "ec"]})


@pytest.mark.filterwarnings("ignore:Key size")
def test_a_key_that_can_be_broken() -> None:
    small = RSAKey.generate_key(1024, {"kid": "small"})
    refused(Code.ID_TOKEN_SIGNATURE, token(small, "RS256"), {"keys": [small.as_dict(private=False)]})


def test_what_was_signed_is_what_is_read() -> None:
    head, _, signature = token(EC, "ES256").split(".")
    assert read_id_token(by_hand({"alg": "ES256", "kid": "ec"}), KEYS) == GOOD
    refused(Code.ID_TOKEN_SIGNATURE, f"{head}.{part({**GOOD, 'sub': 'another'})}.{signature}", KEYS)
    refused(Code.ID_TOKEN_SIGNATURE, by_hand({"alg": "ES256", "kid": "ec", "crit": ["x"], "x": 1}), KEYS)
    refused(Code.ID_TOKEN_INVALID, token(EC, "ES256", ["no", "object"]), KEYS)


@given(st.text(max_size=200) | st.builds("{}.{}.{}".format, st.text(), st.text(), st.text()))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        read_id_token(text, KEYS)


def check(claims: Mapping[str, Any]) -> None:
    check_claims(claims, issuer=ISSUER, client=CLIENT, nonce=NONCE, now=NOW)


def test_a_token_of_this_login_counts() -> None:
    check(GOOD)
    check({**GOOD, "aud": [CLIENT]})
    check({**GOOD, "aud": [CLIENT, "other"], "azp": CLIENT})


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"iss": "https://id.example/"}, Code.ID_TOKEN_ISSUER),
        ({"iss": None}, Code.ID_TOKEN_ISSUER),
        ({"aud": "other"}, Code.ID_TOKEN_AUDIENCE),
        ({"aud": []}, Code.ID_TOKEN_AUDIENCE),
        ({"aud": {CLIENT: 1}}, Code.ID_TOKEN_AUDIENCE),
        ({"aud": [CLIENT, "other"]}, Code.ID_TOKEN_AUDIENCE),
        ({"azp": "other"}, Code.ID_TOKEN_AUDIENCE),
        ({"nonce": "another"}, Code.ID_TOKEN_NONCE),
        ({"nonce": None}, Code.ID_TOKEN_NONCE),
        ({"nonce": "\N{LATIN SMALL LETTER E WITH ACUTE}"}, Code.ID_TOKEN_NONCE),
        ({"exp": NOW - 31}, Code.ID_TOKEN_EXPIRED),
        ({"iat": NOW + 31}, Code.ID_TOKEN_EXPIRED),
        ({"iat": NOW - 301}, Code.ID_TOKEN_EXPIRED),
        ({"exp": float("nan")}, Code.ID_TOKEN_EXPIRED),
        ({"exp": str(NOW + 300)}, Code.ID_TOKEN_INVALID),
        ({"exp": True}, Code.ID_TOKEN_INVALID),
        ({"iat": None}, Code.ID_TOKEN_INVALID),
        ({"sub": ""}, Code.ID_TOKEN_INVALID),
        ({"sub": "s" * 256}, Code.ID_TOKEN_INVALID),
        ({"sub": "a\nb"}, Code.ID_TOKEN_INVALID),
        ({"sub": 7}, Code.ID_TOKEN_INVALID),
    ],
)
def test_another_tokens_claims(changed: Mapping[str, Any], code: Code) -> None:
    with pytest.raises(Refused) as caught:
        check({**GOOD, **changed})
    assert caught.value.code is code


def refused(code: Code, text: str, keys: Mapping[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        read_id_token(text, keys)
    assert caught.value.code is code
