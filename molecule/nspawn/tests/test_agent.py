# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent's process has almost no privileges."""

from __future__ import annotations

from typing import Any

from lab.scenario import HOSTS

testinfra_hosts = HOSTS


def test_agent_has_no_privileges(host: Any) -> None:
    pid = host.check_output("systemctl show --property MainPID --value packetwatch.service")
    status = dict(
        line.split(":\t", 1)
        for line in host.file(f"/proc/{pid}/status").content_string.splitlines()
    )
    assert status["CapEff"].strip("0\n ") == ""
    assert status["CapBnd"].strip("0\n ") == ""
    assert "0" not in status["Uid"].split()
    assert int(status["VmRSS"].split()[0]) <= 25_000


def test_agent_unit_is_hardened(host: Any) -> None:
    report = host.check_output("systemd-analyze security --no-pager packetwatch.service")
    last = report.splitlines()[-1]
    # "Overall exposure level for packetwatch.service: 1.4 OK :-)"
    assert float(last.split(": ")[1].split()[0]) <= 1.5, report
