# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules say of a change that waits to be confirmed, and the module that decides about it."""

from __future__ import annotations

import types
from typing import Any

import pytest
from ansible_collections.packetwatch.xdp.plugins.modules import (
    access_lists,
    change,
    panic,
    policy,
    program,
)

from packetwatch_core._base.errors import InvalidInput, LoadFailed, Pending, Reverted
from packetwatch_core._change import panic as panic_module
from packetwatch_core._change.results import Outcome

PENDING = types.SimpleNamespace(token="t0", ends=1_800_000_000.0, owner="somebody", status="x")
LISTS = {"deny": ["192.0.2.7"]}


def test_a_minute_unless_told_otherwise(run: Any, host: Any) -> None:
    run(access_lists, LISTS)
    assert host.terms[:2] == (60, "")
    assert "(user " in host.terms.owner
    run(policy, {"scan_ports": 3, "confirm_timeout": 7.5, "confirm_token": "abc"})
    assert host.terms[:2] == (7.5, "abc")
    run(access_lists, LISTS | {"confirm_timeout": 0}, check=True)
    assert host.terms[:2] == (0, "")


def test_what_is_confirmed_at_once(run: Any, host: Any) -> None:
    result = run(access_lists, LISTS)
    assert result["confirmed"] is True
    assert "token" not in result
    assert "confirmed" not in run(access_lists, LISTS, check=True)


def test_what_waits(run: Any, host: Any) -> None:
    host.pending = PENDING
    result = run(access_lists, LISTS)
    assert (result["confirmed"], result["token"]) == (False, "t0")
    assert result["returns_at"] == "2027-01-15T08:00:00Z"
    answer = types.SimpleNamespace(
        changed=True,
        interface="lo",
        mode="none",
        reason="",
        program_id=0,
        before="",
        after="",
        problems=(),
    )
    answer.pending = PENDING
    host.answers["detach"] = answer
    assert run(program, {"interface": "lo", "state": "detached"})["token"] == "t0"


def test_the_self_test_decides(run: Any, host: Any) -> None:
    host.pending = PENDING
    host.answers |= {"self_test": None, "confirm": Outcome(True, None)}
    result = run(policy, {"scan_ports": 3, "confirm_by": "self_test"})
    assert result["confirmed"] is True
    assert "token" not in result
    assert [call[0] for call in host.calls] == ["apply", "self_test", "confirm"]
    host.calls.clear()
    host.answers["self_test"] = LoadFailed("192.0.2.9 on eth0")
    result = run(policy, {"scan_ports": 4, "confirm_by": "self_test"})
    assert (result["failed"], result["msg"]) == (True, "192.0.2.9 on eth0")
    assert [call[0] for call in host.calls] == ["apply", "self_test"]


@pytest.mark.parametrize("state", ["confirmed", "rolled_back"])
def test_change(run: Any, host: Any, state: str) -> None:
    ended = types.SimpleNamespace(status=state, owner="somebody")
    host.answers |= {"confirm": (True, ended, ()), "roll_back": (True, ended, ())}
    result = run(change, {"state": state, "token": "t0"})
    result.pop("invocation", None)
    assert result == {"changed": True, "status": state, "owner": "somebody"}
    assert host.calls == [({"confirmed": "confirm"}.get(state, "roll_back"), "t0", {})]


def test_nothing_to_take_back(run: Any, host: Any) -> None:
    host.answers["roll_back"] = (False, None, ())
    result = run(change, {"state": "rolled_back"})
    assert (result["changed"], result["status"]) == (False, "none")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Reverted("has returned at noon"), "rolled_back"),
        (Pending("of somebody"), "pending"),
        (InvalidInput("was confirmed"), "confirmed"),
    ],
)
def test_a_refusal_says_what_has_become_of_it(
    run: Any, host: Any, error: Exception, status: str
) -> None:
    host.answers["confirm"] = error
    result = run(change, {"state": "confirmed", "token": "t0"})
    assert (result["failed"], result["msg"], result["status"]) == (True, str(error), status)


def test_change_in_check_mode(run: Any, host: Any) -> None:
    run_it = {"state": "confirmed"}
    host.pending = lambda: PENDING
    assert run(change, run_it, check=True)["changed"] is True
    assert run(change, run_it | {"token": "other"}, check=True)["changed"] is False
    host.pending = lambda: None
    assert run(change, run_it, check=True)["status"] == "none"
    assert host.calls == []


HOLDS = panic_module.Panic(1_800_000_000.0, "somebody")


def test_panic_asks_for_no_confirmation(run: Any, host: Any) -> None:
    host.answers["panic"] = types.SimpleNamespace(
        changed=True, panic=HOLDS, pending=None, problems=()
    )
    result = run(panic, {}, diff=True)
    name, owner, options = host.calls[0]
    assert (name, options) == ("panic", {"check": False})
    assert "(user " in owner
    assert result["panic"] == {"owner": "somebody", "since": "2027-01-15T08:00:00Z"}
    assert "confirmed" not in result
    assert result["diff"] == {
        "before": "filter as declared\n",
        "after": "PANIC: let everything pass\n",
    }


def test_its_end_waits(run: Any, host: Any) -> None:
    host.answers["lift"] = types.SimpleNamespace(
        changed=True, panic=HOLDS, pending=PENDING, problems=()
    )
    result = run(panic, {"state": "absent", "confirm_timeout": 9})
    assert host.calls == [("lift", {"check": False})]
    assert host.terms.seconds == 9
    assert (result["confirmed"], result["token"]) == (False, "t0")
