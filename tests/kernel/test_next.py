# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The next program of an interface: packets that we pass meet it, and nothing about it stops the filter."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel.flood import Flood, Tap, flooded, tapped
from kernel.hosting import (
    BPFFS,
    DENIED,
    FULL,
    UNLISTED,
    XDP_DROP,
    XDP_PASS,
    Namespace,
    Site,
    ip,
    other_program,
    packet,
    run,
    source_text,
    wait_gone,
)
from kernel.timers import Timers

from packetwatch_core._base.errors import InvalidInput, LoadFailed
from packetwatch_core._change.pending import Terms
from packetwatch_core._declared import edits
from packetwatch_core._declared.nexts import Next
from packetwatch_core._host.boot import filter_interface
from packetwatch_core._host.heal import heal
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.bytecode import NEXT_FUNCTION, Compiler
from packetwatch_core._kernel.libbpf import ARRAY, Map, library
from packetwatch_core._kernel.nexts import load_compiled
from packetwatch_core._kernel.programs import Program

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

ALLOWED = "192.0.2.77"
MINUTE = Terms(60, "", "a test")
DROPS = bytes.fromhex("b7000000010000009500000000000000")
PASSES = bytes.fromhex("b7000000020000009500000000000000")
CHANGES = 100 if FULL else 20
# Seconds between two bursts of a flood, which the changes need of the processors.
PAUSE = 0.005
# Counts the packets of `DENIED` in seen[1], and all other packets in seen[0].
COUNTS = """
#include <uapi/linux/bpf.h>
#include "source.h"
BPF_ARRAY(seen, u64, 2);
int next(struct xdp_md *context)
{
    u32 source, which = 0;
    if (bpf_xdp_load_bytes_or_zero(context, &source))
        return VERDICT;
    if (source == bpf_htonl(0xc6336407))
        which = 1;
    u64 *count = seen.lookup(&which);
    if (count)
        __sync_fetch_and_add(count, 1);
    return VERDICT;
}
"""
READ = """
static inline int bpf_xdp_load_bytes_or_zero(struct xdp_md *context, u32 *source)
{
    void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
    if (data + 30 > end)
        return 1;
    *source = *(u32 *)(data + 26);
    return 0;
}
"""


def counting(verdict: str = "XDP_PASS", seed: int = 0) -> str:
    """Return the source of a program that counts packets. seed: makes another program of it."""
    text = COUNTS.replace('#include "source.h"\n', READ).replace("VERDICT", verdict)
    return f"{text}/* {seed} */\n"


@pytest.fixture
def pin() -> Iterator[Path]:
    path = BPFFS / f"pwtest-{os.getpid()}-next"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def host(standing: Site) -> Iterator[Site]:
    """A filtered host; at the test's end nothing has a next program."""
    with standing.wire.host.entered():
        standing.lists(DENIED, ALLOWED)
        yield standing
        standing.host.attach("pw0", following=None)
        assert standing.verdict(UNLISTED) == XDP_PASS
        assert standing.verdict(DENIED) == XDP_DROP
        assert heal(standing.host).left == []


def pinned(path: Path, code: bytes = DROPS) -> int:
    """Pin a program, as another tool does; return its id."""
    path.unlink(missing_ok=True)
    with Program.load(code, "other") as program:
        program.pin(str(path))
        return program.info().id


def follow(site: Site, item: Next | None, interface: str = "pw0") -> tuple[str, ...]:
    """Declare a next program; return the problems of the change."""
    return site.host.attach(interface, following=item).problems


def verdicts(site: Site) -> tuple[int, int, int]:
    return site.verdict(UNLISTED), site.verdict(ALLOWED), site.verdict(DENIED)


def chain(site: Site, interface: str = "pw0") -> list[dict[str, object]]:
    found: list[dict[str, object]] = site.host.info({"interfaces"})["interfaces"][interface][
        "chain"
    ]
    return found


def reported(site: Site) -> str:
    """What root and, by root's note, the agent report of the next program of pw0."""
    problems = " ".join(site.host.verify())
    noted = site.host.status.read()["nexts"]["pw0"]
    assert noted in problems
    return str(noted)


def seen(program: Program) -> list[int]:
    """The counters of a program of `counting`: other packets, packets of `DENIED`."""
    for number in program.info().map_ids:
        with Map.by_id(number) as found:
            if found.info.name == "seen":
                values = [found.lookup(index.to_bytes(4, "little")) for index in range(2)]
                return [int.from_bytes(value or b"", "little") for value in values]
    raise AssertionError("it has no counters")


def next_of(site: Site) -> Program:
    number = chain(site)[1]["id"]
    assert isinstance(number, int)
    return Program.by_id(number)


# What meets it


def test_what_passes_meets_it_and_what_is_dropped_does_not(host: Site) -> None:
    assert follow(host, Next(source=counting("XDP_DROP"))) == ()
    assert verdicts(host) == (XDP_DROP, XDP_DROP, XDP_DROP)
    with next_of(host) as program:
        assert seen(program) == [2, 0]


def test_each_way_to_pass_leads_to_it(host: Site, pin: Path) -> None:
    pinned(pin)
    follow(host, Next(path=str(pin)))
    index = socket.if_nametoindex("pw0")
    plain = packet(UNLISTED)
    other = plain[:12] + b"\x08\x06" + plain[14:]
    short = plain[:20]
    with host.program() as program:
        for frame in (plain, other, short, plain[:12] + b"\x86\xdd" + plain[14:]):
            assert program.test_run(frame, index)[0] == XDP_DROP
    host.policy(action="monitor")
    try:
        assert host.verdict(DENIED) == XDP_DROP
        host.policy(action="off")
        assert host.verdict(DENIED) == XDP_DROP
        assert follow(host, None) == ()
        assert host.verdict(DENIED) == XDP_PASS
    finally:
        host.policy(action="enforce")


def test_two_interfaces_have_their_own(host: Site, pin: Path) -> None:
    host.wire.add("pw1")
    try:
        pinned(pin)
        host.host.attach("pw1", following=Next(path=str(pin)))
        assert (host.verdict(UNLISTED), host.verdict(UNLISTED, "pw1")) == (XDP_PASS, XDP_DROP)
        follow(host, Next(source=counting()))
        assert (host.verdict(UNLISTED), host.verdict(UNLISTED, "pw1")) == (XDP_PASS, XDP_DROP)
        with next_of(host) as program:
            assert seen(program) == [1, 0]
    finally:
        host.host.detach("pw1")
        host.wire.remove("pw1")
    assert "pw1" not in host.host.store.read_current()[1].next


def test_the_chain_is_shown_in_order(host: Site, pin: Path) -> None:
    assert [member["kind"] for member in chain(host)] == ["packetwatch"]
    number = pinned(pin)
    follow(host, Next(path=str(pin)))
    ours, other = chain(host)
    with host.program() as program:
        assert (ours["id"], ours["tag"]) == (program.info().id, program.info().tag)
    assert ours["passes_on"] == ["pass"]
    assert other["passes_on"] == []
    assert (other["id"], other["name"], other["origin"]) == (number, "other", str(pin))
    assert host.host.status.read()["chains"]["pw0"] == [ours, other]


# What cannot be next


def test_a_pin_that_is_missing_is_reported_and_later_taken(host: Site, pin: Path) -> None:
    (problem,) = follow(host, Next(path=str(pin)))
    assert f"nothing is pinned at {pin}" in problem
    assert verdicts(host) == (XDP_PASS, XDP_PASS, XDP_DROP)
    assert reported(host) == problem.partition("pw0: ")[2]
    assert heal(host.host).left == []
    pinned(pin)
    (drift,) = host.host.drift()
    assert "the next program of pw0 is not as declared" in drift
    assert heal(host.host).left == []
    assert verdicts(host) == (XDP_DROP, XDP_DROP, XDP_DROP)
    assert reported(host) == ""


def test_a_pin_that_goes_leaves_the_program_where_it_is(host: Site, pin: Path) -> None:
    pinned(pin)
    follow(host, Next(path=str(pin)))
    pin.unlink()
    assert "nothing is pinned" in reported(host)
    host.lists(f"{DENIED}\n203.0.113.200", ALLOWED)
    host.host.apply()
    assert verdicts(host) == (XDP_DROP, XDP_DROP, XDP_DROP)
    other = Path(f"{pin}-other")
    assert follow(host, Next(path=str(other)))
    assert verdicts(host) == (XDP_PASS, XDP_PASS, XDP_DROP)


def test_another_program_at_the_pin_is_drift(host: Site, pin: Path) -> None:
    pinned(pin, PASSES)
    follow(host, Next(path=str(pin)))
    number = pinned(pin)
    assert verdicts(host)[0] == XDP_PASS
    assert heal(host.host).left == []
    assert chain(host)[1]["id"] == number
    assert verdicts(host)[0] == XDP_DROP


def without_frags(path: Path) -> None:
    _load(path, 6)


def socket_filter(path: Path) -> None:
    _load(path, 1)


def _load(path: Path, kind: int) -> None:
    """Load a program without options, which Packetwatch itself never does."""
    size = ctypes.c_size_t(len(PASSES) // 8)
    fd = library().bpf_prog_load(kind, b"plain", b"GPL", PASSES, size, None)
    assert fd > 0
    with Program(fd) as program:
        program.pin(str(path))


def a_map(path: Path) -> None:
    with Map.create(ARRAY, "no_program", 4, 4, 1) as found:
        found.pin(str(path))


UNSUITABLE: dict[Callable[[Path], None], str] = {
    without_frags: "loaded without BPF_F_XDP_HAS_FRAGS",
    socket_filter: "it is not an XDP program, but of type 1",
    a_map: "cannot be next",
}


@pytest.mark.parametrize("make", UNSUITABLE, ids=lambda make: make.__name__)
def test_what_is_unsuitable_is_named(host: Site, pin: Path, make: Callable[[Path], None]) -> None:
    make(pin)
    (problem,) = follow(host, Next(path=str(pin)))
    assert UNSUITABLE[make] in problem
    assert verdicts(host) == (XDP_PASS, XDP_PASS, XDP_DROP)
    assert UNSUITABLE[make] in reported(host)
    assert host.host.drift() == []


def test_our_own_program_is_refused(host: Site) -> None:
    (problem,) = follow(host, Next(path=host.host.pins.program))
    assert "it is Packetwatch's own" in problem
    assert verdicts(host) == (XDP_PASS, XDP_PASS, XDP_DROP)


def test_interfaces_that_share_a_place(host: Site, pin: Path) -> None:
    other = socket.if_nametoindex("pw0") + abi.NEXT_SLOTS
    ip(f"link add pw1 index {other} type veth peer name pw1-peer")
    try:
        host.host.attach("pw1")
        pinned(pin)
        (problem,) = follow(host, Next(path=str(pin)))
        assert f"and {other} share a place" in problem
        assert (host.verdict(UNLISTED), host.verdict(UNLISTED, "pw1")) == (XDP_PASS, XDP_PASS)
        host.host.detach("pw1")
        host.host.apply()
        assert host.verdict(UNLISTED) == XDP_DROP
    finally:
        ip("link delete pw1")


WRONG = {
    "int other(struct xdp_md *context) { return 2; }": "no function named next",
    "#include <uapi/linux/bpf.h>\nint next(struct xdp_md *context) { return miss; }": "does not compile",
    "#include <uapi/linux/bpf.h>\nint next(struct xdp_md *context) { return *(int *)8; }": "refused",
}


@pytest.mark.parametrize("source", WRONG, ids=list(WRONG.values()))
def test_a_wrong_source_is_refused_and_changes_nothing(
    host: Site, tmp_path: Path, source: str
) -> None:
    from packetwatch_core._declared.nexts import declared_next

    follow(host, Next(source=counting()))
    before = host.snapshot(), chain(host)
    file = tmp_path / "next.c"
    file.write_text(source)
    with pytest.raises((InvalidInput, LoadFailed), match=WRONG[source]):
        follow(host, declared_next(None, str(file)))
    assert (host.snapshot(), chain(host)) == before


def test_a_path_that_cannot_be_a_pin() -> None:
    from packetwatch_core._declared.nexts import check_path

    for path in ("", "balancer", "a/b", "/sys/fs/bpf/a\nb"):
        with pytest.raises(InvalidInput, match="absolute path"):
            check_path(path)


@pytest.mark.slow
def test_a_program_of_ones_own_that_calls_nothing(host: Site, pin: Path) -> None:
    pinned(pin)
    deaf = source_text(
        ("nexts_call(context, context->ingress_ifindex % PW_NEXT_SLOTS);", "return XDP_PASS;")
    )
    host.host.attach("pw0", source=deaf)
    try:
        (problem,) = follow(host, Next(path=str(pin)))
        assert "calls no next program" in problem
        assert verdicts(host) == (XDP_PASS, XDP_PASS, XDP_DROP)
        assert "calls no next program" in reported(host)
    finally:
        assert host.host.attach("pw0", source=source_text()).problems == ()
    assert verdicts(host) == (XDP_DROP, XDP_DROP, XDP_DROP)


# Changes


def test_check_mode_changes_nothing_and_says_what_would_change(host: Site, pin: Path) -> None:
    pinned(pin)
    before = host.snapshot()
    item = Next(path=str(pin))
    found = host.host.attach("pw0", following=item, check=True)
    assert (found.changed, found.before, found.after) == (
        True,
        "pw0: native\nnext program: none\n",
        f"pw0: native\nnext program: {pin}\n",
    )
    assert host.snapshot() == before
    assert host.host.attach("pw0", following=item).changed
    assert not host.host.attach("pw0", following=item).changed
    assert not host.host.attach("pw0").changed


@pytest.mark.parametrize("former", [None, "XDP_PASS"], ids=["none", "another"])
def test_a_change_that_is_not_confirmed_is_reverted(
    host: Site, pin: Path, former: str | None
) -> None:
    follow(host, Next(source=counting(former)) if former else None)
    before = chain(host)
    pinned(pin)
    with timers(host) as found:
        done = found.host.attach("pw0", following=Next(path=str(pin)), terms=MINUTE)
        assert done.pending is not None
        assert host.verdict(UNLISTED) == XDP_DROP
        assert found.host.roll_back(done.pending.token).changed
        assert not found.compilers
    assert host.verdict(UNLISTED) == XDP_PASS
    assert chain(host) == before
    assert host.host.verify() == []


def test_a_confirmed_change_stays(host: Site, pin: Path) -> None:
    pinned(pin)
    with timers(host) as found:
        done = found.host.attach("pw0", following=Next(path=str(pin)), terms=MINUTE)
        assert done.pending is not None
        found.host.confirm(done.pending.token)
    assert host.verdict(UNLISTED) == XDP_DROP
    assert host.host.verify() == []


def test_the_self_test_meets_it_too(host: Site, pin: Path) -> None:
    pinned(pin)
    host.settings(PW_PROTECT=ALLOWED)
    try:
        with timers(host) as found:
            done = found.host.attach("pw0", following=Next(path=str(pin)), terms=MINUTE)
            assert done.pending is not None
            with pytest.raises(LoadFailed, match=f"{ALLOWED} on pw0"):
                found.host.self_test(done.pending.token)
        assert host.verdict(ALLOWED) == XDP_PASS
    finally:
        Path(host.paths.settings).unlink()


def test_a_rollback_brings_the_former_one_back(host: Site, pin: Path) -> None:
    follow(host, Next(source=counting()))
    before = chain(host)
    pinned(pin)
    follow(host, Next(path=str(pin)))
    assert host.host.apply(edits.roll_back(host.host.store)).changed
    assert host.verdict(UNLISTED) == XDP_PASS
    assert [member["origin"] for member in chain(host)] == [member["origin"] for member in before]


@contextlib.contextmanager
def timers(site: Site) -> Iterator[Timers]:
    import shutil

    try:
        yield Timers(site)
    finally:
        for folder in (site.paths.runtime, site.paths.units):
            shutil.rmtree(folder)


# Boot, repair, panic, removal


def reboot(site: Site) -> str:
    """Reboot, and filter with the boot image, without a compiler; return what the boot reports."""
    site.power_off()
    Path(site.paths.status).unlink(missing_ok=True)

    def refuse(argv: object, stdin: object) -> tuple[int, str, str]:
        raise AssertionError(argv)

    return filter_interface(refuse, site.paths, "pw0", 1.0).problem


def test_a_boot_restores_it_before_the_first_packet(host: Site) -> None:
    follow(host, Next(source=counting("XDP_DROP")))
    assert reboot(host) == ""
    assert verdicts(host) == (XDP_DROP, XDP_DROP, XDP_DROP)
    with next_of(host) as program:
        assert seen(program) == [2, 0]
    assert reported(host) == ""


def test_a_boot_without_it_filters_and_reports(host: Site, pin: Path) -> None:
    pinned(pin)
    follow(host, Next(path=str(pin)))
    pin.unlink()
    assert reboot(host) == ""
    assert verdicts(host) == (XDP_PASS, XDP_PASS, XDP_DROP)
    assert f"nothing is pinned at {pin}" in host.host.status.read()["nexts"]["pw0"]
    pinned(pin)
    host.host.apply()
    assert verdicts(host) == (XDP_DROP, XDP_DROP, XDP_DROP)


def test_an_emptied_place_is_filled_again(host: Site) -> None:
    follow(host, Next(source=counting("XDP_DROP")))
    place = socket.if_nametoindex("pw0") % abi.NEXT_SLOTS
    with Map.open(host.host.pins.map("nexts")) as array:
        assert array.delete(place.to_bytes(4, "little"))
    assert host.verdict(UNLISTED) == XDP_PASS
    repair = heal(host.host)
    assert "the next program of pw0 is not as declared" in repair.found[0]
    assert repair.left == []
    assert host.verdict(UNLISTED) == XDP_DROP


def test_a_panic_ends_it_and_its_end_brings_it_back(host: Site) -> None:
    follow(host, Next(source=counting("XDP_DROP")))
    host.host.panic("a test")
    assert chain(host) == []
    host.host.lift()
    assert verdicts(host) == (XDP_DROP, XDP_DROP, XDP_DROP)


def test_a_device_that_was_in_another_namespace_gets_it_back(host: Site) -> None:
    follow(host, Next(source=counting("XDP_DROP")))
    elsewhere = Namespace()
    ip(f"link set dev pw0 netns {elsewhere.path}")
    try:
        assert heal(host.host).left == []
    finally:
        with elsewhere.entered():
            ip(f"link set dev pw0 netns {host.wire.host.path}")
        elsewhere.close()
        ip("link set dev pw0 up")
    assert heal(host.host).left == []
    assert verdicts(host) == (XDP_DROP, XDP_DROP, XDP_DROP)
    assert reported(host) == ""


def test_nothing_is_left_when_the_last_interface_is_detached(host: Site) -> None:
    follow(host, Next(source=counting()))
    with next_of(host) as program:
        number = program.info().id
    host.host.detach("pw0")
    try:
        assert not Path(host.paths.bpffs).exists()
        assert not host.host.store.read_current()[1].next
        wait_gone({("program", number)})
    finally:
        host.host.attach("pw0")
        host.lists(DENIED, ALLOWED)


# Under a flood


@contextlib.contextmanager
def two_floods(site: Site) -> Iterator[tuple[Flood, Tap]]:
    """Floods of `DENIED` and of `UNLISTED`, and what receives packets of the first that pass."""
    with (
        tapped(DENIED) as tap,
        flooded(site, DENIED, pause=PAUSE) as flood,
        flooded(site, UNLISTED, pause=PAUSE),
    ):
        yield flood, tap


def programs(site: Site, count: int) -> list[Program]:
    compiler = Compiler(run, site.paths.cache, NEXT_FUNCTION)
    return [load_compiled(compiler.get(counting(seed=number))) for number in range(count)]


@pytest.mark.slow
def test_no_denied_packet_passes_while_the_chain_changes(filtered: Site, pin: Path) -> None:
    found = programs(filtered, 2)
    paths = [Path(f"{pin}-{number}") for number in range(2)]
    for path, program in zip(paths, found, strict=True):
        path.unlink(missing_ok=True)
        program.pin(str(path))
    texts = (other_program(), source_text())
    try:
        with two_floods(filtered) as (dummy, tap):
            for number in range(CHANGES):
                step = number % 4
                if step == 3:
                    filtered.host.attach("pw0", source=texts[number // 4 % 2])
                else:
                    item = Next(path=str(paths[step])) if step < 2 else None
                    assert filtered.host.attach("pw0", following=item).changed
            assert tap.leaked() == 0
        counts = [seen(program) for program in found]
        assert all(count[0] > 0 and count[1] == 0 for count in counts), counts
    finally:
        for path in paths:
            path.unlink()


@pytest.mark.slow
def test_no_packet_is_lost_between_us_and_the_next_program(filtered: Site, pin: Path) -> None:
    found = programs(filtered, 2)
    paths = [Path(f"{pin}-{number}") for number in range(2)]
    for path, program in zip(paths, found, strict=True):
        path.unlink(missing_ok=True)
        program.pin(str(path))
    texts = (other_program(), source_text())
    follow(filtered, Next(path=str(paths[0])))
    before = filtered.packets().get("pass unlisted", 0)
    assert [seen(program)[0] for program in found] == [before, 0] or before == 0
    # Which of the programs each path holds.
    held = [0, 1]
    try:
        with two_floods(filtered) as (dummy, tap):
            for number in range(CHANGES):
                step, now = number % 4, number // 4 % 2
                if step == 3:
                    filtered.host.attach("pw0", source=texts[now])
                elif step == 2:
                    filtered.lists(f"{DENIED}\n10.0.0.{number}")
                elif step == 1:
                    # The neighbour's tool replaces its program, and its unit calls `packetwatchctl apply`.
                    held[1 - now] ^= 1
                    paths[1 - now].unlink()
                    found[held[1 - now]].pin(str(paths[1 - now]))
                    filtered.host.apply()
                else:
                    follow(filtered, Next(path=str(paths[1 - now])))
            assert tap.leaked() == 0
        passed = filtered.packets()["pass unlisted"] - before
        counts = [seen(program) for program in found]
        assert passed > 1000
        assert sum(count[0] for count in counts) == passed, counts
        assert all(count[0] for count in counts), counts
        assert [count[1] for count in counts] == [0, 0]
    finally:
        for path in paths:
            path.unlink()
