# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes through Ansible on the running kernel, over a connection that the real filter passes or drops.

A stand-in for systemd keeps the timers.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration import stand_in
from tests.integration.conftest import gated_plugins

if TYPE_CHECKING:
    from tests.integration.conftest import ModuleHost

pytestmark = pytest.mark.slow(17)

ROOT = Path(__file__).resolve().parents[2]
PEER = "192.0.2.7"
HOST = "192.0.2.1"


class Controller:
    """A host with timers, and Ansible behind the filter."""

    def __init__(self, host: ModuleHost, folder: Path) -> None:
        self.host = host
        self._log = folder / "connections"
        library = folder / "software"
        library.mkdir()
        (library / "packetwatch_core").symlink_to(ROOT / "plugins" / "module_utils")
        (library / "packetwatch_agent").symlink_to(
            ROOT / "roles" / "packetwatch" / "files" / "agent" / "packetwatch_agent"
        )
        tools = stand_in.write(folder, str(library))
        host.command("mkdir", "-p", *stand_in.FOLDERS)
        host.command("touch", "/etc/systemd/system/packetwatch-rollback.service")
        host.connection = "gated"
        host.environment = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "ANSIBLE_CONNECTION_PLUGINS": str(gated_plugins(folder)),
            "GATED_OPEN": str(folder / "open"),
            "GATED_LOG": str(self._log),
        }

    def opened(self) -> list[str]:
        """Results of the attempts to connect since the last call."""
        found = self._log.read_text().split() if self._log.exists() else []
        self._log.write_text("")
        return found

    def status(self) -> str:
        return str(self.host.module("change", check=True, state="confirmed")["status"])


@pytest.fixture
def controller(host: ModuleHost, tmp_path: Path) -> Controller:
    """A controller that reaches a host on which pw0 is filtered."""
    found = Controller(host, tmp_path)
    host.module("program", interface="pw0")
    return found


@pytest.mark.parametrize("pipelining", ["true", "false"])
def test_a_change_is_confirmed_over_a_fresh_connection(
    controller: Controller, pipelining: str
) -> None:
    host = controller.host
    host.environment["ANSIBLE_PIPELINING"] = pipelining
    options: dict[str, Any] = {"deny": ["198.51.100.7"], "confirm_timeout": 60}
    done = host.ansible("access_lists", **options)
    assert (done["changed"], done["confirmed"]) == (True, True), done
    assert "token" not in done and "returns_at" not in done
    assert controller.opened() == ["opened", "opened"]
    assert host.files()["deny.d/ansible.list"] == "198.51.100.7\n"
    assert controller.status() == "none"
    # There is nothing to confirm, so there is no further connection.
    assert host.ansible("access_lists", **options)["changed"] is False
    assert host.ansible("access_lists", check=True, **options | {"deny": [PEER], "force": True})
    assert controller.opened() == []


def test_policy_and_program_too(controller: Controller) -> None:
    host = controller.host
    done = host.ansible("policy", scan_ports=7, confirm_timeout=60)
    assert (done["changed"], done["confirmed"]) == (True, True), done
    detached = host.ansible("program", interface="pw0", state="detached", confirm_timeout=60)
    assert (detached["changed"], detached["confirmed"]) == (True, True), detached
    assert host.mode("pw0") == ""
    attached = host.ansible("program", interface="pw0", confirm_timeout=60)
    assert (attached["changed"], attached["confirmed"]) == (True, True), attached
    assert controller.opened() == ["opened"] * 4


def test_a_change_that_locks_out_the_controller_is_reverted(controller: Controller) -> None:
    host = controller.host
    before = host.files()
    started = time.monotonic()
    done = host.ansible("access_lists", deny=[PEER], force=True, confirm_timeout=5)
    took = time.monotonic() - started
    assert done["failed"] is True
    assert done.get("unreachable", False) is False
    assert "was not confirmed in time: the host has reverted" in done["msg"]
    assert "Connection timed out" in done["msg"]
    assert "refused" in controller.opened()
    assert host.peer_reaches(HOST)
    assert host.files() == before
    assert 5 <= took < 25
    assert host.module("change", state="rolled_back")["changed"] is False


def test_without_the_role_the_module_copies_the_library_that_reverts(
    controller: Controller,
) -> None:
    host = controller.host
    host.command("rm", "/etc/systemd/system/packetwatch-rollback.service")
    done = host.ansible("access_lists", deny=[PEER], force=True, confirm_timeout=4)
    assert "was not confirmed in time: the host has reverted" in done["msg"], done
    # The timer's process reverted the change without an error, not the late confirmation.
    assert host.peer_reaches(HOST), host.command("cat", "/run/rollback.log")
    assert host.command("cat", "/run/rollback.log") == ""


def test_an_answer_that_is_lost(controller: Controller) -> None:
    host = controller.host
    before = host.files()
    host.environment |= {"GATED_LOSE": "access_lists", "ANSIBLE_PIPELINING": "true"}
    done = host.ansible("access_lists", deny=["198.51.100.7"], confirm_timeout=60)
    assert done["failed"] is True
    assert "connection was lost while the change was made; the host has reverted it" in done["msg"]
    assert host.files() == before
    assert controller.status() == "none"


def test_a_host_that_is_down_already(controller: Controller) -> None:
    host = controller.host
    host.module("access_lists", deny=[PEER], force=True)
    done = host.ansible("access_lists", deny=[], allow_empty=True, confirm_timeout=1)
    assert done["failed"] is True
    assert "the host has not answered since" in done["msg"]
    assert host.files()["deny.d/ansible.list"] == f"{PEER}\n"


def test_a_change_of_another_owner(controller: Controller) -> None:
    host = controller.host
    theirs = host.module("access_lists", name="theirs", deny=["203.0.113.9"], confirm_timeout=90)
    assert theirs["confirmed"] is False
    done = host.ansible("access_lists", deny=["198.51.100.7"], confirm_timeout=60)
    assert done["failed"] is True
    assert "is not confirmed yet: it is confirmed or reverted within" in done["msg"]
    assert controller.status() == "pending"
    assert host.module("change", state="confirmed", token="0" * 32)["status"] == "pending"
    assert host.module("change", state="confirmed", token=theirs["token"])["changed"] is True
    assert host.files()["deny.d/theirs.list"] == "203.0.113.9\n"


def test_the_self_test_where_no_fresh_connection_is_possible(controller: Controller) -> None:
    host = controller.host
    host.connection = "local"
    done = host.ansible("access_lists", deny=["198.51.100.7"], confirm_timeout=60)
    assert (done["changed"], done["confirmed"]) == (True, True), done
    before = host.files()
    host.command("sh", "-c", f"echo PW_PROTECT={PEER} >/etc/default/packetwatch")
    done = host.ansible("access_lists", deny=["192.0.2.0/28"], force=True, confirm_timeout=60)
    assert done["failed"] is True
    assert f"{PEER} on pw0" in done["msg"]
    assert host.files() == before
    assert host.peer_reaches(HOST)
    assert controller.status() == "none"


def test_without_systemd_only_no_timer_is_accepted(controller: Controller) -> None:
    host = controller.host
    host.command("rmdir", "/run/systemd/system")
    for check in (True, False):
        done = host.ansible("policy", check=check, scan_ports=7, confirm_timeout=60)
        assert done["failed"] is True
        assert "set confirm_timeout to 0" in done["msg"]
    done = host.ansible("policy", scan_ports=7, confirm_timeout=0)
    assert (done["changed"], done["confirmed"]) == (True, True)
