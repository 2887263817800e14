"""How a process speaks to Kafka and to gateways: over TLS, as somebody.

Two kinds of certificates stand apart on purpose. Signing keys are Ed25519 under the bus CA (`bus.pki`): they say who
made a record. Connections are under a transport CA of the operator's own PKI, with keys that Kafka's Java and browsers
accept (they take no Ed25519 in TLS): it says whom one is connected to, and can sign no record.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bus.pki import write_private, write_public
from schemas.errors import Code, Malformed, Misuse

LOGIN, BROKERS = "kafka.json", "kafka-ca.pem"
UNPACKED = {"Accept-Encoding": "identity"}  # what every request here asks for: see `answer_of`


def client_context(authority: str) -> ssl.SSLContext:
    """TLS 1.3 to a server whom `authority` (PEM, one or more CAs) certified; the system's CAs if it is empty."""
    context = ssl.create_default_context(cadata=authority or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


async def answer_of(response: httpx.Response, limit: int) -> bytes:
    """The body of an answer as it comes in, no longer than `limit`. Raises `Malformed`, and httpx's own errors.

    REQUEST_TOO_LARGE before it is held whole, REQUEST_ENCODED if it is packed: a few bytes would unpack to gigabytes.
    """
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Malformed(Code.REQUEST_ENCODED, f"{response.url.host} packed its answer, which was not asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            raise Malformed(Code.REQUEST_TOO_LARGE, f"{response.url.host} answered with more than {limit} bytes")
    return bytes(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """As whom Kafka knows a process, and who certifies its brokers (PEM). `repr` shows no password.

    A user logs in by SCRAM-SHA-512 (RFC 5802); without one, by a client certificate and its key (PEM files).
    `servers` is where, if not where everybody does: brokers may keep a listener for administrators.
    """

    authority: str
    user: str = ""
    password: str = field(default="", repr=False)
    certificate: Path | None = None
    key: Path | None = None
    servers: str = ""

    def save(self, folder: Path) -> None:
        """`kafka.json` (0600) and `kafka-ca.pem`."""
        own = {"user": self.user, "password": self.password}
        about = own if self.user else {"certificate": str(self.certificate), "key": str(self.key)}
        about |= {"servers": self.servers} if self.servers else {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_public(folder / BROKERS, self.authority.encode("ascii"))
        write_private(folder / LOGIN, json.dumps(about).encode())

    @classmethod
    def load(cls, folder: Path) -> Login | None:
        """None if the folder has no login: Kafka is then spoken to in clear. Raises `Misuse` (CONFIG_INVALID)."""
        try:
            about = json.loads((folder / LOGIN).read_text("ascii"))
            authority, servers = (folder / BROKERS).read_text("ascii"), about.get("servers", "")
            if "user" in about:
                return cls(authority=authority, user=about["user"], password=about["password"], servers=servers)
            certificate, key = Path(about["certificate"]), Path(about["key"])
            return cls(authority=authority, certificate=certificate, key=key, servers=servers)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise Misuse(Code.CONFIG_INVALID, f"{folder / LOGIN}: no readable login of Kafka") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A Kafka cluster as one user sees it: `servers` as `HOST:PORT,...`."""

    servers: str
    login: Login | None = None

    @classmethod
    def of(cls, servers: str, folder: Path) -> Cluster:
        """As whoever's login is in the folder; in clear if there is none. Raises `Misuse` (CONFIG_INVALID)."""
        login = Login.load(folder)
        return cls(servers=servers if login is None else login.servers or servers, login=login)

    def options(self) -> dict[str, Any]:
        """What an aiokafka client is given."""
        login = self.login
        if login is None:
            return {"bootstrap_servers": self.servers}
        context = client_context(login.authority)
        if not login.user:
            if login.certificate is not None:
                context.load_cert_chain(login.certificate, login.key)
            return {"bootstrap_servers": self.servers, "security_protocol": "SSL", "ssl_context": context}
        return {
            "bootstrap_servers": self.servers,
            "security_protocol": "SASL_SSL",
            "ssl_context": context,
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": login.user,
            "sasl_plain_password": login.password,
        }
