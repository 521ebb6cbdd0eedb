# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the action plug-ins do with answers, late answers, and no answer; no test waits for real."""

from __future__ import annotations

import time
import types
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible_collections.packetwatch.xdp.plugins.plugin_utils import _confirm

WAITS = {"changed": True, "confirmed": False, "returns_at": "at noon"}
DOWN = AnsibleConnectionFailure("Failed to connect: timed out")


class Action(_confirm.ChangeAction):
    """Returns the answers that a test has prepared, then the last one for ever."""

    module_name = "packetwatch.xdp.policy"

    def __init__(self, *answers: Any, transport: str = "ssh", check: bool = False) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.resets = 0
        self._task = types.SimpleNamespace(check_mode=check)
        self._connection = types.SimpleNamespace(transport=transport, reset=self._reset)

    def _reset(self) -> None:
        self.resets += 1

    def _execute_module(self, module_name: str, module_args: Any, task_vars: Any) -> Any:
        self.asked.append((module_name, module_args))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if answer is WAITS:
            return answer | {"token": module_args["confirm_token"]}
        return dict(answer)

    def go(self, **arguments: Any) -> Any:
        return self.execute(arguments, {})


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A clock on which every reading, and every pause, takes a second."""
    found = types.SimpleNamespace(now=0.0)

    def look(seconds: float = 1) -> float:
        found.now = now = float(found.now + seconds)
        return now

    monkeypatch.setattr(time, "monotonic", look)
    monkeypatch.setattr(time, "sleep", look)
    return found


def test_confirmed_with_its_own_token_over_a_fresh_connection() -> None:
    action = Action(WAITS, {"status": "confirmed", "changed": True})
    assert action.go(scan_ports=3) == {"changed": True, "confirmed": True}
    (first, options), (second, change) = action.asked
    assert (first, second) == ("packetwatch.xdp.policy", "packetwatch.xdp.change")
    assert options["confirm_by"] == "connection"
    assert len(options["confirm_token"]) == 32
    assert change == {"state": "confirmed", "token": options["confirm_token"]}
    assert action.resets == 1


@pytest.mark.parametrize(
    "answer", [{"changed": False, "confirmed": True}, {"failed": True, "msg": "no such list"}]
)
def test_nothing_waits(answer: dict[str, Any]) -> None:
    action = Action(answer)
    assert action.go() == answer
    assert len(action.asked) == 1
    assert action.resets == 0


@pytest.mark.parametrize("arguments", [{"confirm_timeout": 0}, {"confirm_timeout": "0"}])
def test_no_time_no_confirmation(arguments: dict[str, Any]) -> None:
    action = Action({"changed": True, "confirmed": True})
    action.go(**arguments)
    assert action.asked == [("packetwatch.xdp.policy", arguments)]
    with pytest.raises(AnsibleConnectionFailure):
        Action(DOWN).go(**arguments)


def test_check_mode() -> None:
    action = Action({"changed": True}, check=True)
    action.go(scan_ports=3)
    assert action.asked == [("packetwatch.xdp.policy", {"scan_ports": 3})]


@pytest.mark.parametrize(
    ("transport", "by"),
    [
        ("ssh", "connection"),
        ("paramiko", "connection"),
        ("ansible.netcommon.libssh", "connection"),
        ("local", "self_test"),
        ("chroot", "self_test"),
        ("community.docker.docker", "self_test"),
        ("containers.podman.podman", "self_test"),
        ("somebody.elses.tunnel", "self_test"),
    ],
)
def test_what_decides(transport: str, by: str) -> None:
    action = Action({"changed": True, "confirmed": True}, transport=transport)
    action.go()
    assert action.asked[0][1]["confirm_by"] == by
    action.go(confirm_by="connection")
    assert action.asked[1][1]["confirm_by"] == "connection"


def test_it_tries_again() -> None:
    broken = {"failed": True, "msg": "MODULE FAILURE", "rc": 255}
    gone = {"unreachable": True, "msg": "timed out"}
    timeout = AnsibleError("Timeout (12s) waiting for privilege escalation prompt")
    action = Action(WAITS, DOWN, broken, gone, timeout, {"status": "confirmed"})
    assert action.go()["confirmed"] is True
    assert action.resets == 5


def test_too_late_is_a_failure() -> None:
    late = {"failed": True, "status": "rolled_back", "msg": "not confirmed in time: has returned"}
    result = Action(WAITS, DOWN, late).go()
    assert result["failed"] is True
    assert result["changed"] is False
    assert result["msg"] == (
        "not confirmed in time: has returned (last problem of the connection: Failed to connect: "
        "timed out)"
    )


def test_a_host_that_is_never_heard_of_again(clock: types.SimpleNamespace) -> None:
    result = Action(WAITS, DOWN).go(confirm_timeout=20)
    assert result["failed"] is True
    assert "unreachable" not in result
    assert "the host reverts it by itself, at at noon by its clock" in result["msg"]
    assert 40 <= clock.now <= 45


def test_a_change_without_an_answer_is_reverted() -> None:
    action = Action(DOWN, DOWN, {"changed": True, "status": "rolled_back"})
    result = action.go()
    assert result["failed"] is True
    assert "the host has reverted it" in result["msg"]
    assert action.asked[-1][1] == {
        "state": "rolled_back",
        "token": action.asked[0][1]["confirm_token"],
    }
    unreachable = {"unreachable": True, "msg": "timed out"}
    result = Action(unreachable, {"changed": False, "status": "none"}).go()
    assert (result["failed"], "unreachable" in result) == (True, False)
    assert "it had not become active" in result["msg"]
    theirs = {"failed": True, "status": "pending", "msg": "a change of theirs"}
    assert "a change of theirs" in Action(DOWN, theirs).go()["msg"]


def test_a_host_that_is_down() -> None:
    result = Action(DOWN).go(confirm_timeout=30)
    assert (result["failed"], "unreachable" in result) == (True, False)
    assert "if the change has become active, the host reverts it by itself" in result["msg"]
    assert "within 30 s" in result["msg"]


def test_nonsense_as_time() -> None:
    with pytest.raises(
        AnsibleActionFail,
        match=r"confirm_timeout is 'soon'; allowed: seconds from 0 to 86400, .*; 0 confirms at once",
    ):
        Action({}).go(confirm_timeout="soon")
