# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Helpers for the tests of molecule scenarios; `host` is testinfra's."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testinfra.utils.ansible_runner import AnsibleRunner

from lab.fleet import Fleet
from lab.topology import ipv4

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.machine import Machine

INVENTORY = os.environ["MOLECULE_INVENTORY_FILE"]
PLAYBOOKS = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]).parents[1] / "playbooks"
HOSTS = AnsibleRunner(INVENTORY).get_hosts("packetwatch")
SSH = 22
CLOSED = range(2001, 2101)
# The controller's own networks.
LOCKOUT = ["10.77.0.0/24", "fd77::/64"]
CLIENT, SCANNER, DENIED, ALLOWED = (ipv4(number) for number in (101, 102, 103, 104))


def open_fleet() -> Fleet:
    return Fleet.open(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "lab")


def machine_of(host: Any, fleet: Fleet) -> Machine:
    return fleet.host(host.backend.host)


def play(book: str | Path, host: Any, *options: str) -> str:
    """Run a playbook of the collection, or one in a file, on one host; return its output. It must succeed."""
    argv = ["ansible-playbook", "-i", INVENTORY, "--limit", host.backend.host]
    done = subprocess.run(
        [*argv, str(PLAYBOOKS / book), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
        env=plain(),
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def plain() -> dict[str, str]:
    """The environment without the colours that molecule switches on, which make output hard to read."""
    return os.environ | {"ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "true"}


def recaps(output: str) -> dict[str, dict[str, int]]:
    """The numbers of a play's recap, by host."""
    found = {}
    for row in output.splitlines():
        if "unreachable=" in row:
            name, _colon, numbers = row.partition(":")
            pairs = (word.partition("=") for word in numbers.split())
            found[name.strip()] = {key: int(value) for key, _sign, value in pairs}
    return found


def recap(output: str) -> dict[str, int]:
    """The numbers of the recap of a play on one host."""
    return next(iter(recaps(output).values()))


def module(host: Any, called: str, /, **options: Any) -> dict[str, Any]:
    """Call a module of the collection; return its result."""
    return dict(host.ansible(f"packetwatch.xdp.{called}", json.dumps(options), check=False))


def info(host: Any, *subset: str) -> dict[str, Any]:
    return module(host, "host_info", gather_subset=list(subset))


def banned(host: Any) -> set[str]:
    """The sources that are banned now."""
    return {ban["source"] for ban in info(host, "bans")["bans"]}


def events(host: Any) -> list[dict[str, Any]]:
    """The events that the agent has logged since boot."""
    output = host.check_output("journalctl --boot --unit packetwatch.service --output cat")
    return [json.loads(row) for row in output.splitlines() if row.startswith("{")]


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait for the first true result of the condition, and return it."""
    end = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.5)
    assert result
    return result


def settle(read: Callable[[], Any], expected: Any, seconds: float = 60.0) -> None:
    """Wait until `read` returns the expected value; fail with the last value otherwise."""
    end = time.monotonic() + seconds
    while (found := read()) != expected and time.monotonic() < end:
        time.sleep(0.5)
    assert found == expected
