# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The secrets of a fleet beside an inventory: Ansible must not take passwords for names of hosts."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import COLLECTIONS, ROOT

pytestmark = pytest.mark.slow

# The node has no address, so the role stops before it changes anything.
HOSTS: dict[str, Any] = {
    "packetwatch_fleet_nodes": {"hosts": {"node1": {}}},
    "packetwatch": {"hosts": {"web1": {}}},
}


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout


def play(folder: Path, *options: str) -> str:
    return run(folder, "ansible-playbook", "packetwatch.xdp.fleet", *options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory/hosts.yml").write_text(yaml.safe_dump(HOSTS))
    return tmp_path


@pytest.mark.parametrize("source", ["inventory", "inventory/hosts.yml"])
def test_secrets_in_the_default_folder_are_no_hosts(folder: Path, source: str) -> None:
    defaults = yaml.safe_load((ROOT / "roles/fleet_node/defaults/main.yml").read_text())
    default = defaults["fleet_node_secrets"]
    secrets = Path(default.replace("{{ inventory_dir }}", f"{folder}/inventory"))
    (secrets / "hosts/web1").mkdir(parents=True)
    (secrets / "hosts/web1/password").write_text("5ec2e7\n")
    (secrets / "hosts/web1/host.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    output = run(folder, "ansible-inventory", "-i", source, "--list")
    assert set(json.loads(output)["all"]["children"]) == {"ungrouped", *HOSTS}
    assert "5ec2e7" not in output and "WARNING" not in output
    assert "node1 has no fleet_node_address" in play(folder, "-i", source)


@pytest.mark.parametrize(
    ("secrets", "refused"),
    [
        ("inventory/group/fleet", True),
        ("inventory/../inventory/fleet", True),
        ("inventory/.group/fleet", False),
        ("inventory-fleet", False),
    ],
)
def test_a_folder_that_ansible_reads_is_refused(folder: Path, secrets: str, refused: bool) -> None:
    output = play(folder, "-i", "inventory", "-e", f"fleet_node_secrets={folder / secrets}")
    text = " ".join(output.split())
    assert (f"it lies in the inventory {folder}/inventory, so" in text) is refused, output
    assert ("node1 has no fleet_node_address" in text) is not refused, output
    assert not (folder / secrets).exists()
