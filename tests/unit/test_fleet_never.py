# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The never-list: what is refused is what the store's values say now, in the plainest code."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._node import never
from packetwatch_core._node.never import Never, read_always
from packetwatch_fleet.sources import packed, unpacked

STATUS = "/packetwatch/v1/hosts/{}/status"
LIST = "/packetwatch/v1/lists/{}"
SOURCES = ("192.0.2.1", "192.0.2.2", "198.51.100.7", "2001:db8::/64", "2001:db8:0:1::/64")
NETWORKS = (
    *("192.0.2.1", "192.0.2.0/24", "192.0.2.0/31", "198.51.100.7", "2001:db8::1", "2001:db8::9"),
    *("2001:db8::/64", "2001:db8::/32", "2001:db8:0:1::/112", "2001:db8:0:1::5"),
)

networks = st.lists(st.sampled_from((*NETWORKS, "odd", "")), max_size=4)
keys = st.one_of(
    st.builds(STATUS.format, st.sampled_from(("web1", "web2"))),
    st.builds(LIST.format, st.sampled_from(("office", "home"))),
)
steps = st.lists(st.tuples(keys, st.one_of(st.none(), networks)), max_size=12)


def value(key: str, found: list[str]) -> bytes:
    """Return the value of a status or of a list."""
    if "/status" in key:
        return json.dumps({"v": 1, "addresses": found}).encode()
    return json.dumps({"v": 1, "allow": [{"address": text} for text in found]}).encode()


def overlap(source: str, network: str) -> bool:
    try:
        one, other = ipaddress.ip_network(source), ipaddress.ip_network(network)
    except ValueError:
        return False
    return one.version == other.version and one.overlaps(other)


@settings(deadline=None)
@given(steps)
def test_a_source_is_refused_if_it_overlaps_a_network_that_somebody_has_now(
    found: list[tuple[str, list[str] | None]],
) -> None:
    state: dict[str, list[str]] = {"node": ["203.0.113.11"]}
    tested = Never([("203.0.113.11", "a node")])
    for key, texts in found:
        if texts is None:
            tested.drop(key)
            state.pop(key, None)
        else:
            tested.put(key, value(key, texts))
            # A host has addresses, not networks.
            state[key] = [text for text in texts if "/status" not in key or "/" not in text]
    for source in (*SOURCES, "203.0.113.11"):
        wanted = any(overlap(source, text) for texts in state.values() for text in texts)
        assert (tested.refused(source) is not None) is wanted, (source, state)
    assert tested.keys() <= {*state}


def test_a_network_is_not_denied_around_hosts_and_what_is_protected() -> None:
    tested = Never([("203.0.113.0/28", "protected (fleet_node_protect)")])
    tested.put(STATUS.format("web1"), value("/status", ["192.0.2.10", "2001:db8:1::1"]))
    tested.put(LIST.format("office"), value("", ["198.51.100.0/26", "192.0.2.10"]))
    for network, reason in {
        "203.0.113.0/24": "203.0.113.0/28 is protected (fleet_node_protect)",
        "203.0.113.8/29": "203.0.113.0/28 is protected (fleet_node_protect)",
        "192.0.2.0/24": "192.0.2.10 is an address of the host web1",
        "192.0.2.10/32": "192.0.2.10 is an address of the host web1",
        "2001:db8::/32": "2001:db8:1::1 is an address of the host web1",
        "198.51.100.8/29": "the list office allows 198.51.100.0/26",
        # Of a wider network, hosts let pass what the list allows.
        "198.51.100.0/24": None,
        "192.0.3.0/24": None,
        "::/64": None,
    }.items():
        assert tested.refused_network(parse_prefix(network)) == reason, network


def test_the_file_of_what_nobody_bans(tmp_path: Path) -> None:
    path = tmp_path / "never"
    path.write_text("# a comment\n\n192.0.2.1 an address of a node\n2001:db8::/32 protected\n")
    assert read_always(str(path)) == [
        ("192.0.2.1", "an address of a node"),
        ("2001:db8::/32", "protected"),
    ]
    path.write_text("192.0.2.1 a node\nlocalhost protected (fleet_node_protect)\n")
    with pytest.raises(InvalidInput, match=r"never: .*localhost.*: correct fleet_node_protect"):
        read_always(str(path))
    with pytest.raises(InvalidInput, match=r"missing: .*run the playbook packetwatch.xdp.fleet"):
        read_always(str(tmp_path / "missing"))


def test_a_reason_names_who_has_the_network() -> None:
    tested = Never([("203.0.113.0/28", "protected (fleet_node_protect)")])
    tested.put(STATUS.format("web1"), value("/status", ["192.0.2.10", "2001:db8:1::1"]))
    tested.put(LIST.format("office"), value("", ["198.51.100.0/26"]))
    assert tested.refused("192.0.2.10") == "192.0.2.10 is an address of the host web1"
    assert tested.refused("2001:db8:1::/64") == "2001:db8:1::1 is an address of the host web1"
    assert tested.refused("198.51.100.7") == "the list office allows 198.51.100.0/26"
    assert tested.refused("203.0.113.9") == "203.0.113.0/28 is protected (fleet_node_protect)"
    assert tested.refused("192.0.2.11") is None and tested.refused("2001:db8:1::2") is None
    tested.put(STATUS.format("web1"), b"{")
    assert tested.refused("192.0.2.10") is None


def test_a_host_that_lies_owns_some_addresses_and_no_network() -> None:
    tested = Never()
    claimed = ["203.0.113.0/24", "0.0.0.0/0", *(f"198.51.100.{n}" for n in range(100))]
    tested.put(STATUS.format("web1"), value("/status", claimed))
    kept = [n for n in range(100) if tested.refused(f"198.51.100.{n}")]
    assert len(kept) <= never.MAX_ADDRESSES == 64
    assert not tested.refused("203.0.113.9") and not tested.refused("192.0.2.1")


def test_its_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(never, "MAX_NETWORKS", 3)
    tested = Never()
    tested.put(LIST.format("a"), value("", [f"192.0.2.{n}" for n in range(9)]))
    assert tested.is_full and tested.refused("192.0.2.2") and not tested.refused("192.0.2.3")
    tested.drop(LIST.format("a"))
    assert not tested.refused("192.0.2.2") and not tested.keys()


@pytest.mark.parametrize("source", [*SOURCES, "64:ff9b::7", "0.0.0.0", "::/64", "::"])
def test_sources_have_bytes(source: str) -> None:
    assert unpacked(packed(source)) == source
