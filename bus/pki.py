"""Certificates: a CA for the bus, and departments' own CAs that it certifies; one role a key.

X.509 with Ed25519 (RFC 8410). `serialNumber` of the subject (2.5.4.5) is the owner's USCC; the role is the only
extended key usage, critical, from a private arc. A CA never certifies one public key twice. A department's CA has path
length 0 (RFC 5280 §4.2.1.9) and certifies keys of its own department only, records' and requests': what writes the
bus's log or releases keys, the bus CA itself vouches for. (X.509 name constraints cannot say this: they are of names
from their beginning on, and a USCC is an attribute beside the name.)

A gateway's certificate may say where the gateway is reached: URIs of its subjectAltName (RFC 5280 §4.2.1.6). So whoever
verifies its grants knows whom to ask, and no second document can say something else.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtensionOID, NameOID

from schemas.errors import Code, Malformed, Misuse, Refused, Unavailable
from schemas.identifiers import parse_uscc

# A UUID-derived arc (ITU-T X.667): nobody assigns it, nobody else uses it.
_ARC = "2.25.311583583803563588260532141206597348873"
CA_YEARS = 10
CERTIFICATE_DAYS = 398  # a department renews once a year; the limit that public CAs keep to
_SIGNATURE = b"\x03\x41\x00"  # a BIT STRING of 64 bytes, no bits unused
CLOCK_SKEW = timedelta(minutes=5)
MAX_REQUEST_BYTES = 8 * 1024  # a certification request of one Ed25519 key has some 500
MAX_URLS = 4  # a gateway on as many hosts: who finds one away asks the next
_HOST = r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){0,7}|\[[0-9a-f:.]{2,45}\]"
_URL = re.compile(rf"https://({_HOST})(:[1-9][0-9]{{0,4}})?\Z")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NEXT = ".next"  # of a key that waits for its certificate
# What this software understands of what must be understood (RFC 5280 §4.2).
_CRITICAL = {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE}


class Role(StrEnum):
    """What a key may sign. The value is the certificate's extended key usage."""

    RECORD = f"{_ARC}.1"
    DEPARTMENT = f"{_ARC}.2"
    GATEWAY = f"{_ARC}.3"
    RECORDER = f"{_ARC}.4"
    TLS = f"{_ARC}.5"


DEPARTMENT_CA_ROLES = frozenset({Role.RECORD, Role.DEPARTMENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A parsed certificate whose issuer signed it.

    Without a `role` it is a department's CA. `issuer` is the id of the department's CA that it is by; None: the bus CA.
    `urls`: where a gateway is reached.
    """

    id: bytes
    der: bytes
    role: Role | None
    uscc: str
    name: str
    key: Ed25519PublicKey
    not_before: datetime
    not_after: datetime
    issuer: bytes | None = None
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a key's holder asks to be certified: `role` None asks for a department's CA; `urls` are a gateway's."""

    key: Ed25519PublicKey
    uscc: str
    name: str
    role: Role | None
    urls: tuple[str, ...] = ()


class Signer:
    """A private key and its certificate. `repr` shows neither.

    One that was loaded from a folder, or saved in one, follows it: `refresh` takes up a renewed key, for everybody who
    holds this object. Nothing else changes it, so what is between two awaits signs with one key.
    """

    __slots__ = ("_file", "_key", "_seen", "certificate", "der", "id")

    def __init__(self, key: Ed25519PrivateKey, der: bytes) -> None:
        self._file: Path | None = None
        self._seen: tuple[int, int, int] | None = None
        self._take(key, der)

    def _take(self, key: Ed25519PrivateKey, der: bytes) -> None:
        self._key = key
        self.der = der
        self.certificate = x509.load_der_x509_certificate(der)
        self.id = sha256(der).digest()

    @property
    def uscc(self) -> str:
        """The owner's unified social credit code, from the certificate's subject."""
        return _attribute(self.certificate.subject, NameOID.SERIAL_NUMBER)

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the gateway whose key it is is reached, as its certificate says."""
        return _urls(self.certificate.extensions, Role.GATEWAY)

    def sign(self, data: bytes) -> bytes:
        """Ed25519 (RFC 8032), 64 bytes."""
        return self._key.sign(data)

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """For libraries that sign themselves (HTTP message signatures)."""
        return self._key

    def save(self, folder: Path, stem: str) -> None:
        """`<stem>.key` (0600: the key, then its certificate) and `<stem>.pem`, the certificate for everybody.

        Key and certificate are one file *because* a process that reads them, or a crash, may come between two.
        """
        certificate, file = self.certificate.public_bytes(Encoding.PEM), folder / f"{stem}.key"
        write_private(file, private_pem(self._key) + certificate)
        write_public(folder / f"{stem}.pem", certificate)
        self._file, self._seen = file, stamp(file)

    @classmethod
    def load(cls, folder: Path, stem: str) -> Signer:
        """Raises `Misuse` (CONFIG_INVALID) if the files are missing or not what they should be."""
        file = folder / f"{stem}.key"
        seen = stamp(file)
        made = cls(*_read(file))
        made._file, made._seen = file, seen
        return made

    def refresh(self) -> bool:
        """Takes up the key that the file has now, if it has another one. One system call if it has not.

        A file that cannot be read changes nothing. Raises `Misuse` (CONFIG_INVALID) for a key of another owner.
        """
        if self._file is None or (seen := stamp(self._file)) in (None, self._seen):
            return False
        try:
            key, der = _read(self._file)
        except Misuse:
            return False
        other = Signer(key, der)
        if other.uscc != self.uscc:
            raise Misuse(Code.CONFIG_INVALID, f"{self._file}: a key of {other.uscc}, not of {self.uscc}")
        self._seen = seen
        if other.id == self.id:
            return False
        self._take(key, der)
        return True


def stamp(file: Path) -> tuple[int, int, int] | None:
    """What tells one state of a file from the next, which replaces it whole; None if it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(file: Path) -> tuple[Ed25519PrivateKey, bytes]:
    """The key and its certificate, which stands behind it or, of an earlier version, in `<stem>.pem`."""
    try:
        data = file.read_bytes()
        key = load_pem_private_key(data, None)
        text = data if b"-----BEGIN CERTIFICATE-----" in data else file.with_suffix(".pem").read_bytes()
        certificate = x509.load_pem_x509_certificate(text)
    except (OSError, ValueError) as exc:
        raise Misuse(Code.CONFIG_INVALID, f"{file.with_suffix('')}: no readable key and certificate") from exc
    if not isinstance(key, Ed25519PrivateKey) or key.public_key() != certificate.public_key():
        raise Misuse(Code.CONFIG_INVALID, f"{file.with_suffix('')}: key and certificate do not belong together")
    return key, certificate.public_bytes(Encoding.DER)


def request(folder: Path, stem: str, *, name: str, uscc: str, role: Role | None, urls: tuple[str, ...] = ()) -> bytes:
    """A request (PKCS #10, RFC 2986), in PEM, to certify a new key that waits in the folder as `<stem>.next.key`.

    The key never leaves the folder. Asked again, another key asks: the one before is forgotten.
    """
    reached = _reached(urls) if urls else None
    file = folder / f"{stem}{_NEXT}.key"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(file, private_pem(Ed25519PrivateKey.generate()))
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(name, uscc))
    builder = builder.add_extension(x509.BasicConstraints(ca=role is None, path_length=None), critical=True)
    if role is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(role.value)]), critical=True)
    if reached is not None:
        builder = builder.add_extension(reached, critical=False)
    return builder.sign(_next_key(file), None).public_bytes(Encoding.PEM)


def install(folder: Path, stem: str, certificate: bytes) -> Signer:
    """Puts the waiting key and its certificate (DER) in the place of the key before; who runs with it takes it up.

    A crash leaves the old pair or the new one. Raises `Misuse` (CONFIG_INVALID) if no waiting key is its key.
    """
    file = folder / f"{stem}{_NEXT}.key"
    made = Signer(_next_key(file), certificate)
    if made.private_key.public_key() != made.certificate.public_key():
        raise Misuse(Code.CONFIG_INVALID, f"{file}: the certificate is of another key than the one that waits here")
    made.save(folder, stem)
    file.unlink()
    return made


def _next_key(file: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError) as exc:
        raise Misuse(Code.CONFIG_INVALID, f"{file}: no key waits here: `deptbus cert request` makes one") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise Misuse(Code.CONFIG_INVALID, f"{file}: not an Ed25519 key")
    return key


def parse_request(pem: bytes) -> Request:
    """What a certification request asks for, whose sender holds the key. Raises `Malformed` (CERTIFICATE_INVALID)."""
    try:
        if len(pem) > MAX_REQUEST_BYTES:
            raise ValueError(len(pem))
        parsed = x509.load_pem_x509_csr(pem)
        authority = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usages = [] if authority else list(parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        key = parsed.public_key()
        role = None if authority else Role(usages[0].dotted_string)
        urls = _urls(parsed.extensions, role)
        sound = parsed.is_signature_valid and isinstance(key, Ed25519PublicKey) and len(usages) == (not authority)
    except Exception as exc:  # hostile PEM and DER, as in `load`
        raise Malformed(Code.CERTIFICATE_INVALID, "no certification request for one role can be read here") from exc
    if not sound:
        raise Malformed(Code.CERTIFICATE_INVALID, "the request is not of one role, signed by its own Ed25519 key")
    assert isinstance(key, Ed25519PublicKey)
    uscc = parse_uscc(_attribute(parsed.subject, NameOID.SERIAL_NUMBER))
    return Request(key=key, uscc=uscc, name=_attribute(parsed.subject, NameOID.COMMON_NAME), role=role, urls=urls)


class CertificateAuthority:
    """A CA: the bus's or a department's. Its folder keeps its key, its certificate and digests of certified keys."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._signer = Signer.load(folder, "ca")

    @classmethod
    def create(cls, folder: Path, name: str, uscc: str) -> CertificateAuthority:
        """The bus CA in an empty folder: an Ed25519 key (0600) and its own certificate, ten years."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = Ed25519PrivateKey.generate()
        subject = _name(name, uscc)
        now = datetime.now(UTC)
        end = now + timedelta(days=365 * CA_YEARS)
        builder = certificate_builder(subject, subject, key.public_key(), now - CLOCK_SKEW, end)
        certificate = _as_authority(builder, key.public_key(), path_length=1).sign(key, None)
        Signer(key, certificate.public_bytes(Encoding.DER)).save(folder, "ca")
        return cls(folder)

    @property
    def signer(self) -> Signer:
        """The CA's own key: signs revocations."""
        return self._signer

    @property
    def of_bus(self) -> bool:
        """Whether this is the bus's own CA, which nobody else certified."""
        return self._signer.certificate.subject == self._signer.certificate.issuer

    def issue(self, role: Role, uscc: str, name: str, urls: tuple[str, ...] = ()) -> Signer:
        """A new key with a certificate for one role."""
        key = Ed25519PrivateKey.generate()
        return Signer(key, self.certify(Request(key=key.public_key(), uscc=uscc, name=name, role=role, urls=urls)))

    def certify(self, request: Request) -> bytes:
        """A certificate (DER) for a key that was never certified here, valid for 398 days; a CA as long as this one.

        Raises `Refused` (CERTIFICATE_INVALID, _OWNER, _ROLE) for what nobody would accept.
        """
        own = self._signer.certificate
        _check_below(own, None if self.of_bus else self._signer.uscc, request.role, request.uscc)
        self._remember(request.key)
        now, end = datetime.now(UTC), own.not_valid_after_utc
        if request.role is not None:
            end = min(end, now + timedelta(days=CERTIFICATE_DAYS))
        subject = _name(request.name if request.role is not None else f"{request.name} CA", request.uscc)
        begin = max(now - CLOCK_SKEW, own.not_valid_before_utc)
        builder = certificate_builder(subject, own.subject, request.key, begin, end).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._signer.private_key.public_key()), critical=False
        )
        if request.role is None:
            builder = _as_authority(builder, request.key, path_length=0)
        else:
            builder = (
                builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                .add_extension(_key_usage(certify=False), critical=True)
                .add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(request.role.value)]), critical=True)
            )
        if request.urls:
            builder = builder.add_extension(_reached(request.urls), critical=False)
        return builder.sign(self._signer.private_key, None).public_bytes(Encoding.DER)

    def _remember(self, key: Ed25519PublicKey) -> None:
        """Two certificates for one key would let a signature change its owner."""
        digest = sha256(key.public_bytes_raw()).hexdigest()
        issued = self._folder / "issued"
        known = issued.read_text("ascii").split() if issued.exists() else []
        if digest in known:
            raise Refused(Code.CERTIFICATE_INVALID, "this public key was certified before")
        with issued.open("a", encoding="ascii") as out:
            out.write(digest + "\n")
            out.flush()
            os.fsync(out.fileno())


def load(der: bytes) -> x509.Certificate:
    """A certificate in its one spelling, unverified. Raises `Malformed` (CERTIFICATE_INVALID)."""
    try:
        parsed = x509.load_der_x509_certificate(der)
        # The parser passes a signature with unused bits, outside of what is signed: the same certificate by another
        # id, which a revocation of the first would not reach.
        spelt = parsed.public_bytes(Encoding.DER) == der and der.endswith(_SIGNATURE + parsed.signature)
        _ = parsed.issuer.public_bytes(), parsed.subject.public_bytes()  # names are read when they are asked for
    except Exception as exc:  # hostile DER: InvalidVersion, ValueError, ...
        raise Malformed(Code.CERTIFICATE_INVALID, "the certificate cannot be read") from exc
    if not spelt:
        raise Malformed(Code.CERTIFICATE_INVALID, "the certificate is not DER")
    return parsed


def parse_certificate(der: bytes, issuer: x509.Certificate, by: Certificate | None = None) -> Certificate:
    """A certificate that `issuer` signed: for one role and one owner, or a department's CA.

    `by` is the department's CA that the issuer is; None: the bus CA. Raises `Malformed` or `Refused`
    (CERTIFICATE_INVALID, _OWNER, _ROLE). Whether it was valid at a time is `bus.trust`'s question.
    """
    parsed = load(der)
    try:
        parsed.verify_directly_issued_by(issuer)
        constraints = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value
        key = parsed.public_key()
        usages = [] if constraints.ca else list(parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        role = None if constraints.ca else Role(usages[0].dotted_string)
        # A department's CA is made for nothing else, and is not the bus CA under its own name.
        sound = len(usages) == 1 if role else _certifies(parsed) and constraints.path_length == 0
        unknown = {one.oid for one in parsed.extensions if one.critical} - _CRITICAL
        urls = _urls(parsed.extensions, role)
    except Exception as exc:  # hostile DER: DuplicateExtension, UnsupportedAlgorithm, ValueError, ...
        raise Refused(Code.CERTIFICATE_INVALID, "the certificate does not chain to the bus CA with a role") from exc
    if not sound or unknown or not isinstance(key, Ed25519PublicKey):
        raise Refused(Code.CERTIFICATE_INVALID, "the certificate is not of one role with an Ed25519 key")
    uscc = _attribute(parsed.subject, NameOID.SERIAL_NUMBER)
    _check_below(issuer, None if by is None else by.uscc, role, uscc)
    return Certificate(
        id=sha256(der).digest(),
        der=der,
        role=role,
        uscc=uscc,
        name=_attribute(parsed.subject, NameOID.COMMON_NAME),
        key=key,
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        issuer=None if by is None else by.id,
        urls=urls,
    )


def check_url(text: str) -> str:
    """Where a gateway is reached: `https://HOST[:PORT]`, no path. Raises `Malformed` (CERTIFICATE_INVALID)."""
    if not _URL.match(text):
        raise Malformed(Code.CERTIFICATE_INVALID, f"{text!r:.100} is no address of a gateway: https://HOST[:PORT] is")
    return text


def _reached(urls: tuple[str, ...]) -> x509.SubjectAlternativeName:
    """Raises `Malformed` (CERTIFICATE_INVALID)."""
    if len(urls) > MAX_URLS:
        raise Malformed(Code.CERTIFICATE_INVALID, f"a gateway is reached at {MAX_URLS} addresses at most")
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(check_url(url)) for url in urls])


def _urls(extensions: x509.Extensions, role: Role | None) -> tuple[str, ...]:
    """Where a gateway's certificate says that it is reached. Raises `Malformed` (CERTIFICATE_INVALID)."""
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    urls = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
    if role is not Role.GATEWAY or len(urls) != len(list(names)) or not urls:
        raise Malformed(Code.CERTIFICATE_INVALID, "only a gateway is reached, and at URIs")
    _reached(urls)
    return urls


def _certifies(parsed: x509.Certificate) -> bool:
    """A CA's certificate as `certify` makes one: it signs certificates, and is not its own issuer."""
    usage = parsed.extensions.get_extension_for_class(x509.KeyUsage).value
    return usage.key_cert_sign and not usage.digital_signature and parsed.subject != parsed.issuer


def _check_below(issuer: x509.Certificate, department: str | None, role: Role | None, uscc: str) -> None:
    """What a CA may certify: the bus CA everything, a department's CA its own department's records and requests."""
    if role is None and issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0:
        raise Refused(Code.CERTIFICATE_INVALID, "a CA below a CA of path length 0: the chain is too long")
    if department is None:
        return
    if uscc != department:
        raise Refused(Code.CERTIFICATE_OWNER, f"the CA of {department} certifies its own keys, none of {uscc}")
    if role not in DEPARTMENT_CA_ROLES:
        raise Refused(Code.CERTIFICATE_ROLE, "a department's CA certifies records' and requests' keys only")


def write_private(path: Path, data: bytes) -> None:
    """A file that only its owner reads, whole or not at all. Raises `Unavailable` (DISK_FULL)."""
    _write(path, data, 0o600)


def write_public(path: Path, data: bytes) -> None:
    """A file for everybody, whole or not at all. Raises `Unavailable` (DISK_FULL)."""
    _write(path, data, 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_suffix(path.suffix + ".new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except OSError as exc:
        if exc.errno not in _FULL:
            raise
        temporary.unlink(missing_ok=True)
        raise Unavailable(Code.DISK_FULL, f"{path} could not be written: free disk space; it is as before") from exc


def private_pem(key: Ed25519PrivateKey | EllipticCurvePrivateKey) -> bytes:
    """PKCS #8, in the clear: for a file that only its owner reads."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate_builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: Ed25519PublicKey | EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    """What every certificate of ours begins with."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _as_authority(builder: x509.CertificateBuilder, key: Ed25519PublicKey, path_length: int) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(certify=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(name: str, uscc: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.SERIAL_NUMBER, uscc)])


def _attribute(subject: x509.Name, oid: x509.ObjectIdentifier) -> str:
    values = subject.get_attributes_for_oid(oid)
    if len(values) != 1:
        raise Refused(Code.CERTIFICATE_INVALID, f"the certificate's subject has {len(values)} values of {oid._name}")
    return str(values[0].value)


def _key_usage(*, certify: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certify,
        key_cert_sign=certify,
        crl_sign=certify,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
