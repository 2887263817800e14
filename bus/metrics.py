"""What ops scrape. Labels are outcomes, topics and items, never ids.

Buckets are OpenTelemetry's for messaging operations, so that dashboards line up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

from schemas.errors import DeptbusError

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

PUBLISHED = Counter("bus_publish_total", "Records handed to Kafka, by outcome.", ["outcome"])
PUBLISH_SECONDS = Histogram("bus_publish_duration_seconds", "From send to acknowledgement.", buckets=BUCKETS)
CONSUMED = Counter("bus_consume_total", "Records a subscriber finished, by outcome.", ["outcome"])
PROCESS_SECONDS = Histogram("bus_process_duration_seconds", "A subscriber's handler.", buckets=BUCKETS)
LAG_SECONDS = Gauge(
    "bus_consumer_lag_seconds", "Age of the record being read (broker time).", ["topic", "consumergroup"]
)
DEAD_LETTERS = Counter("bus_dlq_total", "Records sent to a dead-letter topic, by reason.", ["reason"])
ADMITTED = Counter("bus_admission_total", "Records the recorder judged, by outcome.", ["outcome"])
RELEASED = Counter("bus_key_release_total", "Sections decided on, by outcome.", ["outcome"])
RELEASE_SECONDS = Histogram("bus_key_release_duration_seconds", "A key request, from body to grant.", buckets=BUCKETS)
APPENDED = Counter("bus_audit_append_total", "Audit entries made durable, by outcome.", ["outcome"])
AUDIT_ENTRIES = Counter("bus_audit_entries_total", "Audit entries taken into the log, by kind.", ["kind"])
LOG_SIZE = Gauge("bus_log_size", "Entries of the newest published checkpoint.")
LOG_COSIGNED = Gauge("bus_log_cosigned_size", "Entries of the newest checkpoint that the policy's quorum has signed.")
LOG_PUBLISHED = Gauge("bus_log_published_timestamp_seconds", "When a checkpoint was published last (POSIX time).")
LOG_REFUSED = Gauge("bus_log_refused", "1 while nothing is signed for this reason.", ["reason"])
STALL_SECONDS = Gauge("bus_audit_stall_countdown_seconds", "Until keys stop because no checkpoint comes; 0: stopped.")
SUPERVISION_FINDINGS = Counter("bus_supervision_findings_total", "What supervision found, by rule.", ["rule"])
SUPERVISION_UNKNOWN = Counter(
    "bus_supervision_unknown_total", "Uses that a rule could say nothing about: the calendar does not reach them."
)
SUPERVISION_BEHIND = Gauge("bus_supervision_behind_entries", "Published entries that supervision has not read yet.")
IMPACT_NOTICES = Counter(
    "bus_impact_notices_total", "Notices to who opened, or derived from, what an operation ended.", ["operation"]
)
IMPACT_PENDING = Gauge("bus_impact_pending", "Admitted records whose notices are not all sent yet.")
IMPACT_SECONDS = Histogram("bus_impact_duration_seconds", "From a record's admission to its notices.", buckets=BUCKETS)
COLLECTIONS = Counter("bus_collection_elements_total", "Elements of forms that were checked, by verdict.", ["verdict"])
DEADLINES = Gauge("bus_deadlines", "What waits for an answer, by limit: running, late, unknown.", ["limit", "state"])
DUE = Counter("bus_due_total", "Days that came without what was due on them, by limit.", ["limit"])
EXPIRED = Counter("bus_expired_total", "Rules that had their last day, by kind.", ["kind"])
EVALUATED = Counter("bus_evaluations_total", "Questions that were answered and open nothing, by outcome.", ["outcome"])
EVALUATION_SECONDS = Histogram("bus_evaluation_duration_seconds", "A call of the access API.", buckets=BUCKETS)
REQUESTS = Counter("bus_http_requests_total", "Requests to a gateway, by route and outcome.", ["route", "outcome"])
ACCESS_DRIFT = Gauge("bus_access_drift", "Differences at Kafka that the last full look found, and took back.")
ACCESS_APPLIED = Gauge(
    "bus_access_applied_timestamp_seconds", "When Kafka's access rules were last made as they should be (POSIX time)."
)
ACCESS_CHANGES = Counter("bus_access_changes_total", "Access rules added to Kafka, or removed.", ["change"])
CERTIFICATE_EXPIRES = Gauge("bus_certificate_expiry_timestamp_seconds", "When a process's own key ends.", ["role"])
ACTIVE = Gauge("bus_recorder_active", "1 while this recorder holds the log's lock.")
WITNESS_UP = Gauge("bus_witness_up", "1 while a witness's last answer was its cosignature.", ["witness"])
COSIGNED = Counter(
    "bus_witness_cosignatures_total", "Checkpoints that witnesses were asked to cosign.", ["witness", "outcome"]
)
WITNESSED = Counter("bus_witness_requests_total", "Checkpoints that this witness was shown, by outcome.", ["outcome"])


@contextmanager
def outcome(counter: Counter, amount: int = 1) -> Iterator[None]:
    """Counts `ok`, or the refusal's code."""
    try:
        yield
    except DeptbusError as exc:
        counter.labels(outcome=exc.code.value).inc(amount)
        raise
    counter.labels(outcome="ok").inc(amount)
