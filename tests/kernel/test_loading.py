# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From declared to active state: boot, expiry, plans, and the report of `info`."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel.flood import send
from kernel.hosting import (
    DENIED,
    OWN,
    UNLISTED,
    XDP_DROP,
    XDP_PASS,
    Site,
    other_program,
    run,
    source_text,
    wait,
    wait_gone,
)
from kernel.packets import syn4
from kernel.timers import Timers

from packetwatch_core._active import loaded as loaded_module
from packetwatch_core._active.loaded import Loaded
from packetwatch_core._bans.bans import Source
from packetwatch_core._base.address import mapped, parse_prefix
from packetwatch_core._base.errors import InvalidInput, PacketwatchError
from packetwatch_core._change import programs
from packetwatch_core._change.links import Wish
from packetwatch_core._change.pending import Terms
from packetwatch_core._declared import edits
from packetwatch_core._declared.edits import in_turn, set_interfaces, set_lists, set_program
from packetwatch_core._declared.store import State, Store
from packetwatch_core._host.host import Host
from packetwatch_core._kernel import abi, pins
from packetwatch_core._kernel.libbpf import Map
from packetwatch_core._kernel.pins import Spec, specs
from packetwatch_core._kernel.programs import attached
from packetwatch_core._kernel.source import BODY, PREFACE

pytest_plugins = ("kernel.site_fixtures",)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")

ALL = {"interfaces", "lists", "policy", "entries", "counters", "bans", "protected", "ranges"}


def in_seconds(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


# Boot


def test_boot_restores_what_is_confirmed(filtered: Site) -> None:
    filtered.policy("pw0", action="enforce", scan_ports="9")
    before = filtered.host.info({"lists"})["lists"]
    objects = filtered.objects()
    # A reboot removes everything from the kernel.
    filtered.power_off()
    wait(lambda: attached(socket.if_nametoindex("pw0")).mode == "none")
    wait_gone(objects)
    done = filtered.host.attach("pw0")
    assert done.mode == "native"
    assert filtered.host.info({"lists"})["lists"] == before
    assert filtered.verdict(DENIED) == XDP_DROP
    assert not filtered.lists(deny=DENIED).changed


@pytest.mark.slow(4)
def test_boot_loads_the_program_that_was_attached_last(filtered: Site) -> None:
    filtered.host.attach("pw0", source=other_program())
    with filtered.program() as program:
        tag = program.info().tag
    filtered.power_off()
    filtered.host.attach("pw0")
    with filtered.program() as program:
        assert program.info().tag == tag


# Another version of the collection: the loaded program reads another table format

_BEFORE = (
    (f"#define PW_FORMAT {abi.FORMAT} ", f"#define PW_FORMAT {abi.FORMAT - 1} "),
    ("#define PW_EXT_MAX 8\n", "#define PW_EXT_MAX 7\n"),
    # Its counters have another layout, and so another name.
    ("packets[PW_REASONS][PW_FAMILIES];", "packets[PW_REASONS + 1][PW_FAMILIES];"),
    ("struct pw_counters, counters4, 1)", "struct pw_counters, counters3, 1)"),
    ("counters4.lookup", "counters3.lookup"),
)
# Bans and tracks of this version have the same layout.
BEFORE = source_text(*_BEFORE)
FORMER = source_text(
    *_BEFORE,
    ("struct pw_firsts, firsts2, 1)", "struct pw_firsts, firsts, 1)"),
    ("firsts2.lookup", "firsts.lookup"),
    ("struct pw_track, tracks2, 1)", "struct pw_track, tracks, 1)"),
    ("return tracks2.", "return tracks."),
    ("tracks2.delete", "tracks.delete"),
)


# The first versions did not define PW_FORMAT.
SILENT = re.sub(r"#define PW_FORMAT .*\n", "", FORMER)


def specs_before() -> dict[str, Spec]:
    """Return the maps of the version before."""
    found = specs()
    spec = found.pop("counters4")
    return found | {"counters3": spec._replace(value_size=spec.value_size + 8 * len(abi.FAMILIES))}


def former_specs() -> dict[str, Spec]:
    """Return the maps of the former version, whose tracks had another layout."""
    found = specs_before()
    for name in ("firsts", "tracks"):
        found[name] = found.pop(f"{name}2")
    return found


def former_host(site: Site) -> Host:
    """Return a `Host` like those in the former version's processes: its source is installed."""
    folder = site.state.parent / "former"
    folder.mkdir(exist_ok=True)
    (folder / BODY).write_text(FORMER)
    (folder / PREFACE).write_text("")
    return Host(run, site.paths._replace(source=str(folder)))


@pytest.fixture(params=[FORMER, SILENT], ids=["says so", "does not"])
def outdated(site: Site, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A host that the former version has set up."""
    return set_up(site, monkeypatch, request.param, former_specs)


@pytest.fixture
def recent(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A host that the version before has set up."""
    return set_up(site, monkeypatch, BEFORE, specs_before)


def set_up(
    site: Site, monkeypatch: pytest.MonkeyPatch, source: str, maps: Callable[[], dict[str, Spec]]
) -> Site:
    with monkeypatch.context() as patched:
        patched.setattr(abi, "FORMAT", abi.FORMAT - 1)
        # That version read its own programs, whatever they define.
        patched.setattr(programs, "reads_ours", lambda source: True)
        for module in (programs, edits):
            patched.setattr(module, "check_format", lambda source: None)
        patched.setattr(pins, "specs", maps)
        patched.setattr(loaded_module, "specs", maps)
        site.host.attach("pw0", source=source)
        site.policy(ban_scope="all", scan_counts="any")
        site.lists(DENIED)
    return site


def live_format(site: Site) -> int:
    with Loaded(site.host.pins) as loaded, loaded.generation() as current:
        return int(current.header["format"])


@pytest.mark.slow(4)
@pytest.mark.parametrize("change", ["lists", "policy", "interface", "none"])
def test_tables_of_another_format_bring_the_program_that_reads_them(
    outdated: Site, change: str
) -> None:
    assert live_format(outdated) == abi.FORMAT - 1
    before = attached(socket.if_nametoindex("pw0")).program_id
    assert outdated.host.info(ALL)["lists"]["live"]
    if change == "lists":
        assert outdated.lists(f"{DENIED}\n203.0.113.0/24").changed
    elif change == "policy":
        assert outdated.policy(scan_ports="9").changed
    elif change == "interface":
        assert outdated.host.attach("pw0").changed
    else:
        outdated.host.apply()
    assert attached(socket.if_nametoindex("pw0")).program_id != before
    assert live_format(outdated) == abi.FORMAT
    assert outdated.verdict(DENIED) == XDP_DROP
    assert outdated.host.verify() == []
    renewed = attached(socket.if_nametoindex("pw0")).program_id
    outdated.host.apply()
    assert attached(socket.if_nametoindex("pw0")).program_id == renewed
    number = outdated.host.store.number()
    outdated.power_off()
    outdated.host.reattach("pw0")
    assert outdated.host.store.number() == number
    assert live_format(outdated) == abi.FORMAT
    assert outdated.verdict(DENIED) == XDP_DROP


@pytest.mark.slow(4)
def test_bans_survive_a_new_version_and_its_rollback(outdated: Site) -> None:
    host = Timers(outdated).host
    host.ban(UNLISTED, 600)
    assert outdated.verdict(UNLISTED) == XDP_DROP
    assert host.info({"counters"})["counters"]["packets"] == {"pass": {}, "drop": {}}
    edit = set_lists("ansible", {"allow": "", "deny": f"{DENIED}\n203.0.113.0/29"}, False)
    assert host.apply(edit, terms=Terms(60)).pending
    assert live_format(outdated) == abi.FORMAT
    assert outdated.verdict(UNLISTED) == outdated.verdict(DENIED) == XDP_DROP
    assert outdated.packets() == {"drop ban": 1, "drop deny": 1}
    host.roll_back()
    assert outdated.verdict(UNLISTED) == outdated.verdict(DENIED) == XDP_DROP
    assert outdated.packets() == {"drop ban": 2, "drop deny": 2}
    (ban,) = host.info({"bans"})["bans"]
    assert ban["dropped"] == 3
    assert host.verify() == []


def probe(site: Site, source: str, *ports: int) -> list[int]:
    """Return the verdicts on SYNs of a source."""
    with site.program() as program:
        ifindex = socket.if_nametoindex("pw0")
        return [program.test_run(syn4(source, port, OWN), ifindex)[0] for port in ports]


@pytest.mark.slow(4)
def test_live_bans_and_tracks_of_the_version_before_are_kept(recent: Site) -> None:
    """One source is banned, another one has made four probes: both go on where they were."""
    banned, probing = "203.0.113.77", UNLISTED
    assert live_format(recent) == abi.FORMAT - 1
    assert probe(recent, banned, *range(1, 7)) == [XDP_PASS] * 4 + [XDP_DROP] * 2
    assert probe(recent, probing, 1, 2, 3, 4) == [XDP_PASS] * 4
    recent.policy(scan_counts="any", ban_scope="connections")
    assert live_format(recent) == abi.FORMAT
    assert probe(recent, banned, 80) == [XDP_DROP]
    assert probe(recent, probing, 4, 1, 5, 6) == [XDP_PASS, XDP_PASS, XDP_DROP, XDP_DROP]
    assert recent.packets()["drop scan"] == 1
    bans = recent.host.info({"bans"})["bans"]
    assert {ban["source"] for ban in bans} == {banned, probing}


def former_track(*ports: int) -> bytes:
    """Return a track as that version wrote it: no destination, and the time in 48 bits."""
    now = time.monotonic_ns()
    return abi.TRACK.pack(slot=[now >> 10 << 16 | port for port in ports])


@pytest.mark.slow(4)
@pytest.mark.parametrize("place", ["run", "own"], ids=["beside the bans", "where root's maps are"])
def test_tracks_survive_a_new_version(outdated: Site, place: str) -> None:
    """A source that has tried four ports is banned at its fifth, and a port that it repeats counts once."""
    pinned = outdated.host.pins
    source = Source(128, mapped(parse_prefix(UNLISTED)))
    old, wide = Source(128, mapped(parse_prefix("203.0.113.77"))), Source(64, bytes(16))
    with Map.open(pinned.map("shared")) as shared:
        shared.update(
            bytes(4), abi.SHARED.pack(seed=7)
        )  # that version has made it with the first track
    with Map.open(pinned.map("tracks")) as tracks:
        tracks.update(source.key, former_track(1, 2, 3, 4))
        tracks.update(wide.key, former_track(5))
        tracks.update(old.key, abi.TRACK.pack(slot=[(1 << 16) | 9]))
    if place == "own":
        os.rename(pinned.map("tracks"), os.path.join(pinned.own, "tracks"))
    outdated.policy(scan_counts="any", ban_scope="connections")
    assert live_format(outdated) == abi.FORMAT
    with outdated.program() as program, Map.open(pinned.map("tracks2")) as tracks:
        assert {key for key, dummy in tracks.items()} == {source.key, wide.key, old.key}
        ifindex = socket.if_nametoindex("pw0")
        verdicts = [
            program.test_run(syn4(UNLISTED, port, OWN), ifindex)[0] for port in (4, 1, 5, 6)
        ]
    assert verdicts == [XDP_PASS, XDP_PASS, XDP_DROP, XDP_DROP]
    assert outdated.packets()["drop scan"] == 1


@pytest.mark.slow(4)
def test_until_a_program_reads_them_new_tables_are_only_declared(outdated: Site) -> None:
    """The role's order: lists are set before the software is installed."""
    host = former_host(outdated)
    before, generation = attached(socket.if_nametoindex("pw0")).program_id, outdated.generation_id()
    edit = set_lists("ansible", {"allow": "", "deny": f"{DENIED}\n{UNLISTED}"}, False)
    assert host.plan(edit).changed
    plan = host.apply(edit)
    assert plan.changed and not plan.active
    assert not host.apply(edit).changed
    assert outdated.generation_id() == generation
    assert attached(socket.if_nametoindex("pw0")).program_id == before
    assert outdated.verdict(DENIED) == XDP_DROP
    with pytest.raises(InvalidInput, match=r"another version \(its PW_FORMAT is not"):
        host.attach("pw0")
    assert outdated.policy(scan_ports="9").changed, "what is installed now brings the program"
    assert outdated.verdict(DENIED) == outdated.verdict(UNLISTED) == XDP_DROP
    assert outdated.host.verify() == []


@pytest.mark.slow(4)
def test_a_run_of_this_version_brings_program_and_tables_at_once(outdated: Site) -> None:
    host = former_host(outdated)
    number = host.store.number()
    edit = in_turn(
        set_interfaces({"pw0": "auto"}),
        set_lists("ansible", {"allow": "", "deny": f"{DENIED}\n{UNLISTED}"}, False),
        set_program(source_text()),
    )
    wish = Wish(attach=["pw0"])
    assert host.plan(edit, wish=wish).active
    done = host.apply(edit, wish=wish)
    assert done.changed and done.active
    assert live_format(outdated) == abi.FORMAT
    assert outdated.verdict(DENIED) == outdated.verdict(UNLISTED) == XDP_DROP
    assert host.store.number() == number + 1
    assert not host.apply(edit, wish=wish).changed


@pytest.mark.slow(4)
def test_a_check_compiles_nothing(outdated: Site) -> None:
    shutil.rmtree(outdated.paths.cache)
    edit = set_lists("ansible", {"allow": "", "deny": UNLISTED}, False)
    plan = outdated.host.plan(edit)
    assert plan.changed and plan.active
    assert outdated.host.attach("pw0", check=True).changed
    assert not Path(outdated.paths.cache).exists()


@pytest.mark.slow(4)
def test_a_program_of_another_version_is_refused(filtered: Site) -> None:
    before = filtered.snapshot()
    with pytest.raises(InvalidInput, match=r"another version \(its PW_FORMAT is not"):
        filtered.host.attach("pw0", source=FORMER)
    assert filtered.snapshot() == before


@pytest.mark.slow(4)
def test_boot_attaches_in_the_declared_mode(site: Site) -> None:
    site.host.attach("pw0", "generic")
    site.power_off()
    assert site.host.attach("pw0").mode == "generic"


def test_apply_before_anything_is_attached_only_declares(site: Site) -> None:
    plan = site.lists(deny=DENIED)
    assert (plan.changed, plan.active) == (True, False)
    assert not Path(site.paths.bpffs).exists()
    assert not site.lists(deny=DENIED).changed


# Expiry


@pytest.mark.slow(4)
def test_entries_expire_and_that_is_no_change(filtered: Site) -> None:
    text = f"{DENIED} expires={in_seconds(2)}\n{UNLISTED} expires={in_seconds(600)}"
    filtered.lists(deny=text)
    assert filtered.verdict(DENIED) == filtered.verdict(UNLISTED) == XDP_DROP
    wait(lambda: time.time() >= next_expiry(filtered))
    plan = filtered.lists(deny=text)
    assert not plan.changed
    assert plan.digest_after != plan.digest_before
    assert (filtered.verdict(DENIED), filtered.verdict(UNLISTED)) == (XDP_PASS, XDP_DROP)
    before = filtered.snapshot()
    assert not filtered.host.apply().changed
    assert filtered.snapshot() == before


def test_expired_entries_stay_out(filtered: Site) -> None:
    filtered.lists(deny=f"{UNLISTED} expires=2020-01-01T00:00:00Z\n{DENIED}")
    assert filtered.verdict(UNLISTED) == XDP_PASS
    assert next_expiry(filtered) == 0


def next_expiry(site: Site) -> int:
    with Map.by_id(site.generation_id()) as pages:
        return int(abi.HEADER.unpack(pages.lookup(bytes(4)) or b"")["next_expiry"])


# Plans


def test_a_plan_is_what_apply_does(filtered: Site) -> None:
    edit = set_lists("ansible", {"deny": f"{DENIED}\n{UNLISTED}"}, False)
    before = filtered.snapshot()
    plan = filtered.host.plan(edit)
    assert filtered.snapshot() == before
    assert filtered.host.apply(edit) == plan
    old, new = plan.texts()
    assert new == (f"{old}deny ansible: {UNLISTED}\n# more deny entries: 1, IPv4 addresses: 1\n")
    assert not filtered.host.plan(edit).changed


def test_confirmed_state_wins_over_a_drift_in_the_kernel(filtered: Site) -> None:
    number, state = filtered.host.store.read_current()
    store = Store(filtered.paths.state)
    with store.lock(1):
        store.confirm(store.write_candidate(state._replace(deny={"ansible": UNLISTED})))
    assert filtered.verdict(UNLISTED) == XDP_PASS
    filtered.host.attach("pw0")
    assert (filtered.verdict(UNLISTED), filtered.verdict(DENIED)) == (XDP_DROP, XDP_PASS)
    assert store.read_current()[0] == number + 1


@pytest.mark.slow(4)
def test_a_failure_to_confirm_reverts_what_is_active(
    filtered: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(store: Store, number: int) -> None:
        raise PacketwatchError("no space left")

    monkeypatch.setattr(Store, "confirm", fail)
    before = filtered.snapshot()
    large = "".join(f"10.{i >> 8}.{i & 255}.{i * 7 & 255}\n" for i in range(60_000))
    for text in (UNLISTED, large):
        with pytest.raises(PacketwatchError, match="no space left"):
            filtered.lists(deny=text)
        assert filtered.snapshot() == before
    with pytest.raises(PacketwatchError, match="no space left"):
        filtered.host.attach("pw0", "generic", other_program())
    after = filtered.snapshot()
    assert {key: after[key] for key in after if key != "pins"} == {
        key: before[key] for key in before if key != "pins"
    }
    assert filtered.verdict(DENIED) == XDP_DROP


def test_writers_wait_for_each_other(filtered: Site) -> None:
    filtered.host = Host(run, filtered.paths, patience=0.1)
    before = filtered.snapshot()
    with Store(filtered.paths.state).lock(1):
        for change in (filtered.lists, lambda: filtered.host.attach("pw0")):
            with pytest.raises(PacketwatchError, match=rf"held by process {os.getpid()} "):
                change()
    assert filtered.snapshot() == before


# Reports


def test_info_reports_only_what_is_asked_for(filtered: Site) -> None:
    for name in sorted(ALL):
        assert set(filtered.host.info({name})) == {name}
    assert set(filtered.host.info(ALL)) == ALL
    assert filtered.host.info(set()) == {}
    assert filtered.left_open() == []


def test_info_where_nothing_is_loaded(site: Site) -> None:
    found = site.host.info(ALL)
    assert found["interfaces"] == found["counters"] == found["protected"] == {}
    assert found["lists"] == {
        "live": False,
        "current": False,
        "digest": "",
        "declared": {},
        "allow": {},
        "deny": {},
    }
    assert found["bans"] == []
    assert found["entries"] == {"allow": {}, "deny": {}}
    assert found["ranges"] == {"allow": "", "deny": ""}
    assert not Path(site.paths.bpffs).exists()


def test_info_of_a_filter_at_work(filtered: Site) -> None:
    filtered.policy("pw0", scan_ports="7")
    plan = filtered.lists(deny=f"{DENIED} # scanner\n198.51.100.0/28", allow="198.51.100.8")
    send(filtered, DENIED, 5)
    filtered.host.ban("203.0.113.77", 60)
    found = filtered.host.info(ALL)
    number = attached(socket.if_nametoindex("pw0")).program_id
    # Far below the verifier's limit of a million.
    assert 10_000 < found["interfaces"]["pw0"].pop("verified_instructions") < 500_000
    (ours,) = found["interfaces"]["pw0"].pop("chain")
    assert (ours["kind"], ours["id"]) == ("packetwatch", number)
    assert found["interfaces"] == {
        "pw0": {"wanted": "auto", "mode": "native", "program_id": number}
    }
    assert found["lists"] == {
        "live": True,
        "current": True,
        "digest": plan.digest_after,
        "declared": found["lists"]["declared"],
        "allow": {"ansible": 1},
        "deny": {"ansible": 2},
    }
    assert list(found["lists"]["declared"]) == ["ansible"]
    assert found["policy"]["pw0"]["scan_ports"] == 7
    assert found["policy"]["default"]["scan_ports"] == 5
    assert found["entries"] == {
        "allow": {"ansible": "198.51.100.8"},
        "deny": {"ansible": f"{DENIED} # scanner\n198.51.100.0/28"},
    }
    assert found["ranges"] == {
        "allow": "198.51.100.8\n",
        "deny": "198.51.100.0-198.51.100.7\n198.51.100.9-198.51.100.15\n",
    }
    assert found["counters"]["packets"]["drop"]["deny"]["ipv4"] == 5
    assert [ban["source"] for ban in found["bans"]] == ["203.0.113.77"]
    assert found["protected"][OWN] == "own address"


@pytest.mark.slow(4)
def test_readers_do_not_block_writers(filtered: Site) -> None:
    child = os.fork()
    if not child:
        try:
            end = time.monotonic() + 2
            while time.monotonic() < end:
                filtered.host.info(ALL)
                filtered.host.plan(lambda state: state)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    number = 0
    ended = status = 0
    while not ended:
        number += 1
        filtered.lists(f"{DENIED}\n10.0.0.{number % 256}")
        if number % 10 == 0:
            filtered.host.attach("pw0", source=other_program() if number % 20 else source_text())
        ended, status = os.waitpid(child, os.WNOHANG)
    assert status == 0


def test_states_share_nothing_that_can_change() -> None:
    with pytest.raises(TypeError):
        State().deny["ansible"] = DENIED  # type: ignore[index]
    assert State() == State(deny={})


def test_links_are_the_truth(filtered: Site) -> None:
    os.unlink(filtered.host.pins.program)
    with Loaded(filtered.host.pins) as loaded:
        assert loaded.active and not loaded.whole
        assert loaded.program is not None
    assert filtered.verdict(DENIED) == XDP_DROP
    assert filtered.host.apply().changed
    assert os.path.exists(filtered.host.pins.program)
