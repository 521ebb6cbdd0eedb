# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removing the role from a host; it must be the last of the scenario's files."""

from __future__ import annotations

from typing import Any

from lab.scenario import HOSTS, SSH, machine_of, open_fleet, play, recap
from lab.traffic import Answer, connect

testinfra_hosts = HOSTS


def test_remove_leaves_nothing_behind(host: Any) -> None:
    fleet = open_fleet()
    machine = machine_of(host, fleet)
    play("remove.yml", host)
    assert " xdp" not in host.check_output("ip -o link show eth0")
    for path in (
        "/sys/fs/bpf/packetwatch",
        "/etc/packetwatch",
        "/etc/default/packetwatch",
        "/usr/lib/packetwatch",
        "/var/lib/packetwatch",
        "/run/packetwatch",
        "/run/packetwatch-host",
        "/usr/local/bin/packetwatchctl",
    ):
        assert not host.file(path).exists, path
    assert host.run("systemctl list-unit-files --no-legend 'packetwatch*'").stdout == ""
    # The exit status is ignored: files may disappear while find reads a folder.
    found = host.run("find / -xdev -name '*packetwatch*' -not -path '/root/.ansible/*'").stdout
    assert found == ""
    assert not host.user("packetwatch-agent").exists
    assert connect(fleet.station("denied"), machine.ipv4, SSH) is Answer.OPEN
    assert recap(play("remove.yml", host))["changed"] == 0
