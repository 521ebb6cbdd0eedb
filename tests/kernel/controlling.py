# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A filtered host with its agent, control socket, edit one-shot, and users with each kind of right.

Users and groups are numbers that no system uses: for the kernel a number is enough.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kernel.hosting import ROOT, Site, Wire, run

from packetwatch_core._bans.bans import Bans
from packetwatch_core._host.host import Host

READERS, ADMINS = 62010, 62011
PROTECTED = "198.51.100.99"
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else "python3"

_CLI = """
import json, sys
from packetwatch_agent.control import cli
from packetwatch_agent.control.ctl.session import Places
from packetwatch_core._base.paths import Paths
given = json.loads(sys.argv[1])
places = Places(Paths(**given["paths"]), given["control"], given["edit"])
def log(line):
    with open(given["audit"], "a") as file:
        file.write(line + "\\n")
sys.exit(cli.main(sys.argv[2:], places, log))
"""
_EDIT = """
import json, os, socket, sys
from packetwatch_agent.control import edit
from packetwatch_agent.control.rights import Rights
from packetwatch_agent.run import run
from packetwatch_core._host.host import Host
from packetwatch_core._base.paths import Paths
given = json.loads(sys.argv[1])
with socket.socket(fileno=os.dup(0)) as connection:
    host = Host(run, Paths(**given["paths"]))
    rights = Rights(given["readers"], given["admins"])
    sys.exit(edit.serve(connection, host, rights, lambda line: print(line, file=sys.stderr)))
"""


class User(NamedTuple):
    """The user and the groups of a process."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


ROOT_USER = User(0, 0)
AGENT = User(62001, READERS)
READER = User(62002, 62002, (READERS,))
ADMIN = User(62003, 62003, (ADMINS,))
OUTSIDER = User(62004, 62004)


class Done(NamedTuple):
    """The result of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Controlled:
    """The host; `site` is its `hosting.Site`."""

    def __init__(self, wire: Wire, cache: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="packetwatch-"))
        self.folder.chmod(0o755)
        (self.folder / "bpf").mkdir()
        subprocess.run(["mount", "-t", "bpf", "bpf", str(self.folder / "bpf")], check=True)
        (self.folder / "bpf").chmod(0o755)
        self.site = Site(wire, self.folder, cache, 0)
        paths = self.site.paths._replace(bpffs=str(self.folder / "bpf/packetwatch"))
        self.site.paths, self.site.host = paths, Host(run, paths)
        self.pins = self.site.host.pins
        self.log = self.folder / "log"
        self.log.touch()
        self.audit = self.folder / "audit"
        self.edit_log = self.folder / "edits"
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = {
            "PYTHONPATH": str(self.folder / "lib"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        for name in ("state", "run"):
            (self.folder / name).mkdir()
            os.chown(self.folder / name, AGENT.uid, AGENT.gid)
        shutil.copytree(ROOT / "plugins/module_utils", self.folder / "lib/packetwatch_core")
        agent = ROOT / "roles/packetwatch/files/agent/packetwatch_agent"
        shutil.copytree(agent, self.folder / "lib/packetwatch_agent")
        self.control = self.folder / "run/control.sock"
        self.edit = self.folder / "edit.sock"
        self._editor: socket.socket | None = None

    # Start and stop

    def load(self) -> None:
        """Attach; the maps belong to the agent, as on a real host."""
        self.site.settings(PW_PROTECT=PROTECTED, PW_PROTECT_AUTO="0")
        self.site.policy(scan_grace="0")
        self.site.host.attach("pw0")
        # On a real host only root may enter this folder of pins; the agent's own part is mounted.
        for path in (self.pins.root, self.pins.own, self.pins.run):
            os.chmod(path, 0o711)
        for name in os.listdir(self.pins.run):
            os.chown(self.pins.map(name), AGENT.uid, AGENT.gid)

    def start(self, wait_for: str = '"message":"started', **environment: str) -> None:
        """Start the agent, and wait until it logs that it follows the program."""
        began = self.log.stat().st_size
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [PYTHON, "-Ps", "-m", "packetwatch_agent", "run"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment
                | {
                    "PW_PINS": self.pins.root,
                    "PW_STATE_DIR": str(self.folder / "state"),
                    "PW_CONFIG_DIR": self.site.paths.state,
                    "PW_METRICS_LISTEN": "",
                    "PW_CONTROL_SOCKET": str(self.control),
                    "PW_READERS": str(READERS),
                    "PW_ADMINS": str(ADMINS),
                    # As in `load`: agent and root must write the same into the maps.
                    "PW_PROTECT": PROTECTED,
                    "PW_PROTECT_AUTO": "0",
                }
                | environment,
                user=AGENT.uid,
                group=AGENT.gid,
                extra_groups=[],
            )
        self.wait(lambda: wait_for in self.log.read_text()[began:])

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(20) == 0
            self.process = None

    def serve_edits(self) -> None:
        """Do what systemd does for packetwatch-edit.socket: start a process for each connection."""
        self._editor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._editor.bind(str(self.edit))
        os.chown(self.edit, 0, ADMINS)
        os.chmod(self.edit, 0o660)
        self._editor.listen()
        threading.Thread(target=self._accept, args=(self._editor,), daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        with self.site.wire.host.entered():
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                with connection, self.edit_log.open("ab") as log:
                    subprocess.run(
                        [PYTHON, "-Ps", "-c", _EDIT, self._given()],
                        stdin=connection.fileno(),
                        stderr=log,
                        env=self.environment,
                        check=False,
                    )

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self._editor is not None:
            self._editor.shutdown(socket.SHUT_RDWR)
            self._editor.close()
        self.site.close()
        subprocess.run(["umount", str(self.folder / "bpf")], check=True)
        shutil.rmtree(self.folder)

    # Actions

    def _given(self) -> str:
        places = {
            "paths": self.site.paths_as_words(),
            "control": str(self.control),
            "edit": str(self.edit),
            "audit": str(self.audit),
            "readers": str(READERS),
            "admins": str(ADMINS),
        }
        return json.dumps(places)

    def command(self, *words: str) -> list[str]:
        """Return the argument vector of ``packetwatchctl``."""
        return [PYTHON, "-Ps", "-c", _CLI, self._given(), *words]

    def ctl(self, *words: str, user: User = ROOT_USER, timeout: float = 60) -> Done:
        """Run ``packetwatchctl`` as a user."""
        done = subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=timeout,
            check=False,
            **rights_of(user),
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def python(self, code: str, *arguments: str, user: User = AGENT) -> Done:
        """Run code as a user who can import the library."""
        done = subprocess.run(
            [PYTHON, "-Ps", "-c", code, *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
            check=False,
            **rights_of(user),
        )
        return Done(done.returncode, done.stdout, done.stderr)

    # Observations

    def wait(self, condition: Callable[[], Any], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            if self.process is not None:
                assert self.process.poll() is None, self.log.read_text()[-2000:]
            time.sleep(0.02)

    def lines(self) -> list[dict[str, Any]]:
        """Return what the agent has written, without an unfinished line."""
        whole = self.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def audits(self, path: Path | None = None) -> list[dict[str, Any]]:
        """Return audit lines of the agent, or of a file."""
        text = (path or self.log).read_text() if (path or self.log).exists() else ""
        found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [line for line in found if line.get("event.action") == "audit"]

    @contextlib.contextmanager
    def bans(self) -> Iterator[Bans]:
        with contextlib.closing(Bans.open(self.pins)) as bans:
            yield bans

    def banned(self) -> set[str]:
        with self.bans() as bans:
            return {ban.source.text for ban in bans.active()}

    def resident_kib(self, key: str = "VmRSS") -> int:
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(key))

    def connect(self) -> socket.socket:
        """Open a connection to the agent, as root."""
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.settimeout(10)
        found.connect(str(self.control))
        return found


def rights_of(user: User) -> dict[str, Any]:
    """Return what starts a process as a user."""
    if user.uid == 0:
        return {}
    return {"user": user.uid, "group": user.gid, "extra_groups": list(user.groups)}


def exchange(connection: socket.socket, *lines: bytes) -> list[dict[str, Any]]:
    """Send lines, and return an answer for each."""
    found = []
    with connection.makefile("rb") as answers:
        for line in lines:
            connection.sendall(line)
            found.append(json.loads(answers.readline()))
    return found


@contextlib.contextmanager
def controlled(cache: Path) -> Iterator[Controlled]:
    """A filtered host with its agent and the socket for edits; all are stopped at the end."""
    wire = Wire()
    found = Controlled(wire, cache)
    try:
        with wire.host.entered():
            found.load()
            found.start()
        found.serve_edits()
        yield found
    finally:
        found.close()
        wire.close()
