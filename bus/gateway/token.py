"""A PKCS#11 token (HSM, 密码机, SoftHSM) keeps the master key: it is wrapped by an AES key that never leaves the token.

Needs the extra `pkcs11`. The token's key is destroyed in the token: unlike a file on an SSD, it is gone then.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, Session

from schemas.errors import Code, Refused, Unavailable

_NONCE_BYTES = 12
_TAG_BITS = 128
_BOUND_TO = b"deptbus/1 master key in token"


class Token:
    """An AES-256 key of a token, by its label. `pin_file` holds the user's PIN, as the token wants it."""

    def __init__(self, module: str, token: str, label: str, pin_file: Path) -> None:
        self._module, self._token, self._label, self._pin_file = module, token, label, pin_file

    @classmethod
    def create(cls, module: str, token: str, pin_file: Path) -> Self:
        """A new key in the token: sensitive, not extractable. Raises `Unavailable` (KEYS_LOCKED)."""
        made = cls(module, token, f"deptbus-{secrets.token_hex(8)}", pin_file)
        with made._session(write=True) as session:
            session.generate_key(
                KeyType.AES,
                256,
                label=made._label,
                store=True,
                template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
            )
        return made

    @classmethod
    def named(cls, about: Mapping[str, Any]) -> Self:
        """The key that `master.json` names."""
        return cls(about["module"], about["token"], about["label"], Path(about["pin_file"]))

    def renewed(self) -> Token:
        """Another key of the same token: the next generation's."""
        return self.create(self._module, self._token, self._pin_file)

    def destroy(self) -> None:
        """The key is gone, and with it every master key that it wrapped. Raises `Unavailable` (KEYS_LOCKED)."""
        with self._session(write=True) as session:
            self._key(session).destroy()

    def about(self) -> dict[str, Any]:
        """Module, token, label, and where the PIN is."""
        return {
            "kind": "pkcs11",
            "module": self._module,
            "token": self._token,
            "label": self._label,
            "pin_file": str(self._pin_file),
        }

    def wrap(self, key: bytes) -> bytes:
        """`nonce ‖ ciphertext` (AES-GCM, in the token). Raises `Unavailable` (KEYS_LOCKED)."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        with self._session() as session:
            return nonce + bytes(
                self._key(session).encrypt(key, mechanism=Mechanism.AES_GCM, mechanism_param=_gcm(nonce))
            )

    def unwrap(self, wrapped: bytes) -> bytes:
        """Raises `Refused` (KEYS_UNOPENABLE), `Unavailable` (KEYS_LOCKED)."""
        nonce, data = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
        with self._session() as session:
            key = self._key(session)
            try:
                return bytes(key.decrypt(data, mechanism=Mechanism.AES_GCM, mechanism_param=_gcm(nonce)))
            except pkcs11.PKCS11Error as exc:
                raise Refused(Code.KEYS_UNOPENABLE, f"{self._label} in the token did not wrap this master key") from exc

    def _key(self, session: Session) -> Any:
        """Its operations come with what the token says that it can do: the library's types do not know them."""
        return session.get_key(key_type=KeyType.AES, label=self._label)

    @contextmanager
    def _session(self, *, write: bool = False) -> Iterator[Session]:
        try:
            pin = self._pin_file.read_text("utf-8").strip()
            with pkcs11.lib(self._module).get_token(token_label=self._token).open(rw=write, user_pin=pin) as session:
                yield session
        except (pkcs11.PKCS11Error, OSError) as exc:
            detail = (
                f"token {self._token} of {self._module}: {type(exc).__name__}: is it there, and its PIN in its file?"
            )
            raise Unavailable(Code.KEYS_LOCKED, detail) from exc


def _gcm(nonce: bytes) -> GCMParams:
    return GCMParams(nonce, _BOUND_TO, _TAG_BITS)
