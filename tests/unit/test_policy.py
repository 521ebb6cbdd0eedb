# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policy: its three forms, and the values that are refused."""

from __future__ import annotations

import pytest

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._declared.edits import set_policy
from packetwatch_core._declared.kinds import nanoseconds
from packetwatch_core._declared.policy import (
    DEFAULT,
    KEYS,
    Policy,
    canonical_policy,
    default_policy,
    field_of,
    key_of,
    keys_from_options,
    merge_policy,
    parse_policy,
    read_policy,
    resolve_policies,
)
from packetwatch_core._declared.store import State


def test_defaults() -> None:
    assert resolve_policies({}) == {"default": Policy()}
    assert Policy() == Policy(
        action="enforce",
        scan_ports=5,
        scan_window=60,
        scan_counts="closed",
        published_ports=(),
        scan_grace=120,
        ban_time=600,
        ban_time_max=None,
        ban_scope="connections",
        log_connections="all",
        link_control="pass",
        scan_kinds=("syn", "stealth", "ack"),
        closed_ports="reset",
    )
    assert Policy().longest_ban == 600


def test_every_key_has_a_field_and_back() -> None:
    assert [key_of(field_of(key)) for key in KEYS] == list(KEYS)
    assert {field_of(key) for key in KEYS} == set(Policy._fields)


def test_file_to_keys_and_back_in_canonical_order() -> None:
    text = (
        "\n# ours\nPW_BAN_TIME = 090.50\n  PW_ACTION=monitor\nPW_PUBLISHED_PORTS=81 80,9000-9010\n"
    )
    keys = read_policy(text, "default.conf")
    written = "PW_ACTION=monitor\nPW_PUBLISHED_PORTS=80-81,9000-9010\nPW_BAN_TIME=90.5\n"
    assert "".join(f"{key}={value}\n" for key, value in keys.items()) == written
    assert read_policy(written, "default.conf") == keys


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("", ()),
        ("8080", ((8080, 8080),)),
        ("9000-9010,80", ((80, 80), (9000, 9010))),
        ("1-65535,22", ((1, 65535),)),
        ("10-20 15-30, 31", ((10, 31),)),
    ],
)
def test_published_ports(text: str, ranges: tuple[tuple[int, int], ...]) -> None:
    expected = tuple(("tcp", *found) for found in ranges)
    assert parse_policy({"PW_PUBLISHED_PORTS": text}, "x") == {"published_ports": expected}


def test_published_ports_of_other_protocols() -> None:
    text = "53/udp,8080,52/udp 9000-9010/tcp, 36412/sctp,54/tcp"
    ranges = (
        *(("tcp", 54, 54), ("tcp", 8080, 8080), ("tcp", 9000, 9010)),
        *(("udp", 52, 53), ("sctp", 36412, 36412)),
    )
    assert parse_policy({"PW_PUBLISHED_PORTS": text}, "x") == {"published_ports": ranges}
    written = canonical_policy({"PW_PUBLISHED_PORTS": text}, "x")["PW_PUBLISHED_PORTS"]
    assert written == "54,8080,9000-9010,52-53/udp,36412/sctp"
    assert parse_policy({"PW_PUBLISHED_PORTS": written}, "x") == {"published_ports": ranges}


def test_kinds_are_in_the_order_of_the_program_and_without_duplicates() -> None:
    keys = keys_from_options({"scan_kinds": ["udp", "syn", "udp"]})
    assert keys == {"PW_SCAN_KINDS": "syn,udp"}
    policy = resolve_policies({"default": keys})["default"]
    assert policy.scan_kinds == ("syn", "udp") and policy.record()["kinds"] == 1 << 0 | 1 << 3
    assert policy.counts("ack", "udp") and not policy.counts("ack")


@pytest.mark.parametrize("without", [Policy(scan_counts="any"), Policy(action="off")])
def test_kinds_that_need_more_than_the_packet(without: Policy) -> None:
    assert not without.counts("ack")


def test_closed_ports_are_dropped_only_if_somebody_checks_them() -> None:
    keys = {"PW_CLOSED_PORTS": "drop"}
    assert resolve_policies({"default": keys})["default"].record()["closed"] == 1
    with pytest.raises(InvalidInput, match="closed_ports is drop, but with scan_counts"):
        resolve_policies({"default": keys, "v0": {"PW_SCAN_COUNTS": "any"}})
    found = resolve_policies(
        {"default": keys, "v0": {"PW_SCAN_COUNTS": "any", "PW_CLOSED_PORTS": "reset"}}
    )
    assert found["v0"].closed_ports == "reset"


def test_a_host_can_return_to_a_version_without_the_new_knobs() -> None:
    keys = keys_from_options({"scan_kinds": ["ack", "syn", "stealth"], "closed_ports": "reset"})
    assert default_policy(keys) == {}


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("PW_ACTION", "Enforce", "enforce, monitor, off"),
        ("PW_ACTION", "", "enforce, monitor, off"),
        ("PW_SCAN_PORTS", "0", "a whole number from 1 to 64"),
        ("PW_SCAN_PORTS", "65", "a whole number from 1 to 64"),
        ("PW_SCAN_PORTS", "5.0", "a whole number from 1 to 64"),
        ("PW_SCAN_PORTS", "٣", "a whole number from 1 to 64"),
        ("PW_SCAN_WINDOW", "0", "seconds from 0.001 to 86400"),
        ("PW_SCAN_WINDOW", "1x", "seconds from 0.001 to 86400"),
        ("PW_SCAN_WINDOW", "nan", "seconds from 0.001 to 86400"),
        ("PW_SCAN_WINDOW", "1e3", "seconds from 0.001 to 86400"),
        ("PW_SCAN_WINDOW", "0.1234567", "up to 6 decimals"),
        ("PW_SCAN_GRACE", "-1", "seconds from 0 to 86400"),
        ("PW_BAN_TIME", "0.5", "seconds from 1 to 31536000"),
        ("PW_SCAN_COUNTS", "open", "closed, any"),
        ("PW_BAN_SCOPE", "packets", "connections, all"),
        ("PW_LOG_CONNECTIONS", "some", "all, sampled, none"),
        ("PW_PUBLISHED_PORTS", "0", "ports and ranges from 1 to 65535"),
        ("PW_PUBLISHED_PORTS", "65536", "ports and ranges from 1 to 65535"),
        ("PW_PUBLISHED_PORTS", "90-80", "ports and ranges from 1 to 65535"),
        ("PW_PUBLISHED_PORTS", "http", "ports and ranges from 1 to 65535"),
        ("PW_PUBLISHED_PORTS", "53/icmp", "for example 8080,9000-9010,53/udp"),
        ("PW_SCAN_KINDS", "", "one or more of syn, stealth, ack, udp, sctp, proto"),
        ("PW_SCAN_KINDS", "syn,slow", "one or more of syn, stealth, ack, udp, sctp, proto"),
        ("PW_CLOSED_PORTS", "open", "reset, drop"),
    ],
)
def test_refused_values_are_named_with_file_line_and_what_is_allowed(
    key: str, value: str, allowed: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_policy(f"# comment\n{key}={value}\n", "eth0.conf")
    assert str(caught.value).startswith(f"eth0.conf:2: {key} is {value!r}; allowed: ")
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PW_ACTON=off", "x.conf:1: unknown key PW_ACTON; allowed: PW_ACTION, PW_SCAN_PORTS"),
        ("enforce", "x.conf:1: 'enforce' is not of the form KEY=value"),
        ("PW_ACTION=off\nPW_ACTION=off", "x.conf:2: PW_ACTION is already set above"),
    ],
)
def test_refused_lines(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_policy(text, "x.conf")


def test_an_interface_overrides_only_what_it_names() -> None:
    policies = resolve_policies(
        {
            "default": {"PW_SCAN_PORTS": "3", "PW_BAN_TIME": "60"},
            "eth0": {"PW_BAN_TIME": "120", "PW_ACTION": "monitor"},
        }
    )
    assert policies["default"] == Policy(scan_ports=3, ban_time=60)
    assert policies["eth0"] == Policy(scan_ports=3, ban_time=120, action="monitor")


def test_published_ports_of_one_interface_are_refused() -> None:
    with pytest.raises(
        InvalidInput, match=r"eth0\.conf: PW_PUBLISHED_PORTS applies to all interfaces"
    ):
        resolve_policies({"eth0": {"PW_PUBLISHED_PORTS": "80"}})


def test_ban_time_max_below_ban_time_is_refused_after_merging() -> None:
    with pytest.raises(InvalidInput, match="ban_time_max is 60, less than ban_time, which is 600"):
        resolve_policies({"default": {"PW_BAN_TIME_MAX": "60"}})
    with pytest.raises(InvalidInput, match=r"^eth0\.conf: ban_time_max is 300, less than ban_time"):
        resolve_policies({"eth0": {"PW_BAN_TIME_MAX": "300", "PW_BAN_TIME": "301"}})
    assert merge_policy({"ban_time": 60.0, "ban_time_max": 120.0}).longest_ban == 120


def test_an_inherited_ban_time_max_does_not_forbid_a_longer_ban_time() -> None:
    default = {"PW_BAN_TIME": "60", "PW_BAN_TIME_MAX": "600"}
    keys = {"default": default, "a": {"PW_BAN_TIME": "90"}, "b": {"PW_BAN_TIME": "900"}}
    policies = resolve_policies(keys)
    assert policies["a"].longest_ban == 600
    assert policies["b"].longest_ban == 900


def test_keys_from_options_leave_out_what_is_not_given() -> None:
    options = {
        "interface": "eth0",
        "action": "off",
        "scan_window": 0.5,
        "ban_time": 600.0,
        "scan_ports": 3,
        "published_ports": ["9000-9010", 443, 80],
        "scan_grace": None,
    }
    assert keys_from_options(options) == {
        "PW_ACTION": "off",
        "PW_SCAN_PORTS": "3",
        "PW_SCAN_WINDOW": "0.5",
        "PW_PUBLISHED_PORTS": "80,443,9000-9010",
        "PW_BAN_TIME": "600",
    }
    assert keys_from_options({"published_ports": []}) == {"PW_PUBLISHED_PORTS": ""}


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e-7, 60.0000001])
def test_refused_options_are_named_as_options(value: float) -> None:
    with pytest.raises(InvalidInput, match=r"^scan_window is '.*'; allowed: seconds from 0.001"):
        keys_from_options({"scan_window": value})


def test_canonical_form_is_a_fixed_point() -> None:
    keys = {"PW_BAN_TIME": "0060.0", "PW_SCAN_PORTS": "07", "PW_PUBLISHED_PORTS": "2,1"}
    once = canonical_policy(keys, "x")
    assert once == {"PW_SCAN_PORTS": "7", "PW_PUBLISHED_PORTS": "1-2", "PW_BAN_TIME": "60"}
    assert canonical_policy(once, "x") == once


def test_nanoseconds_are_exact() -> None:
    assert nanoseconds(0.000001) == 1_000
    assert nanoseconds(0.1) == 100_000_000
    assert nanoseconds(31_536_000.000001) == 31_536_000_000_001_000


def test_off_as_yaml_reads_it() -> None:
    assert keys_from_options({"action": False}) == {"PW_ACTION": "off"}
    with pytest.raises(InvalidInput, match="action is 'True'"):
        keys_from_options({"action": True})


def test_an_inherited_ban_time_gives_way_to_a_shorter_maximum() -> None:
    resolved = resolve_policies(
        {DEFAULT: {"PW_BAN_TIME": "600"}, "eth0": {"PW_BAN_TIME_MAX": "100"}}
    )
    assert resolved["eth0"].ban_time == resolved["eth0"].longest_ban == 100


def test_an_edit_declares_keys_in_canonical_form_and_order() -> None:
    keys = {"PW_BAN_TIME": "090.50", "PW_ACTION": "monitor"}
    declared = set_policy(None, keys, replace=True)(State()).policy["default"]
    assert list(declared.items()) == [("PW_ACTION", "monitor"), ("PW_BAN_TIME", "90.5")]


def test_an_older_version_reads_a_policy_that_uses_no_knob_of_this_one() -> None:
    state = set_policy(None, {"PW_ACTION": "monitor", "PW_LINK_CONTROL": "pass"}, replace=True)(
        State()
    )
    assert state.policy == {DEFAULT: {"PW_ACTION": "monitor"}}
    assert set_policy(None, {"PW_LINK_CONTROL": "pass"}, replace=True)(State()).policy == {}
    used = set_policy(None, {"PW_LINK_CONTROL": "lists"}, replace=False)(state)
    assert used.policy[DEFAULT] == {"PW_ACTION": "monitor", "PW_LINK_CONTROL": "lists"}
    # An interface overrides the default policy, so its value is always kept.
    own = set_policy("eth0", {"PW_LINK_CONTROL": "pass"}, replace=True)
    used = own(used._replace(interfaces={"eth0": "native"}))
    assert used.policy["eth0"] == {"PW_LINK_CONTROL": "pass"}
