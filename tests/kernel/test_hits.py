# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whom a change of the lists would affect: real packets, real connections, a real program's maps."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from kernel.hosting import DENIED, OWN, UNLISTED, Site, ip
from kernel.packets import syn4, syn6

from packetwatch_agent.control import edits
from packetwatch_core._change.hits import MINUTES
from packetwatch_core._change.results import Plan
from packetwatch_core._declared.edits import remove_lists, set_lists
from packetwatch_core._kernel.libbpf import Map
from packetwatch_core._network import peers

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

SOMEBODY6 = "2001:db8:5:6::9"
NETWORK6 = "2001:db8:5:6::/64"
CLIENT = "192.0.2.77"


@pytest.fixture
def unprotected(filtered: Site) -> Site:
    """A host that protects nothing, so that no change is refused."""
    filtered.settings(PW_PROTECT_AUTO="0")
    return filtered


def plan(site: Site, deny: str, *, allow: str = "", force: bool = False) -> Plan:
    return site.host.plan(set_lists("ansible", {"deny": deny, "allow": allow}, True), force=force)


def hit(planned: Plan) -> dict[str, list[str]]:
    """Return the kinds that are affected."""
    assert planned.hits is not None
    assert planned.hits.problems == []
    return {kind: texts for kind, texts in planned.hits.found.items() if texts}


def send(site: Site, *frames: bytes) -> None:
    with site.program() as program:
        for frame in frames:
            program.test_run(frame, socket.if_nametoindex("pw0"))


@contextlib.contextmanager
def connected(port: int) -> Iterator[None]:
    """Connect to the host from an address that the peer gets for this test."""
    ip(f"address add {CLIENT}/32 dev lo")
    with (
        socket.create_server((OWN, port)),
        socket.create_connection((OWN, port), source_address=(CLIENT, 0)),
    ):
        yield


def test_who_has_connected_lately(unprotected: Site) -> None:
    send(unprotected, syn4(UNLISTED, 80, OWN), syn4(DENIED, 80, OWN), syn6(SOMEBODY6, 80))
    found = hit(plan(unprotected, f"{DENIED}\n203.0.113.0/24\n2001:db8:5::/48\n"))
    # `DENIED` is still denied.
    assert found == {"seen": [UNLISTED, NETWORK6]}
    assert hit(plan(unprotected, f"203.0.113.0/24\n{SOMEBODY6}\n", allow=UNLISTED)) == {}
    assert hit(plan(unprotected, "198.51.100.0/24\n")) == {}


def test_who_was_seen_long_ago_is_not_named(unprotected: Site) -> None:
    send(unprotected, syn4(UNLISTED, 80, OWN))
    with Map.open(unprotected.host.pins.map("rates")) as rates:
        (key,) = rates.keys()
        before = time.monotonic_ns() - MINUTES * 60 * 1_000_000_000
        rates.update(key, struct.pack("=Q", max(before - 1, 0)))
    assert hit(plan(unprotected, "203.0.113.0/24")) == {}


def test_an_allow_that_goes_hits_too(unprotected: Site) -> None:
    unprotected.lists(deny="192.0.2.64/26", allow=CLIENT)
    with connected(8080):
        assert hit(plan(unprotected, "192.0.2.64/26")) == {"peers": [CLIENT]}


def test_peers_of_connections(unprotected: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_logged_in", lambda root: None)
    (port,) = sorted(peers.ssh_ports())[:1]
    with connected(8080):
        assert hit(plan(unprotected, f"{CLIENT}\n")) == {"peers": [CLIENT]}
    ip(f"address del {CLIENT}/32 dev lo")
    with connected(port):
        send(unprotected, syn4(CLIENT, port, OWN))
        # It is reported once, as the kind that matters most.
        assert hit(plan(unprotected, f"{CLIENT}\n")) == {"ssh_peers": [CLIENT]}


def test_what_is_protected_is_hit_by_force(filtered: Site) -> None:
    filtered.settings(PW_PROTECT="203.0.113.64/26 192.0.2.7")
    deny = f"{DENIED}\n192.0.2.0/29\n203.0.113.65\n"
    found = hit(plan(filtered, deny, force=True))
    assert found == {"protected": [OWN, "192.0.2.7", "203.0.113.64/26"]}
    filtered.lists(deny=deny, force=True)
    assert hit(plan(filtered, f"{deny}10.0.0.1\n", force=True)) == {}


def test_a_change_and_its_diff_report_it(unprotected: Site) -> None:
    send(unprotected, syn4(UNLISTED, 80, OWN))
    done = unprotected.lists(deny="203.0.113.0/24")
    assert hit(done) == {"seen": [UNLISTED]}
    sentence = f"newly denies sources that have connected in the last {MINUTES} minutes: {UNLISTED}"
    assert done.texts()[1].splitlines()[-1] == f"# {sentence}"
    assert unprotected.host.apply(remove_lists("ansible")).hits is not None
    request = {"command": "deny", "addresses": ["203.0.113.0/24"], "check": True}
    assert edits.perform(unprotected.host, request)["notes"] == [sentence]


def test_a_map_that_is_gone_stops_no_change(unprotected: Site) -> None:
    os.unlink(unprotected.host.pins.map("rates"))
    done = unprotected.lists(deny="203.0.113.0/24")
    assert done.changed and done.hits
    assert "rates" in done.hits.problems[0]


def test_what_changes_no_list_hits_nobody(filtered: Site) -> None:
    assert filtered.policy(scan_ports="9").hits is None
    assert filtered.host.apply().hits is None
