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
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import httpx

from bus.transport import client_context
from deploy.home import Home

SECONDS = 60
NAME = f"test-login-{secrets.token_hex(4)}"
_FIELD = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')


def run(home: Home, *arguments: str, stdin: str = "", code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments, "--home", str(home.path)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


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


def browse(home: Home, url: str, password: str) -> None:
    """The login page, its form, and the way back to the command."""
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    with httpx.Client(verify=client_context(home.load_bus().tls_authority), trust_env=False) as browser:
        page = browser.get(url)
        fields = {name: unescape(value) for name, value in _FIELD.findall(page.text)}
        form = {**fields, "name": NAME, "password": password}
        back = browser.post(f"{origin}/authorize", data=form, headers={"Origin": origin})
        assert back.status_code == 303, back.text
        assert browser.get(back.headers["location"]).status_code == 200


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
    command = [sys.executable, "-m", "deploy.cli", "login", "--json", "--home", str(home.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        url = next(word for line in process.stderr for word in line.split() if word.startswith("https://"))
        browse(home, url, password)
        said, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    session: dict[str, Any] = json.loads(said)
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
