# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drift from confirmed state is found and repaired. Each kind of drift is real: a link cut, a program
replaced, tables swapped, pins gone, `current` broken."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kernel.hosting import (
    DENIED,
    UNLISTED,
    XDP_DROP,
    XDP_PASS,
    Site,
    dummy_program,
    ip,
    packet,
    wait,
)
from kernel.timers import Timers

from packetwatch_core._active.attach import create_link
from packetwatch_core._base.errors import Unreadable
from packetwatch_core._change.pending import Terms
from packetwatch_core._declared.edits import set_lists
from packetwatch_core._host.heal import HOUR, MAX_REPAIRS, Repair, heal
from packetwatch_core._kernel.libbpf import ARRAY, F_MMAPABLE, Map, call
from packetwatch_core._kernel.programs import Link, attached

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

MINUTE = Terms(60, "", "a test")
UNFILTERED = "pw0 is not filtered"
OTHERS = "the tables in the kernel are not those of confirmed state"


def note(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(site.paths.status).read_text())
    return found


def mode(interface: str = "pw0") -> str:
    return attached(socket.if_nametoindex(interface)).mode


def is_unfiltered() -> bool:
    return mode() == "none"


def check(site: Site) -> None:
    """Everything is as confirmed again, and stays so."""
    assert (site.verdict(DENIED), site.verdict(UNLISTED)) == (XDP_DROP, XDP_PASS)
    assert site.host.verify() == []
    before = site.snapshot()
    assert heal(site.host) == Repair([], [])
    assert not site.host.apply().changed
    assert site.snapshot() == before


# Ways to remove the filter


def remove_link_pin(site: Site) -> None:
    os.unlink(site.host.pins.link("pw0"))
    wait(is_unfiltered)


def remove_all_link_pins(site: Site) -> None:
    """The emergency procedure in the documentation."""
    shutil.rmtree(site.host.pins.links)
    wait(is_unfiltered)


def remove_all_pins(site: Site) -> None:
    objects = site.objects()
    shutil.rmtree(site.host.pins.root)
    wait(is_unfiltered)
    assert objects


def detach_link(site: Site) -> None:
    """Like `bpftool link detach pinned ...`: the link's pin stays, without an interface."""
    with Link.open(site.host.pins.link("pw0")) as link:
        call("bpf_link_detach", link.fd, what="detach")
    assert is_unfiltered()


def test_the_kernel_refuses_to_switch_it_off_in_passing(filtered: Site) -> None:
    done = subprocess.run(["ip", "link", "set", "pw0", "xdp", "off"], check=False)
    assert done.returncode != 0
    check(filtered)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cut", [remove_link_pin, remove_all_link_pins, remove_all_pins, detach_link]
)
def test_an_interface_that_is_not_filtered_any_more(
    filtered: Site, cut: Callable[[Site], None]
) -> None:
    cut(filtered)
    repair = heal(filtered.host)
    assert UNFILTERED in repair.found
    assert repair.left == []
    check(filtered)
    record = note(filtered)["heal"]
    assert (record["success"], record["failure"], record["found"]) == (1, 0, repair.found)
    assert time.time() - 60 < record["time"] <= time.time()


def test_one_interface_of_two(filtered: Site) -> None:
    filtered.wire.add("pw1")
    filtered.host.attach("pw1", "generic")
    filtered.policy("pw1", action="monitor")
    program = attached(socket.if_nametoindex("pw0"))
    os.unlink(filtered.host.pins.link("pw1"))
    wait(lambda: mode("pw1") == "none")
    # The tables have a policy for the interface too.
    assert heal(filtered.host) == Repair(["pw1 is not filtered", OTHERS], [])
    assert mode("pw1") == "generic"
    assert attached(socket.if_nametoindex("pw0")) == program
    check(filtered)


def test_an_interface_that_is_gone_is_not_missed(filtered: Site) -> None:
    filtered.wire.add("pw1")
    filtered.host.attach("pw1")
    ip("link delete pw1")
    assert heal(filtered.host) == Repair([], [])


def test_an_interface_that_was_detached_on_purpose_is_left_alone(filtered: Site) -> None:
    filtered.wire.add("pw1")
    filtered.host.attach("pw1")
    filtered.host.detach("pw1")
    assert heal(filtered.host) == Repair([], [])
    filtered.host.detach("pw0")
    assert heal(filtered.host) == Repair([], [])
    assert is_unfiltered()


# Other programs


@pytest.mark.slow
def test_a_foreign_program_is_reported_and_stays(filtered: Site) -> None:
    remove_link_pin(filtered)
    with dummy_program() as foreign:
        ifindex = socket.if_nametoindex("pw0")
        held = create_link(foreign, "pw0", ifindex, "auto")
        number = foreign.info().id
        for attempt in range(MAX_REPAIRS + 2):
            repair = heal(filtered.host)
            assert repair.found == [UNFILTERED]
            assert repair.left[0] == UNFILTERED
            assert f"another XDP program: 'dummy', id {number}" in repair.left[1]
            assert attached(ifindex).program_id == number
            record = note(filtered)["heal"]
            assert (record["success"], record["failure"]) == (0, attempt + 1)
        held.link.close()
    # A check that repaired nothing does not count as a repair.
    assert heal(filtered.host).left == []
    check(filtered)


@pytest.mark.slow
def test_a_foreign_program_in_our_link_is_replaced(filtered: Site) -> None:
    with dummy_program() as foreign, Link.open(filtered.host.pins.link("pw0")) as link:
        link.update(foreign)
        foreign_id = foreign.info().id
    assert filtered.verdict(DENIED) == XDP_PASS
    repair = heal(filtered.host)
    assert "another tool has replaced one" in repair.found[0]
    assert repair.left == []
    assert attached(socket.if_nametoindex("pw0")).program_id != foreign_id
    check(filtered)


# Other tables


@pytest.mark.slow
@pytest.mark.parametrize("filling", [0, 0xFF])
def test_tables_swapped_for_anything(filtered: Site, filling: int) -> None:
    with filtered.slot() as slot, Map.by_id(filtered.generation_id()) as live:
        size, pages = live.info.value_size, live.info.max_entries
        with Map.create(ARRAY, "theirs", 4, size, pages, F_MMAPABLE) as theirs:
            for page in range(pages):
                theirs.update(page.to_bytes(4, "little"), bytes([filling]) * size)
            slot.update(bytes(4), theirs.fd.to_bytes(4, "little"))
    assert filtered.verdict(DENIED) == XDP_PASS
    assert heal(filtered.host) == Repair([OTHERS], [])
    check(filtered)


def test_tables_swapped_for_those_of_before(filtered: Site) -> None:
    with Map.by_id(filtered.generation_id()) as former:
        filtered.lists(deny=f"{DENIED}\n203.0.113.128/25\n")
        with filtered.slot() as slot:
            slot.update(bytes(4), former.fd.to_bytes(4, "little"))
    assert filtered.verdict("203.0.113.130") == XDP_PASS
    assert heal(filtered.host) == Repair([OTHERS], [])
    assert filtered.verdict("203.0.113.130") == XDP_DROP
    check(filtered)


def test_tables_that_only_claim_to_be_ours(filtered: Site) -> None:
    """Tables whose header names our lists, but which deny nobody."""
    with Map.by_id(filtered.generation_id()) as live, filtered.slot() as slot:
        size, pages = live.info.value_size, live.info.max_entries
        with Map.create(ARRAY, "theirs", 4, size, pages, F_MMAPABLE) as theirs:
            first = live.lookup(bytes(4))
            assert first
            theirs.update(bytes(4), first)
            slot.update(bytes(4), theirs.fd.to_bytes(4, "little"))
    assert heal(filtered.host) == Repair([OTHERS], [])
    check(filtered)


@pytest.mark.slow
def test_a_slot_that_is_empty(filtered: Site) -> None:
    with filtered.slot() as slot:
        assert slot.delete(bytes(4))
    assert filtered.verdict(DENIED) == XDP_PASS
    assert heal(filtered.host) == Repair([OTHERS], [])
    check(filtered)


# Pins


@pytest.mark.slow
def test_a_pin_of_every_map(filtered: Site) -> None:
    """The map is in use, so its entries stay."""
    filtered.host.ban("203.0.113.200", 600)
    for path in filtered.pinned_maps():
        before = filtered.objects()
        path.unlink()
        repair = heal(filtered.host)
        problem = f"the map {path.name} is in use and not pinned any more"
        assert repair == Repair([problem], [])
        assert filtered.objects() == before
        assert (path.stat().st_mode & 0o777) == 0o600
        Path(filtered.paths.status).unlink()
    assert [ban["source"] for ban in filtered.host.info({"bans"})["bans"]] == ["203.0.113.200"]
    check(filtered)


def test_a_foreign_map_in_place_of_a_pin(filtered: Site) -> None:
    path = filtered.host.pins.map("bans")
    os.unlink(path)
    filtered.pin_odd_map(path)
    assert heal(filtered.host).left == []
    check(filtered)


def test_all_pins_but_the_links(filtered: Site) -> None:
    before = filtered.objects()
    shutil.rmtree(filtered.host.pins.own)
    repair = heal(filtered.host)
    assert len(repair.found) > 10
    assert repair.left == []
    assert {item for item in filtered.objects() if item[0] == "map"} & before
    assert (Path(filtered.host.pins.own).stat().st_mode & 0o777) == 0o700
    check(filtered)


@pytest.mark.slow
def test_the_pin_of_the_program(filtered: Site) -> None:
    os.unlink(filtered.host.pins.program)
    repair = heal(filtered.host)
    assert "other programs than the one that is pinned" in repair.found[0]
    assert repair.left == []
    check(filtered)


# Confirmed state


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, "99", "nonsense"])
def test_a_broken_link_to_what_is_confirmed(filtered: Site, target: str | None) -> None:
    link = filtered.state / "current"
    was = os.readlink(link)
    link.unlink()
    if target:
        link.symlink_to(target)
    with pytest.raises(Unreadable):
        filtered.host.verify()
    repair = heal(filtered.host)
    assert str(link.parent) in repair.found[0]
    assert repair.left == []
    assert os.readlink(link) == was
    check(filtered)


def test_a_broken_link_is_reported_if_confirmed_state_is_unknown(filtered: Site) -> None:
    link = filtered.state / "current"
    number = os.readlink(link)
    link.unlink()
    (filtered.state / number / "deny.d/ansible.list").write_text("192.0.2.9\n")
    before = filtered.snapshot()
    with pytest.raises(Unreadable, match="make it again: ln -s"):
        heal(filtered.host)
    Path(filtered.paths.status).unlink()
    with pytest.raises(Unreadable, match="make it again: ln -s"):
        heal(filtered.host)
    assert filtered.snapshot() == before


def test_hand_edits_are_not_activated_by_themselves(filtered: Site) -> None:
    (filtered.state / "current/deny.d/ansible.list").write_text("0.0.0.0/0\n")
    before = filtered.snapshot()
    edited = ["confirmed state was edited by hand and is not active: packetwatchctl apply"]
    for dummy in range(2):
        assert heal(filtered.host) == Repair(edited, edited)
        assert filtered.snapshot() == before
    remove_link_pin(filtered)
    assert heal(filtered.host).left == [UNFILTERED, *edited]
    filtered.host.apply()
    assert is_unfiltered()


def test_a_rollback_by_hand_is_confirmed_state(filtered: Site) -> None:
    filtered.lists(deny=UNLISTED)
    link = filtered.state / "current"
    number = int(os.readlink(link))
    link.unlink()
    link.symlink_to(str(number - 1))
    assert heal(filtered.host) == Repair([OTHERS], [])
    check(filtered)


@pytest.mark.slow
def test_an_entry_that_expires_is_no_drift(filtered: Site) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    filtered.lists(deny=f"{DENIED}\n203.0.113.77 expires={soon}\n")
    live = filtered.generation_id()
    wait(lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) > soon)
    assert filtered.verdict("203.0.113.77") == XDP_DROP
    assert filtered.host.verify() == []
    assert note(filtered)["matches"] is True
    assert heal(filtered.host) == Repair([], [])
    assert filtered.generation_id() == live
    assert not filtered.host.apply().changed
    assert filtered.verdict("203.0.113.77") == XDP_PASS
    check(filtered)


def test_an_entry_that_nobody_takes_out_is(filtered: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
    filtered.lists(deny=f"{DENIED}\n203.0.113.77 expires={soon}\n")
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 600)
    assert heal(filtered.host) == Repair([OTHERS], [])
    assert filtered.verdict("203.0.113.77") == XDP_PASS


# A change that is pending


def test_while_a_change_is_pending_nothing_is_repaired(filtered: Site) -> None:
    timers = Timers(filtered)
    host = timers.host
    change = host.apply(set_lists("ansible", {"deny": UNLISTED}, True), terms=MINUTE).pending
    assert change
    with filtered.slot() as slot:
        assert slot.delete(bytes(4))
    before = filtered.snapshot()
    repair = heal(host)
    assert (repair.found, repair.left) == ([], [])
    assert "a change of a test" in repair.paused
    assert filtered.snapshot() == before
    assert host.roll_back(change.token).changed
    assert heal(host) == Repair([], [])
    check(filtered)


def test_a_panic_is_no_drift(filtered: Site) -> None:
    filtered.host.panic("a test")
    before = filtered.snapshot()
    repair = heal(filtered.host)
    assert (repair.found, repair.left) == ([], [])
    assert "a test" in repair.paused
    assert filtered.snapshot() == before


@pytest.mark.slow
def test_after_a_confirmation_the_new_state_counts(filtered: Site) -> None:
    host = Timers(filtered).host
    change = host.apply(set_lists("ansible", {"deny": UNLISTED}, True), terms=MINUTE).pending
    assert change
    host.confirm(change.token)
    remove_all_pins(filtered)
    assert heal(host).left == []
    assert (filtered.verdict(DENIED), filtered.verdict(UNLISTED)) == (XDP_PASS, XDP_DROP)


# Repeated repairs


@pytest.mark.slow
def test_who_undoes_it_again_and_again_wins_for_an_hour(
    filtered: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dummy in range(MAX_REPAIRS):
        detach_link(filtered)
        assert heal(filtered.host).left == []
    detach_link(filtered)
    left = heal(filtered.host).left
    assert left[0] == UNFILTERED
    assert "repaired 5 times within an hour: no repair before" in left[1]
    assert is_unfiltered()
    record = note(filtered)["heal"]
    assert (record["success"], record["failure"], len(record["recent"])) == (5, 1, 5)
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + HOUR)
    assert heal(filtered.host).left == []
    check(filtered)


def test_packets_meet_the_repaired_filter(filtered: Site) -> None:
    """Real packets on the interface, not a test run."""
    detach_link(filtered)
    assert heal(filtered.host).left == []
    before = filtered.packets().get("drop deny", 0)
    with filtered.wire.peer.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("peer-pw0", 0))
        sender.send(packet(DENIED))
    wait(lambda: filtered.packets().get("drop deny", 0) > before)


@pytest.mark.slow
def test_a_program_that_cannot_be_loaded_is_reported(filtered: Site, tmp_path: Path) -> None:
    remove_all_pins(filtered)
    current = filtered.state / "current/program.c"
    current.write_text("#error no such luck\n")
    Path(filtered.paths.status).unlink()
    repair = heal(filtered.host)
    assert repair.found == [UNFILTERED]
    assert repair.left[0] == UNFILTERED
    assert "no such luck" in repair.left[1]
    assert is_unfiltered()
