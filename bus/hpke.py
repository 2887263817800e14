"""HPKE (RFC 9180), base mode, to the hybrid KEM X25519/ML-KEM-768: how session secrets and grants travel.

KEM 0x647A, KDF 0x0001 (HKDF-SHA-256), AEAD 0x0002 (AES-256-GCM), empty aad. Base mode does not say who sealed: the
records around it are signed.
"""

from __future__ import annotations

from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from schemas.errors import Code, Malformed, Refused

KEM_ID = 0x647A
PUBLIC_BYTES = 1_216  # ML-KEM-768 (1,184) ‖ X25519 (32)
PRIVATE_BYTES = 96  # ML-KEM seed (64) ‖ X25519 (32)
OVERHEAD = 1_120 + 16  # enc and the AEAD's tag
_MLKEM_PUBLIC = 1_184
_MLKEM_SEED = 64
_PROBE = X25519PrivateKey.generate()
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class PrivateKey:
    """A recipient's key pair. Never shows its private half in `repr`."""

    __slots__ = ("_key", "_raw", "id", "public")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != PRIVATE_BYTES:
            raise Malformed(Code.CONFIG_INVALID, f"a KEM private key has {PRIVATE_BYTES} bytes")
        mlkem = MLKEM768PrivateKey.from_seed_bytes(raw[:_MLKEM_SEED])
        x25519 = X25519PrivateKey.from_private_bytes(raw[_MLKEM_SEED:])
        self._raw = raw
        self._key = hpke.MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        self.id = sha256(self.public).digest()

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new key pair, from the operating system's randomness."""
        return cls(MLKEM768PrivateKey.generate().private_bytes_raw() + X25519PrivateKey.generate().private_bytes_raw())

    def private_bytes(self) -> bytes:
        """For the key's own file only."""
        return self._raw

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Raises `Refused` (BODY_UNOPENABLE) if it was not sealed to this key with this `info`."""
        try:
            return _SUITE.decrypt(sealed, self._key, info)
        except (InvalidTag, ValueError) as exc:
            raise Refused(Code.BODY_UNOPENABLE, "the sealed bytes do not open with this key: not sealed to it") from exc


class PublicKey:
    """A recipient, parsed once and sealed to many times."""

    __slots__ = ("_key", "id")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != PUBLIC_BYTES:
            raise Malformed(Code.CERTIFICATE_INVALID, f"a KEM public key has {PUBLIC_BYTES} bytes, not {len(raw)}")
        try:
            x25519 = X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC:])
            _PROBE.exchange(x25519)  # a point of low order is found here, not when something is sealed to it
            mlkem = MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC])
            self._key = hpke.MLKEM768X25519PublicKey(mlkem, x25519)
        except ValueError as exc:
            raise Malformed(Code.CERTIFICATE_INVALID, "the KEM public key is not a valid one") from exc
        self.id = sha256(raw).digest()

    def seal(self, plain: bytes, info: bytes) -> bytes:
        """`enc ‖ ct`."""
        return _SUITE.encrypt(plain, self._key, info)
