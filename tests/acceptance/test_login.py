"""A person's day at a terminal: an account, an appointment, a login through a browser, and the end of it."""

from __future__ import annotations

import json
import os
import pty
import re
import secrets
import select
import subprocess
import sys
import time

from deploy.home import Home
from tests.terminal import SECONDS, log_in, run

NAME = f"test-login-{secrets.token_hex(4)}"


def on_a_terminal(home: Home, *arguments: str) -> str:
    """What a person sees."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "deploy.cli", *arguments, "--home", str(home.path)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + SECONDS
    while time.monotonic() < deadline and (process.poll() is None or select.select([ours], [], [], 0)[0]):
        if select.select([ours], [], [], 0.1)[0]:
            try:
                seen += os.read(ours, 4096)
            except OSError:  # Linux says so when the other side is closed
                break
    os.close(ours)
    assert process.wait(SECONDS) == 0, seen
    return seen.decode()


def test_a_person_logs_in_from_a_terminal(home: Home) -> None:
    run(home, "accounts", "add", NAME, code=2)  # a pipe is no terminal: no password goes into it
    shown = on_a_terminal(home, "accounts", "add", NAME)
    found = re.search(rf"{NAME}: ([a-z2-9]{{4}}(-[a-z2-9]{{4}}){{3}})", shown)
    assert found, shown
    password = found[1]
    for said in (run(home, "accounts", "list", "--json"), *(log.read_text() for log in home.logs.glob("*.log"))):
        assert password not in said
    body = ["--as", "operator", "--role", "OPERATOR", "--name", "clerk-1", "--account", NAME]
    person = json.loads(run(home, "people", "appoint", *body, "--json"))

    run(home, "whoami", code=1)
    session = log_in(home, NAME, password)
    assert (session["person"], session["role"]) == (person["id"], "OPERATOR")
    assert "token" not in session
    file = home.path / "session.json"
    assert file.stat().st_mode & 0o777 == 0o600
    held = json.loads(file.read_text())["token"]
    assert not any(held in log.read_text() for log in home.logs.glob("*.log"))
    assert json.loads(run(home, "whoami", "--json"))["name"] == "clerk-1"
    run(home, "logout")
    assert not file.exists()
    run(home, "whoami", code=1)
    run(home, "people", "dismiss", person["id"], "--as", "operator", "--reason", "end of the test")
