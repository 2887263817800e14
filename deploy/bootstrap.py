"""What a bus needs before its processes start.

A CA, the processes' keys, the audit log's key and guard, the schema, the topics. Each step may be repeated.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bus import access, cataloguefeed, db, hpke, kafkaadmin, keeper, pseudonyms, topics, trustfeed
from bus.cataloguefeed import CatalogueFeed, standing_value
from bus.gateway import catalogue, control, issuing
from bus.gateway import keyring as keys
from bus.gateway.keyring import Keyring
from bus.gateway.master import COST_RANDOM, Master, Passphrase
from bus.identity import Identity
from bus.kafka import kafka_errors, producer
from bus.people.openid import Registration
from bus.pki import (
    CERTIFICATE_DAYS,
    CertificateAuthority,
    Role,
    Signer,
    check_url,
    write_private,
    write_public,
)
from bus.recorder.guard import Guard
from bus.recorder.log import LogKeys
from bus.supervision import Rules
from bus.tlog import policy
from bus.tlog.note import NoteSigner
from bus.transport import Cluster, Login
from bus.trust import Trust, certificate_value, kem_key_value, topic_key
from bus.trustfeed import TrustFeed
from consent.collections import Proofs
from schemas.catalogue import Catalogue
from schemas.errors import Code, Misuse
from schemas.identifiers import parse_uscc

OPERATOR = "operator"  # its department's name and folder
LOCAL_REGION = "330000"  # GB/T 2260: the province whose log this is
# A synthetic credit code (its area and serial belong to nobody): the local stack's operator.
LOCAL_OPERATOR = ("deptbus.local", "11330000MB2A00097N")
CONSUMER_KEM_LIFE = timedelta(days=CERTIFICATE_DAYS - 1)  # no longer than the certificate that vouches for it
GENERATION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bus:
    """A bus's own folder: `config.json`, `ca/`, `gateway/`, `recorder/`, `log/`.

    A process needs of `ca/` the certificate alone: the key may be elsewhere. A provider's own gateway has such a folder
    with `gateway/` in it, whose key is the provider's.
    """

    folder: Path
    origin: str
    operator: str
    region: str
    log_keep_years: int | None = None

    @classmethod
    def load(cls, folder: Path) -> Bus:
        """Raises `Misuse` (CONFIG_INVALID) if `prepare` never ran here."""
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            region = config.get("region", LOCAL_REGION)  # a bus of before the log had a tree has none
            return cls(
                folder=folder,
                origin=config["origin"],
                operator=config["operator"],
                region=region,
                log_keep_years=config.get("log_keep_years"),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise Misuse(Code.CONFIG_INVALID, f"{folder}: no bus was set up here; `deptbus up` does it") from exc

    @property
    def authority(self) -> CertificateAuthority:
        """The bus's CA, with its private key."""
        return CertificateAuthority(self.folder / "ca")

    @property
    def authority_der(self) -> bytes:
        """The bus CA's certificate. Raises `Misuse` (CONFIG_INVALID)."""
        file = self.folder / "ca" / "ca.pem"
        try:
            return x509.load_pem_x509_certificate(file.read_bytes()).public_bytes(Encoding.DER)
        except (OSError, ValueError) as exc:
            raise Misuse(Code.CONFIG_INVALID, f"{file}: the bus CA's certificate cannot be read") from exc

    def signer(self, process: str) -> Signer:
        """The key of `gateway` or `recorder`."""
        return Signer.load(self.folder / process, process)

    @property
    def log_origin(self) -> str:
        """The audit log's name: its URL's path on a gateway, and what its checkpoints begin with."""
        return f"{self.origin}/log/{self.region}"

    @property
    def guard_file(self) -> Path:
        """The fork guard. In no backup of the database, and in none that is restored with it."""
        return self.folder / "log" / "guard.sqlite"

    def log_keys(self) -> LogKeys:
        """The log's key and guard, and the policy (C2SP tlog-policy) in `log/policy` that names its witnesses, if any.

        Raises `Misuse` (CONFIG_INVALID) if the log was never begun, or for a policy that cannot be read.
        """
        signer = NoteSigner.load(self.folder / "log" / "log.key")
        guard, file = Guard(self.guard_file, self.log_origin), self.folder / "log" / "policy"
        witnesses = policy.parse(file.read_bytes()) if file.exists() else policy.Policy()
        return LogKeys(signer=signer, guard=guard, policy=witnesses, keep_years=self.log_keep_years)

    def supervision_rules(self) -> Rules:
        """Those in `supervision.toml`, or those that come with the software. Raises `Malformed` (CONFIG_INVALID)."""
        file = self.folder / "supervision.toml"
        return Rules.load(file if file.exists() else None)

    def proofs(self) -> Proofs:
        """The lists in `proofs.toml`, or those that come with the software. Raises `Malformed` (CONFIG_INVALID)."""
        file = self.folder / "proofs.toml"
        return Proofs.parse(file.read_bytes()) if file.exists() else Proofs.shipped()

    def people(self) -> Registration | None:
        """The bus's registration at the OpenID provider in `people.json`. Raises `Misuse` (CONFIG_INVALID)."""
        return Registration.load(self.folder / "people.json")

    def begin_log(self) -> None:
        """The log's key, its verifier key for everyone, its guard at nothing. Once: `Misuse` if there is a guard."""
        key = self.folder / "log" / "log.key"
        if not key.exists():
            key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            NoteSigner.create(key, self.log_origin)
        vkey = NoteSigner.load(key).verifier.vkey
        key.with_suffix(".vkey").write_text(vkey + "\n", "utf-8")
        Guard.create(self.guard_file, self.log_origin)

    def cluster(self, servers: str, process: str) -> Cluster:
        """Kafka at `servers`, as one of the bus's processes."""
        return Cluster.of(servers, self.folder / process)

    @property
    def tls_authority(self) -> str:
        """Who certifies servers for TLS (PEM); empty if the bus has no CA of its own for that."""
        file = self.folder / "tls" / "ca.pem"
        return file.read_text("ascii") if file.exists() else ""

    def keyring(self) -> Keyring:
        """The gateway's secret keys. Raises `Misuse` (CONFIG_INVALID) if they have no master key yet."""
        return keys.open_keyring(self.folder / "gateway", self.signer("gateway"))


def keep_keys(folder: Path, signer: Signer) -> None:
    """The master key of a gateway's keys, if they have none yet: under a passphrase in `unlock/`, beside the bus.

    That keeps it out of a copy of the keys' folder, and from nobody who reads this machine: `deptbus keys` gives it to
    a token or to officers.
    """
    if (folder / "master.json").exists():
        return
    file = folder.parent.parent / "unlock" / f"{signer.id.hex()[:16]}.passphrase"
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = secrets.token_urlsafe(32)
    write_private(file, text.encode())
    master = Master.create(folder, Passphrase(text, file=os.path.relpath(file, folder), cost=COST_RANDOM))
    Keyring(folder, signer, master).adopt()


async def prepare(folder: Path, kafka: Cluster, dsn: str) -> Bus:
    """Makes or completes a bus; `kafka` as its administrator. A crash in the middle is mended by the next call."""
    bus = _set_up(folder)
    keep_keys(folder / "gateway", bus.signer("gateway"))
    await db.migrate(dsn)
    await _open(folder, kafka, dsn)
    values = [certificate_value(bus.signer(process).der) for process in ("gateway", "recorder")]
    keyring = bus.keyring()
    if not keyring.master.locked:  # else a gateway does it, once officers have unlocked it
        values.append(keyring.renew_kem(datetime.now(UTC)))
    await publish_certificates(kafka, values)
    connection = await db.connect(dsn)
    try:
        signer = bus.signer("gateway")
        await control.add_org(connection, bus.operator, OPERATOR, operator=True)
        await issuing.adopt(connection, signer, bus.origin)
        await catalogue.publish_shipped(connection, Catalogue.load(), signer, bus.origin)
        await _announce(bus, kafka, connection)
    finally:
        await connection.close()
    return bus


async def _open(folder: Path, kafka: Cluster, dsn: str) -> None:
    """Topics, the processes' logins, and everybody's access rules. A Kafka spoken to in clear has no users to part."""
    catalogue = Catalogue.load()
    connection = await db.connect(dsn)
    try:
        known = await keeper.departments(connection, keeper.today())
        await topics.apply_catalogue(kafka, catalogue, [one.uscc for one in known])
        if kafka.login is not None:
            for process in access.PROCESSES:
                (await _log_in(kafka, process, Login.load(folder / process))).save(folder / process)
            async with kafkaadmin.administrator(kafka) as admin:
                await admin.apply(await keeper.compare(admin, connection, catalogue))
    finally:
        await connection.close()


async def _log_in(kafka: Cluster, user: str, known: Login | None) -> Login:
    """The user's login, made if it has none. Kafka is told again what it may have lost with its data."""
    assert kafka.login is not None
    login = (
        replace(known, authority=kafka.login.authority)
        if known
        else Login(authority=kafka.login.authority, user=user, password=secrets.token_urlsafe(32))
    )
    await kafkaadmin.put_user(kafka, user, login.password)
    return login


async def renew_login(folder: Path, kafka: Cluster, user: str) -> None:
    """A new password for a user of Kafka. Kafka knows one a user: the old one is nobody's from now on.

    A crash before the folder has it leaves a login that does not work: renewed again, it does.
    """
    if kafka.login is None:
        raise Misuse(Code.CONFIG_INVALID, "this Kafka is spoken to in clear: it has no users")
    (await _log_in(kafka, user, None)).save(folder)


async def _announce(bus: Bus, kafka: Cluster, connection: asyncpg.Connection) -> None:
    """Puts on `bus.catalogue` what it lacks: publishers need no gateway."""
    trust = TrustFeed(Trust(bus.authority_der), kafka, "bootstrap")
    feed = CatalogueFeed(trust, bus.operator, kafka, "bootstrap")
    client = await producer(kafka, "bootstrap")
    try:
        await trust.start()
        await feed.start()
        await issuing.announce(connection, feed, client, bus.signer("gateway"))
    finally:
        await feed.stop()
        await trust.stop()
        await client.stop()


async def publish_certificates(kafka: Cluster, values: Iterable[bytes]) -> None:
    """Puts values on `bus.certificates`. The same value twice does no harm."""
    await _publish(kafka, [(trustfeed.TOPIC, topic_key(value), value) for value in values])


async def _publish(kafka: Cluster, messages: Iterable[tuple[str, bytes, bytes]]) -> None:
    client = await producer(kafka, "bootstrap")
    try:
        async with kafka_errors("publishing certificates and powers"):
            for topic, key, value in messages:
                await client.send_and_wait(topic, value, key=key)
    finally:
        await client.stop()


async def add_org(
    bus: Bus,
    folder: Path,
    kafka: Cluster,
    dsn: str,
    *,
    name: str,
    uscc: str,
    issues: Sequence[tuple[str, str]],
    receives: Sequence[str],
    auditor: bool = False,
    portal: bool = False,
    keyring: Keyring | None = None,
) -> Identity:
    """A department joins: keys, certificates, KemKey, pseudonym keys. `issues` are (item, region prefix), by law.

    Called again for the same name it keeps the keys and adds items. `keyring` is the bus's, where officers had to
    unlock it: pseudonym keys are derived from it. Raises `Misuse` if the name stands for another code, `Unavailable`
    (KEYS_LOCKED) before anything is done.
    """
    parse_uscc(uscc)
    known = Catalogue.load()
    items = sorted({known.item(item).name for item in (*receives, *(item for item, _ in issues))})
    root = (keyring or bus.keyring()).pseudonym_root if items else b""
    keys = {item: {GENERATION: pseudonyms.item_key(root, item, GENERATION)} for item in items}
    login = None if kafka.login is None else await _log_in(kafka, uscc, Login.load(folder))
    if (folder / "org.json").exists():
        identity = _extend(folder, uscc, keys, login, bus.tls_authority)
    else:
        identity = _new_identity(bus, name, uscc, keys, login)
        identity.save(folder)
    signer = bus.signer("gateway")
    connection = await db.connect(dsn)
    try:
        await control.add_org(connection, uscc, name, auditor=auditor, portal=portal)
        given = [
            await issuing.give(connection, signer, bus.origin, item=item, uscc=uscc, region=region)
            for item, region in issues
        ]
        await topics.apply(kafka, [topics.notices_of(uscc)])
        if login is not None:
            await keeper.admit(kafka, connection, known, uscc)
    finally:
        await connection.close()
    begin, kem = datetime.now(UTC).replace(microsecond=0), consumer_kem(identity.kem.public, identity.department)
    await publish_certificates(
        kafka, [certificate_value(identity.record.der), certificate_value(identity.department.der), kem]
    )
    await _publish(
        kafka, [(cataloguefeed.TOPIC, one.id.bytes, standing_value(one, begin, signer)) for one in given if one]
    )
    return identity


def own_gateway(folder: Path) -> Path:
    """Where a department's own gateway is: a bus's folder (`Bus`) in the department's."""
    return folder / "bus"


async def add_gateway(
    bus: Bus, folder: Path, kafka: Cluster, dsn: str, *, identity: Identity, urls: Sequence[str]
) -> Bus:
    """A provider's own gateway (自建网关): from now on the department seals its sessions to it, and to nobody else.

    Its certificate says where it is reached; called again it is given another that says `urls`. What was sealed before
    is the bus's gateways' to open. The department's folder says last whom it seals to: a crash before that changes
    nothing for it. Raises `Malformed` (CERTIFICATE_INVALID) for what is no address.
    """
    own = own_gateway(folder)
    keys_, reached = own / "gateway", tuple(map(check_url, urls))
    for name in ("ca", "tls"):
        (own / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        write_public(own / name / "ca.pem", (bus.folder / name / "ca.pem").read_bytes())
    said = {"origin": bus.origin, "operator": bus.operator, "region": bus.region}
    if not (own / "config.json").exists() or Signer.load(keys_, "gateway").urls != reached:
        keys_.mkdir(exist_ok=True, mode=0o700)
        bus.authority.issue(Role.GATEWAY, identity.uscc, f"{identity.name} gateway", reached).save(keys_, "gateway")
    signer = Signer.load(keys_, "gateway")
    keep_keys(keys_, signer)
    write_private(own / "config.json", json.dumps(said, indent=2).encode())
    if kafka.login is not None:
        (await _log_in(kafka, access.gateway_of(identity.uscc), Login.load(keys_))).save(keys_)
    connection = await db.connect(dsn)
    try:
        await control.has_own_gateway(connection, identity.uscc)
        if kafka.login is not None:
            await keeper.admit(kafka, connection, Catalogue.load(), identity.uscc)
    finally:
        await connection.close()
    made = Bus.load(own)
    keyring, values = made.keyring(), [certificate_value(signer.der)]
    if not keyring.master.locked:  # else it was set up before, and its officers have yet to unlock it
        values.append(keyring.renew_kem(datetime.now(UTC)))
    await publish_certificates(kafka, values)
    replace(identity, own_gateway=True).save_about(folder)
    return made


def consumer_kem(public: bytes, department: Signer) -> bytes:
    """The `bus.certificates` value of a key that grants are sealed to, from now on."""
    begin = datetime.now(UTC).replace(microsecond=0)
    return kem_key_value(public, department.uscc, "CONSUMER", begin, begin + CONSUMER_KEM_LIFE, department)


async def add_operator(bus: Bus, folder: Path, kafka: Cluster, dsn: str) -> Identity:
    """The operator's own identity: it reviews and publishes entries, coordinates, and ends powers by law."""
    return await add_org(bus, folder, kafka, dsn, name=OPERATOR, uscc=bus.operator, issues=(), receives=())


def _set_up(folder: Path) -> Bus:
    config = folder / "config.json"
    if not config.exists():
        origin, operator = LOCAL_OPERATOR
        if not (folder / "ca" / "ca.pem").exists():
            CertificateAuthority.create(folder / "ca", origin, operator)
        authority = CertificateAuthority(folder / "ca")
        for process, role in (("gateway", Role.GATEWAY), ("recorder", Role.RECORDER)):
            (folder / process).mkdir(parents=True, exist_ok=True, mode=0o700)
            authority.issue(role, operator, f"{origin} {process}").save(folder / process, process)
        bus = Bus(folder=folder, origin=origin, operator=operator, region=LOCAL_REGION)
        if not bus.guard_file.exists():
            bus.begin_log()  # inception: only here, where the whole bus is new, and by `deptbus audit incept`
        said = {"origin": origin, "operator": operator, "region": LOCAL_REGION}
        write_private(config, json.dumps(said, indent=2).encode())
    return Bus.load(folder)


def _new_identity(bus: Bus, name: str, uscc: str, keys: dict[str, dict[int, bytes]], login: Login | None) -> Identity:
    authority = bus.authority
    return Identity(
        name=name,
        uscc=uscc,
        origin=bus.origin,
        gateway_owner=bus.operator,
        authority=authority.signer.der,
        record=authority.issue(Role.RECORD, uscc, name),
        department=authority.issue(Role.DEPARTMENT, uscc, name),
        kem=hpke.PrivateKey.generate(),
        pseudonym_keys=keys,
        login=login,
        tls_authority=bus.tls_authority,
    )


def _extend(
    folder: Path, uscc: str, keys: dict[str, dict[int, bytes]], login: Login | None, tls_authority: str
) -> Identity:
    known = Identity.load(folder)
    if known.uscc != uscc:
        raise Misuse(Code.CONFIG_INVALID, f"{known.name} is {known.uscc}, not {uscc}: choose another name")
    merged = {item: dict(of_item) for item, of_item in known.pseudonym_keys.items()} | keys
    identity = replace(known, pseudonym_keys=merged, login=login, tls_authority=tls_authority)
    identity.save_pseudonym_keys(folder)
    identity.save_login(folder)
    return identity
