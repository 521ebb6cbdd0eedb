# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attaching, detaching and modes, on veth pairs of the tests."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from kernel.hosting import (
    DENIED,
    OWN,
    UNLISTED,
    XDP_DROP,
    XDP_PASS,
    Site,
    dummy_program,
    ip,
    other_program,
    run,
    wait,
    wait_gone,
)

from packetwatch_core._base.errors import Foreign, InvalidInput, LoadFailed, Unsupported
from packetwatch_core._declared.edits import set_policy
from packetwatch_core._host.host import Host
from packetwatch_core._kernel import netlink
from packetwatch_core._kernel.programs import XDP_GENERIC, XDP_NATIVE, Link, attached

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")


def mode_of(interface: str) -> str:
    return attached(socket.if_nametoindex(interface)).mode


def declared(site: Site) -> dict[str, str]:
    return site.host.store.read_current()[1].interfaces


@pytest.fixture(params=[XDP_NATIVE, XDP_GENERIC], ids=["native", "generic"])
def foreign(site: Site, request: pytest.FixtureRequest) -> Iterator[int]:
    """A foreign program on pw0; returns its number."""
    with dummy_program() as program:
        number = program.info().id
        with Link.create(program, socket.if_nametoindex("pw0"), request.param):
            yield number


# Modes


def test_veth_gets_native(site: Site) -> None:
    done = site.host.attach("pw0")
    assert done.changed
    assert (done.mode, done.reason) == ("native", "")
    assert done.program_id == attached(socket.if_nametoindex("pw0")).program_id
    assert (done.before, done.after) == ("pw0: none\n", "pw0: native\n")
    assert declared(site) == {"pw0": "auto"}


def test_lists_hold_from_the_first_packet(site: Site) -> None:
    site.lists(deny=DENIED)
    site.host.attach("pw0")
    assert site.verdict(DENIED) == XDP_DROP
    assert site.verdict(UNLISTED) == XDP_PASS


def test_second_attach_changes_nothing(filtered: Site) -> None:
    before = filtered.snapshot()
    done = filtered.host.attach("pw0")
    assert not done.changed
    assert filtered.snapshot() == before


def test_auto_falls_back_to_generic_and_says_why(site: Site) -> None:
    done = site.host.attach("lo")
    assert done.mode == "generic"
    assert done.reason.startswith("native mode refused: Operation not supported")
    assert declared(site) == {"lo": "auto"}
    assert not site.host.attach("lo").changed


def test_native_refused_is_an_error_with_its_remedy(site: Site) -> None:
    before = site.snapshot()
    with pytest.raises(LoadFailed, match=r"lo refuses native mode.*use mode auto or generic"):
        site.host.attach("lo", "native")
    assert site.snapshot() == before
    assert not Path(site.paths.bpffs).exists()


@pytest.mark.slow
def test_native_refused_on_a_second_interface_leaves_the_first(filtered: Site) -> None:
    filtered.host.apply(set_policy("lo", {"PW_ACTION": "monitor"}, False))
    before = filtered.snapshot()
    with pytest.raises(LoadFailed, match="lo refuses native mode"):
        filtered.host.attach("lo", "native")
    assert filtered.snapshot() == before
    with pytest.raises(LoadFailed, match="lo refuses native mode"):
        filtered.host.attach("lo", "native", other_program())
    after = filtered.snapshot()
    assert after["objects"] == before["objects"]
    assert filtered.verdict(DENIED) == XDP_DROP


def test_jumbo_frames_are_filtered_in_native_mode(site: Site) -> None:
    ip("link set pw0 mtu 9000")
    done = site.host.attach("pw0", "native")
    assert done.mode == "native"


@pytest.mark.slow
def test_mode_change(filtered: Site) -> None:
    assert filtered.host.attach("pw0", "generic").changed
    assert (mode_of("pw0"), declared(filtered)) == ("generic", {"pw0": "generic"})
    assert filtered.verdict(DENIED) == XDP_DROP
    assert not filtered.host.attach("pw0").changed
    assert filtered.host.attach("pw0", "native").mode == "native"
    assert filtered.verdict(DENIED) == XDP_DROP


def test_auto_keeps_the_mode_that_is_there(filtered: Site) -> None:
    filtered.host.attach("pw0", "generic")
    assert filtered.host.attach("pw0", "auto").mode == "generic"


def test_failed_mode_change_keeps_the_former_mode(site: Site) -> None:
    site.lists(deny=DENIED, force=True)
    site.host.attach("lo")
    before = site.snapshot()
    with pytest.raises(LoadFailed):
        site.host.attach("lo", "native")
    after = site.snapshot()
    assert (after["links"], after["objects"]) == (before["links"], before["objects"])
    assert after["state"] == before["state"]
    assert site.verdict(DENIED, "lo") == XDP_DROP


def test_a_renamed_device_keeps_its_filter(filtered: Site) -> None:
    filtered.policy("pw0", scan_ports="9")
    before = filtered.generation_id()
    ip("link set pw0 down")
    ip("link set pw0 name lan0")
    ip("link set lan0 up")
    assert filtered.host.attach("lan0", check=True).changed
    done = filtered.host.attach("lan0")
    assert (done.changed, done.mode) == (True, "native")
    assert filtered.host.pins.interfaces() == ["lan0"]
    state = filtered.host.store.read_current()[1]
    assert (list(state.interfaces), state.policy["lan0"]) == (["lan0"], {"PW_SCAN_PORTS": "9"})
    assert filtered.generation_id("lan0") == before
    assert filtered.verdict(DENIED, "lan0") == XDP_DROP
    assert not filtered.host.attach("lan0").changed


@pytest.fixture
def bridged(site: Site) -> Iterator[Site]:
    """pw0 is a port of the bridge br0."""
    ip("link add br0 type bridge")
    ip("link set pw0 master br0")
    yield site
    ip("link delete br0")


def test_closed_ports_are_not_counted_on_a_bridge_port(bridged: Site) -> None:
    before = bridged.snapshot()
    with pytest.raises(Unsupported, match=r"pw0 is a port of br0.*attach to br0.*any"):
        bridged.host.attach("pw0")
    assert bridged.snapshot() == before
    bridged.policy("pw0", scan_counts="any")
    assert bridged.host.attach("pw0").mode == "native"
    before = bridged.snapshot()
    with pytest.raises(Unsupported, match="pw0 is a port of br0"):
        bridged.policy("pw0", scan_counts="closed")
    assert bridged.snapshot() == before


def test_the_kernel_names_kinds_of_devices(bridged: Site) -> None:
    kinds = {link.name: link.kind for link in netlink.links()}
    assert (kinds["pw0"], kinds["br0"], kinds["lo"]) == ("veth", "bridge", "")


@pytest.mark.slow
def test_what_became_a_bridge_port_is_filtered_at_boot(bridged: Site) -> None:
    ip("link set pw0 nomaster")
    bridged.host.attach("pw0")
    bridged.power_off()
    ip("link set pw0 master br0")
    assert bridged.host.reattach("pw0").mode == "native"


def test_a_timer_that_cannot_be_set_takes_no_filter_off(site: Site) -> None:
    Path(site.paths.runtime, "system").mkdir(parents=True)
    Path(site.paths.units).mkdir()
    Path(site.paths.units, "packetwatch-apply.service").touch()
    text = f"{DENIED} expires=2099-01-01T00:00:00Z\n"
    site.lists(deny=text)
    site.host = Host(refuse_timers, site.paths)
    # The interface is declared, so it would be wrong to say that the change has failed.
    (problem,) = site.host.attach("pw0").problems
    assert re.search(r"will not expire by themselves.*no timers today", problem)
    assert problem in site.host.status.read()["apply"]["why"]
    assert mode_of("pw0") == "native"
    assert declared(site) == {"pw0": "auto"}
    assert site.verdict(DENIED) == XDP_DROP


def refuse_timers(argv: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
    return (1, "", "no timers today\n") if argv[0] == "systemd-run" else run(argv, stdin)


@pytest.mark.slow
def test_boot_attaches_only_to_what_is_declared(filtered: Site) -> None:
    before = filtered.snapshot()
    with pytest.raises(InvalidInput, match="lo is not declared"):
        filtered.host.reattach("lo")
    assert filtered.snapshot() == before
    filtered.power_off()
    assert filtered.host.reattach("pw0").mode == "native"


@pytest.mark.slow
def test_attaches_after_somebody_has_removed_all_links(filtered: Site) -> None:
    shutil.rmtree(filtered.host.pins.links)
    # The kernel frees unpinned objects in the background.
    wait(lambda: mode_of("pw0") == "none")
    assert filtered.host.attach("pw0").mode == "native"
    assert filtered.verdict(DENIED) == XDP_DROP


# Refusals


def test_unknown_interface_lists_those_there(site: Site) -> None:
    before = site.snapshot()
    with pytest.raises(InvalidInput, match=r"no interface 'eth9'; there are: lo, pw0"):
        site.host.attach("eth9")
    assert site.snapshot() == before


@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_only_devices_with_an_ethernet_header(site: Site, kind: str) -> None:
    ip(f"tuntap add dev pwt0 mode {kind}")
    ip("link set pwt0 up")
    if kind == "tap":
        assert site.host.attach("pwt0").mode in ("native", "generic")
        return
    before = site.snapshot()
    with pytest.raises(Unsupported, match=r"pwt0 has no Ethernet header .*attach to the Ethernet"):
        site.host.attach("pwt0")
    assert site.snapshot() == before


def test_bad_mode_names_the_choices(site: Site) -> None:
    before = site.snapshot()
    with pytest.raises(InvalidInput, match="mode is 'fast': choose one of auto, native, generic"):
        site.host.attach("pw0", "fast")
    assert site.snapshot() == before


@pytest.mark.parametrize("mode", ["auto", "native", "generic"])
def test_foreign_program_is_named_and_stays(site: Site, foreign: int, mode: str) -> None:
    site.lists(deny=DENIED)
    before = site.snapshot()
    with pytest.raises(
        Foreign, match=f"pw0 already has another XDP program: 'dummy', id {foreign}"
    ):
        site.host.attach("pw0", mode)
    assert site.snapshot() == before
    assert attached(socket.if_nametoindex("pw0")).program_id == foreign


def test_detach_leaves_a_foreign_program(site: Site, foreign: int) -> None:
    assert not site.host.detach("pw0").changed
    assert attached(socket.if_nametoindex("pw0")).program_id == foreign


# Several interfaces


def test_second_interface_shares_program_and_lists(filtered: Site) -> None:
    filtered.wire.add("pw1.7")
    done = filtered.host.attach("pw1.7")
    first, second = (attached(socket.if_nametoindex(name)) for name in ("pw0", "pw1.7"))
    assert done.program_id == first.program_id == second.program_id
    assert filtered.verdict(DENIED, "pw1.7") == XDP_DROP
    filtered.lists(deny=UNLISTED)
    assert filtered.verdict(DENIED, "pw1.7") == XDP_PASS
    assert filtered.verdict(UNLISTED, "pw1.7") == filtered.verdict(UNLISTED) == XDP_DROP


@pytest.mark.slow
def test_detach_one_keeps_the_other(filtered: Site) -> None:
    filtered.wire.add("pw1")
    filtered.host.attach("pw1")
    filtered.policy("pw1", action="monitor")
    done = filtered.host.detach("pw1")
    assert done.changed
    assert (done.before, done.after) == ("pw1: native\n", "pw1: none\n")
    assert (mode_of("pw1"), mode_of("pw0")) == ("none", "native")
    assert declared(filtered) == {"pw0": "auto"}
    assert filtered.verdict(DENIED) == XDP_DROP
    assert not filtered.lists(deny=DENIED).changed, "the policy of pw1 is still in the kernel"
    assert not filtered.host.detach("pw1").changed


def test_detach_last_leaves_nothing(filtered: Site) -> None:
    filtered.wire.add("pw1")
    filtered.host.attach("pw1")
    objects = filtered.objects() | filtered.objects("pw1")
    filtered.host.detach("pw0")
    filtered.host.detach("pw1")
    assert not Path(filtered.paths.bpffs).exists()
    assert (mode_of("pw0"), mode_of("pw1")) == ("none", "none")
    assert filtered.left_open() == []
    wait_gone(objects)


def test_detach_under_check_changes_nothing(filtered: Site) -> None:
    before = filtered.snapshot()
    assert filtered.host.detach("pw0", check=True).changed
    assert filtered.snapshot() == before


def test_detach_where_nothing_ever_was(site: Site) -> None:
    assert not site.host.detach("pw0").changed
    assert not Path(site.paths.bpffs).exists()


# Check mode


def test_check_predicts_what_attach_does(site: Site) -> None:
    predicted = site.host.attach("pw0", check=True)
    assert (predicted.changed, predicted.mode) == (True, "unknown until attached")
    assert not Path(site.paths.bpffs).exists() and not site.state.exists()
    site.host.attach("pw0")
    predicted = site.host.attach("pw0", check=True)
    assert (predicted.changed, predicted.mode) == (False, "native")
    before = site.snapshot()
    predicted = site.host.attach("pw0", "generic", check=True)
    assert (predicted.changed, predicted.mode) == (True, "generic")
    assert site.snapshot() == before


# Devices disappear and come back


@pytest.mark.slow
def test_device_that_comes_back_is_attached_again(filtered: Site) -> None:
    filtered.policy("pw0", action="monitor")
    ip("link delete pw0")
    assert filtered.host.info({"interfaces"})["interfaces"]["pw0"]["mode"] == "none"
    filtered.lists(deny=f"{DENIED}\n{UNLISTED}")
    filtered.wire.add("pw0", OWN)
    assert filtered.host.attach("pw0").changed
    assert filtered.verdict(UNLISTED) == XDP_PASS, (
        "monitor is the policy of pw0, whatever its index"
    )
    filtered.policy("pw0", action="enforce")
    assert filtered.verdict(UNLISTED) == XDP_DROP
    assert not filtered.host.attach("pw0").changed


@pytest.mark.slow
def test_severed_link_holds_nothing_back(filtered: Site) -> None:
    filtered.wire.add("pw1")
    filtered.host.attach("pw1")
    objects = filtered.objects()
    ip("link delete pw1")
    filtered.host.attach("pw0", source=other_program())
    gone = objects - filtered.objects()
    assert ("program", min(number for kind, number in objects if kind == "program")) in gone
    wait_gone(gone)
    assert not filtered.lists(deny=DENIED).changed, "every apply loads the program anew"


def test_detach_of_a_device_that_is_gone(filtered: Site) -> None:
    ip("link delete pw0")
    assert filtered.host.detach("pw0").changed
    assert not Path(filtered.paths.bpffs).exists()
    assert declared(filtered) == {}
