# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several simulated hosts, and one controller that runs playbooks on them over filtered connections."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from packetwatch_core._declared.entries import without_origins
from tests.integration import stand_in
from tests.integration.conftest import COLLECTIONS, PYTHON, ModuleHost, gated_plugins, make_host

PEER = "192.0.2.7"
HOST = "192.0.2.1"
RECAP = re.compile(
    r"^(\S+) +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.MULTILINE
)
CACHE = "/var/lib/packetwatch/cache"


class Run(NamedTuple):
    """The exit status and output of a playbook."""

    status: int
    output: str

    def recap(self) -> dict[str, dict[str, int]]:
        """The recap of the hosts, without that of the controller."""
        names = ("ok", "changed", "unreachable", "failed")
        return {
            row[0]: dict(zip(names, map(int, row[1:]), strict=True))
            for row in RECAP.findall(self.output)
            if row[0] != "localhost"
        }


class Fleet:
    """Hosts by name: h01, h02 ..."""

    def __init__(self, hosts: dict[str, ModuleHost], folder: Path) -> None:
        self.hosts = hosts
        self.folder = folder
        # A test can add variables of all hosts, and of single ones.
        self.variables: dict[str, Any] = {}
        self.host_variables: dict[str, dict[str, Any]] = {name: {} for name in hosts}
        self._log = folder / "connections"
        tools = stand_in.write(folder, "/usr/lib/packetwatch/current")
        for host in hosts.values():
            host.command("mkdir", "-p", *stand_in.FOLDERS)
            host.environment["PATH"] = f"{tools}:{os.environ['PATH']}"
        self.environment = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_CONNECTION_PLUGINS": str(gated_plugins(folder)),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "true",
            "GATED_OPEN": str(folder / "open"),
            "GATED_LOG": str(self._log),
        }

    @property
    def inventory(self) -> str:
        """Write the inventory with the present variables; return its path."""
        path = self.folder / "hosts.json"
        hosts = {
            name: {"gated_pid": str(host.pid)} | self.host_variables[name]
            for name, host in self.hosts.items()
        }
        variables = {
            "ansible_connection": "gated",
            "ansible_python_interpreter": PYTHON,
            "ansible_become": False,
            "packetwatch_interfaces": ["pw0"],
            "packetwatch_confirm_timeout": 30,
        }
        text = json.dumps({"packetwatch": {"hosts": hosts, "vars": variables | self.variables}})
        path.write_text(text)
        return str(path)

    def play(self, playbook: str, *options: str, **environment: str) -> Run:
        """Run one of the collection's playbooks, or one in a file."""
        done = subprocess.run(
            ["ansible-playbook", "-i", self.inventory, playbook, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | self.environment | environment,
            cwd=self.folder,
            check=False,
            timeout=900,
        )
        return Run(done.returncode, done.stdout)

    def module(self, name: str, called: str, /, **options: Any) -> dict[str, Any]:
        """Run a module on one host, with the stand-in for systemd; return its result."""
        done = self.hosts[name].module(called, **options)
        assert "failed" not in done, done
        return done

    def modules_run(self) -> int:
        """How many modules have run on all hosts through connections with pipelining."""
        path = Path(f"{self._log}-modules")
        return len(path.read_text().splitlines()) if path.exists() else 0

    def cut(self, name: str, up: bool = False) -> None:
        """Disconnect a host from the network, or connect it again; open connections are lost."""
        host = self.hosts[name]
        host.command("ip", "-n", "peer", "link", "set", "pw1", "up" if up else "down")
        self.hang_up()

    def hang_up(self) -> None:
        """Close all connections, as ControlPersist does after some time."""
        for path in self.folder.glob("open*"):
            path.unlink()

    def denied(self, name: str) -> str:
        """The role's deny list in a host's confirmed state, without the variables of its entries."""
        return without_origins(self.hosts[name].files().get("deny.d/ansible.list", ""))


@contextlib.contextmanager
def make_fleet(size: int, folder: Path, attach: bool) -> Iterator[Fleet]:
    """Make hosts. attach: attach the filter by the module; only the first host compiles."""
    with contextlib.ExitStack() as stack:
        hosts = {}
        cache = folder / "cache"
        for number in range(1, size + 1):
            own = folder / f"host{number}"
            own.mkdir()
            host = stack.enter_context(make_host(own))
            hosts[f"h{number:02}"] = host
            if attach:
                if cache.exists():
                    host.command("mkdir", "-p", "/var/lib/packetwatch")
                    host.command("cp", "-r", str(cache), CACHE)
                done = host.module("program", interface="pw0")
                assert "failed" not in done, done
                if not cache.exists():
                    host.command("cp", "-r", CACHE, str(cache))
        yield Fleet(hosts, folder)
