# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tests of a molecule scenario do again and again; `host` is testinfra's."""

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
    """What a run on one host prints, of one of our playbooks or one in a file; it must succeed."""
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
    """The environment, without the colours that molecule asks for, in which Ansible is hard to read."""
    return os.environ | {"ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "true"}


def recaps(output: str) -> dict[str, dict[str, int]]:
    """The numbers that a play ends with, by host."""
    found = {}
    for row in output.splitlines():
        if "unreachable=" in row:
            name, _colon, numbers = row.partition(":")
            pairs = (word.partition("=") for word in numbers.split())
            found[name.strip()] = {key: int(value) for key, _sign, value in pairs}
    return found


def recap(output: str) -> dict[str, int]:
    """The numbers that a play on one host ends with."""
    return next(iter(recaps(output).values()))


def module(host: Any, called: str, /, **options: Any) -> dict[str, Any]:
    """The result of one of our modules."""
    return dict(host.ansible(f"packetwatch.xdp.{called}", json.dumps(options), check=False))


def info(host: Any, *subset: str) -> dict[str, Any]:
    return module(host, "host_info", gather_subset=list(subset))


def banned(host: Any) -> set[str]:
    """Who is banned now."""
    return {ban["source"] for ban in info(host, "bans")["bans"]}


def events(host: Any) -> list[dict[str, Any]]:
    """What the agent has logged since boot."""
    output = host.check_output("journalctl --boot --unit packetwatch.service --output cat")
    return [json.loads(row) for row in output.splitlines() if row.startswith("{")]


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true result of the condition."""
    end = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.5)
    assert result
    return result


def settle(read: Callable[[], Any], expected: Any, seconds: float = 60.0) -> None:
    """Wait until what is read is as expected; else show what it is."""
    end = time.monotonic() + seconds
    while (found := read()) != expected and time.monotonic() < end:
        time.sleep(0.5)
    assert found == expected
