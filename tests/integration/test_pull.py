# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host that pulls a Git repository and applies its declarations, by the command of the example unit."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_confirm import Controller

if TYPE_CHECKING:
    from tests.integration.conftest import ModuleHost

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "roles/packetwatch/files/pull/pull-packetwatch.service"
STATE = "/var/lib/pull-packetwatch"
HOST = "192.0.2.1"
PEER = "192.0.2.7"
PLAY = """\
- name: Filter this host
  hosts: all
  connection: local
  gather_facts: false
  tasks:
    - name: Declare who is kept out
      packetwatch.xdp.access_lists:
        deny: "{{ packetwatch_deny }}"
        allow_empty: true
        force: "{{ force | default(false) }}"
    - name: Attach
      packetwatch.xdp.program:
        interface: pw0
"""


class Puller:
    """The repository, and the host that pulls it."""

    def __init__(self, host: ModuleHost, folder: Path) -> None:
        self.host = host
        controller = Controller(host, folder)
        self._environment = controller.host.environment
        self._repository = folder / "repository"
        self._repository.mkdir()
        self._git("init", "--quiet", "--initial-branch=main")
        self._write("local.yml", PLAY)
        self.declare()

    def declare(self, *deny: str, **variables: object) -> None:
        """Commit a deny list and other variables."""
        name = os.uname().nodename
        host = {"ansible_python_interpreter": "/usr/bin/python3", "packetwatch_deny": list(deny)}
        self._write("inventory/hosts.yml", f"all: {{hosts: {{{name}: {host | variables}}}}}\n")
        self._git("add", ".")
        self._git("commit", "--quiet", "--message=A change")

    def pull(self) -> subprocess.CompletedProcess[str]:
        """Run the command of the example unit on the host."""
        unit = configparser.ConfigParser(interpolation=None, strict=False)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read(UNIT)
        given = {"PULL_URL": str(self._repository), "PULL_CHECKOUT": "main", "PULL_OPTIONS": ""}
        text = unit["Service"]["ExecStart"]
        for name, value in given.items():
            text = text.replace(f"${{{name}}}", value).replace(f"${name}", value)
        assert "$" not in text
        tools = Path(sys.executable).parent
        command = text.replace("/opt/ansible/bin", str(tools))
        environment = {
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT.parents[2]),
            "LC_ALL": "C.UTF-8",
            "HOME": str(self._repository),
            "PATH": self._environment["PATH"],
        }
        words = [f"{name}={value}" for name, value in environment.items()]
        self.host.command("mkdir", "-p", STATE)
        argv = [*self.host.enter, "env", "-i", *words, *shlex.split(command)]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)

    def _write(self, name: str, text: str) -> None:
        path = self._repository / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def _git(self, *arguments: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.net"]
        subprocess.run(["git", "-C", str(self._repository), *who, *arguments], check=True)


@pytest.fixture
def puller(host: ModuleHost, tmp_path: Path) -> Puller:
    if not shutil.which("git"):
        pytest.skip("no git is installed")
    found = Puller(host, tmp_path)
    host.connection = "local"
    return found


def test_a_host_follows_the_repository(puller: Puller) -> None:
    host = puller.host
    done = puller.pull()
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.mode("pw0") != ""
    assert host.peer_reaches(HOST)
    again = puller.pull()
    assert again.returncode == 0 and " changed=0 " in again.stdout, again.stdout
    puller.declare("198.51.100.0/24")
    done = puller.pull()
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.files()["deny.d/ansible.list"] == "198.51.100.0/24\n"
    # The self-test has confirmed it.
    assert host.module("change", check=True, state="confirmed")["status"] == "none"


def test_a_change_that_would_lock_out_is_reverted(puller: Puller) -> None:
    assert puller.pull().returncode == 0
    # The host's own address is protected, and could no longer reach the SSH server.
    puller.declare("192.0.2.0/29", force=True)
    done = puller.pull()
    assert done.returncode != 0
    assert HOST in done.stdout
    assert puller.host.peer_reaches(HOST)
    assert puller.host.files()["deny.d/ansible.list"] == ""


def test_what_cannot_be_fetched_changes_nothing(puller: Puller, tmp_path: Path) -> None:
    assert puller.pull().returncode == 0
    before = puller.host.files()
    puller.declare(PEER, force=True)
    (tmp_path / "repository").rename(tmp_path / "gone")
    assert puller.pull().returncode != 0
    assert puller.host.files() == before
    assert puller.host.peer_reaches(HOST)
