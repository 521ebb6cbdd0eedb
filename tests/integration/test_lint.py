# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook lint, on inventories like those of users."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import COLLECTIONS

HOSTS = """
packetwatch:
  children:
    web:
      hosts:
        web1:
          packetwatch_deny__host: []
        web2: {}
    mail:
      hosts:
        mx1: {}
  vars:
    packetwatch_deny: [192.0.2.7]
    packetwatch_action: monitor
"""


class Inventory:
    """A folder with files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("hosts.yml", HOSTS)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def lint(self, *sources: str) -> tuple[int, str]:
        options = [word for source in sources or ("hosts.yml",) for word in ("-i", source)]
        return self.run("ansible-playbook", *options, "packetwatch.xdp.lint")

    def fetch(self, *hosts: str) -> tuple[int, str]:
        options = ("-i", "hosts.yml", "-a", json.dumps({"hosts": hosts}))
        return self.run("ansible", "localhost", "-m", "packetwatch.xdp.__private.fetch", *options)

    def run(self, *command: str) -> tuple[int, str]:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ
            | {
                "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
                "ANSIBLE_HOME": str(self.folder / "home"),
                "ANSIBLE_NOCOLOR": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        return done.returncode, done.stdout


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return Inventory(tmp_path)


def test_different_names_merge_and_other_variables_may_be_overridden(inventory: Inventory) -> None:
    inventory.write("group_vars/all.yml", "packetwatch_deny__all: [192.0.2.8]\n")
    inventory.write("group_vars/web.yml", "packetwatch_deny__web: []\npacketwatch_action: off\n")
    inventory.write("host_vars/mx1.yml", "packetwatch_allow__mx1: [192.0.2.9]\n")
    status, output = inventory.lint()
    assert status == 0, output


@pytest.mark.parametrize("source", ["hosts.yml", "."])
def test_one_level_hides_another(inventory: Inventory, source: str) -> None:
    inventory.write("group_vars/all.yml", "packetwatch_deny__web: [192.0.2.8]\n")
    inventory.write("group_vars/web/lists.yml", "packetwatch_deny__web: [192.0.2.9]\n")
    inventory.write("host_vars/web1.yml", "packetwatch_deny__host: [192.0.2.10]\n")
    status, output = inventory.lint(source)
    assert status == 2, output
    assert (
        "packetwatch_deny__web of group all (group_vars/all.yml) is hidden from web1 and 1 more "
        "by that of group web (group_vars/web/lists.yml)"
    ) in output
    inline = "hosts.yml" if source == "hosts.yml" else "."
    assert (
        f"packetwatch_deny__host of host web1 ({inline}) is hidden from web1 "
        "by that of host web1 (host_vars/web1.yml)"
    ) in output
    assert "packetwatch_action" not in output


def test_inside_the_inventory_itself_and_between_two(inventory: Inventory) -> None:
    inventory.write("more.ini", "[web]\nweb3 packetwatch_deny='[]'\n")
    status, output = inventory.lint("hosts.yml", "more.ini")
    assert status == 2, output
    assert (
        "packetwatch_deny of group packetwatch (hosts.yml, more.ini) is hidden from web3 by that "
        "of host web3 (hosts.yml, more.ini)"
    ) in output


def test_what_ansible_uses_is_what_lint_says_wins(inventory: Inventory) -> None:
    """The order of levels is the one that Ansible itself shows."""
    places = {
        "group_vars/all.yml": 1,
        "group_vars/packetwatch.yml": 2,
        "group_vars/web.yml": 3,
        "host_vars/web1.yml": 4,
    }
    for name, number in places.items():
        inventory.write(name, f"packetwatch_deny__x: [192.0.2.{number}]\n")
        status, output = inventory.lint()
        if number == 1:
            assert status == 0, output
            continue
        assert status == 2
        winner = f"by that of {'host web1' if number == 4 else f'group {Path(name).stem}'} ({name})"
        assert output.count("packetwatch_deny__x of ") == number - 1, output
        host = subprocess.run(
            ["ansible-inventory", "-i", "hosts.yml", "--host", "web1"],
            cwd=inventory.folder,
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"192.0.2.{number}" in host.stdout
        assert winner in output


WRONG = """
packetwatch_dney: []
packetwatch_ban_time: 10 minutes
packetwatch_scan_window: 5m
packetwatch_protect: 192.0.2.9
packetwatch_metrics_listen: "{{ ansible_facts.default_ipv4.address }}:9477"
packetwatch_feeds: [{name: a}]
packetwatch_allow__a: ["203.0.113.0/24"]
packetwatch_deny__b: ["203.0.113.66"]
packetwatch_deny__c: [192.0.2.300, {address: 198.51.100.7, expires: "2020-01-01T00:00:00Z"}]
packetwatch_fleet: mine
"""


def test_wrong_values_and_entries_without_effect(inventory: Inventory) -> None:
    """All problems of all hosts, without a host."""
    inventory.write("group_vars/packetwatch.yml", WRONG)
    inventory.write("host_vars/mx1.yml", "packetwatch_deny__c: [224.0.0.1]\n")
    inventory.write("host_vars/web2.yml", "packetwatch_fleet_host: Web 2\n")
    status, output = inventory.lint()
    assert status == 2, output
    lines = output.splitlines()
    for line in (
        "web1 and 2 more: the variable packetwatch_dney is unknown: did you mean packetwatch_deny?",
        "web1 and 2 more: packetwatch_ban_time is '10 minutes'; allowed: seconds from 1 to 31536000, up to "
        "6 decimals, or a time such as 30s, 10m, 2h, 7d",
        "web1 and 2 more: packetwatch_protect is '192.0.2.9', a text: write a list, or [] for none",
        "web1 and 2 more: packetwatch_feeds[0]: a: one of the following is required: url, path, preset",
        "web1 and 1 more: packetwatch_deny__c[0]: '192.0.2.300' is not an IPv4 address: write numbers from "
        "0 to 255 between the dots",
        "mx1: packetwatch_deny__c[0]: 224.0.0.1 has no effect: no packet has a multicast address as its "
        "source; remove it",
        "mx1: packetwatch_deny__b[0]: 203.0.113.66 has no effect: packetwatch_allow__a[0] allows "
        "203.0.113.0/24; remove one of the two",
        "web2: packetwatch_fleet_host is 'Web 2': write up to 64 of the characters a-z, 0-9, '.', '_' and '-', with "
        "a letter or a digit at both ends; unless you set packetwatch_fleet_host, it is the host's name in the inventory",
    ):
        assert line in lines, output
    assert "packetwatch_scan_window" not in output
    # The others have the names of the inventory.
    assert (
        "web1: packetwatch_fleet_host" not in output and "mx1: packetwatch_fleet_host" not in output
    )


def test_what_only_time_or_the_host_decides_fails_no_pipeline(inventory: Inventory) -> None:
    inventory.write(
        "group_vars/mail.yml",
        'packetwatch_metrics_listen: "{{ ansible_facts.default_ipv4.address }}:9477"\n'
        'packetwatch_deny__old: [{address: 198.51.100.7, expires: "2020-01-01T00:00:00Z"}]\n',
    )
    status, output = inventory.lint()
    assert status == 0, output
    lines = output.splitlines()
    assert (
        "mx1: packetwatch_deny__old[0]: 198.51.100.7 has no effect: it expired at "
        "2020-01-01T00:00:00Z; remove it"
    ) in lines
    assert [line for line in lines if "mx1: packetwatch_metrics_listen cannot be evaluated" in line]


def test_an_inventory_without_hosts(inventory: Inventory) -> None:
    inventory.write("hosts.yml", "web: {hosts: {web1: {}}}\n")
    status, output = inventory.lint()
    assert status == 2, output
    assert (
        "the inventory has no host that matches packetwatch: put the hosts into the group packetwatch"
    ) in output


def test_feeds_of_another_host_that_cannot_be_evaluated(inventory: Inventory) -> None:
    """The play of feeds runs on the controller, and evaluates variables of all hosts."""
    inventory.write("feed.txt", "8.8.4.4\n")
    inventory.write(
        "group_vars/all.yml",
        "folder: .\npacketwatch_feeds: [{name: a, path: '{{ folder }}/feed.txt'}]\n",
    )
    inventory.write(
        "host_vars/mx1.yml", "packetwatch_feeds: [{name: b, url: '{{ mirror }}/b.txt'}]\n"
    )
    status, output = inventory.fetch("web1", "web2")
    assert status == 0, output
    assert '"entries": 1' in output
    status, output = inventory.fetch("web1", "mx1")
    assert status == 2, output
    assert (
        "mx1: packetwatch_feeds cannot be evaluated: 'mirror' is undefined; define that variable for "
        "the host (nothing was changed)"
    ) in output
