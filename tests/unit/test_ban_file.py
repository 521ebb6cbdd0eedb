# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Saving bans before a reboot, and restoring them after it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from unit.fake_maps import mapped, run_maps

from packetwatch_core._bans import saved
from packetwatch_core._bans.bans import Bans, Source
from packetwatch_core._bans.facts import evidence_of
from packetwatch_core._base.errors import Unreadable
from packetwatch_core._kernel import abi

SECOND = 1_000_000_000


def after_boot(**sizes: int) -> tuple[dict[str, Any], Bans]:
    """Empty maps that differ from those of the boot before."""
    maps = run_maps(**sizes)
    maps["bans"].info.id = 8
    return maps, Bans(maps)


def scan(maps: dict[str, Any], number: int, seconds: float, table: str = "scan_bans") -> None:
    now = time.monotonic_ns()
    value = abi.BAN.pack(
        since=now,
        expires=now + int(seconds * SECOND),
        origin=abi.ORIGIN_SCAN,
        ports=5,
        dropped=9,
        flags=abi.kind_flags("stealth") | abi.BAN_ANSWER,
    )
    maps[table].update(Source(128, mapped(f"203.0.113.{number}")).key, value)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "bans.jsonl")


def test_bans_are_restored_to_the_first_map(path: str) -> None:
    maps = run_maps()
    bans = Bans(maps)
    scan(maps, 1, 600)
    bans.add("2001:db8::7", None)
    assert saved.save(bans, path) == 2

    maps, bans = after_boot()
    result = saved.restore(bans, path)
    assert result is not None
    assert result == saved.Restored(restored=2)
    found = {ban.source.text: ban for ban in bans.walk()}
    ban = found["203.0.113.1"]
    assert (ban.table, ban.origin_name, ban.ports, ban.dropped) == ("bans", "scan", 5, 9)
    assert (ban.kind, found["2001:db8::/64"].kind) == ("stealth", "")
    assert (evidence_of(ban), evidence_of(found["2001:db8::/64"])) == ("answer", "manual")
    assert 590 * SECOND < ban.expires - time.monotonic_ns() <= 600 * SECOND
    assert found["2001:db8::/64"].expires == 0
    assert not maps["scan_bans"].entries
    assert abi.SHARED.unpack(maps["shared"].lookup(bytes(4)))["has_bans"]


@pytest.mark.parametrize("kind", ["", '"kind": "quic", ', '"kind": "7", ', '"kind": [], '])
def test_bans_of_no_known_kind_are_of_syns(path: str, kind: str) -> None:
    """An earlier version saved no kind, and a later one may know more of them."""
    maps = run_maps()
    scan(maps, 1, 600)
    saved.save(Bans(maps), path)
    text = Path(path).read_text()
    assert '"kind": "stealth", ' in text
    Path(path).write_text(text.replace('"kind": "stealth", ', kind))
    maps, bans = after_boot()
    assert saved.restore(bans, path) == saved.Restored(restored=1)
    assert [ban.kind for ban in bans.walk()] == ["syn"]


def test_a_fleet_ban_of_connections_stays_one(path: str) -> None:
    bans = Bans(run_maps())
    for number, flags in ((1, abi.BAN_CONNECTIONS), (2, 0)):
        ban, dummy = bans.add(f"203.0.113.{number}", 600, abi.ORIGIN_FLEET)
        bans.put(ban._replace(flags=flags))
    saved.save(bans, path)
    bans = after_boot()[1]
    assert saved.restore(bans, path) == saved.Restored(restored=2)
    flags_of = {ban.source.text: (ban.origin_name, ban.flags) for ban in bans.walk()}
    assert flags_of == {"203.0.113.1": ("fleet", abi.BAN_CONNECTIONS), "203.0.113.2": ("fleet", 0)}


def test_bans_of_this_boot_are_left_as_they_are(path: str) -> None:
    maps = run_maps()
    bans = Bans(maps)
    bans.add("203.0.113.1", 600)
    saved.save(bans, path)
    bans.lift("203.0.113.1")
    assert saved.restore(bans, path) is None
    assert not maps["bans"].entries


def test_short_and_finished_bans_are_not_saved(path: str) -> None:
    maps = run_maps()
    scan(maps, 1, 60, "overflow")
    scan(maps, 2, -1)
    assert saved.save(Bans(maps), path) == 0


def test_expired_bans_are_dropped(path: str) -> None:
    maps = run_maps()
    scan(maps, 1, 0.05)
    saved.save(Bans(maps), path)
    time.sleep(0.1)
    maps, bans = after_boot()
    assert saved.restore(bans, path) == saved.Restored(expired=1)
    assert not maps["bans"].entries


def test_a_quarter_of_the_room_stays_free_and_manual_bans_come_first(path: str) -> None:
    maps = run_maps()
    bans = Bans(maps)
    for number in range(10):
        scan(maps, number, 600)
    bans.add("203.0.113.200", None)
    saved.save(bans, path)
    maps, bans = after_boot(bans=8)
    assert saved.restore(bans, path) == saved.Restored(restored=6, without_room=5)
    assert "203.0.113.200" in {ban.source.text for ban in bans.walk()}


def test_what_is_protected_by_now_is_refused(path: str) -> None:
    maps = run_maps()
    scan(maps, 1, 600)
    saved.save(Bans(maps), path)
    maps, bans = after_boot()
    maps["hosts"].update(mapped("203.0.113.1"), abi.HOST.pack(origin=1))
    assert saved.restore(bans, path) == saved.Restored(refused=1)


def test_a_newer_ban_is_kept(path: str) -> None:
    maps = run_maps()
    bans = Bans(maps)
    bans.add("203.0.113.1", 600)
    saved.save(bans, path)
    maps, bans = after_boot()
    bans.add("203.0.113.1", None)
    assert saved.restore(bans, path) == saved.Restored(superseded=1)
    assert next(bans.walk()).expires == 0


def test_a_clock_set_back_makes_no_ban_longer(path: str) -> None:
    now = time.time()
    line = {"source": "203.0.113.1", "origin": "scan", "ports": 5, "dropped": 0}
    line |= {"since": now + 86400, "expires": now + 86400 + 600}
    Path(path).write_text(f'{{"format": 1, "boot": "other", "map": 1}}\n{json.dumps(line)}\n')
    bans = after_boot()[1]
    saved.restore(bans, path)
    (ban,) = bans.walk()
    assert ban.expires - time.monotonic_ns() <= 600 * SECOND


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no json",
        "[]",
        "{}",
        '{"source": "203.0.113.0/24", "origin": "scan", "since": 0, "expires": null, '
        '"ports": 0, "dropped": 0}',
        '{"source": "203.0.113.7", "origin": "scan", "since": NaN, "expires": null, '
        '"ports": 0, "dropped": 0}',
        '{"source": "203.0.113.7", "origin": "scan", "since": 0, "expires": null, '
        '"ports": 70000, "dropped": 0}',
        '{"source": "203.0.113.7", "origin": "other", "since": 0, "expires": null, '
        '"ports": 1, "dropped": 0}',
    ],
)
def test_damaged_lines_are_counted(path: str, line: str) -> None:
    Path(path).write_text(f'{{"format": 1, "boot": "other", "map": 1}}\n{line}\n')
    maps, bans = after_boot()
    assert saved.restore(bans, path) == saved.Restored(damaged=1)
    assert not maps["bans"].entries


@pytest.mark.parametrize("text", ["", "rubbish\n", '{"format": 99}\n'])
def test_a_file_of_another_format_is_set_aside(path: str, text: str) -> None:
    Path(path).write_text(text)
    with pytest.raises(Unreadable, match="does not begin as a file of bans of format 1 does"):
        saved.restore(after_boot()[1], path)
    assert Path(saved.evidence_of(path)).read_text() == text
    assert not Path(path).exists()


def test_no_file(path: str) -> None:
    assert saved.restore(after_boot()[1], path) is None


def test_unreadable_is_not_absent(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        saved.restore(after_boot()[1], str(tmp_path))


def test_the_former_file_stays_until_the_new_one_is_whole(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = run_maps()
    scan(maps, 1, 600)
    saved.save(Bans(maps), path)
    former = Path(path).read_text()
    monkeypatch.setattr("os.fdatasync", lambda fd: _no_space())
    with pytest.raises(OSError, match="full"):
        saved.save(Bans(maps), path)
    assert Path(path).read_text() == former


def _no_space() -> None:
    raise OSError(28, "full")
