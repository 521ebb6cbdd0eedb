# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filtered devices are renamed, exchange their names, and change their namespace, under traffic.

Three devices are filtered: `d0`, `d1` and `d2`, which are named a, b and c first. Each has a policy of its
own, by name. What a device lets pass is seen in the frames themselves: their payload names the device.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from kernel.hosting import (
    DENIED,
    OWN,
    UNLISTED,
    XDP_DROP,
    Namespace,
    Site,
    Wire,
    dummy_program,
    ip,
    other_program,
    packet,
    run,
    sweep,
    wait,
)
from kernel.timers import Timers

from packetwatch_agent.control import truth
from packetwatch_core._active.attach import create_link
from packetwatch_core._active.loaded import Loaded
from packetwatch_core._base.errors import Foreign, PacketwatchError
from packetwatch_core._change.links import Wish
from packetwatch_core._change.pending import Terms
from packetwatch_core._declared.edits import (
    in_turn,
    set_interfaces,
    set_lists,
    set_policies,
    set_program,
)
from packetwatch_core._host.boot import filter_interface
from packetwatch_core._host.heal import heal
from packetwatch_core._host.host import Host
from packetwatch_core._kernel.programs import attached

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="loads programs"), pytest.mark.slow]

NUMBER = 2_000_000
NAMES = ("a", "b", "c")
PORTS = {"a": "7", "b": "8", "c": "9"}
MINUTE = Terms(60, "", "a test")
_ETH_P_IP = 0x0800
_PAUSE = 0.0005


class Traffic:
    """Sends packets of a denied and of an unlisted source to the three devices, and counts what passes."""

    def __init__(self, wire: Wire, *places: Namespace) -> None:
        self._wire = wire
        self._has_sent, self._end = threading.Event(), threading.Event()
        self.sent: Counter[tuple[str, str]] = Counter()
        self.passed: Counter[tuple[str, str]] = Counter()
        self._threads = [threading.Thread(target=self._send)]
        self._threads += [
            threading.Thread(target=self._receive, args=(_tap(place),))
            for place in (wire.host, *places)
        ]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        with self._wire.peer.entered(), contextlib.ExitStack() as stack:
            outlets = {}
            for device in ("d0", "d1", "d2"):
                outlet = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
                outlet.bind((f"peer-{device}", _ETH_P_IP))
                outlets[device] = outlet
            while not self._has_sent.is_set():
                for device, outlet in outlets.items():
                    for source in (DENIED, UNLISTED):
                        frame = packet(source)[:42] + device.encode().ljust(18, b"\0")
                        # While a device moves to another namespace, it is down.
                        with contextlib.suppress(OSError):
                            outlet.send(frame)
                            self.sent[device, source] += 1
                time.sleep(_PAUSE)

    def _receive(self, tap: socket.socket) -> None:
        with tap:
            while not self._end.is_set():
                with contextlib.suppress(TimeoutError):
                    frame = tap.recv(2048)
                    source = socket.inet_ntoa(frame[26:30])
                    self.passed[frame[42:44].decode(), source] += 1

    def more(self) -> None:
        """Wait until each device has got twenty more packets of each source."""
        goal = self.sent["d2", UNLISTED] + 20
        wait(lambda: self.sent["d2", UNLISTED] >= goal)

    def stop(self) -> None:
        """Stop sending, and wait until all that passes has been received."""
        self._has_sent.set()
        self._threads[0].join()
        with contextlib.suppress(AssertionError):
            wait(lambda: not self.lost(), 2)
        self._end.set()
        for thread in self._threads:
            thread.join()

    def lost(self) -> int:
        """How many packets of the unlisted source have not passed."""
        return sum(self.sent[key] - self.passed[key] for key in self.sent if key[1] == UNLISTED)

    def is_denied(self, device: str) -> bool:
        """Whether no packet of the denied source passes now."""
        time.sleep(0.01)
        before = self.passed[device, DENIED]
        self.more()
        time.sleep(0.01)
        return self.passed[device, DENIED] == before


def _tap(place: Namespace) -> socket.socket:
    """A socket that gets the packets of all devices in a namespace."""
    with place.entered():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP))
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
    tap.settimeout(0.1)
    return tap


class Lab:
    """A host with three filtered devices. Tests rename them; `reset` gives them their names again."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.host = site.host
        self.timers = Timers(site)
        self.indexes = {f"d{at}": socket.if_nametoindex(name) for at, name in enumerate(NAMES)}

    def reset(self) -> None:
        """All as in the beginning."""
        for at, name in enumerate(NAMES):
            ifindex = self.indexes[f"d{at}"]
            if name in _names() and socket.if_nametoindex(name) != ifindex:
                rename(name, f"z{at}")
            if socket.if_indextoname(ifindex) != name:
                rename(socket.if_indextoname(ifindex), name)
        for name in _names():
            if name not in ("lo", *NAMES):
                ip(f"link delete dev {name}")
        policies: dict[str | None, dict[str, str]] = {
            name: {"PW_SCAN_PORTS": ports} for name, ports in PORTS.items()
        }
        edit = in_turn(
            set_interfaces(dict.fromkeys(NAMES, "auto")),
            set_policies(policies, True),
            set_lists("ansible", {"deny": f"{DENIED}\n"}, True),
        )
        self.host.apply(edit, wish=Wish(attach=NAMES))
        self.check(*NAMES)

    def declared(self) -> set[str]:
        return set(self.host.store.read_current()[1].interfaces)

    def check(self, *filtered: str) -> None:
        """These interfaces are filtered, with the policies of their names, and nothing is wrong."""
        assert {name for name in _names() if is_filtered(name)} == set(filtered)
        assert self.host.pins.interfaces() == sorted(filtered)
        with Loaded(self.host.pins) as loaded, loaded.generation() as current:
            ports = {
                name: str(current.policy(socket.if_nametoindex(name))["scan_ports"])
                for name in filtered
            }
        assert ports == {name: self._ports(name) for name in filtered}
        assert self.host.verify() == []
        assert not self.host.apply().changed

    def _ports(self, name: str) -> str:
        state = self.host.store.read_current()[1]
        return state.policy.get(name, {}).get("PW_SCAN_PORTS", "5")

    def new(self, name: str) -> None:
        """Another device."""
        ip(
            f"link add name {name} type veth peer name other-{name} netns {self.site.wire.peer.path}"
        )
        ip(f"link set dev {name} up")


@pytest.fixture(scope="module")
def standing_lab(tmp_path_factory: pytest.TempPathFactory, bytecode_cache: Path) -> Iterator[Lab]:
    sweep()
    wire = Wire()
    site = Site(wire, tmp_path_factory.mktemp("renames"), bytecode_cache, NUMBER)
    try:
        with wire.host.entered():
            wire.remove("pw0")
            for at, name in enumerate(NAMES):
                wire.add(f"d{at}", OWN if at == 0 else "")
                rename(f"d{at}", name)
            yield Lab(site)
    finally:
        site.close()
        wire.close()


@pytest.fixture
def lab(standing_lab: Lab) -> Lab:
    with standing_lab.site.wire.host.entered():
        standing_lab.reset()
    return standing_lab


@pytest.fixture
def traffic(lab: Lab) -> Iterator[Traffic]:
    found = Traffic(lab.site.wire)
    try:
        found.more()
        yield found
    finally:
        found.stop()


def rename(name: str, new: str) -> None:
    ip(f"link set dev {name} name {new}")


def renames(*pairs: str) -> Callable[[Lab], None]:
    """Rename devices, each as OLD>NEW; `+NAME` makes a new device."""

    def act(lab: Lab) -> None:
        for pair in pairs:
            if pair.startswith("+"):
                lab.new(pair[1:])
            else:
                rename(*pair.split(">"))

    return act


def _names() -> list[str]:
    return [name for dummy, name in socket.if_nameindex()]


def is_filtered(name: str) -> bool:
    return attached(socket.if_nametoindex(name)).mode != "none"


# Commands


def attach(name: str) -> Callable[[Lab], object]:
    return lambda lab: lab.host.attach(name)


def detach(name: str) -> Callable[[Lab], object]:
    return lambda lab: lab.host.detach(name)


def boot(name: str) -> Callable[[Lab], object]:
    """What the unit of an interface does when a device of that name appears."""
    return lambda lab: filter_interface(run, lab.site.paths, name, 10)


def repair(lab: Lab) -> None:
    assert heal(lab.host).left == []


def declare(*names: str) -> Callable[[Lab], object]:
    """What a run of the role does."""

    def act(lab: Lab) -> None:
        edit = set_interfaces(dict.fromkeys(names, "auto"))
        lab.host.apply(edit, wish=Wish(attach=names))

    return act


class Case(NamedTuple):
    """renames: what happens. command: what an operator or root's units do then.

    declared: the interfaces that are declared afterwards. kept: devices that stay filtered all the time.
    filtered: the interfaces that are filtered afterwards. open: devices that are not filtered any more.
    """

    renames: Callable[[Lab], None]
    command: Callable[[Lab], object]
    declared: str
    kept: str = "d0 d1 d2"
    filtered: str = ""
    open: str = ""


SWAP = renames("a>x", "b>a", "x>b")
CYCLE = renames("a>x", "b>a", "c>b", "x>c")
TAKEN = renames("b>x", "+b")
CHAIN = renames("b>x", "a>b")
CASES = {
    "renamed, attached": Case(renames("b>x"), attach("x"), "a c x"),
    "renamed, declared": Case(renames("b>x"), declare("a", "c", "x"), "a c x"),
    "renamed, detached": Case(renames("b>x"), detach("x"), "a c", "d0 d2", open="d1"),
    "renamed, detached by its former name": Case(
        renames("b>x"), detach("b"), "a c", "d0 d2", open="d1"
    ),
    "renamed to a strange name": Case(renames("b>#x.1"), attach("#x.1"), "#x.1 a c"),
    "swapped, one attached": Case(SWAP, attach("a"), "a b c"),
    "swapped, the other attached": Case(SWAP, attach("b"), "a b c"),
    "swapped, at boot": Case(SWAP, boot("a"), "a b c"),
    "swapped, declared": Case(SWAP, declare(*NAMES), "a b c"),
    "swapped, repaired": Case(SWAP, repair, "a b c"),
    "swapped, one detached": Case(SWAP, detach("a"), "b c", "d0 d2", open="d1"),
    "swapped, one not declared any more": Case(SWAP, declare("a", "c"), "a c", "d1 d2", open="d0"),
    "cycle, one attached": Case(CYCLE, attach("b"), "a b c"),
    "cycle, declared": Case(CYCLE, declare(*NAMES), "a b c"),
    "cycle, repaired": Case(CYCLE, repair, "a b c"),
    "cycle, one detached": Case(CYCLE, detach("c"), "a b", "d1 d2", open="d0"),
    "name taken, attached": Case(TAKEN, attach("b"), "a b c", "d0 d2", open="d1"),
    "name taken, renamed one attached": Case(TAKEN, attach("x"), "a b c x"),
    "name taken, both declared": Case(TAKEN, declare("a", "b", "c", "x"), "a b c x"),
    "name taken, renamed one declared": Case(TAKEN, declare("a", "c", "x"), "a c x"),
    "name taken, at boot": Case(TAKEN, boot("b"), "a b c", "d0 d2", open="d1"),
    "name taken, repaired": Case(TAKEN, repair, "a b c", "d0 d2", open="d1"),
    "name taken, another one attached": Case(TAKEN, attach("a"), "a b c", "d0 d2", open="d1"),
    "chain, attached": Case(CHAIN, attach("b"), "a b c", "d0 d2", "b c", open="d1"),
    "chain, repaired": Case(CHAIN, repair, "a b c", "d0 d2", "b c", open="d1"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_declared_names_are_filtered_whatever_devices_have_them(
    lab: Lab, traffic: Traffic, case: Case
) -> None:
    with lab.site.wire.host.entered():
        case.renames(lab)
        traffic.more()
        # Nothing opens before a command: a change of lists is none that concerns interfaces.
        lab.site.lists(name="other", deny="203.0.113.77")
        traffic.more()
        assert not any(traffic.passed[device, DENIED] for device in lab.indexes)
        case.command(lab)
        traffic.more()
        assert lab.declared() == set(case.declared.split())
        lab.check(*(case.filtered or case.declared).split())
        assert not [device for device in case.open.split() if traffic.is_denied(device)]
        traffic.stop()
    assert [traffic.passed[device, DENIED] for device in case.kept.split()] == [0] * len(
        case.kept.split()
    )
    assert traffic.lost() == 0


# Before a command


@pytest.mark.parametrize(
    ("case", "problems"),
    [
        ("renamed, attached", ["x is filtered as b, which was its name before"]),
        ("swapped, one attached", []),
        (
            "name taken, attached",
            [
                "x is filtered but not declared: another device has its former name b",
                "b is not filtered",
            ],
        ),
        (
            "chain, attached",
            ["x is filtered but not declared: another device has its former name b"],
        ),
    ],
)
def test_what_is_wrong_is_named(lab: Lab, case: str, problems: list[str]) -> None:
    with lab.site.wire.host.entered():
        lab.host.apply(set_policies({name: {} for name in NAMES}, True))
        CASES[case].renames(lab)
        assert lab.host.verify() == problems
        noted = {"x": "b"} if problems else {}
        assert lab.host.status.read()["renamed"] == noted, "the agent does not see it"
        seen = truth.status(lab.host)["problems"]
        assert [text for text in problems if not any(text in problem for problem in seen)] == []
        assert not any("systemctl restart packetwatch-xdp@x" in problem for problem in seen)


def test_policies_follow_the_names_with_a_repair(lab: Lab) -> None:
    with lab.site.wire.host.entered():
        SWAP(lab)
        assert lab.host.verify() == ["the tables in the kernel are not those of confirmed state"]
        repair(lab)
        lab.check(*NAMES)


def test_a_device_that_was_only_renamed_keeps_its_policy_and_filter(lab: Lab) -> None:
    """Its declaration waits for its name. No repair takes the filter off."""
    with lab.site.wire.host.entered():
        rename("b", "x")
        assert heal(lab.host).left == ["x is filtered as b, which was its name before"]
        with Loaded(lab.host.pins) as loaded, loaded.generation() as current:
            assert current.policy(lab.indexes["d1"])["scan_ports"] == int(PORTS["b"])
        assert is_filtered("x")
        rename("x", "b")
        lab.check(*NAMES)


# Changes that fail, and that are reverted


def test_a_refused_attach_leaves_the_renamed_device_filtered(lab: Lab) -> None:
    with lab.site.wire.host.entered():
        TAKEN(lab)
        with dummy_program() as foreign:
            held = create_link(foreign, "b", socket.if_nametoindex("b"), "generic").link
        before = lab.site.snapshot()
        with pytest.raises(Foreign, match="b already has another XDP program"):
            lab.host.attach("b")
        assert lab.site.snapshot() == before
        # Another interface can still be attached. The foreign program only keeps b from being filtered.
        lab.host.attach("a")
        assert is_filtered("x")
        held.close()
        lab.host.attach("b")
        lab.check(*NAMES)


@pytest.mark.parametrize("during", [SWAP, CYCLE, renames("b>x"), TAKEN])
def test_renames_while_a_change_is_pending(
    lab: Lab, traffic: Traffic, during: Callable[[Lab], None]
) -> None:
    """The change that is reverted brings another program, so all links are updated twice."""
    with lab.site.wire.host.entered():
        host = lab.timers.host
        edit = in_turn(
            set_program(other_program()),
            set_lists("ansible", {"deny": f"{DENIED}\n203.0.113.77\n"}, True),
        )
        assert host.apply(edit, terms=MINUTE).pending
        during(lab)
        traffic.more()
        host.roll_back()
        traffic.more()
        assert traffic.passed["d0", DENIED] == traffic.passed["d2", DENIED] == 0
        assert lab.declared() == set(NAMES)
        assert [name for name in NAMES if name in _names() and not is_filtered(name)] == []
        lab.reset()
        traffic.stop()
        assert traffic.lost() == 0


@pytest.mark.parametrize("name", ["b", "x"])
def test_renames_are_not_settled_by_a_change_that_fails(lab: Lab, name: str) -> None:
    """The last step is made to fail: the state cannot be confirmed."""
    with lab.site.wire.host.entered():
        TAKEN(lab)
        before = lab.host.verify()
        host = Host(run, lab.site.paths)

        def fail(number: int) -> list[str]:
            raise PacketwatchError("not today")

        host.store.confirm = fail  # type: ignore[method-assign]
        # Another mode changes the state too.
        with pytest.raises(PacketwatchError, match="not today"):
            host.attach(name, "generic")
        assert (is_filtered("x"), is_filtered("b")) == (True, False)
        assert lab.declared() == set(NAMES)
        assert lab.host.verify() == before
        lab.host.attach(name)
        lab.check("a", "b", "c", *({"x"} & {name}))


# Other network namespaces


@pytest.fixture
def elsewhere(lab: Lab) -> Iterator[Namespace]:
    """A second namespace. What a test has left there moves back at its end."""
    found, home = Namespace(), lab.site.wire.host
    yield found
    with found.entered():
        names = [name for name in _names() if name != "lo"]
    for name in names:
        with home.entered():
            if name in _names():
                ip(f"link delete dev {name}")
        with found.entered():
            move(name, home)
    found.close()


def move(name: str, place: Namespace) -> None:
    """Move a device from this thread's namespace; the kernel takes it down for that."""
    ip(f"link set dev {name} netns {place.path}")
    with place.entered():
        ip(f"link set dev {name} up")


def test_a_device_that_comes_back_was_filtered_all_the_time(lab: Lab, elsewhere: Namespace) -> None:
    home = lab.site.wire.host
    traffic = Traffic(lab.site.wire, elsewhere)
    try:
        with home.entered():
            move("b", elsewhere)
            traffic.more()
            assert lab.host.info({"interfaces"})["interfaces"]["b"]["mode"] == "none"
            repair(lab)
            # What changes meanwhile holds for it too, also with another program.
            lab.host.apply(set_program(other_program()))
            lab.site.lists(name="other", deny="203.0.113.77")
            traffic.more()
        with elsewhere.entered():
            move("b", home)
        traffic.more()
        with home.entered():
            assert lab.site.verdict("203.0.113.77", "b") == XDP_DROP
            boot("b")(lab)
            lab.check(*NAMES)
        assert not any(traffic.passed[device, DENIED] for device in lab.indexes)
    finally:
        traffic.stop()


@pytest.mark.parametrize("is_same", [True, False], ids=["same index", "other index"])
@pytest.mark.parametrize("command", [attach("b"), boot("b"), repair, declare(*NAMES)])
def test_a_name_taken_while_its_device_is_away(
    lab: Lab, elsewhere: Namespace, command: Callable[[Lab], object], is_same: bool
) -> None:
    """The new device may even get the index of the device that is away."""
    with lab.site.wire.host.entered():
        move("b", elsewhere)
        index = f"index {lab.indexes['d1']}" if is_same else ""
        ip(f"link add name b {index} type veth peer name other-b netns {lab.site.wire.peer.path}")
        assert "b is not filtered" in lab.host.verify()
        command(lab)
        lab.host.attach("a")
        lab.check(*NAMES)


def test_links_of_two_devices_with_the_same_index(lab: Lab, elsewhere: Namespace) -> None:
    """Which of the two links is on the device here is not known, so both stay."""
    with lab.site.wire.host.entered():
        move("b", elsewhere)
        ip(
            f"link add name x index {lab.indexes['d1']} type veth peer name other-x "
            f"netns {lab.site.wire.peer.path}"
        )
        lab.host.attach("x")
        lab.host.attach("a")
        assert lab.host.pins.interfaces() == ["a", "b", "c", "x"]
        assert is_filtered("x")
        lab.host.detach("x")
        assert not is_filtered("x")
        assert lab.host.pins.interfaces() == ["a", "b", "c"]
        ip("link delete dev x")
        with elsewhere.entered():
            assert is_filtered("b")
            move("b", lab.site.wire.host)
        repair(lab)
        lab.check(*NAMES)
