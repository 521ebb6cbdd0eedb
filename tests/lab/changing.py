# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changing a host from a separate controller, and reading the result on the host."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from lab.scenario import INVENTORY, SSH, plain
from lab.topology import CONTROLLER
from lab.traffic import Answer, connect

if TYPE_CHECKING:
    from pathlib import Path

    from lab.fleet import Fleet
    from lab.machine import Machine


def change(
    host: Any, timeout: int, environment: dict[str, str] | None = None, /, **options: Any
) -> subprocess.Popen[str]:
    """Start a separate controller that changes the lists named lockout."""
    options |= {"name": "lockout", "force": True, "confirm_timeout": timeout}
    return _start(host, "access_lists", options, environment or {})


def follow(host: Any, timeout: int, source: Path) -> subprocess.Popen[str]:
    """Start a separate controller that declares the next program of eth0."""
    options = {"interface": "eth0", "next_src": str(source), "confirm_timeout": timeout}
    return _start(host, "program", options, {})


def _start(
    host: Any, module: str, options: dict[str, Any], environment: dict[str, str]
) -> subprocess.Popen[str]:
    argv = ["ansible", "-i", INVENTORY, host.backend.host, "-b", "-m", f"packetwatch.xdp.{module}"]
    return subprocess.Popen(
        [*argv, "-a", json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=plain() | {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"} | environment,
    )


def answer(fleet: Fleet, machine: Machine) -> Answer:
    """The answer to a new ssh connection from the controller."""
    return connect(fleet.station(CONTROLLER), machine.ipv4, SSH)


def declared(machine: Machine) -> str:
    """Names of the deny lists of confirmed state, which a boot activates."""
    listing = machine.ssh(["ls", "/etc/packetwatch/current/deny.d"])
    return str(listing.stdout)
