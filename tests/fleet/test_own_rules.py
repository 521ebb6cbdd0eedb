# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of one's own in a real enforcer: the one of the guide, as the guide has it, and one that fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from fleet.enforcing import Enforcer, Reporters, folded, report
from fleet.host_process import until
from fleet.servers import fleet_nodes
from lab import guides

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces"),
]


def test_the_rule_of_the_guide_bans_and_a_rule_that_fails_is_off_alone(tmp_path: Path) -> None:
    blocks = {block.place: block.text for block in guides.blocks("write-a-rule")}
    inventory = yaml.safe_load(blocks["inventory/nodes.yml"])
    node = inventory["packetwatch_fleet_nodes"]["hosts"]["node1"]
    rules = node["fleet_node_enforcers"]["databases"]
    assert rules["databases"]["action"] == "monitor"
    folder = tmp_path / "rules.d"
    folder.mkdir()
    for path in node["fleet_node_rule_files"]:
        name = Path(path).name
        (folder / name).write_text(blocks[f"rules/{name}"])
    broken = blocks["rules/databases.py"].replace("chosen = [", "chosen = 0 / 0 or [")
    (folder / "broken.py").write_text(broken.replace('"databases"', '"broken"'))
    rules["databases"]["action"] = "enforce"
    with fleet_nodes("3.4", 1) as nodes:
        enforcer = Enforcer(tmp_path, nodes, "e1", {"broken": {"action": "enforce"}, **rules})
        try:
            until(lambda: bool(enforcer.follows))
            hosts = Reporters(nodes)
            for host in (1, 2):
                hosts.seen(host, ("203.0.113.9", 3306), ("203.0.113.10", 22))
            until(lambda: folded(nodes).keys(), shown=enforcer.log.read_text)
            assert {source: ban.label for source, ban in folded(nodes).items()} == {
                "203.0.113.9": "e1/databases"
            }
            until(lambda: report(nodes, "e1").get("recent"))
            found = report(nodes, "e1")
            assert found["recent"][0]["why"] == "it has tried ports of databases on 2 hosts"
            assert found["recent"][0]["hosts"] == ["web1", "web2"]
            assert found["rules"]["databases"]["thresholds"] == {"hosts": 2, "seconds": 600}
            assert "ZeroDivisionError" in found["rules"]["broken"]["fault"]
            assert found["rules"]["databases"]["fault"] is None
            until(
                lambda: any(
                    line.get("event.action") == "fleet_rule_off"
                    and line["packetwatch.rule"] == "broken"
                    for line in enforcer.lines()
                )
            )
        finally:
            enforcer.kill()
