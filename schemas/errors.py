"""The error tree and the closed list of refusal codes.

One code is at once the exception's code, the metric's label and the audit trail's code, so that a caller, an
operator and an auditor talk about the same thing. The tree is small on purpose::

    DeptbusError
    ├── Malformed     the bytes or values are not what the format says      exit 1
    ├── Refused       well formed, and a rule says no                       exit 1
    ├── Misuse        the caller asked for something that cannot be asked   exit 2
    └── Unavailable   an engine or a peer is away: retry later              exit 3
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Code(StrEnum):
    """The closed list. The value is what travels."""

    # Decisions
    PERMIT = "PERMIT"
    NOT_ADMITTED = "NOT_ADMITTED"
    CONFLICT = "CONFLICT"
    INDEX_STALE = "INDEX_STALE"
    CONSUMER_UNKNOWN = "CONSUMER_UNKNOWN"
    CONSUMER_SUSPENDED = "CONSUMER_SUSPENDED"
    ITEM_UNKNOWN = "ITEM_UNKNOWN"
    SECTION_UNKNOWN = "SECTION_UNKNOWN"
    SECTION_NOT_SHARED = "SECTION_NOT_SHARED"
    AGREEMENT_NONE = "AGREEMENT_NONE"
    AGREEMENT_ENDED = "AGREEMENT_ENDED"
    AGREEMENT_SECTION = "AGREEMENT_SECTION"
    AGREEMENT_PURPOSE = "AGREEMENT_PURPOSE"
    AGREEMENT_REGION = "AGREEMENT_REGION"
    RATE_EXCEEDED = "RATE_EXCEEDED"
    GROUND_UNKNOWN = "GROUND_UNKNOWN"
    GROUND_NOT_AGREED = "GROUND_NOT_AGREED"
    DUTY_NOT_NAMED = "DUTY_NOT_NAMED"
    CONSENT_NONE = "CONSENT_NONE"
    CONSENT_WITHDRAWN = "CONSENT_WITHDRAWN"
    CONSENT_EXPIRED = "CONSENT_EXPIRED"
    CONSENT_PURPOSE = "CONSENT_PURPOSE"
    CONSENT_SECTION = "CONSENT_SECTION"
    CONSENT_SENSITIVE = "CONSENT_SENSITIVE"
    CONSENT_USED_UP = "CONSENT_USED_UP"
    STATUS_NOT_ACTIVE = "STATUS_NOT_ACTIVE"
    STATUS_SUSPENDED = "STATUS_SUSPENDED"
    STATUS_CANCELLED = "STATUS_CANCELLED"
    STATUS_REVOKED = "STATUS_REVOKED"
    STATUS_PUNISHED = "STATUS_PUNISHED"
    STATUS_EXPIRED = "STATUS_EXPIRED"
    STATUS_ERASED = "STATUS_ERASED"
    SUPERSEDED = "SUPERSEDED"
    FACTS_CHANGED = "FACTS_CHANGED"
    UNDECIDABLE = "UNDECIDABLE"
    AUDIT_STALLED = "AUDIT_STALLED"
    # Records: format
    RECORD_TOO_LARGE = "RECORD_TOO_LARGE"
    RECORD_MALFORMED = "RECORD_MALFORMED"
    RECORD_NOT_CANONICAL = "RECORD_NOT_CANONICAL"
    FORMAT_UNKNOWN = "FORMAT_UNKNOWN"
    SUITE_UNSUPPORTED = "SUITE_UNSUPPORTED"
    CLAIMS_INVALID = "CLAIMS_INVALID"
    KEY_MISMATCH = "KEY_MISMATCH"
    TOPIC_MISMATCH = "TOPIC_MISMATCH"
    BODY_COUNT = "BODY_COUNT"
    PROOF_INVALID = "PROOF_INVALID"
    NOTE_INVALID = "NOTE_INVALID"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    CERTIFICATE_UNKNOWN = "CERTIFICATE_UNKNOWN"
    CERTIFICATE_INVALID = "CERTIFICATE_INVALID"
    CERTIFICATE_EXPIRED = "CERTIFICATE_EXPIRED"
    CERTIFICATE_REVOKED = "CERTIFICATE_REVOKED"
    CERTIFICATE_ROLE = "CERTIFICATE_ROLE"
    CERTIFICATE_OWNER = "CERTIFICATE_OWNER"
    BODY_UNOPENABLE = "BODY_UNOPENABLE"
    COMMITMENT_MISMATCH = "COMMITMENT_MISMATCH"
    PADDING_INVALID = "PADDING_INVALID"
    SECTION_MALFORMED = "SECTION_MALFORMED"
    # Records: sessions and admission
    SESSION_UNKNOWN = "SESSION_UNKNOWN"
    SESSION_INVALID = "SESSION_INVALID"
    SESSION_DUPLICATE = "SESSION_DUPLICATE"
    SESSION_MISMATCH = "SESSION_MISMATCH"
    SESSION_LATE = "SESSION_LATE"
    SESSION_ERASED = "SESSION_ERASED"
    SCHEMA_UNKNOWN = "SCHEMA_UNKNOWN"
    SECTIONS_MISMATCH = "SECTIONS_MISMATCH"
    ISSUER_NOT_ENTITLED = "ISSUER_NOT_ENTITLED"
    # Publishing
    VALUE_INVALID = "VALUE_INVALID"
    # Requests
    REQUEST_UNSIGNED = "REQUEST_UNSIGNED"
    REQUEST_SIGNATURE = "REQUEST_SIGNATURE"
    REQUEST_DIGEST = "REQUEST_DIGEST"
    REQUEST_EXPIRED = "REQUEST_EXPIRED"
    REQUEST_MALFORMED = "REQUEST_MALFORMED"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    REQUEST_FORBIDDEN = "REQUEST_FORBIDDEN"
    RECIPIENT_INVALID = "RECIPIENT_INVALID"
    PERSONAL_ID = "PERSONAL_ID"
    NOT_FOUND = "NOT_FOUND"
    STATE_INVALID = "STATE_INVALID"
    GRANT_INVALID = "GRANT_INVALID"
    # The audit log
    LOG_TAMPERED = "LOG_TAMPERED"
    LOG_BEHIND_GUARD = "LOG_BEHIND_GUARD"
    LOG_FORK = "LOG_FORK"
    LOG_TOPIC_TRUNCATED = "LOG_TOPIC_TRUNCATED"
    LOG_GUARD_MISSING = "LOG_GUARD_MISSING"
    LOG_GUARD_MOVED = "LOG_GUARD_MOVED"
    # Identifiers (also the adapters' quarantine reasons where the name is the same)
    USCC_MISSING = "USCC_MISSING"
    USCC_LEGACY_15 = "USCC_LEGACY_15"
    USCC_FORM = "USCC_FORM"
    USCC_CHECK = "USCC_CHECK"
    USCC_ORG_CHECK = "USCC_ORG_CHECK"
    CITIZEN_FORM = "CITIZEN_FORM"
    CITIZEN_DATE = "CITIZEN_DATE"
    CITIZEN_CHECK = "CITIZEN_CHECK"
    LICENCE_ID_FORM = "LICENCE_ID_FORM"
    LICENCE_ID_CHECK = "LICENCE_ID_CHECK"
    ID_CHECK_LEGACY_ALPHA = "ID_CHECK_LEGACY_ALPHA"
    REGION_UNKNOWN = "REGION_UNKNOWN"
    # Adapters
    ENCODING = "ENCODING"
    COLUMNS = "COLUMNS"
    TEXT_REPLACEMENT = "TEXT_REPLACEMENT"
    TEXT_SLIP = "TEXT_SLIP"
    TEXT_PINYIN = "TEXT_PINYIN"
    NAME_MISSING = "NAME_MISSING"
    DATE_INVALID = "DATE_INVALID"
    CAPITAL_FORM = "CAPITAL_FORM"
    SOURCE_INVALID = "SOURCE_INVALID"
    CONFIG_INVALID = "CONFIG_INVALID"
    # Engines and the local stack
    KAFKA_UNAVAILABLE = "KAFKA_UNAVAILABLE"
    POSTGRES_UNAVAILABLE = "POSTGRES_UNAVAILABLE"
    GATEWAY_UNAVAILABLE = "GATEWAY_UNAVAILABLE"
    STACK_NOT_RUNNING = "STACK_NOT_RUNNING"
    STACK_RUNNING = "STACK_RUNNING"
    REGISTRY_UNREACHABLE = "REGISTRY_UNREACHABLE"
    PORT_TAKEN = "PORT_TAKEN"
    DISK_FULL = "DISK_FULL"
    DATA_CORRUPT = "DATA_CORRUPT"
    DATA_VERSION = "DATA_VERSION"
    CHILD_DEAD = "CHILD_DEAD"


class DeptbusError(Exception):
    """Base of every error that leaves the project. `code` is from the closed list, `detail` says what and where.

    `detail` never holds a personal id or key material: it may be logged.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class Malformed(DeptbusError):
    """Bytes or values that are not what the format says. Sending them again gives the same answer."""


class Refused(DeptbusError):
    """Well-formed input that a rule refuses. The code names the rule."""


class Misuse(DeptbusError):
    """A call that cannot be meant: wrong arguments, wrong order, wrong configuration."""

    exit_code = 2


class Unavailable(DeptbusError):
    """Kafka, PostgreSQL, a gateway or a registry is away. Nothing was done; try again later."""

    exit_code = 3
