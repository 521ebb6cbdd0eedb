# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The self-test on the real program: it passes if all is well, and fails at the stage that is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel.controlling import READER, Controlled
from kernel.hosting import Wire, ip

from packetwatch_agent.control.selftest.drill import STAGES, Drill
from packetwatch_core._bans.bans import MAPS
from packetwatch_core._kernel.libbpf import Map

pytest_plugins = ("kernel.agent_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and loads programs")

# The agent writes hosts, nets and local at each of its checks; the self-test never does.
COMPARED = (*MAPS, "scan_ring", "open_ports", "firsts2", "tracks2", "rates")


@pytest.fixture
def host(shared: Controlled) -> Iterator[Controlled]:
    """That host with the default policy without grace, and empty lists."""
    with shared.site.wire.host.entered():
        shared.site.policy(
            action="enforce",
            scan_counts="closed",
            scan_ports="5",
            scan_grace="0",
            ban_scope="connections",
            published_ports="",
        )
        shared.site.lists()
        if shared.process is None:
            shared.start()
        shared.audit.unlink(missing_ok=True)
        yield shared


def contents(host: Controlled) -> dict[str, Any]:
    """Return all entries of the maps that the self-test must not change."""
    found: dict[str, Any] = {}
    for name in COMPARED:
        with Map.open(host.pins.map(name)) as opened:
            found[name] = sorted(opened.items())
    return found


def stages(result: dict[str, Any]) -> dict[str, bool]:
    return {stage["name"]: stage["ok"] for stage in result["stages"]}


def drill(host: Controlled, *words: str) -> tuple[int, dict[str, Any]]:
    done = host.ctl("selftest", "--json", *words)
    return done.status, done.json


def test_all_green_and_everything_as_before(host: Controlled) -> None:
    with host.bans() as bans:
        bans.add("192.0.2.200", 3600)
    before, maps_before = host.site.snapshot(), contents(host)
    counters = host.site.packets()
    status, result = drill(host)
    assert status == 0, str(result)
    assert stages(result) == dict.fromkeys(STAGES, True)
    assert host.site.snapshot() == before
    assert contents(host) == maps_before
    moved = {
        name: number - counters.get(name, 0)
        for name, number in host.site.packets().items()
        if number != counters.get(name, 0)
    }
    # Four ports pass, the fifth is the scan; a connection is dropped, other packets pass.
    assert moved == {"pass unlisted": 6, "drop scan": 1, "drop ban": 1}
    assert result["packets"] == 8
    assert [line["packetwatch.command"] for line in host.audits(host.audit)] == ["selftest"]
    assert host.ctl("unban", "192.0.2.200").status == 0


def test_its_result_in_words(host: Controlled) -> None:
    done = host.ctl("selftest")
    assert done.status == 0
    assert done.out.count("green") == len(STAGES) + 1
    assert "RED" not in done.out


@pytest.mark.slow
@pytest.mark.parametrize("family", ["-4", "-6"])
@pytest.mark.parametrize("scope", ["connections", "all"])
def test_any_port_and_both_scopes(host: Controlled, scope: str, family: str) -> None:
    host.site.policy(scan_counts="any", scan_ports="3", ban_scope=scope)
    maps_before = contents(host)
    status, result = drill(host, family)
    assert status == 0, str(result)
    assert contents(host) == maps_before


@pytest.mark.parametrize("ports", ["1", "2", "64"])
def test_any_threshold(host: Controlled, ports: str) -> None:
    host.site.policy(scan_ports=ports)
    status, result = drill(host)
    assert status == 0, str(result)


def test_monitor_reports_what_would_be(host: Controlled) -> None:
    host.site.policy(action="monitor")
    status, result = drill(host)
    assert status == 0, str(result)
    texts = {stage["name"]: stage["text"] for stage in result["stages"]}
    assert "would be banned for 600 s" in texts["ban"]
    assert "event.action scan" in texts["log"]


def test_the_log_is_red_without_the_agent(host: Controlled) -> None:
    host.stop()
    maps_before = contents(host)
    status, result = drill(host)
    assert status == 1
    assert stages(result) == dict.fromkeys(STAGES, True) | {"log": False}
    assert contents(host) == maps_before


def test_off_is_named(host: Controlled) -> None:
    host.site.policy(action="off")
    status, result = drill(host)
    assert status == 1
    assert result["stages"][0]["name"] == "prepare"
    assert "pw0 (off)" in result["stages"][0]["text"]


def test_an_interface_that_is_not_filtered_is_named(host: Controlled) -> None:
    status, result = drill(host, "--interface", "pw9")
    assert status == 1
    assert "pw9 is not filtered" in result["stages"][0]["text"]


@pytest.mark.slow
def test_listed_sources_are_avoided_and_a_full_list_is_named(host: Controlled) -> None:
    others = "192.0.2.0/24\n198.51.100.0/24\n"
    host.site.lists(
        deny=f"{others}203.0.113.0/25\n203.0.113.128/26\n203.0.113.192/27\n", force=True
    )
    status, result = drill(host)
    assert status == 0
    assert int(result["source"].rpartition(".")[2]) >= 224
    host.site.lists(allow=f"{others}203.0.113.0/24\n")
    status, result = drill(host)
    assert status == 1
    assert "203.0.113.0/24" in result["stages"][0]["text"]


def test_the_grace_after_boot_is_reported(host: Controlled) -> None:
    host.site.policy(scan_grace="120")
    found = Drill(host.site.host, lambda: None, clock=lambda: 100 * 10**9)  # type: ignore
    result = found.run()
    assert not found.passed
    (stage,) = result["stages"]
    assert "try again in 21 s" in stage["text"]


def test_a_program_that_never_bans_is_found_out(host: Controlled) -> None:
    """The program's clock stands still: no time stamp is fresh, so it sees no scan."""
    host.site.policy(scan_window="0.001")
    maps_before = contents(host)
    status, result = drill(host)
    # On a fast machine five packets fit into a millisecond.
    if status:
        assert stages(result)["detect"] is False
        assert stages(result)["restore"] is True
    assert contents(host) == maps_before


def test_everything_published_leaves_no_port(host: Controlled) -> None:
    host.site.policy(published_ports="1-65535")
    status, result = drill(host)
    assert status == 1
    assert "only 0 ports are closed" in result["stages"][0]["text"]


def test_without_an_address_the_family_is_named(host: Controlled) -> None:
    status, result = drill(host, "-6")
    assert status == 1
    assert "no IPv6 address" in result["stages"][0]["text"]


def test_only_root_may(host: Controlled) -> None:
    assert host.ctl("selftest", user=READER).status == 3


@pytest.mark.slow
def test_with_nothing_loaded_it_reports_that(bytecode_cache: Path) -> None:
    wire = Wire()
    bare = Controlled(wire, bytecode_cache)
    try:
        with wire.host.entered():
            done = bare.ctl("selftest")
            assert done.status == 1
            assert "no interface is filtered" in done.out
            assert bare.ctl("bans").status == 1
            assert bare.ctl("status").status == 1
            assert bare.ctl("why", "203.0.113.9").status == 0
            ip("link set pw0 down")
    finally:
        bare.close()
        wire.close()


def test_bans_of_others_come_and_go_meanwhile(host: Controlled) -> None:
    """A ban that expires during the self-test does not count as a change by the self-test."""
    with host.bans() as bans:
        bans.add("192.0.2.201", 0.5)
    status, result = drill(host)
    assert status == 0, str(result)
