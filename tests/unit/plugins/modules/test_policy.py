# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""policy: what the options make of the keys."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.packetwatch.xdp.plugins.modules import policy

from packetwatch_core._declared.store import State

OLD = State(
    policy={"default": {"PW_SCAN_PORTS": "3", "PW_ACTION": "monitor"}, "lo": {"PW_ACTION": "off"}}
)


def test_omitted_options_stay_as_they_are(run: Any, host: Any) -> None:
    host.state = OLD
    result = run(policy, {"scan_window": 90, "action": "enforce"})
    assert result["changed"] is True
    assert host.edited.policy == {
        "default": {"PW_SCAN_PORTS": "3", "PW_ACTION": "enforce", "PW_SCAN_WINDOW": "90"},
        "lo": {"PW_ACTION": "off"},
    }


def test_replace_unsets_omitted_options(run: Any, host: Any) -> None:
    host.state = OLD
    run(policy, {"scan_ports": 7, "replace": True})
    assert host.edited.policy == {"default": {"PW_SCAN_PORTS": "7"}, "lo": {"PW_ACTION": "off"}}
    run(policy, {"interface": "lo", "replace": True})
    assert host.edited.policy == {"default": OLD.policy["default"]}


def test_nothing_given_changes_nothing(run: Any, host: Any) -> None:
    host.state = OLD
    assert run(policy, {})["changed"] is False
    assert run(policy, {"interface": "lo"})["changed"] is False


def test_an_interface_of_its_own(run: Any, host: Any) -> None:
    run(policy, {"interface": "lo", "ban_scope": "all", "ban_time": "50.0"}, check=True)
    assert host.edited.policy == {"lo": {"PW_BAN_TIME": "50", "PW_BAN_SCOPE": "all"}}
    assert host.calls[0][0] == "plan"


def test_an_interface_that_is_declared_but_not_there_yet(run: Any, host: Any) -> None:
    host.state = State(interfaces={"later0": "auto"})
    run(policy, {"interface": "later0", "scan_ports": 3})
    assert host.edited.policy == {"later0": {"PW_SCAN_PORTS": "3"}}


def test_unsetting_the_policy_of_an_interface_that_is_gone(run: Any, host: Any) -> None:
    host.state = State(policy={"gone0": {"PW_SCAN_PORTS": "3"}})
    run(policy, {"interface": "gone0", "replace": True})
    assert host.edited.policy == {}


def test_action_off_without_quotes(run: Any, host: Any) -> None:
    run(policy, {"action": False})
    assert host.edited.policy == {"default": {"PW_ACTION": "off"}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action": "on"}, "value of action must be one of: enforce, monitor, off"),
        ({"scan_ports": 65}, "scan_ports is '65'; allowed: a whole number from 1 to 64"),
        ({"scan_window": -1}, "scan_window is '-1"),
        ({"published_ports": ["80", "http"]}, "published_ports is '80,http'; allowed: ports and"),
        ({"ban_time_max": 10}, "ban_time_max is 10, less than ban_time, which is 600"),
        (
            {"interface": "lo", "published_ports": [80]},
            "PW_PUBLISHED_PORTS applies to all interfaces",
        ),
        (
            {"interface": "nosuch", "scan_ports": 3},
            "there is no interface 'nosuch' here; choose one of lo",
        ),
        ({"interface": "a/b"}, "'a/b' is not an interface name"),
        ({"interface": "default"}, "'default' cannot have a policy"),
    ],
)
def test_nonsense_is_refused(run: Any, host: Any, arguments: dict[str, Any], message: str) -> None:
    result = run(policy, arguments)
    assert result["failed"] is True
    assert message in result["msg"]
    assert host.calls == []
