# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that the role declares, as one edit; and the files that a host lacks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from packetwatch_core._base.digest import digest_text
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._declared.nexts import Next
from packetwatch_core._declared.store import State
from packetwatch_core._feeds.copies import Ages
from packetwatch_core._network.settings import parse_values
from packetwatch_core._setup.whole import read_whole

SOURCE = "int packetwatch(struct xdp_md *context) { return XDP_PASS; }\n"
FEED = "45.9.9.9\n"
OPTIONS: dict[str, Any] = {
    "allow": {"packetwatch_allow": ["192.0.2.1"]},
    "deny": {"packetwatch_deny": [], "packetwatch_deny__ops": ["203.0.113.0/24"]},
    "interfaces": [{"name": "lo", "mode": "generic", "scan_ports": 3}],
    "policy": {"scan_ports": 9, "action": False},
    "settings": {"PW_PROTECT": "192.0.2.9", "PW_HEARTBEAT_URL": ""},
    "feeds": [],
    "sources": {},
    "force_feeds": False,
    "program": digest_text(SOURCE),
    "src": None,
    "now": 1.0,
}
NO_AGES = Ages("/nowhere")
BEFORE = State(
    allow={"local": "192.0.2.2\n"},
    deny={"ansible": "198.51.100.7\n", "feed-old": "45.1.1.1\n"},
    policy={"eth9": {"PW_ACTION": "off"}, "lo": {"PW_SCAN_WINDOW": "5"}},
    interfaces={"eth9": "auto"},
    program=SOURCE,
)


def feed(text: str, **options: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "list": "deny",
        "digest": digest_text(text),
        "problem": "",
        "max_change": 50,
        "allow_empty": False,
        "expire_after": None,
        "fetched": None,
        "published": None,
    } | options


def edited(options: dict[str, Any], state: State = BEFORE) -> State:
    whole, lacks = read_whole(OPTIONS | options, state, NO_AGES)
    assert whole and not lacks
    assert list(whole.wish.attach) == ["lo"]
    return whole.edit(state)


def test_all_parts() -> None:
    after = edited({})
    assert after.allow == {
        "local": "192.0.2.2\n",
        "ansible": "192.0.2.1 # (packetwatch_allow[0])\n",
    }
    assert after.deny == {"ansible": "203.0.113.0/24 # (packetwatch_deny__ops[0])\n"}, (
        "a feed that is not declared goes"
    )
    assert after.interfaces == {"lo": "generic"}
    assert after.policy == {
        "default": {"PW_ACTION": "off", "PW_SCAN_PORTS": "9"},
        "lo": {"PW_SCAN_PORTS": "3"},
    }
    assert parse_values(after.settings, "") == (OPTIONS["settings"], {})
    assert edited({}, after) == after


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, set()),
        ({"PW_FLEET": "enforce"}, {"deny"}),
        ({"PW_FLEET": "enforce", "PW_FLEET_LISTS": "both"}, {"allow", "deny"}),
        ({"PW_FLEET": "monitor", "PW_FLEET_LISTS": "both"}, set()),
    ],
)
def test_lists_of_the_fleet_go_if_the_settings_do_not_permit_them(
    settings: dict[str, str], kept: set[str]
) -> None:
    before = BEFORE._replace(allow={"fleet": "192.0.2.3\n"}, deny={"fleet": "192.0.2.4\n"})
    after = edited({"settings": settings}, before)
    lists = {"allow": after.allow, "deny": after.deny}
    assert {kind for kind, found in lists.items() if "fleet" in found} == kept


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    empty = State()
    found = read_whole(OPTIONS | {"feeds": [feed(FEED)]}, empty, NO_AGES)
    assert found == (None, ["src", "feed x"])
    source, copy = tmp_path / "own.c", tmp_path / "x"
    source.write_text(SOURCE)
    copy.write_text(FEED)
    sent = {"feeds": [feed(FEED)], "src": str(source), "sources": {"x": str(copy)}}
    after = edited(sent, empty)
    assert (after.program, after.deny["feed-x"]) == (SOURCE, FEED)
    # The host has both now.
    assert edited({"feeds": [feed(FEED)]}, after) == after


def test_only_the_result_must_be_consistent() -> None:
    """The new default alone would contradict the interface's former policy."""
    before = BEFORE._replace(policy={"lo": {"PW_BAN_TIME": "600", "PW_BAN_TIME_MAX": "700"}})
    interfaces = [{"name": "lo", "ban_time_max": 50}]
    after = edited({"policy": {"ban_time": 40}, "interfaces": interfaces}, before)
    assert after.policy["lo"] == {"PW_BAN_TIME_MAX": "50"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"deny": {"packetwatch_deny__web": ["203.0.113.300"]}}, r"packetwatch_deny__web\[0\]"),
        ({"policy": {"scan_ports": 0}}, "scan_ports is '0'"),
        ({"interfaces": [{"name": "lo", "ban_time": -1}]}, "ban_time is '-1'"),
        ({"src": "/no/such/file.c", "program": "0"}, "cannot read the C source /no/such/file.c"),
        ({"settings": {"PW_PROTECT": "a\nb"}}, "without line breaks"),
    ],
)
def test_wrong_values_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        edited(options)


def test_next_programs() -> None:
    lo = {"name": "lo"}
    source = "int next(struct xdp_md *context) { return XDP_PASS; }\n"
    after = edited({"interfaces": [lo | {"next": "/sys/fs/bpf/balancer"}]})
    assert after.next == {"lo": Next(path="/sys/fs/bpf/balancer")}
    after = edited({"interfaces": [lo | {"next_source": source}]}, after)
    assert after.next == {"lo": Next(source=source)}
    assert edited({"interfaces": [lo]}, after).next == {}
    place = {"mode": "dispatcher", "priority": 70, "chain_call_actions": []}
    after = edited({"interfaces": [lo | place]})
    assert after.interfaces == {"lo": "dispatcher:70:none"}
    for wrong in ({"next": "balancer"}, {"next_source": "int other;"}):
        with pytest.raises(InvalidInput, match=r"absolute path|no function named next"):
            edited({"interfaces": [lo | wrong]})
