"""Signed requests: each way of not being one has its own code."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from http_message_signatures import HTTPMessageSigner, algorithms

from bus import httpsig
from bus.httpsig import Message
from bus.pki import CertificateAuthority, Role, Signer
from bus.trust import Trust, certificate_value, revocation_value
from schemas.errors import Code, Refused

USCC, OTHER = "11330411MB2A00011E", "1132080001400001X7"
URL = "https://gateway.example:8443/v1/keys"
NAMES = ("gateway.example:8443", "localhost:8443")
BODY = b"a key request"
SECOND = timedelta(seconds=1)


class World:
    """A department, another one, and what a gateway knows of them."""

    def __init__(self, folder: Path) -> None:
        self.ca = CertificateAuthority.create(folder, "bus.test", OTHER)
        self.department, self.other = (self.ca.issue(Role.DEPARTMENT, uscc, uscc) for uscc in (USCC, OTHER))
        self.record = self.ca.issue(Role.RECORD, USCC, USCC)
        self.trust = Trust(self.ca.signer.der)
        for signer in (self.department, self.other, self.record):
            self.trust.add(certificate_value(signer.der))
        self.now = datetime.now(UTC)

    def signed(self, signer: Signer | None = None, **changes: Any) -> dict[str, str]:
        """The usual request's headers, signed with other parameters."""
        message = Message(method="POST", url=URL, headers={"Content-Digest": httpsig.content_digest(BODY)})
        by = signer or self.department
        usual: dict[str, Any] = {
            "key_id": by.id.hex(),
            "created": self.now,
            "expires": self.now + httpsig.VALID_FOR,
            "nonce": "0123456789abcdef",
            "label": httpsig.LABEL,
            "tag": httpsig.TAG,
            "covered_component_ids": httpsig.COMPONENTS,
            "use_existing_digest": True,
        }
        made = HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=httpsig._Keys(by.private_key))
        made.sign(message, **usual | changes)
        return message.headers

    def verify(self, headers: dict[str, str], *, method: str = "POST", url: str = URL, body: bytes = BODY) -> bytes:
        return httpsig.verify(Message(method=method, url=url, headers=headers), body, self.trust, self.now, NAMES).once

    def code(self, headers: dict[str, str], **changes: Any) -> Code:
        with pytest.raises(Refused) as refused:
            self.verify(headers, **changes)
        return refused.value.code


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("ca"))


def test_a_request_is_the_departments(world: World) -> None:
    """As the SDK signs it: caller, digest and signature are what the audit trail keeps; each has a name of its own."""
    one, two = (httpsig.sign(world.department, "POST", URL, BODY, world.now) for _ in range(2))
    found = httpsig.verify(Message(method="POST", url=URL, headers=one), BODY, world.trust, world.now, NAMES)
    assert (found.caller.uscc, found.kept["signer"]) == (USCC, world.department.id)
    assert len(found.once) == 32
    assert found.once == world.verify(one)
    assert found.once != world.verify(two)


MISSING: dict[str, Callable[[World], dict[str, str]]] = {
    "method": lambda w: w.signed(covered_component_ids=("@authority", "@path", "content-digest")),
    "authority": lambda w: w.signed(covered_component_ids=("@method", "@path", "content-digest")),
    "path": lambda w: w.signed(covered_component_ids=("@method", "@authority", "content-digest")),
    "digest": lambda w: w.signed(covered_component_ids=("@method", "@authority", "@path")),
    "one more": lambda w: w.signed(covered_component_ids=(*httpsig.COMPONENTS, "@query")),
    "another order": lambda w: w.signed(covered_component_ids=httpsig.COMPONENTS[::-1]),
    "with a parameter": lambda w: w.signed(
        covered_component_ids=("@method", "@authority", "@path", '"content-digest";sf')
    ),
    "alg": lambda w: w.signed(include_alg=False),
    "tag": lambda w: w.signed(tag="another-protocol"),
    "label": lambda w: w.signed(label="sig2"),
    "nonce": lambda w: w.signed(nonce=None),
    "nonce too short": lambda w: w.signed(nonce="0123456789abcde"),
    "nonce too long": lambda w: w.signed(nonce="0" * 65),
    "expires": lambda w: w.signed(expires=None),
    "keyid": lambda w: w.signed(key_id=w.department.id.hex().upper()),
    "keyid of another length": lambda w: w.signed(key_id="00"),
    "unreadable": lambda w: w.signed() | {"Signature-Input": "sig1=("},
}


@pytest.mark.parametrize("what", MISSING)
def test_what_a_signature_must_cover_and_say(world: World, what: str) -> None:
    """Exactly the components, every parameter: missing, more or another one is refused before any key is tried."""
    assert world.code(MISSING[what](world)) is Code.REQUEST_COMPONENTS


def test_a_signature_holds_for_one_request(world: World) -> None:
    """Another method, path or host, another body, another's signature."""
    good = world.signed()
    other = world.signed(world.other)
    assert world.code(good, method="GET") is Code.REQUEST_SIGNATURE
    assert world.code(good, url=URL + "x") is Code.REQUEST_SIGNATURE
    assert world.code(good, url=URL.replace("gateway.example", "localhost")) is Code.REQUEST_SIGNATURE
    assert world.code(good, url=URL.replace("8443", "8444")) is Code.REQUEST_AUTHORITY
    assert world.code(good, url=URL.replace("gateway", "other")) is Code.REQUEST_AUTHORITY
    assert world.code(good, body=BODY + b"!") is Code.REQUEST_DIGEST
    changed = good | {"Content-Digest": httpsig.content_digest(b"!")}
    assert world.code(changed, body=b"!") is Code.REQUEST_SIGNATURE
    assert world.code(good | {"Signature": other["Signature"]}) is Code.REQUEST_SIGNATURE
    assert world.code(other | {"Signature-Input": good["Signature-Input"]}) is Code.REQUEST_SIGNATURE
    assert world.code(good | {"Signature": "sig2=:AAAA:"}) is Code.REQUEST_SIGNATURE
    for name in ("Signature", "Signature-Input"):
        assert world.code({key: value for key, value in good.items() if key != name}) is Code.REQUEST_UNSIGNED
    assert world.code({key: value for key, value in good.items() if key != "Content-Digest"}) is Code.REQUEST_DIGEST
    for nonce in ("0123456789abcdeg", "0123456789abcdef0"):
        said = good["Signature-Input"].replace("0123456789abcdef", nonce)
        assert world.code(good | {"Signature-Input": said}) is Code.REQUEST_SIGNATURE
    assert world.verify(good)


def test_times(world: World) -> None:
    """Five seconds of skew either way, sixty of validity, to the second."""
    skew, whole = httpsig.CLOCK_SKEW, world.now.replace(microsecond=0)

    def at(created: timedelta, valid: timedelta = httpsig.VALID_FOR) -> dict[str, str]:
        return world.signed(created=whole + created, expires=whole + created + valid)

    for created in (-httpsig.VALID_FOR - skew + SECOND, timedelta(), skew):
        assert world.verify(at(created)), created
    for bad in (
        at(skew + 2 * SECOND),
        at(-httpsig.VALID_FOR - skew - SECOND),
        at(timedelta(), httpsig.VALID_FOR + SECOND),
        at(timedelta(), -SECOND),
    ):
        assert world.code(bad) is Code.REQUEST_EXPIRED


def test_keys_that_sign_no_requests(world: World, tmp_path: Path) -> None:
    """A record key, a stranger's, one that has ended by the moment it is asked with."""
    assert world.code(world.signed(world.record)) is Code.CERTIFICATE_ROLE
    assert world.code(world.signed(world.ca.signer)) is Code.CERTIFICATE_UNKNOWN
    stranger = CertificateAuthority.create(tmp_path, "bus.test", OTHER).issue(Role.DEPARTMENT, USCC, USCC)
    assert world.code(world.signed(stranger)) is Code.CERTIFICATE_UNKNOWN
    ended = world.ca.issue(Role.DEPARTMENT, USCC, USCC)
    world.trust.add(certificate_value(ended.der))
    assert world.verify(world.signed(ended))
    world.trust.add(revocation_value(ended.id, world.now, None, world.ca.signer))
    assert world.code(world.signed(ended)) is Code.CERTIFICATE_REVOKED


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://Gateway.Example:443/v1", "gateway.example"),
        ("http://gateway.example:80/", "gateway.example"),
        ("https://gateway.example:80/", "gateway.example:80"),
        ("https://127.0.0.1:8443/v1/keys", "127.0.0.1:8443"),
    ],
)
def test_an_authority_is_spelt_in_one_way(url: str, said: str) -> None:
    """As RFC 9421 §2.2.3 has it, so that what was signed and what a gateway is called can be compared."""
    assert httpsig.authority(url) == said
