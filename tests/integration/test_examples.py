# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventories and the configuration in examples/, as users copy them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from packetwatch_core._node.authority import Node, Vault
from tests.integration.conftest import COLLECTIONS

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# Linting a thousand hosts takes half a minute. Hosts of the same groups have the same variables.
HOST_OF_EACH_KIND = "web001*:web301*:db001*:db091*:mx01*:mx11*:runner001*"


class Controller:
    """A copy of the examples, and Ansible with their configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str) -> tuple[int, str]:
        own = {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        return done.returncode, done.stdout

    def inventory(self, name: str) -> dict[str, Any]:
        status, output = self.run("ansible-inventory", "-i", name, "--list")
        assert status == 0, output
        found: dict[str, Any] = json.loads(output)
        return found

    def lint(self, name: str, hosts: str) -> tuple[int, str]:
        only = f"packetwatch_hosts={hosts}"
        return self.run("ansible-playbook", "-i", name, "packetwatch.xdp.lint", "-e", only)


def run(argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
    """Run openssl for the library."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    """The examples, with the secrets that the playbook for fleets makes."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    found = Controller(tmp_path / "examples")
    hosts = ["web01.example.net", "web20.example.net", "mx01.example.net"]
    nodes = [Node(f"node{number}.example.net", f"192.0.2.1{number}") for number in (1, 2, 3)]
    Vault(run, str(found.folder / "fleet/.packetwatch-fleet")).provide(nodes, hosts, ["root"])
    return found


def test_configuration_is_understood(controller: Controller) -> None:
    status, output = controller.run("ansible-config", "validate", "--type", "all")
    assert status == 0, output
    status, output = controller.run("ansible-config", "dump", "--only-changed")
    for line in ("ANSIBLE_PIPELINING", "DEFAULT_FORKS", "DEFAULT_HOST_LIST"):
        assert f"{line}({controller.folder}/ansible.cfg)" in output


@pytest.mark.parametrize(
    ("name", "hosts", "nodes"), [("office", 9, 0), ("thousand", 1000, 0), ("fleet", 30, 3)]
)
def test_inventory_has_its_hosts(controller: Controller, name: str, hosts: int, nodes: int) -> None:
    inventory = controller.inventory(name)
    members = {
        host
        for group in inventory["packetwatch"]["children"]
        for host in inventory[group].get("hosts", ())
    }
    assert len(members) == hosts
    assert len(inventory.get("packetwatch_fleet_nodes", {}).get("hosts", ())) == nodes
    assert len(inventory["_meta"]["hostvars"]) == hosts + nodes


@pytest.mark.parametrize(
    ("name", "hosts"),
    [
        ("office", "packetwatch"),
        ("thousand", HOST_OF_EACH_KIND),
        ("fleet", "web01*:web20*:mx01*"),
    ],
)
def test_lint_finds_nothing(controller: Controller, name: str, hosts: str) -> None:
    status, output = controller.lint(name, hosts)
    assert status == 0, output
    assert "WARNING" not in output
    assert "ok=1" in output


def test_lint_reads_the_variables_of_groups(controller: Controller) -> None:
    mail = controller.folder / "thousand/group_vars/mail.yml"
    mail.write_text(mail.read_text().replace("198.51.100.128/26", "198.51.100.300/26"))
    status, output = controller.lint("thousand", HOST_OF_EACH_KIND)
    assert status == 2, output
    assert "mx01.example.net and 1 more: packetwatch_deny__mail[0]: '198.51.100.300/26'" in output
