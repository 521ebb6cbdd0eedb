# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet process that runs as on a host, and an agent's socket that speaks docs/fleet-protocol.md."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kernel.hosting import CLEAN, ROOT

from packetwatch_agent.control.client import Connection
from packetwatch_core._kernel.bytecode import PYTHON

# Seconds until a test gives up. It is long, because other tests may keep the machine busy.
PATIENCE = 60.0
# A clock that is wrong by some seconds, for this process alone.
_COMPILED = "import packetwatch_fleet.host.__main__, packetwatch_fleet.store.etcd"
_SKEWED = """
import sys, time
real = time.time
time.time = lambda: real() + {skew}
from packetwatch_fleet.host.__main__ import main
sys.exit(main())
"""


class Speaker:
    """Bans in memory instead of the kernel's maps, by source: the monotonic end and the evidence."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bans: dict[str, tuple[float, str]] = {}
        self.labels: dict[str, str] = {}
        self.own: list[list[Any]] = []
        self.refuse: dict[str, str] = {}
        self.times: dict[str, float] = {}
        """When each source was first banned."""
        self.streams: list[Any] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._open = True
        path.unlink(missing_ok=True)
        self._socket.bind(str(path))
        self._socket.listen(8)
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._open = False
        self.path.unlink(missing_ok=True)
        for one in [self._socket, *self._connections]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def say(self, **item: Any) -> None:
        """Write an item to all that follow."""
        for stream in self.streams:
            stream.write(json.dumps({"item": item}) + "\n")
            stream.flush()

    def miss(self, count: int) -> None:
        for stream in self.streams:
            stream.write(json.dumps({"missed": count}) + "\n")
            stream.flush()

    def remaining(self, source: str) -> float:
        return self.bans[source][0] - time.monotonic()

    def _accept(self) -> None:
        while self._open:
            try:
                connection = self._socket.accept()[0]
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            stream = connection.makefile("rw")
            for line in stream:
                assert len(line) <= 65536
                request = json.loads(line)
                if request["command"] == "fleet_watch":
                    stream.write('{"item":null}\n')
                    self.streams.append(stream)
                else:
                    items, result = getattr(self, f"_{request['command']}")(request)
                    for item in items:
                        stream.write(json.dumps({"item": item}) + "\n")
                    stream.write(json.dumps({"ok": True, "result": result}) + "\n")
                stream.flush()

    def _fleet_apply(self, request: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        now = time.monotonic()
        assert len(request["ban"]) + len(request["lift"]) <= 500
        refused = dict.fromkeys(("invalid", "protected", "local", "veto", "quota", "rate"), 0)
        for source in request["lift"]:
            self.bans.pop(source, None)
        for source, seconds, label, evidence in request["ban"]:
            if source in self.refuse:
                refused[self.refuse[source]] += 1
                continue
            self.bans[source] = (now + seconds, evidence)
            self.labels[source] = label
            self.times.setdefault(source, now)
        return [], {"refused": refused}

    def _fleet_bans(self, request: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        result = {"action": "enforce", "most": 10000, "longest": 604800, "vetoes": 0}
        if request.get("of") == "host":
            return self.own, result
        now = time.monotonic()
        self.bans = {source: ban for source, ban in self.bans.items() if ban[0] > now}
        found = [[source, end - now, evidence] for source, (end, evidence) in self.bans.items()]
        return found, result


class HostProcess:
    """`packetwatch-fleet.service` without systemd. enter: the namespace in which it runs."""

    def __init__(
        self, folder: Path, variables: Mapping[str, str], enter: Any, skew: int = 0
    ) -> None:
        self.control = folder / "fleet.sock"
        self.log = folder / "fleet.log"
        self._enter = enter
        self._argv = [PYTHON, "-s", "-c", _SKEWED.format(skew=skew)]
        state = folder / "state"
        state.mkdir(exist_ok=True)
        code = folder.parent / "code"
        self._variables = {
            **CLEAN,
            "PYTHONPYCACHEPREFIX": str(code / "bytecode"),
            "PYTHONPATH": str(code / "lib"),
            "MALLOC_MMAP_THRESHOLD_": "131072",
            "MALLOC_TRIM_THRESHOLD_": "131072",
            "PW_CONTROL_SOCKET": str(folder / "agent.sock"),
            "PW_FLEET_CONTROL_SOCKET": str(self.control),
            "PW_FLEET_STATE_DIR": str(state),
            **variables,
        }
        if not code.exists():
            (code / "lib").mkdir(parents=True)
            for name, place in (
                ("packetwatch_core", "plugins/module_utils"),
                ("packetwatch_agent", "roles/packetwatch/files/agent/packetwatch_agent"),
                ("packetwatch_fleet", "roles/packetwatch/files/fleet/packetwatch_fleet"),
            ):
                (code / "lib" / name).symlink_to(ROOT / place)
            # As the role does: the memory that is measured must not be the compiler's.
            subprocess.run([*self._argv[:3], _COMPILED], env=self._variables, check=True)
        self.start()

    def start(self) -> None:
        with self._enter(), self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, env=self._variables, stdout=log, stderr=log
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        self._process.terminate()
        return self._process.wait(10)

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        with Connection(str(self.control), "it does not answer") as connection:
            return connection.ask(command, **arguments)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def resident(self) -> int:
        """Return the resident memory in kB."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0])

    def cpu(self) -> float:
        """Return the seconds of CPU time so far."""
        words = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def until(
    holds: Callable[[], Any],
    seconds: float = PATIENCE,
    shown: Callable[[], Any] = str,
    *,
    pause: float = 0.005,
) -> float:
    """Wait until something holds; return the seconds that it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + seconds, shown()
        time.sleep(pause)
    return time.monotonic() - began


@contextlib.contextmanager
def running(
    folder: Path, variables: Mapping[str, str], enter: Any = contextlib.nullcontext, skew: int = 0
) -> Iterator[tuple[HostProcess, Speaker]]:
    """A fleet process and an agent's socket."""
    speaker = Speaker(folder / "agent.sock")
    process = HostProcess(folder, variables, enter, skew)
    try:
        yield process, speaker
    finally:
        process.kill()
        speaker.close()
