# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""packetwatchctl as root, as an administrator, as a reader, and as a user without rights."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lab.scenario import (
    ALLOWED,
    DENIED,
    HOSTS,
    SSH,
    events,
    machine_of,
    open_fleet,
    play,
    recap,
    wait_for,
)
from lab.traffic import Answer, connect

testinfra_hosts = HOSTS

BANNED = "203.0.114.77"
USERS = {"admin": "packetwatch-admin", "reader": "packetwatch", "nobody": ""}
NOT_PERMITTED = 3


def ctl(host: Any, command: str, user: str = "root") -> tuple[int, dict[str, Any]]:
    """Exit status and the JSON object that the command prints."""
    text = f"packetwatchctl {command} --json"
    if user != "root":
        group = USERS[user] or "nogroup"
        text = f"setpriv --reuid=60001 --regid=60001 --groups=$(getent group {group} | cut -d: -f3) {text}"
    done = host.run(text)
    return done.rc, json.loads(done.stdout or "{}")


def why(host: Any, address: str) -> str:
    status, found = ctl(host, f"why {address}")
    assert status == 0
    return str(found["because"])


def test_all_is_well(host: Any) -> None:
    # A host that has just booted may not have its first figures yet.
    wait_for(lambda: ctl(host, "status")[0] == 0)


@pytest.mark.parametrize("family", ["", " -6"])
def test_the_fire_drill_is_green(host: Any, family: str) -> None:
    status, found = wait_for(lambda: _drill(host, family), 120)
    assert (status, found["passed"]) == (0, True), found


def _drill(host: Any, family: str) -> tuple[int, dict[str, Any]] | None:
    """The result of one drill; None while no scan is detected yet, shortly after a boot."""
    status, found = ctl(host, f"selftest{family}")
    return None if "wait" in json.dumps(found) and status else (status, found)


def test_why(host: Any) -> None:
    assert [why(host, address) for address in (ALLOWED, DENIED, BANNED)] == [
        "allow",
        "deny",
        "unlisted",
    ]


def test_who_may_do_what(host: Any) -> None:
    assert ctl(host, "bans", "reader")[0] == 0
    assert ctl(host, "bans", "nobody")[0] == NOT_PERMITTED
    for user in ("reader", "nobody"):
        assert ctl(host, f"ban {BANNED} --for 600", user)[0] == NOT_PERMITTED
    assert why(host, BANNED) == "unlisted"
    assert ctl(host, f"ban {BANNED} --for 600 --reason drill", "admin")[0] == 0
    assert why(host, BANNED) == "ban"
    assert ctl(host, f"unban {BANNED}", "admin")[0] == 0
    assert why(host, BANNED) == "unlisted"
    audits = [event for event in events(host) if event.get("event.action") == "audit"]
    done = [
        (event["packetwatch.command"], event["user.id"], event["event.outcome"]) for event in audits
    ]
    assert ("ban", "60001", "success") in done
    assert ("ban", "60001", "failure") in done


def test_who_is_declared_is_an_administrator(host: Any) -> None:
    """Rights follow group membership, which takes effect with a new login."""
    assert host.check_output("getent group packetwatch-admin").endswith(":ops")
    ban = f"runuser --user ops -- packetwatchctl ban {BANNED} --for 600"
    host.check_output(ban)
    declare_admins(host, [])
    assert host.run(ban).rc == NOT_PERMITTED
    host.check_output(f"packetwatchctl unban {BANNED}")
    declare_admins(host, ["ops"])


def declare_admins(host: Any, names: list[str]) -> None:
    variables = json.dumps({"packetwatch_admins": names})
    assert recap(play("site.yml", host, "-e", variables))["changed"] > 0


def test_an_administrator_edits_the_local_list(host: Any) -> None:
    fleet = open_fleet()
    machine = machine_of(host, fleet)
    for user in ("reader", "nobody"):
        assert ctl(host, f"allow {DENIED}", user)[0] != 0
    assert connect(fleet.station("denied"), machine.ipv4, SSH, timeout=1.0) is Answer.NONE
    assert ctl(host, f"allow {DENIED} --comment drill", "admin")[0] == 0
    assert connect(fleet.station("denied"), machine.ipv4, SSH) is Answer.OPEN
    assert why(host, DENIED) == "allow"
    assert ctl(host, f"remove {DENIED}", "admin")[0] == 0
    assert connect(fleet.station("denied"), machine.ipv4, SSH, timeout=1.0) is Answer.NONE


def test_manual_and_completion_are_there(host: Any) -> None:
    assert host.run("packetwatchctl --help").rc == 0
    assert host.file("/usr/local/share/man/man8/packetwatchctl.8").exists
    assert host.file("/usr/local/share/bash-completion/completions/packetwatchctl.bash").exists
