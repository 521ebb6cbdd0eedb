# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No denied packet passes, during any change under a flood, and wherever a change dies."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel.dying import count_steps, killed_after, killed_at
from kernel.flood import Flood, Tap, flooded, send, tapped
from kernel.hosting import (
    DENIED,
    FULL,
    UNLISTED,
    XDP_DROP,
    XDP_PASS,
    Site,
    other_program,
    source_text,
    wait_gone,
)

from packetwatch_core._active.build import build
from packetwatch_core._active.generation import Image
from packetwatch_core._active.lists import compile_lists
from packetwatch_core._active.loaded import Loaded
from packetwatch_core._base.errors import LoadFailed
from packetwatch_core._declared.edits import set_lists
from packetwatch_core._declared.policy import resolve_policies
from packetwatch_core._declared.store import State
from packetwatch_core._kernel.programs import attached

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

SWAPS = 100
CHANGES = 100 if FULL else 20
RELOADS = 100 if FULL else 4
CROSSINGS = 20 if FULL else 4
CRASHES = 40 if FULL else 9
MANY = "".join(f"10.{i >> 8}.{i & 255}.{i * 7 & 255}\n" for i in range(60_000))


@pytest.fixture(params=["native", "generic"])
def flood(filtered: Site, request: pytest.FixtureRequest) -> Iterator[Flood]:
    """A flood from `DENIED`; none of its packets may pass while the test runs."""
    if request.param != "native":
        filtered.host.attach("pw0", request.param)
    with tapped(DENIED) as tap:
        with flooded(filtered, DENIED) as found:
            yield found
        assert tap.leaked() == 0
    packets = filtered.packets()
    assert set(packets) == {"drop deny"}
    assert packets["drop deny"] >= found.seen()


only_native = pytest.mark.parametrize("flood", ["native"], indirect=True)


# Under a flood


@pytest.mark.slow(12)
def test_lists(filtered: Site, flood: Flood) -> None:
    texts = (DENIED, f"198.51.100.0/24\n{UNLISTED}", f"198.0.0.0/8\n2001:db8::/32\n{DENIED}")
    seen = set()
    swaps = SWAPS if FULL or flood.native else CHANGES
    for number in range(swaps):
        assert filtered.lists(texts[number % 3], allow=f"10.0.0.{number}").changed
        seen.add(filtered.generation_id())
    assert len(seen) == swaps


@pytest.mark.slow(12)
@only_native
def test_policies(filtered: Site, flood: Flood) -> None:
    for number in range(CHANGES):
        assert filtered.policy("pw0", scan_ports=str(number % 60 + 2)).changed


@pytest.mark.slow(12)
@only_native
def test_programs(filtered: Site, flood: Flood) -> None:
    texts = (other_program(), source_text())
    ids = set()
    for number in range(RELOADS):
        assert filtered.host.attach("pw0", source=texts[number % 2]).changed
        ids.add(attached(socket.if_nametoindex("pw0")).program_id)
    assert len(ids) == RELOADS


@pytest.mark.slow(12)
@only_native
def test_capacity(filtered: Site, flood: Flood) -> None:
    programs = set()
    for number in range(CROSSINGS):
        assert filtered.lists(DENIED + ("\n" + MANY if number % 2 == 0 else "")).changed
        programs.add(attached(socket.if_nametoindex("pw0")).program_id)
    assert len(programs) == CROSSINGS


@only_native
def test_second_interface_comes_and_goes(filtered: Site, flood: Flood) -> None:
    filtered.wire.add("pw1")
    for dummy in range(RELOADS // 2):
        assert filtered.host.attach("pw1").changed
        assert filtered.host.detach("pw1").changed


def test_a_gap_would_be_seen(filtered: Site) -> None:
    with tapped(DENIED) as tap, flooded(filtered, DENIED) as flood:
        filtered.lists()
        flood.wait_more(100)
        filtered.lists(DENIED)
        assert tap.leaked() > 0


# A deliberately slowed program

FIRST, SECOND = "192.0.2.100", "192.0.2.200"
PROBE = """
/* Exactly one of both addresses is denied in each generation. */
static __always_inline void pw_probe(struct pw_counters *counters, void *tables,
        struct pw_header *header)
{
    __u64 before = *(volatile __u64 *)header->lists;
    __u32 first = pw_lists4(tables, header, 0xc0000264);
    __u64 sum = 0;
#pragma clang loop unroll(disable)
    for (int i = 0; i < 1000; i++)
        sum += bpf_ktime_get_ns();
    struct pw_header *later = pw_page_at(tables, 0);
    void *live = generation_get();
    struct pw_header *newer = live ? pw_page_at(live, 0) : 0;
    if (!later || !newer)
        return;
    __u32 second = pw_lists4(tables, later, 0xc00002c8);
    if (before != *(volatile __u64 *)later->lists || first == second || !sum)
        __sync_fetch_and_add(&counters->tracks_failed, 1);
    if (before != *(volatile __u64 *)newer->lists)
        __sync_fetch_and_add(&counters->bans_failed, 1);
}

PW_SECTION("xdp.frags")
"""
MIXED, OVERTAKEN = "tracks_failed", "bans_failed"


def slowed_program() -> str:
    """A program that waits between two lookups, and counts the verdicts."""
    return source_text(
        ('PW_SECTION("xdp.frags")\n', PROBE),
        (
            "\tstruct pw_cursor cursor = {\n",
            "\tpw_probe(counters, tables, header);\n\tstruct pw_cursor cursor = {\n",
        ),
    )


@pytest.mark.slow(12)
def test_no_packet_sees_two_generations(filtered: Site) -> None:
    filtered.host.attach("pw0", source=slowed_program())
    swaps, overtaken = (1000, 50) if FULL else (100, 20)
    images = [two_faced(filtered, address) for address in (FIRST, SECOND)]
    go_live(filtered, images[0])
    before = filtered.host.info({"counters"})["counters"]
    deadline = time.monotonic() + 200
    done = seen = 0
    with flooded(filtered, DENIED):
        while done < swaps or seen < overtaken:
            assert time.monotonic() < deadline, f"only {seen} packets were overtaken"
            for image in reversed(images):
                go_live(filtered, image)
                done += 1
            now = filtered.host.info({"counters"})["counters"]
            seen = now[OVERTAKEN] - before[OVERTAKEN]
    assert filtered.host.info({"counters"})["counters"][MIXED] == before[MIXED]


def two_faced(site: Site, address: str) -> Image:
    """Return a generation that denies one of the two addresses."""
    areas = compile_lists(State(deny={"ansible": f"{address}\n{DENIED}\n"})).areas
    with Loaded(site.host.pins) as loaded:
        with loaded.generation() as current:
            code = current.header["bytecode"]
        return build(areas, resolve_policies({}), loaded.ifindexes, code)


def go_live(site: Site, image: Image) -> None:
    def refuse() -> None:
        pytest.fail("the program must not be loaded anew")

    # A change keeps what it replaces open, for a revert.
    with Loaded(site.host.pins) as loaded:
        loaded.replace(image, refuse)  # type: ignore[arg-type]


# Failed replacements

BROKEN = {
    "syntax": (
        (
            "int packetwatch(struct xdp_md *context)\n{",
            "int packetwatch(struct xdp_md *context)\n{{",
        ),
        r"does not compile: .*error: ",
    ),
    "name": (
        ("counters_get();\n\tif (!counters", "counters_gone();\n\tif (!counters"),
        r"does not compile: .*counters_gone",
    ),
    "verifier": (
        ("\tvoid *tables = generation_get();", "\tvoid *tables = *(void **)(long)context->data;"),
        r"the kernel refused the program \(Permission denied\): .*invalid access to packet",
    ),
    "map": (
        (
            "BPF_RINGBUF_OUTPUT(events, 1);",
            "BPF_RINGBUF_OUTPUT(events, 1);\nBPF_ARRAY(mine, u64, 1);",
        ),
        r"uses a map 'mine' that Packetwatch does not make; use the maps of maps_bcc.h",
    ),
}
USE_OF_MINE = (
    "\tstruct pw_counters *counters = counters_get();\n\tif",
    "\tint key = 0;\n\tif (!mine.lookup(&key))\n\t\treturn XDP_DROP;\n"
    "\tstruct pw_counters *counters = counters_get();\n\tif",
)


@pytest.mark.slow(12)
@pytest.mark.parametrize("fault", BROKEN)
def test_broken_program_leaves_the_old_one(filtered: Site, fault: str) -> None:
    change, message = BROKEN[fault]
    text = source_text(change, USE_OF_MINE) if fault == "map" else source_text(change)
    before = filtered.snapshot()
    with pytest.raises(LoadFailed, match=f"(?s){message}"):
        filtered.host.attach("pw0", source=text)
    assert filtered.snapshot() == before
    with tapped(DENIED) as tap:
        send(filtered, DENIED, 10)
        assert tap.leaked() == 0


@pytest.mark.slow(12)
def test_broken_program_as_the_first_leaves_nothing(site: Site) -> None:
    before = site.snapshot()
    with pytest.raises(LoadFailed):
        site.host.attach("pw0", source=source_text(BROKEN["verifier"][0]))
    assert site.snapshot() == before
    assert not Path(site.paths.bpffs).exists()


# Crashes


class Crash:
    """A change that child processes begin again and again, and the checks after each death."""

    def __init__(self, site: Site, tap: Tap, attached_before: bool = True) -> None:
        self.site = site
        self.tap = tap
        self._attached_before = attached_before
        self._pins: set[str] = set()

    def check(self, states: list[State], repair: Callable[[], object]) -> None:
        """Check, after the child's death, that `DENIED` is still dropped, and that a repair succeeds."""
        if self._attached_before or attached(socket.if_nametoindex("pw0")).program_id:
            assert self.site.verdict(DENIED) == XDP_DROP
            send(self.site, DENIED, 3)
            assert self.tap.leaked(0.001) == 0
        assert self.site.host.store.read_current()[1] in states
        repair()
        assert self.site.verdict(DENIED) == XDP_DROP
        assert self.site.verdict("203.0.113.200") == XDP_PASS
        assert not self.site.host.apply().changed
        assert not self.site.host.attach("pw0").changed
        pins = {str(path) for path in Path(self.site.paths.bpffs).rglob("*")}
        self._pins = self._pins or pins
        assert pins == self._pins


def moments(steps: int, seed: int) -> list[int]:
    """Return some of the steps at which to die, others each day."""
    return sorted(random.Random(seed).sample(range(1, steps + 1), min(CRASHES, steps)))


def state_after(site: Site, **lists: str) -> State:
    """Return the state that would result from declaring these lists."""
    return set_lists("ansible", {"allow": "", "deny": lists["deny"]}, True)(
        site.host.store.read_current()[1]
    )


@pytest.mark.slow(12)
@pytest.mark.parametrize("texts", [(DENIED, "198.51.100.0/24"), (DENIED, f"{DENIED}\n{MANY}")])
def test_death_during_apply(filtered: Site, texts: tuple[str, str]) -> None:
    seed = int(time.time() / 86400)
    states = [state_after(filtered, deny=text) for text in texts]

    def declare(text: str) -> Callable[[], object]:
        return lambda: filtered.lists(text)

    with tapped(DENIED) as tap:
        crash = Crash(filtered, tap)
        steps = count_steps(declare(texts[1]))
        for step in moments(steps, seed):
            now = filtered.host.store.read_current()[1]
            following = texts[1] if now == states[0] else texts[0]
            killed_at(step, declare(following))
            crash.check(states, filtered.host.apply)


@pytest.mark.slow(12)
def test_death_during_replace(filtered: Site) -> None:
    seed = int(time.time() / 86400)
    texts = [source_text(), other_program()]
    for text in reversed(texts):
        filtered.host.attach("pw0", source=text)
    state = filtered.host.store.read_current()[1]
    states = [state._replace(program=text) for text in texts]

    def replace(text: str) -> Callable[[], object]:
        return lambda: filtered.host.attach("pw0", source=text)

    with tapped(DENIED) as tap:
        crash = Crash(filtered, tap)
        for step in moments(count_steps(replace(texts[1])), seed):
            now = filtered.host.store.read_current()[1].program
            assert now in texts
            killed_at(step, replace(texts[1] if now == texts[0] else texts[0]))
            crash.check(states, lambda: filtered.host.attach("pw0"))


@pytest.mark.slow(12)
def test_death_during_the_first_attach(site: Site) -> None:
    seed = int(time.time() / 86400)
    site.lists(DENIED)
    before = site.host.store.read_current()[1]

    def attach() -> object:
        return site.host.attach("pw0")

    attach()
    after = site.host.store.read_current()[1]
    site.host.detach("pw0")
    with tapped(DENIED) as tap:
        crash = Crash(site, tap, attached_before=False)
        steps = count_steps(attach)
        site.host.detach("pw0")
        for step in moments(steps, seed):
            killed_at(step, attach)
            crash.check([before, before._replace(program=after.program), after], attach)
            objects = site.objects()
            site.host.detach("pw0")
            assert not Path(site.paths.bpffs).exists()
            wait_gone(objects)


@pytest.mark.skipif(not FULL, reason="takes a minute: PACKETWATCH_FULL=1")
def test_death_at_any_time(filtered: Site) -> None:
    texts = (DENIED, f"{DENIED}\n{MANY}")
    states = [state_after(filtered, deny=text) for text in texts]
    started = time.monotonic()
    filtered.lists(texts[1])
    duration = time.monotonic() - started
    deaths = 0
    with tapped(DENIED) as tap:
        crash = Crash(filtered, tap)
        for number in range(100):
            text = texts[number % 2]
            seconds = random.uniform(0, duration * 1.2)
            if killed_after(seconds, lambda text=text: filtered.lists(text)):  # type: ignore
                deaths += 1
            else:
                # The machine may have had other work before.
                duration = min(duration, seconds)
            crash.check(states, filtered.host.apply)
    assert deaths > 20
