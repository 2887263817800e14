"""Departments co-sign the log: the recorder asks, the quorum is kept, and a witness that is away holds nobody up."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bus import db
from bus.tlog import note, policy
from bus.trustfeed import stop_task
from deploy.home import Home
from deploy.stack.child import free_ports
from tests.integration.bus import World


@contextmanager
def _witness(home: Home, folder: Path, department: str, port: int, vkey: str) -> Iterator[str]:
    """A running `deptbus witness`; its line of a policy file."""
    command = [sys.executable, "-m", "deploy.cli", "witness", "--home", str(home.path), "--as", department]
    command += ["--log", vkey, "--port", str(port), "--json"]
    with (
        (folder / f"{department}.log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            yield f"witness {department} {said['vkey']} {said['url']}"
        finally:
            process.send_signal(signal.SIGTERM)


async def test_two_of_three_cosign_and_the_third_is_not_waited_for(
    world: World, home: Home, dsn: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """The newest checkpoint that the quorum has signed is kept, and checkpoints go on while one is away."""
    monkeypatch.setattr("bus.recorder.log.COSIGN_SECONDS", 0.3)
    names = [f"witness{tmp_path.name[-1]}{port}" for port in free_ports(3)]
    for name in names:
        (await world.join()).save(home.org_folder(name))
    keys = world.log_keys(tmp_path)
    await db.migrate(dsn)
    with ExitStack() as running:
        lines = [
            running.enter_context(_witness(home, tmp_path, name, port, keys.signer.verifier.vkey))
            for name, port in zip(names[:2], free_ports(2), strict=True)
        ]
        stranger = note.NoteSigner.create(tmp_path / "away.key", "away", note.Algorithm.COSIGNATURE_V1)
        lines.append(f"witness {names[2]} {stranger.verifier.vkey} http://127.0.0.1:{free_ports(1)[0]}")
        quorum = f"group two 2 {' '.join(names)}\nquorum two\n"
        of = policy.parse(("\n".join(lines) + "\n" + quorum).encode())
        task = asyncio.create_task(world.recorder(dsn, tmp_path, witnesses=of).run())
        own = await db.connect(dsn)
        try:

            async def cosigned(beyond: int) -> bool:
                size = await own.fetchval("SELECT cosigned_size FROM log_checkpoint")
                return size is not None and size > beyond

            await world.until(lambda: cosigned(0), 30)
            first = await own.fetchval("SELECT cosigned_size FROM log_checkpoint")
            await world.join()
            await world.parties()  # an agreement: an entry more
            await world.until(lambda: cosigned(first), 30)
            stored = note.parse(await own.fetchval("SELECT cosigned FROM log_checkpoint"))
            assert policy.satisfied(of, note.verified(stored, [one.verifier for one in of.witnesses]))
            assert note.verified(stored, [keys.signer.verifier]) == (keys.signer.verifier,)
        finally:
            await stop_task(task)
            await own.close()
