# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The API keeps its contract: schemathesis makes requests from openapi.json, and compares the answers with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from fleet.api import COLLECTION, RELEASES, running_api
from fleet.servers import fleet_nodes
from fleet.software import SUITES

pytestmark = pytest.mark.slow

ETCD = {suite: version for version, suite in SUITES.items()}
TOOL = COLLECTION.parents[2] / "contract-venv/bin/schemathesis"
CONTRACT = COLLECTION / "roles/fleet_node/files/api/packetwatch_api/openapi.json"
LISTEN = "127.0.0.1:8000"
# What is in the form of the contract may still be refused: hosts must not be banned, and a time may have passed.
SETTINGS = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "404", "409", "412", "422"]
"""
FEWEST = 400


@pytest.mark.parametrize("release", RELEASES)
def test_every_answer_is_as_the_contract_says(release: str, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    status = {"v": 1, "t": time.time(), "addresses": ["192.0.2.10"]}
    with (
        fleet_nodes(ETCD[release], 1) as nodes,
        # Past the gate, which would refuse so many requests.
        running_api(nodes, release, "--bind", LISTEN, "--limit-request-line", "0") as api,
    ):
        nodes.put("hosts/web1/status", json.dumps(status))
        nodes.put("lists/common", json.dumps({"v": 1, "deny": [{"address": "203.0.113.0/24"}]}))
        argv = [str(TOOL), "--config-file", str(tmp_path / "settings.toml"), "run", str(CONTRACT)]
        argv += ["--url", f"http://{LISTEN}", "-H", f"Authorization: Bearer {api.secrets['admin']}"]
        argv += ["--max-examples", "10", "--seed", "1", "--generation-database", "none"]
        with api.node.namespace.entered():
            done = subprocess.run(
                [*argv, "--no-color"],
                cwd=tmp_path,
                env=os.environ
                | {
                    "SCHEMATHESIS_HOOKS": "contract_formats",
                    "PYTHONPATH": str(Path(__file__).parent),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        assert done.returncode == 0, done.stdout[-8000:]
        generated = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
        assert generated and int(generated[1]) == int(generated[2]) > FEWEST, done.stdout[-2000:]
        assert '"log.level":"error"' not in api.log.read_text()
