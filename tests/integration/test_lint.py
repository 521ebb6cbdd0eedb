# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook lint, on inventories like those of users."""

from __future__ import annotations

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
        done = subprocess.run(
            ["ansible-playbook", *options, "packetwatch.xdp.lint"],
            cwd=self.folder,
            env=os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1"},
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
