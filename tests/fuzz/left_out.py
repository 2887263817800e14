"""Functions, and whole files, that read bytes or texts and are no target, each with where those come from.

Nobody but the process itself, or who owns its keys, can have written them; or what is foreign in them goes on to a
function that is a target.
"""

from __future__ import annotations

_OWN = "rows and files that only this code writes, behind the database's or the folder's own access"
_KEYS = "the folder of a gateway's keys (0700): who can write there has them"
_ANSWER = "an answer of the department's own gateway, over TLS; grants, records and proofs in it go to targets"
_MADE = "made here a moment before, or part of the package"
_HTTP = "schemathesis sends it, and the rule that its body is JSON is a target's"

LEFT_OUT: dict[str, str] = {
    "adapters/tracker.py _usage": _ANSWER,
    "adapters/tracker.py create_app.<locals>.usage_period": _ANSWER,
    "bus/evidence.py _pem": "the authority of an identity that is read already",
    "bus/evidence.py _zip": "it writes",
    "bus/gateway/auditing.py Auditing.story": "hex that `asked`, a target, has looked at",
    "bus/gateway/consents.py Consents.receipt": _OWN,
    "bus/gateway/evaluating.py DecisionPoint._records": "hex that this very search has given, bound by its token",
    "bus/gateway/issuing.py adopt": _OWN,
    "bus/gateway/keyring.py": _KEYS,
    "bus/gateway/master.py": _KEYS,
    "bus/gateway/policy.py Policies.test": _HTTP,
    "bus/gateway/rulebook.py _parsed": _OWN,
    "bus/gateway/rulebook.py from_row": _OWN,
    "bus/identity.py Identity.save": _MADE,
    "bus/lookup.py fetch": _ANSWER,
    "bus/lookup.py search": _ANSWER,
    "bus/outbox.py Outbox.pending": _OWN,
    "bus/people/openid.py Provider._json": "an object of bounded size; tokens and keys in it are a target's",
    "bus/pki.py _next_key": _KEYS,
    "bus/recorder/oversight.py _take_back": _OWN,
    "bus/recorder/service.py _split": "a checkpoint that this process has verified",
    "bus/tables.py _issuer": _ANSWER,
    "bus/tables.py civil": _ANSWER,
    "deploy/accounts/provider.py create_app.<locals>._is_client": "the local stack's provider, on loopback",
    "deploy/accounts/store.py Store.signing_keys": _OWN,
    "deploy/backup.py Backup.load": _OWN,
    "deploy/bootstrap.py Bus.authority_der": "the CA's certificate, as the bus's operator gave it",
    "deploy/certificates.py pem": _MADE,
    "deploy/commands/evidence.py _checked": _ANSWER,
    "deploy/commands/evidence.py _der": _ANSWER,
    "deploy/commands/evidence.py collect": _ANSWER,
    "deploy/commands/options.py session_token": "a file (0600) that only `deptbus login` writes",
    "deploy/commands/scorecard.py _answered": _ANSWER,
    "deploy/commands/sets.py _proven": _ANSWER,
    "deploy/commands/sets.py register.<locals>.prove": "hex that `asked`, a target, has looked at",
    "deploy/commands/stack.py _answer": "what a process that it started says",
    "deploy/commands/stack.py _failed": "what a process that it started says",
    "deploy/demo/run.py _Run._ask_again": _ANSWER,
    "deploy/demo/run.py sample": _MADE,
    "deploy/stack/kafka.py resolve": _MADE,
    "deploy/stack/supervisor.py _check_version": _OWN,
    "deploy/stack/tls.py TransportAuthority.__init__": _KEYS,
    "schemas/avro.py wire_schema": _MADE,
    "schemas/item.py ItemSchema._culprit": "a document that `ItemSchema.parse` has read",
}
