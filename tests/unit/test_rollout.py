# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller concludes about hosts and batches: the gate, and the report."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from ansible_collections.packetwatch.xdp.plugins.action.__private.report import wanted_of
from ansible_collections.packetwatch.xdp.plugins.action.__private.rollout import unfinished
from ansible_collections.packetwatch.xdp.plugins.plugin_utils import _report

from packetwatch_core._base.errors import InvalidInput

HOSTS = ["a", "b", "c", "d"]
DIGEST = "0123456789abcdef"
VERSION = "0.1.0-abc"
POLICIES = {"default": {"action": "enforce"}}
WANTED = _report.Wanted("ansible", DIGEST, POLICIES, "feed", VERSION)
INFO: dict[str, Any] = {
    "version": VERSION,
    "interfaces": {"eth0": {"mode": "native", "wanted": "auto", "chain": []}},
    "policy": {"default": {"action": "enforce"}},
    "lists": {"declared": {"ansible": DIGEST}, "live": True, "current": True},
    "panic": None,
    "feeds": {},
    "change": {
        "number": 3,
        "confirmed_at": "2026-11-26T09:59:12Z",
        "took_back": None,
        "program": "feed",
        "status": "confirmed",
        "owner": "somebody",
        "remaining": None,
        "ended_at": "2026-11-26T09:59:12Z",
    },
}
PENDING = INFO["change"] | {"status": "pending", "remaining": 41.7}
RETURNED = INFO["change"] | {"status": "rolled_back", "ended_at": "2026-11-26T10:00:00Z"}


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({}, "enforce"),
        ({"policy": {"default": {"action": "monitor"}}}, "monitor"),
        ({"panic": {"owner": "me", "since": "now"}}, "panic"),
        ({"interfaces": {"eth0": {"mode": "none", "wanted": "auto", "chain": []}}}, ""),
        ({"interfaces": {}, "version": ""}, ""),
    ],
)
def test_the_action_is_what_a_host_really_does(changes: dict[str, Any], action: str) -> None:
    assert _report.row("a", INFO | changes, WANTED).action == action


@pytest.mark.parametrize(
    ("batch", "done", "lost"),
    [
        (["a"], [], []),
        (["b", "c"], ["a"], []),
        (["b", "c"], [], ["a"]),
        (["d"], ["a", "c"], ["b"]),
        # With the strategy free, some hosts of this batch may already be done.
        (["c", "d"], ["a", "d"], ["b"]),
    ],
)
def test_gate(batch: list[str], done: list[str], lost: list[str]) -> None:
    assert unfinished(HOSTS, batch, done) == lost


def row(**changes: Any) -> _report.Row:
    return _report.row("web1", INFO | changes, WANTED)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"panic": {"owner": "me", "since": "now"}},
            "PANIC of me since now: nothing is filtered until it is lifted",
        ),
        ({"interfaces": {}}, "no interface is filtered, and none is declared"),
        (
            {"interfaces": {"eth0": {"mode": "none", "wanted": "auto", "chain": []}}},
            "eth0 is not filtered",
        ),
        (
            {"lists": INFO["lists"] | {"current": False}},
            "the tables in the kernel are not those of confirmed state",
        ),
        ({"lists": INFO["lists"] | {"declared": {}}}, "the lists are not those of the inventory"),
        (
            {"change": PENDING},
            "a change of somebody is not confirmed yet and reverts in 42 s",
        ),
        (
            {"policy": {"default": {"action": "monitor"}}},
            "the policy is not that of the inventory",
        ),
        (
            {"change": INFO["change"] | {"program": "bad"}},
            "the program is not that of the controller",
        ),
        ({"version": "0.0.9-def"}, "the software is 0.0.9-def, not 0.1.0-abc"),
        ({"version": ""}, "the software is not installed, not 0.1.0-abc"),
    ],
)
def test_problems(changes: dict[str, Any], problem: str) -> None:
    found = row(**changes)
    assert found.problems == [problem]
    assert not found.ok


@pytest.mark.parametrize(
    ("modes", "own", "problems"),
    [
        ({"eth0": "auto"}, {}, []),
        ({"eth0": "native"}, {}, ["eth0 is declared with mode auto, not native"]),
        ({}, {}, ["eth0 is declared on the host, and not in the inventory"]),
        (
            {"eth0": "auto", "eth1": "auto"},
            {},
            ["eth1 is in the inventory, and not declared on the host"],
        ),
        # A policy equal to the default does not count as one.
        ({"eth0": "auto"}, {"eth0": {"action": "enforce"}}, []),
        (
            {"eth0": "auto"},
            {"eth0": {"action": "monitor"}},
            ["the policy of eth0 is not that of the inventory"],
        ),
    ],
)
def test_interfaces(
    modes: dict[str, str], own: dict[str, dict[str, str]], problems: list[str]
) -> None:
    wanted = WANTED._replace(modes=modes, policies=POLICIES | own)
    assert _report.row("web1", INFO, wanted).problems == problems


def test_a_policy_that_the_inventory_has_no_more() -> None:
    info = INFO | {"policy": POLICIES | {"eth0": {"action": "monitor"}}}
    found = _report.row("web1", info, WANTED._replace(modes={"eth0": "auto"}))
    assert found.problems == ["the policy of eth0 is not that of the inventory"]
    # Without declared interfaces there is no policy for one either.
    assert _report.row("web1", info, WANTED).problems == found.problems


@pytest.mark.parametrize("modes", [None, {"eth0": "auto"}, {"eth0": "auto", "eth1": "auto"}])
def test_what_is_attached_and_not_declared(modes: dict[str, str] | None) -> None:
    interfaces = INFO["interfaces"] | {"eth1": {"mode": "native", "wanted": None, "chain": []}}
    found = _report.row("web1", INFO | {"interfaces": interfaces}, WANTED._replace(modes=modes))
    assert found.problems == ["eth1 is filtered but not declared: the next boot does not filter it"]


def test_a_next_program_that_is_missing_is_a_problem() -> None:
    chain = [{"kind": "packetwatch", "problem": ""}, {"kind": "next", "problem": "gone"}]
    found = row(interfaces={"eth0": INFO["interfaces"]["eth0"] | {"chain": chain}})
    assert found.problems == ["the next program of eth0 is not as declared: gone"]


def test_all_is_well() -> None:
    found = row()
    assert found.ok and found.problems == []
    assert found.mode == "eth0=native"
    assert row(change=INFO["change"] | {"took_back": 2}).change == "rolled back state 2"
    # The report names a rollback; the digests show whether it matters.
    returned = row(change=RETURNED)
    assert returned.ok
    assert returned.change == "reverted at 2026-11-26T10:00:00Z (somebody)"


def test_the_age_of_each_feed_is_shown() -> None:
    ages = {"drop": 2 * 86400.5, "late": 7199, "new": 119.9, "now": 0.4, "old": 7200}
    found = row(feeds={name: {"age": age} for name, age in ages.items()})
    assert found.ok
    assert found.feeds == "drop=2d late=119m new=120s now=0s old=2h"
    assert found.feeds in _report.as_text([found])
    assert row().feeds == ""


def test_formats() -> None:
    rows = [row(), _report.not_reached("web2", 'Connection\nrefused\x1b[2J, really; "now"')]
    text = _report.as_text(rows)
    assert text.splitlines()[0].split() == [title.upper() for title in _report._TITLES]
    assert "\x1b" not in text
    assert "web2: not reached: Connection refused" in text
    assert text.endswith("1 of 2 hosts are not as they should be: web2\n")
    found = json.loads(_report.as_json(rows))
    assert found["ok"] is False
    assert found["hosts"]["web1"]["ok"] is True
    assert found["hosts"]["web1"]["expected"] == DIGEST
    lines = list(csv.DictReader(io.StringIO(_report.as_csv(rows))))
    assert [line["ok"] for line in lines] == ["true", "false"]
    assert lines[1]["problems"].endswith('really; "now"')
    assert _report.as_text(rows[:1]).endswith("all 1 hosts are as they should be\n")


def test_what_a_host_is_to_have() -> None:
    one = wanted_of({"packetwatch_allow": []}, {"packetwatch_deny": ["192.0.2.7"]}, {})
    same = wanted_of({}, {"packetwatch_deny": [], "packetwatch_deny__x": ["192.0.2.7/32"]}, {})
    other = wanted_of({"packetwatch_allow": ["192.0.2.7"]}, {}, {"action": "monitor"})
    assert one == same
    assert one.lists != other.lists
    actions = [wanted.policies["default"]["action"] for wanted in (one, other)]
    assert actions == ["enforce", "monitor"]
    assert one.modes is None
    interfaces = ["eth0", {"name": "eth1", "mode": "generic", "scan_ports": 3}]
    several = wanted_of({}, {}, {"scan_window": 30}, interfaces)
    assert several.modes == {"eth0": "auto", "eth1": "generic"}
    assert several.policies.keys() == {"default", "eth1"}
    assert (several.policies["eth1"]["scan_ports"], several.policies["default"]["scan_ports"]) == (
        3,
        5,
    )
    assert several.policies["eth1"]["scan_window"] == (several.policies["default"]["scan_window"])
    with pytest.raises(InvalidInput, match=r"packetwatch_deny\[0\]"):
        wanted_of({}, {"packetwatch_deny": ["nonsense"]}, {})
