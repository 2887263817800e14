"""`deptbus people`, `login`, `logout`, `whoami`, `accounts`: who may speak for a department, and how she logs in."""

from __future__ import annotations

import asyncio
import contextlib
import json as codec
import sys
import webbrowser
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

import typer

from bus.people.roles import Role
from bus.pki import write_private
from deploy.accounts.store import Store
from deploy.commands.options import As, Caller, acting, asking, person, session_file, session_token
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, facts, out, table
from deploy.stack.accounts import FIRST, registration_file, store_file
from schemas.errors import Code, DeptbusError, Misuse, Refused

LOGIN_SECONDS = 600.0  # as long as the gateway waits
MAX_LINE = 16 * 1024  # of a browser's request: a code and a state are some hundred bytes

Reason = Annotated[str, typer.Option("--reason", help="Why: it stays in the log.")]
Person = Annotated[str, typer.Argument(help="Her pseudonym, as `deptbus people list` shows it.", metavar="ID")]
Account = Annotated[str, typer.Argument(help="The account's name.", metavar="NAME")]
FromStdin = Annotated[bool, typer.Option("--stdin", help="Read the password from stdin, 12 to 200 characters.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    people = typer.Typer(help="People (人员) of a department: appointed, suspended, dismissed.", no_args_is_help=True)
    app.add_typer(people, name="people")
    accounts = typer.Typer(help="The local stack's own accounts, with which people log in.", no_args_is_help=True)
    app.add_typer(accounts, name="accounts")
    _register_sessions(app)
    _register_accounts(accounts)

    @command(people)
    async def appoint(
        department: As,
        role: Annotated[Role, typer.Option("--role", help="What she does for the department.")],
        name: Annotated[str, typer.Option("--name", help="Your own id of her; no citizen number.")],
        account: Annotated[str | None, typer.Option("--account", help="A local account's name.")] = None,
        subject: Annotated[str | None, typer.Option("--subject", help="What your OpenID provider calls her.")] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Appoint a person, with the department's key. She has one role."""
        where = Home.find(home)
        if (account is None) == (subject is None):
            raise Misuse(Code.CONFIG_INVALID, "one of --account (local) and --subject (your provider's) is wanted")
        if account is not None:
            with _accounts(where) as store:
                subject = store.subject(account)
        body = {"subject": subject, "role": role.value, "name": name}
        async with acting(where, department) as client:
            made = await client.post_json("/v1/people", body)
        emit(made, as_json=json, human=lambda: facts("Appointed", made))

    async def act(home: Path | None, department: str | None, what: str, who: str, reason: str, json: bool) -> None:
        async with asking(Home.find(home), department) as client:
            made = await client.post_json(f"/v1/people:{what}", {"id": who, "reason": reason})
        emit(made, as_json=json, human=lambda: facts(what, made))

    @command(people)
    async def suspend(
        who: Person, reason: Reason, department: Caller = None, home: HomeOption = None, json: Json = False
    ) -> None:
        """Suspend a person: her sessions end at once."""
        await act(home, department, "suspend", who, reason, json)

    @command(people)
    async def resume(who: Person, department: As, reason: Reason, home: HomeOption = None, json: Json = False) -> None:
        """Let a person log in again, by her department's key."""
        await act(home, department, "resume", who, reason, json)

    @command(people)
    async def dismiss(who: Person, department: As, reason: Reason, home: HomeOption = None, json: Json = False) -> None:
        """Dismiss a person, by her department's key."""
        await act(home, department, "dismiss", who, reason, json)

    @command(people, name="list")
    async def list_(department: Caller = None, home: HomeOption = None, json: Json = False) -> None:
        """The department's people; to who runs the bus, in her session, everybody's."""
        async with asking(Home.find(home), department) as client:
            found = await client.post_json("/v1/people:list", {})
        rows = [[one[name] for name in ("name", "role", "state", "changed_at", "id")] for one in found]
        emit(found, as_json=json, human=lambda: table("People", ("name", "role", "state", "since", "id"), rows))


def _register_sessions(app: typer.Typer) -> None:
    @command(app)
    async def login(home: HomeOption = None, json: Json = False) -> None:
        """Log in with a browser on this machine. The session is kept in the bus's folder, for you alone."""
        where = Home.find(home)
        answer: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(lambda r, w: _came_back(r, w, answer), "127.0.0.1", 0, limit=MAX_LINE)
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with person(where) as client:
                begun = await client.post_json("/people/logins", {"redirect_uri": f"http://127.0.0.1:{port}/"})
            err.print("Log in here:", begun["url"], markup=False, soft_wrap=True)
            if sys.stdout.isatty():
                await asyncio.to_thread(webbrowser.open, begun["url"])
            try:
                said = await asyncio.wait_for(answer, LOGIN_SECONDS)
            except TimeoutError as exc:
                raise Refused(Code.LOGIN_STATE, "nobody came back from the provider in ten minutes") from exc
        async with person(where) as client:
            session = await client.post_json("/people/sessions", {"handle": begun["handle"], **said})
        write_private(session_file(where), codec.dumps({"token": session.pop("token")}).encode())
        emit(session, as_json=json, human=lambda: facts("You are logged in", session))

    @command(app)
    async def whoami(home: HomeOption = None, json: Json = False) -> None:
        """Say who is logged in."""
        where = Home.find(home)
        async with person(where, session_token(where)) as client:
            session = await client.get_json("/people/me")
        emit(session, as_json=json, human=lambda: facts("You are", session))

    @command(app)
    async def logout(home: HomeOption = None, json: Json = False) -> None:
        """End the session, on every gateway."""
        where = Home.find(home)
        try:
            async with person(where, session_token(where)) as client:
                said = await client.post_json("/people/logout", {})
        finally:
            session_file(where).unlink(missing_ok=True)
        emit(said, as_json=json, human=lambda: err.print("You are logged out."))


def _register_accounts(accounts: typer.Typer) -> None:
    @command(accounts)
    def add(name: Account, stdin: FromStdin = False, home: HomeOption = None) -> None:
        """Make an account. Its password is shown once, on a terminal only."""
        _check_terminal(stdin)
        with _accounts(Home.find(home)) as store:
            _show(name, store.add(name, _given(stdin)), stdin)

    @command(accounts)
    def reset(name: Account, stdin: FromStdin = False, home: HomeOption = None) -> None:
        """Give an account a new password; it may log in again."""
        _check_terminal(stdin)
        with _accounts(Home.find(home)) as store:
            _show(name, store.reset(name, _given(stdin)), stdin)

    @command(accounts)
    def suspend(name: Account, home: HomeOption = None, json: Json = False) -> None:
        """Let an account log in no more. Its sessions go on: `deptbus people suspend` ends them."""
        with _accounts(Home.find(home)) as store:
            store.suspend(name)
        emit({"suspended": name}, as_json=json, human=lambda: err.print(f"{name} logs in no more", markup=False))

    @command(accounts)
    def rotate(home: HomeOption = None, json: Json = False) -> None:
        """Sign with a new key from now on. Sessions go on."""
        with _accounts(Home.find(home)) as store:
            store.rotate()
            kid = str(store.signing_keys()[0].kid)
        emit({"key": kid}, as_json=json, human=lambda: err.print(f"Key {kid} signs now"))

    @command(accounts, name="list")
    def list_(home: HomeOption = None, json: Json = False) -> None:
        """The accounts."""
        with _accounts(Home.find(home)) as store:
            found = [{"name": one.name, "subject": one.subject, "suspended": one.suspended} for one in store.accounts()]
        columns = ("name", "subject", "suspended")
        emit(found, as_json=json, human=lambda: table("Accounts", columns, [list(one.values()) for one in found]))


def first_accounts(home: Home) -> None:
    """On a terminal, where there are none yet: an auditor's, an officer's and an operator's, with their passwords."""
    if not sys.stdout.isatty() or not registration_file(home.bus).exists():
        return
    with _accounts(home) as store:
        if store.accounts():
            return
        out.print("Accounts, with passwords that nobody can show you again:")
        for name in FIRST:
            _show(name, store.add(name), stdin=False)
        out.print("Their departments appoint them: deptbus people appoint --as NAME --role ROLE --account ACCOUNT ...")


def _check_terminal(stdin: bool) -> None:
    if not stdin and not sys.stdout.isatty():
        raise Misuse(Code.CONFIG_INVALID, "a password is shown on a terminal only: go there, or choose one: --stdin")


def _given(stdin: bool) -> str | None:
    return sys.stdin.readline().rstrip("\n") if stdin else None


def _show(name: str, password: str, stdin: bool) -> None:
    """Once, to who sits before the terminal; what she chose herself she knows."""
    if not stdin:
        out.print(f"{name}: {password}", markup=False, highlight=False)


def _accounts(home: Home) -> contextlib.closing[Store]:
    return contextlib.closing(Store(store_file(home.path)))


async def _came_back(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: asyncio.Future[dict[str, str]]
) -> None:
    """The browser's only request. What it brings proves nothing here: the gateway asks the provider."""
    with contextlib.suppress(ValueError, ConnectionError, DeptbusError):
        line = (await reader.readline()).decode("ascii", "replace").split(" ")
        said = dict(parse_qsl(urlsplit(line[1]).query)) if len(line) > 1 else {}
        wanted = {name: text for name, text in said.items() if name in ("state", "code", "iss", "error")}
        if "state" in wanted and not answer.done():
            answer.set_result(wanted)
        text = "可以关闭此页。 You may close this page.".encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {len(text)}\r\n"
        writer.write(head.encode() + b"connection: close\r\n\r\n" + text)
        await writer.drain()
    writer.close()
