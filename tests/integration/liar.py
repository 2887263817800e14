"""`python -m tests.integration.liar LIE ...`: the local stack's OpenID provider, which lies as the file LIE says.

An honest one while the file is empty: `{"claims": {...}}` changes what a token says, `{"alg": ...}` how it is signed.
"""

from __future__ import annotations

import base64
import hmac
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.accounts import provider
from deploy.accounts.__main__ import main
from deploy.accounts.store import Store

_honest = provider.id_token
_LIE = Path(sys.argv.pop(1))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def id_token(store: Store, claims: Mapping[str, Any]) -> str:
    lie = json.loads(_LIE.read_text("utf-8") or "{}")
    claims = {**claims, **lie.get("claims", {})}
    if "alg" not in lie:
        return _honest(store, claims)
    key = store.signing_keys()[0]
    head = {"alg": lie["alg"], "kid": key.kid}
    text = ".".join(_encoded(json.dumps(one).encode()) for one in (head, claims))
    signature = b""
    if lie["alg"] == "HS256":  # with what everybody may fetch
        signature = hmac.digest(key.as_pem(private=False), text.encode(), "sha256")
    return f"{text}.{_encoded(signature)}"


provider.id_token = id_token

if __name__ == "__main__":
    main()
