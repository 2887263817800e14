"""What many commands ask for in the same words: who acts, about whom, for what."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from bus.client import Asker, GatewayClient
from bus.people.client import PersonClient
from bus.tlog.note import Algorithm, Verifier
from bus.trust import Trust
from deploy.home import Home
from schemas.errors import Code, Malformed, Misuse, Refused

As = Annotated[str, typer.Option("--as", help="The department that acts: a name of `deptbus org list`.")]
# Of commands whose routes a person's role may ask (`bus.people.roles`); None is she.
Caller = Annotated[
    str | None, typer.Option("--as", help="The department that acts. Without it you do, as `deptbus login` says.")
]
Item = Annotated[str, typer.Option("--item", help="A catalogue item, such as business-licence.")]
Sections = Annotated[list[str], typer.Option("--section", help="A section of the item; may be repeated.")]
Purpose = Annotated[str, typer.Option("--purpose", help="What for: a purpose of consent/purposes.toml.")]
Purposes = Annotated[list[str], typer.Option("--purpose", help="What for; may be repeated.")]
Ground = Annotated[str, typer.Option("--ground", help="STATUTORY_DUTY (法定职责) or CONSENT (同意).")]
Operator = Annotated[str, typer.Option("--operator", help="The clerk's id in your own system; it stays in the log.")]
Citation = Annotated[str, typer.Option("--citation", help="The article that a statutory duty rests on.")]
Case = Annotated[str, typer.Option("--case", help="The case at hand, by your own reference.")]
Agent = Annotated[
    str | None,
    typer.Option("--agent", help="Who acts for the subject (代办员): the id that the mandate names."),
]
SUBJECT_HELP = (
    "Whom it is about, ORGANISATION:<credit code> or PERSON:<citizen number>; '-' reads that line from stdin, "
    "so that it stands in no process list and no shell history."
)
Subject = Annotated[str, typer.Option("--subject", help=SUBJECT_HELP)]


def subject(text: str) -> dict[str, str]:
    """A subject as requests carry it. Raises `Misuse` (the id is not repeated in the sentence)."""
    kind, mark, number = (sys.stdin.readline() if text == "-" else text).strip().partition(":")
    if not mark or kind not in ("PERSON", "ORGANISATION", "DEPARTMENT"):
        raise Misuse(Code.REQUEST_MALFORMED, "--subject is PERSON:<number>, ORGANISATION:<code> or '-' for stdin")
    return {"kind": kind, "id": number}


def log_key(home: Home, key: str | None) -> Verifier:
    """The log's verifier key: the one given, else the one in the bus's folder. Raises `Misuse` (CONFIG_INVALID)."""
    file = home.bus / "log" / "log.vkey"
    if key is None and not file.is_file():
        raise Misuse(Code.CONFIG_INVALID, f"{file} is not there: give the log's key with --key")
    return verifier_key(key or str(file))


def verifier_key(text: str) -> Verifier:
    """A log's verifier key, as a vkey or as a file of one. Raises `Misuse` (CONFIG_INVALID)."""
    try:
        vkey = Path(text).read_text("utf-8").strip() if Path(text).is_file() else text
        verifier = Verifier.from_vkey(vkey)
    except (OSError, UnicodeDecodeError, Malformed) as exc:
        detail = exc.detail if isinstance(exc, Malformed) else "it cannot be read"
        raise Misuse(Code.CONFIG_INVALID, f"--key {text!r:.200}: {detail}") from exc
    if verifier.algorithm is not Algorithm.ED25519:
        raise Misuse(Code.CONFIG_INVALID, f"--key {text!r:.200}: that is a witness's key, not a log's")
    return verifier


def acting(home: Home, department: str) -> GatewayClient:
    """A department's line to the running stack's gateways."""
    return GatewayClient(home.identity(department), home.stack().gateways)


def asking(home: Home, department: str | None) -> AbstractAsyncContextManager[Asker]:
    """The same, or without a department the line of who has logged in here. Raises `Refused` (LOGIN_ENDED)."""
    return person(home, session_token(home)) if department is None else acting(home, department)


def person(home: Home, token: str = "") -> PersonClient:
    """A person's line; without a token, of who begins to log in."""
    return PersonClient(home.stack().gateways, home.load_bus().tls_authority, token)


def session_file(home: Home) -> Path:
    """Where the session is kept, for its owner alone."""
    return home.path / "session.json"


def session_token(home: Home) -> str:
    """The session of who has logged in here. Raises `Refused` (LOGIN_ENDED)."""
    try:
        return str(json.loads(session_file(home).read_text("ascii"))["token"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise Refused(
            Code.LOGIN_ENDED, "nobody is logged in here: `deptbus login`, or name the department that acts with --as"
        ) from exc


@asynccontextmanager
async def trusting(home: Home, department: str | None) -> AsyncIterator[Trust]:
    """The certificates as they stand on the bus now. A person reads no Kafka: hers begins with the bus CA's alone."""
    if department is None:
        yield Trust(home.load_bus().authority_der)
        return
    from bus.trustfeed import TrustFeed  # and Kafka's client with it, of which most commands have no need

    identity = home.identity(department)
    feed = TrustFeed(Trust(identity.authority), identity.cluster(home.stack().kafka), "command")
    try:
        await feed.start()
        yield feed.trust
    finally:
        await feed.stop()
