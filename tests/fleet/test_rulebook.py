# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rulebook in the real ansible-rulebook: events of hosts become a ban in a real etcd. And a backup of it.

A stand-in for ssh prints what hosts emit.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import software
from fleet.servers import FleetNodes, fleet_nodes
from fleet.software import VERSIONS
from fleet.test_decisions import folded

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT.parents[2]
TOOLS = BUILD / "rulebook-venv" / "bin"
# A node has its certificates in /etc.
ON_NODE = """
mount -t tmpfs room /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay room -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
ln -s "$CONFIG" /etc/packetwatch-fleet-node
exec "$@"
"""
SSH = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
cat "$HOSTS/$2"
exec sleep 600
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes() -> Iterator[FleetNodes]:
    with fleet_nodes(VERSIONS[-1], 1) as found:
        yield found


def ban(address: str, evidence: str, **fields: Any) -> str:
    """The example of a scan's ban in docs/events.md, with another source and evidence."""
    (example,) = re.findall(
        r'^\{.*"event.action":"ban",.*"packetwatch.reason":"scan".*\}$',
        (ROOT / "docs/events.md").read_text(),
        re.M,
    )
    changed = {
        "source.ip": address,
        "packetwatch.prefix": f"{address}/32",
        "packetwatch.evidence": evidence,
    }
    return json.dumps(json.loads(example) | changed | fields) + "\n"


LINES = {
    "web1": (
        ban("203.0.113.1", "answer"),
        # The same host again, also under another name.
        ban("203.0.113.1", "answer", **{"host.name": "web2"}),
        ban("203.0.113.2", "syn"),
        ban("203.0.113.3", "manual", **{"packetwatch.origin": "fleet"}),
        ban("203.0.113.4", "answer", **{"source.ip": "{{ lookup('pipe', 'touch /run/taken') }}"}),
        ban("203.0.113.9", "syn"),
    ),
    "web2": (
        "not JSON\n",
        ban("203.0.113.2", "syn"),
        ban("203.0.113.3", "manual", **{"packetwatch.origin": "fleet"}),
        ban("203.0.113.4", "answer"),
        ban("203.0.113.9", "answer"),
    ),
}


@pytest.fixture
def folder(nodes: FleetNodes, tmp_path: Path) -> Path:
    """A folder with an inventory. The first node in it does not answer."""
    inventory = tmp_path / "inventory"
    inventory.mkdir()
    known = {
        "gone": {
            "ansible_host": "127.0.0.1",
            "ansible_port": 1,
            # Not the stand-in.
            "ansible_ssh_executable": "/usr/bin/ssh",
        },
        "node1": {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": "/usr/bin/python3",
        },
    }
    groups = {"packetwatch_fleet_nodes": {"hosts": known}}
    (inventory / "hosts.json").write_text(json.dumps(groups))
    (inventory / ".packetwatch-fleet").symlink_to(nodes.ca.parent)
    return tmp_path


@contextlib.contextmanager
def on_node(
    nodes: FleetNodes, folder: Path, *command: str, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command where the node is, with its output in the file `log`."""
    known = {
        "ANSIBLE_COLLECTIONS_PATH": str(BUILD),
        "ANSIBLE_NOCOLOR": "1",
        "CONFIG": str(nodes.nodes[0].config),
    }
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", ON_NODE, "sh"]
    with (folder / "log").open("wb") as log, nodes.nodes[0].namespace.entered():
        process = subprocess.Popen(
            [*argv, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=os.environ | known | environment,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_what_two_hosts_have_banned_is_banned_on_all_hosts(nodes: FleetNodes, folder: Path) -> None:
    lines, tools = folder / "hosts", folder / "bin"
    for path in (lines, tools):
        path.mkdir()
    for host, emitted in LINES.items():
        (lines / host).write_text("".join(emitted))
    (tools / "ssh").write_text(SSH)
    (tools / "ssh").chmod(0o755)
    (folder / "watched.yml").write_text(json.dumps({"packetwatch_watched": list(LINES)}))
    command = (
        "-i",
        "inventory",
        "--rulebook",
        "packetwatch.xdp.fleet_ban",
        "--vars",
        "watched.yml",
    )
    search = f"{tools}:{TOOLS}:{os.environ['PATH']}"
    log = folder / "log"
    with on_node(
        nodes, folder, "ansible-rulebook", *command, PATH=search, HOSTS=str(lines)
    ) as process:
        deadline = time.monotonic() + 300
        while "PLAY RECAP" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        # Another ban would follow at once.
        time.sleep(3)
    text = log.read_text()
    # The log has a failed run twice, and one with a node that does not answer counts as failed.
    assert set(re.findall(r"^(\w+) +: ok=(\d)", text, re.M)) == {("gone", "0"), ("node1", "2")}, (
        text
    )
    ((source, (label, seconds)),) = folded(nodes).items()
    assert (source, label) == ("203.0.113.9", "api/play")
    assert 86000 < seconds <= 86400
    assert "web1: an event that contains the beginning of a template is left out" in text
    assert "web2: a line that is not an event is left out" in text
    assert nodes.service_credentials("api").password not in text
    assert not Path("/run/taken").exists()


def test_the_playbook_bans_and_lifts(nodes: FleetNodes, folder: Path) -> None:
    """With the commands of the guide."""
    page = (ROOT / "docs/guides/share-bans.md").read_text()
    commands = re.findall(r"^ *(ansible-playbook .*fleet_ban .*)$", page, re.M)
    found = []
    for command in commands:
        with on_node(nodes, folder, *shlex.split(command)) as process:
            process.wait(timeout=120)
        found.append(folded(nodes).get("203.0.113.9"))
    banned, lifted = found
    assert banned and not lifted, (folder / "log").read_text()
    label, seconds = banned
    assert label == "api/play" and 500 < seconds <= 600


def test_a_backup_is_that_of_a_node_that_answers(nodes: FleetNodes, folder: Path) -> None:
    path = f"{software.etcd(VERSIONS[-1])}:{os.environ['PATH']}"
    command = ("ansible-playbook", "-i", "inventory", "packetwatch.xdp.fleet_backup")
    with on_node(nodes, folder, *command, PATH=path) as process:
        process.wait(timeout=300)
    (backup,) = (nodes.ca.parent / "backups").iterdir()
    assert backup.stat().st_size > 10_000, (folder / "log").read_text()
