# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices with odd names are filtered like all others, or refused; none of them disturbs another one."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel.hosting import DENIED, XDP_DROP, Site, ip, packet, run

from packetwatch_agent.control import truth
from packetwatch_core._active.loaded import Loaded
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._base.interface import text_of
from packetwatch_core._change.links import Wish
from packetwatch_core._declared.edits import in_turn, set_interfaces, set_policies
from packetwatch_core._health.active import read_active
from packetwatch_core._host.boot import filter_interface
from packetwatch_core._host.heal import Repair, heal
from packetwatch_core._kernel import netlink
from packetwatch_core._kernel.programs import Program, attached
from packetwatch_core._preflight.interfaces import resolve_interfaces
from packetwatch_core._preflight.machine import Machine

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

ODD = [
    "pw#1",
    "#pw",
    "-pw",
    "$pw",
    "${PATH}",
    "pw~1",
    ".pw",
    "pw.1",
    "*",
    "{{pw}}",
    "p;w&",
    "ßé日",
    "~",
]
REFUSED = [b"pw\xff", b"\x1b[31mpw", b'p"w', b"p\\w", b"p\x1cw", "p\u2028w".encode()]


@pytest.fixture
def site(standing: Site) -> Iterator[Site]:
    with standing.wire.host.entered():
        yield standing
        for dummy, name in socket.if_nameindex():
            if name not in ("lo", "pw0"):
                device(b"delete", os.fsencode(name))
        for name in standing.host.store.read_current()[1].interfaces:
            if name != "pw0":
                standing.host.detach(name)
        assert standing.host.verify() == []


def device(verb: bytes, name: bytes, *more: bytes) -> None:
    command = [b"ip", b"link", verb, b"dev", name, *more]
    subprocess.run(command, check=True, capture_output=True)


def bridge(name: bytes) -> int:
    """Make a device without a peer, which can be attached to in generic mode."""
    command = [b"ip", b"link", b"add", b"name", name, b"up", b"type", b"bridge"]
    subprocess.run(command, check=True, capture_output=True)
    return _index(name)


def _index(name: bytes) -> int:
    return next(index for index, found in socket.if_nameindex() if os.fsencode(found) == name)


def verdict(ifindex: int) -> int:
    with Program.by_id(attached(ifindex).program_id) as program:
        return program.test_run(packet(DENIED), ifindex)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_is_as_good_as_any(site: Site, name: str) -> None:
    index, host = bridge(name.encode()), site.host
    assert host.attach(name).changed
    site.policy(name, scan_ports="9", scan_counts="any")
    assert host.store.read_current()[1].interfaces == {"pw0": "auto", name: "auto"}
    assert verdict(index) == XDP_DROP
    assert not host.attach(name).changed
    assert host.verify() == []
    assert heal(host) == Repair([], [])
    assert set(host.info({"interfaces"})["interfaces"]) == {"pw0", name}
    status = truth.status(host)
    assert status["interfaces"][name]["mode"] == "generic" and status["problems"] == []
    with Loaded(host.pins) as loaded:
        assert loaded.ifindexes[name] == index
        assert read_active(loaded).interfaces[name].is_ours
    assert host.detach(name).changed
    assert not attached(index).program_id
    assert host.pins.interfaces() == ["pw0"]


@pytest.mark.slow
def test_all_of_them_at_once(site: Site) -> None:
    """As the role declares them."""
    indexes = {name: bridge(name.encode()) for name in ODD}
    edit = in_turn(
        set_interfaces(dict.fromkeys(["pw0", *ODD], "auto")),
        set_policies({name: {"PW_SCAN_PORTS": "9"} for name in ODD}, True),
    )
    site.host.apply(edit, wish=Wish(attach=["pw0", *ODD]))
    assert {verdict(index) for index in indexes.values()} == {XDP_DROP}
    assert site.host.pins.interfaces() == sorted(["pw0", *ODD])
    assert site.host.verify() == []
    site.host.panic("a test")
    assert not any(attached(index).program_id for index in indexes.values())
    site.host.lift()
    assert {verdict(index) for index in indexes.values()} == {XDP_DROP}
    # A boot attaches from the image; without an image, from the files.
    for damage in (False, True):
        site.power_off()
        if damage:
            (Path(site.paths.images) / "confirmed").unlink()
        for name in ("pw0", *ODD):
            done = filter_interface(run, site.paths, name, 10)
            assert bool(done.problem) == (damage and name == "pw0")
        assert {verdict(index) for index in indexes.values()} == {XDP_DROP}
    site.host.apply(set_interfaces({"pw0": "auto"}))
    assert site.host.pins.interfaces() == ["pw0"]


@pytest.mark.parametrize("name", REFUSED)
def test_other_names_are_refused_before_anything_changes(site: Site, name: bytes) -> None:
    index = bridge(name)
    before = site.snapshot()
    names = {text_of(name), os.fsdecode(name)}
    for given in names:
        for act in (site.host.attach, site.host.detach):
            with pytest.raises(InvalidInput) as caught:
                act(given)
            assert str(caught.value).encode() and "\x1b" not in str(caught.value)
        with pytest.raises(InvalidInput):
            site.policy(given, scan_ports="9")
        with pytest.raises(InvalidInput):
            site.host.apply(set_interfaces({"pw0": "auto", given: "auto"}))
        with pytest.raises(InvalidInput):
            filter_interface(run, site.paths, given, 10)
    assert site.snapshot() == before
    assert not attached(index).program_id


def test_devices_with_refused_names_disturb_no_other(site: Site, tmp_path: Path) -> None:
    for name in REFUSED:
        bridge(name)
    assert len({link.name for link in netlink.links()}) == len(netlink.links())
    assert site.host.verify() == []
    assert heal(site.host) == Repair([], [])
    assert truth.status(site.host)["problems"] == []
    assert set(site.host.info({"interfaces"})["interfaces"]) == {"pw0"}
    assert not site.host.apply().changed
    edits: list[Callable[[], object]] = [
        lambda: site.host.attach("eth9"),
        lambda: site.policy("eth9", scan_ports="9"),
    ]
    for edit in edits:
        with pytest.raises(InvalidInput, match="there is no interface 'eth9'") as caught:
            edit()
        assert str(caught.value).isprintable() and "pw%ff" in str(caught.value)
    # The default route is that of a device with such a name.
    ip("link set dev pw0 up")
    device(b"set", b"pw\xff", b"up")
    for name, metric in ((b"pw\xff", b"1"), (b"p\x1cw", b"2"), (b"pw0", b"3")):
        subprocess.run(
            [b"ip", b"route", b"add", b"default", b"dev", name, b"metric", metric], check=True
        )
    problems: list[str] = []
    found = resolve_interfaces(Machine(run), None, {}, problems)
    assert found == [] and "cannot be filtered" in problems[0]
    device(b"delete", b"pw\xff")
    device(b"delete", b"p\x1cw")
    assert [item["name"] for item in resolve_interfaces(Machine(run), None, {}, [])] == ["pw0"]


def test_a_filtered_device_gets_a_name_that_is_refused(site: Site) -> None:
    """It stays filtered until it has a name that can be declared."""
    index = bridge(b"pw1")
    site.host.attach("pw1")
    device(b"set", b"pw1", b"name", b"pw\xff")
    assert site.host.verify() == ["pw%ff is filtered as pw1, which was its name before"]
    assert any("pw%ff is filtered as pw1" in text for text in truth.status(site.host)["problems"])
    assert site.host.info({"interfaces"})["interfaces"]["pw%ff"]["mode"] == "generic"
    site.lists(name="other", deny="203.0.113.77")
    assert verdict(index) == XDP_DROP
    device(b"set", b"pw\xff", b"name", b"#1")
    site.host.attach("#1")
    assert verdict(index) == XDP_DROP
    assert site.host.pins.interfaces() == ["#1", "pw0"]
    assert site.host.verify() == []
