"""`deptbus keys`: who keeps a gateway's master key, rotation at run time, unlocking by officers."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from bus.gateway.keyring import Keyring, open_keyring
from bus.gateway.master import Officers, Provider, alone
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, facts
from schemas.errors import Code, Misuse

NOTICED_SECONDS = 5.0  # a gateway looks each second
Officer = Annotated[
    list[str] | None,
    typer.Option(
        "--officer", help="An officer by name; twice. Passphrases are asked for, or read from stdin, a line each."
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    keys = typer.Typer(
        help="The gateway's keys: who keeps their master key, rotation, unlocking by two of three officers.",
        no_args_is_help=True,
    )
    app.add_typer(keys, name="keys")

    @command(keys)
    def status(home: HomeOption = None, json: Json = False) -> None:
        """Show who keeps the master key, and which keys there are."""
        document = opened(Home.find(home)).status()
        emit(document, as_json=json, human=lambda: facts("Keys", document))

    @command(keys)
    def officers(
        names: Annotated[list[str], typer.Argument(help="Three officers' names.")],
        officer: Officer = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Give the master key to three officers, of whom any two unlock gateways from now on. Makes a new one.

        A passphrase's file that kept it before is destroyed, and with it what older copies of the keys are good for.
        """
        keyring = _unlocked(Home.find(home), officer)
        said = _ask(names)
        _rotate(keyring, Officers.appoint(dict(zip(names, said, strict=True))))
        _told(keyring, "any two of them unlock", as_json=json)

    @command(keys)
    def token(
        module: Annotated[Path, typer.Option("--module", help="The token's PKCS#11 library.")],
        label: Annotated[str, typer.Option("--token", help="The token's label.")],
        pin_file: Annotated[
            Path, typer.Option("--pin-file", help="A file that only the gateway reads: the user's PIN.")
        ],
        officer: Officer = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Give the master key to a PKCS#11 token: a key that never leaves it wraps a new one. Needs the extra."""
        from bus.gateway.token import Token  # comes with an extra

        keyring = _unlocked(Home.find(home), officer)
        _rotate(keyring, Token.create(str(module), label, pin_file.absolute()))
        _told(keyring, f"token {label} keeps it", as_json=json)

    @command(keys)
    def rotate(
        what: Annotated[str, typer.Argument(help="kem, wrapping or master.")],
        day: Annotated[str | None, typer.Option("--day", help="Of wrapping: sessions of this day (UTC).")] = None,
        officer: Officer = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Replace a key at once; running gateways go on. `kem`: new sessions are sealed to another one.

        `wrapping`: a day's sessions are wrapped anew; backups of the database from before are worthless for that day.
        `master`: every key is wrapped anew; copies of the keys' folder from before are worthless, but for officers with
        the passphrases of then: `deptbus keys officers` appoints them anew.
        """
        keyring = _unlocked(Home.find(home), officer)
        match what:
            case "kem":
                keyring.rotate_kem()
            case "wrapping" if day is not None:
                try:
                    keyring.rotate_wrapping(date.fromisoformat(day).isoformat())
                except ValueError as exc:
                    raise Misuse(Code.REQUEST_MALFORMED, "--day is YYYY-MM-DD") from exc
            case "master":
                _rotate(keyring, None)
            case _:
                raise Misuse(Code.REQUEST_MALFORMED, "rotate kem, rotate wrapping --day YYYY-MM-DD, or rotate master")
        _told(keyring, f"{what}: replaced", as_json=json)

    @command(keys)
    def unlock(officer: Officer = None, home: HomeOption = None, json: Json = False) -> None:
        """Give the master key to gateways that wait for it: two officers, each with a passphrase."""
        keyring = _unlocked(Home.find(home), officer)
        waiting = keyring.master.hand_over()
        document = {**keyring.status(), "unlocked": waiting}
        emit(document, as_json=json, human=lambda: err.print(f"{waiting} gateways get the master key within a second"))


def opened(home: Home, officer: Sequence[str] | None = None) -> Keyring:
    """The bus's keys. Locked, where officers keep the master key and none are named.

    Raises `Refused` (KEYS_UNOPENABLE), `Misuse` (CONFIG_INVALID).
    """
    bus = home.load_bus()
    keyring = open_keyring(bus.folder / "gateway", bus.signer("gateway"))
    if officer:
        about = keyring.master.about["provider"]
        if about["kind"] != "officers":
            raise Misuse(Code.CONFIG_INVALID, "no officers keep this master key")
        said = dict(zip(officer, _ask(officer), strict=True))
        keyring.master.unlock(Officers.unlock(about, said))
    return keyring


def _unlocked(home: Home, officer: Sequence[str] | None) -> Keyring:
    """Raises `Unavailable` (KEYS_LOCKED), and as `opened`."""
    keyring = opened(home, officer)
    keyring.check()
    return keyring


def _rotate(keyring: Keyring, provider: Provider | None) -> None:
    """To the next generation, kept by `provider`, or as before. What kept the one before is destroyed: in a token, in
    a passphrase's file."""
    about = keyring.master.about["provider"]
    before = alone(keyring.folder, about)
    keyring.rotate_master(provider or keyring.master.same_again())
    time.sleep(NOTICED_SECONDS)
    keyring.master.end_rotation()
    destroy = getattr(before, "destroy", None)
    if destroy is not None:
        destroy()


def _ask(names: Sequence[str]) -> list[str]:
    """A passphrase each. Never as an argument: others on the machine would read it."""
    if sys.stdin.isatty():
        return [str(typer.prompt(f"Passphrase of {name}", hide_input=True)) for name in names]
    lines = sys.stdin.read().splitlines()
    if len(lines) < len(names):
        raise Misuse(Code.REQUEST_MALFORMED, f"{len(names)} passphrases are read from stdin, a line each")
    return lines[: len(names)]


def _told(keyring: Keyring, said: str, *, as_json: bool) -> None:
    document: dict[str, Any] = keyring.status()
    emit(document, as_json=as_json, human=lambda: err.print(f"{said}; generation {document['generation']}"))
