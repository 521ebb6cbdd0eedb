# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent as a process, in a folder of the tests, and its output."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class AgentProcess:
    """An agent that runs as a user and follows the maps below `pins_folder`."""

    def __init__(self, folder: Path, pins_folder: str, user: int) -> None:
        self.folder = folder
        self.pins_folder = pins_folder
        self.state = folder / "state"
        self.log = folder / "log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._user = user
        for path in (folder, self.state):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        os.chown(self.state, user, user)
        shutil.copytree(ROOT / "plugins/module_utils", folder / "lib/packetwatch_core")
        agent = ROOT / "roles/packetwatch/files/agent/packetwatch_agent"
        shutil.copytree(agent, folder / "lib/packetwatch_agent")

    def start(self, wait: bool = True, **environment: str) -> None:
        """Start it; with `wait`, return when it follows the program."""
        starts = self.said("started") if self.log.exists() else 0
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
        variables = {
            "PYTHONPATH": str(self.folder / "lib"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PW_PINS": self.pins_folder,
            "PW_STATE_DIR": str(self.state),
            "PW_CONFIG_DIR": str(self.folder / "config"),
            "PW_STATUS_FILE": str(self.folder / "status.json"),
            "PW_SPARED_FILE": str(self.folder / "spared"),
            "PW_APPLY_REQUEST": str(self.folder / "apply-request"),
            "PW_METRICS_LISTEN": f"127.0.0.1:{self.port}",
        }
        python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else "python3"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [python, "-Ps", "-m", "packetwatch_agent", "run"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=variables | environment,
                user=self._user,
                group=self._user,
                extra_groups=[],
            )
        self.wait(lambda: not wait or self.said("started") == starts + 1)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(20)
        self.process = None
        return status

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def wait(self, condition: Callable[[], Any], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            time.sleep(0.05)

    def lines(self) -> list[dict[str, Any]]:
        """Return what it has written, without an unfinished line."""
        whole = self.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def said(self, text: str) -> int:
        return sum(text in line.get("message", "") for line in self.lines())

    def actions(self) -> Counter[str]:
        return Counter(line["event.action"] for line in self.lines() if "event.action" in line)

    def metrics(self) -> dict[str, float]:
        url = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        return {name: float(value) for name, value in pairs}

    def status(self, key: str) -> str:
        """Return a field of /proc/PID/status."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(line.split()[1] for line in text.splitlines() if line.startswith(f"{key}:"))
