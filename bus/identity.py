"""What a department holds: its keys, its certificates, the pseudonym keys of its items, and where the bus is.

A folder, readable by its owner only::

    org.json          {name, uscc, bus origin, gateway owner}
    ca.pem            the bus CA's certificate
    record.{key,pem}  signs records and sessions
    department.{key,pem}  signs requests and the KemKey
    kem.key           opens grants (private, raw)
    pseudonyms.json   {item: {generation: key in hex}}
    kafka.json        user and password at Kafka
    kafka-ca.pem      who certifies its brokers for TLS
    tls-ca.pem        who certifies gateways for TLS
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bus import hpke
from bus.pki import Signer, stamp, write_private, write_public
from bus.renewal import follow
from bus.transport import Cluster, Login
from schemas.errors import Code, Misuse

KEM = "kem.key"

TLS_AUTHORITY = "tls-ca.pem"


@dataclass(slots=True, kw_only=True, repr=False)
class Identity:
    """A department as its own systems know it. Its keys follow the folder that it was loaded from, by `refresh`.

    `gateway_owner` is the bus's operator; with `own_gateway`, gateways of the department's own open its sessions.
    """

    name: str
    uscc: str
    origin: str
    gateway_owner: str
    authority: bytes
    record: Signer
    department: Signer
    kem: hpke.PrivateKey
    pseudonym_keys: Mapping[str, Mapping[int, bytes]]
    login: Login | None = None
    tls_authority: str = ""
    own_gateway: bool = False
    folder: Path | None = field(default=None, compare=False)
    _kem_seen: tuple[int, int, int] | None = field(default=None, compare=False)

    def refresh(self) -> bool:
        """Takes up the keys that were renewed in the folder; a few microseconds if none was.

        A key that is there counts already: `deptbus cert renew` publishes its certificate before it puts it in place.
        """
        renewed = [follow(self.record, "record"), follow(self.department, "department")]
        if self.folder is not None and (seen := stamp(self.folder / KEM)) not in (None, self._kem_seen):
            found = hpke.PrivateKey((self.folder / KEM).read_bytes())
            renewed.append(found.id != self.kem.id)
            self.kem, self._kem_seen = found, seen
        return any(renewed)

    @property
    def sealed_to(self) -> str:
        """Whose gateways open its sessions, by credit code."""
        return self.uscc if self.own_gateway else self.gateway_owner

    def cluster(self, servers: str) -> Cluster:
        """Kafka at `servers` (`HOST:PORT,...`), as this department."""
        return Cluster(servers=servers, login=self.login)

    def pseudonym_key(self, item: str, generation: int | None = None) -> tuple[int, bytes]:
        """The key of a generation, or of the newest.

        Raises `Misuse`: this department has nothing to do with the item.
        """
        keys = self.pseudonym_keys.get(item, {})
        chosen = max(keys, default=0) if generation is None else generation
        if chosen not in keys:
            raise Misuse(
                Code.ITEM_UNKNOWN, f"{self.name} holds no pseudonym key of {item}: `deptbus org add` gives one"
            )
        return chosen, keys[chosen]

    def save(self, folder: Path) -> None:
        """Writes the folder; a crash half-way leaves no identity in it."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        certificate = x509.load_der_x509_certificate(self.authority)
        write_public(folder / "ca.pem", certificate.public_bytes(Encoding.PEM))
        self.record.save(folder, "record")
        self.department.save(folder, "department")
        write_private(folder / KEM, self.kem.private_bytes())
        self.save_pseudonym_keys(folder)
        self.save_login(folder)
        # Last: a folder without it is not an identity, so a crash half-way leaves none.
        self.save_about(folder)
        self.folder, self._kem_seen = folder, stamp(folder / KEM)

    def save_about(self, folder: Path) -> None:
        """Writes who it is, and to whose gateways it seals, anew."""
        about = {
            "name": self.name,
            "uscc": self.uscc,
            "origin": self.origin,
            "gateway_owner": self.gateway_owner,
            "own_gateway": self.own_gateway,
        }
        write_private(folder / "org.json", json.dumps(about, ensure_ascii=False, indent=2).encode())

    def save_login(self, folder: Path) -> None:
        """Writes how to connect anew."""
        write_public(folder / TLS_AUTHORITY, self.tls_authority.encode("ascii"))
        if self.login is not None:
            self.login.save(folder)

    def save_pseudonym_keys(self, folder: Path) -> None:
        """Writes the items' pseudonym keys anew."""
        keys = {
            item: {str(number): key.hex() for number, key in of_item.items()}
            for item, of_item in self.pseudonym_keys.items()
        }
        write_private(folder / "pseudonyms.json", json.dumps(keys, indent=2).encode())

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """Raises `Misuse` (CONFIG_INVALID) naming what is missing."""
        try:
            about = json.loads((folder / "org.json").read_text("utf-8"))
            keys = json.loads((folder / "pseudonyms.json").read_text("utf-8"))
            authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            return cls(
                name=about["name"],
                uscc=about["uscc"],
                origin=about["origin"],
                gateway_owner=about["gateway_owner"],
                own_gateway=about.get("own_gateway", False),
                authority=authority.public_bytes(Encoding.DER),
                record=Signer.load(folder, "record"),
                department=Signer.load(folder, "department"),
                kem=hpke.PrivateKey((folder / KEM).read_bytes()),
                pseudonym_keys={
                    item: {int(number): bytes.fromhex(key) for number, key in of_item.items()}
                    for item, of_item in keys.items()
                },
                login=Login.load(folder),
                tls_authority=(folder / TLS_AUTHORITY).read_text("ascii") if (folder / TLS_AUTHORITY).exists() else "",
                folder=folder,
                _kem_seen=stamp(folder / KEM),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise Misuse(
                Code.CONFIG_INVALID, f"{folder}: not a department's folder ({exc}); make one with `deptbus org add`"
            ) from exc
