# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The addresses of a fleet's nodes: those that the role refuses, and how hosts get them."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import COLLECTIONS, ROOT

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs/fleet-nodes.md"


def run(folder: Path, nodes: dict[str, str], *command: str) -> str:
    """Run a command of Ansible with an inventory of nodes, by their addresses; return its output."""
    members = {name: {"fleet_node_address": address} for name, address in nodes.items()}
    groups: dict[str, Any] = {
        "packetwatch_fleet_nodes": {"hosts": members},
        "packetwatch": {"hosts": {"web1": {}}},
    }
    (folder / "hosts.json").write_text(json.dumps(groups))
    done = subprocess.run(
        [command[0], "-i", "hosts.json", *command[1:]],
        cwd=folder,
        env=os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout


def test_addresses_of_both_families_are_refused(tmp_path: Path) -> None:
    nodes = {"node1": "192.0.2.11", "node2": "2001:db8::12", "node3": "192.0.2.13"}
    output = run(tmp_path, nodes, "ansible-playbook", "packetwatch.xdp.fleet")
    assert (
        "nodes have IPv4 and IPv6 addresses (192.0.2.11, 2001:db8::12, 192.0.2.13): they reach each other at these, "
        "so give all of them fleet_node_address of one family"
    ) in output
    assert not (tmp_path / ".packetwatch-fleet").exists()


def test_endpoints_of_ipv6_nodes_as_the_page_says(tmp_path: Path) -> None:
    page = PAGE.read_text()
    began = page.index("   fleet_node_secrets: ")
    text = textwrap.dedent(page[began : page.index("```", began)])
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/packetwatch.yml").write_text(text)
    assert yaml.safe_load(text)["packetwatch_fleet"] == "etcd"
    shown = ("-m", "ansible.builtin.debug", "-a", "var=packetwatch_fleet_endpoints")
    output = run(tmp_path, {"node1": "2001:db8::11"}, "ansible", "web1", *shown)
    assert '"node1=[2001:db8::11]:2378"' in output
