"""The commands, in the order that `deptbus --help` shows them."""

from __future__ import annotations

from collections.abc import Callable

import typer

from deploy.commands import (
    adapter,
    agreement,
    audit,
    backup,
    catalogue,
    cert,
    check,
    collection,
    consent,
    correction,
    demo,
    dispute,
    dlq,
    erase,
    export,
    keys,
    openapi,
    org,
    people,
    policy,
    power,
    record,
    sets,
    stack,
    topics,
    witness,
)

COMMANDS: tuple[Callable[[typer.Typer], None], ...] = (
    demo.register,
    stack.register,
    org.register,
    people.register,
    cert.register,
    catalogue.register,
    agreement.register,
    consent.register,
    power.register,
    sets.register,
    collection.register,
    adapter.register,
    policy.register,
    record.register,
    correction.register,
    dispute.register,
    erase.register,
    dlq.register,
    audit.register,
    witness.register,
    check.register,
    backup.register,
    keys.register,
    topics.register,
    export.register,
    openapi.register,
)
