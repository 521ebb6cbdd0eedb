# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The time of a run that changes nothing, compared with one module run for each entry."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from lab.scenario import HOSTS, play, recap

if TYPE_CHECKING:
    from pathlib import Path

testinfra_hosts = HOSTS

RUNS = 15
ENTRIES = 100
TRIED = 10


def test_a_run_that_changes_nothing_is_short(host: Any, tmp_path: Path) -> None:
    started = time.monotonic()
    output = play("site.yml", host)
    ours = time.monotonic() - started
    numbers = recap(output)
    included = [row for row in output.splitlines() if row.startswith("included: ")]
    assert numbers["changed"] == 0
    assert numbers["ok"] - len(included) <= RUNS

    theirs = per_entry(host, tmp_path) * ENTRIES / TRIED
    print(f"nothing to change: {ours:.1f} s; {ENTRIES} entries one by one: {theirs:.1f} s")
    assert ours < theirs


def per_entry(host: Any, folder: Path) -> float:
    """Seconds that a loop of ansible.builtin.iptables takes if it changes nothing either."""
    rule = {"chain": "INPUT", "source": "198.51.100.{{ item }}", "jump": "DROP"}
    entries = list(range(1, TRIED + 1))
    seconds = 0.0
    for state in ("present", "present", "absent"):
        task = {"ansible.builtin.iptables": rule | {"state": state}, "loop": entries}
        book = {"hosts": "packetwatch", "become": True, "gather_facts": False, "tasks": [task]}
        path = folder / f"{state}.yml"
        path.write_text(json.dumps([book]), encoding="ascii")
        started = time.monotonic()
        if recap(play(path, host))["changed"] == 0:
            seconds = time.monotonic() - started
    assert seconds
    return seconds
