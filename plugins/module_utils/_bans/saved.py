# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Bans over a reboot: a file of JSON lines in wall-clock time.

The first line names the boot and the map that it was written from. Each further line is one ban::

    {"source": "2001:db8::/64", "origin": "scan", "since": 1764018600.25, "expires": null, ...}

Times are seconds since 1970, expires null is for ever. Lines are read and written one by one:
100,000 bans need no more memory than one.
"""

from __future__ import annotations

import json
import os
import time
import typing as t

from .._base.address import mapped, mapped_length, parse_prefix
from .._base.errors import InvalidInput, PacketwatchError, Unreadable
from .._kernel import abi
from .bans import Ban, Bans, Source

FORMAT = 1
_SECOND = 1_000_000_000
_ORIGINS = {name: number for number, name in abi.ORIGINS.items()}
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Restored(t.NamedTuple):
    """What became of the bans in the file, as counts."""

    restored: int = 0
    expired: int = 0
    refused: int = 0
    """Protected by now."""
    superseded: int = 0
    """Banned anew since the boot."""
    without_room: int = 0
    damaged: int = 0


class _Clocks(t.NamedTuple):
    """CLOCK_MONOTONIC and wall-clock time of the same moment, ns."""

    monotonic: int
    wall: int

    def to_wall(self, moment: int) -> float:
        return (moment - self.monotonic + self.wall) / _SECOND

    def to_monotonic(self, seconds: float) -> int:
        return round(seconds * _SECOND) - self.wall + self.monotonic


def save(bans: Bans, path: str) -> int:
    """Write all bans that are neither over nor short ones of the program's; returns their number.

    The file is replaced by rename, so a reader finds the former or the new one. Raises `OSError`.
    """
    clocks = _clocks()
    draft = f"{path}.new"
    count = 0
    with open(draft, "w", encoding="utf-8") as file:
        header = {"format": FORMAT, "boot": _boot_id(), "map": bans.identity}
        file.write(json.dumps(header) + "\n")
        for ban in bans.walk("bans", "scan_bans"):
            if not ban.is_over(clocks.monotonic):
                file.write(json.dumps(_to_json(ban, clocks)) + "\n")
                count += 1
        file.flush()
        os.fdatasync(file.fileno())
    os.replace(draft, path)
    return count


def restore(bans: Bans, path: str) -> Restored | None:
    """Write back what a former boot saved; None if there is nothing of a former boot.

    Bans of this boot are still in the kernel, and what is missing there has been lifted. Manual
    and fleet bans come first, then scan bans; a quarter of the room stays free. Raises `Unreadable`.
    """
    try:
        if not _is_former(bans, path):
            return None
        room = bans.capacity * 3 // 4 - sum(1 for dummy in bans.times("bans"))
        clocks = _clocks()
        result = Restored()
        for scans in (False, True):
            for ban in _read(path, clocks):
                if ban is None:
                    result = result._replace(damaged=result.damaged + (not scans))
                elif (ban.origin == abi.ORIGIN_SCAN) == scans:
                    fate = _restore_one(bans, ban, clocks.monotonic, room - result.restored)
                    result = result._replace(**{fate: getattr(result, fate) + 1})
        return result
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error


def _restore_one(bans: Bans, ban: Ban, now: int, room: int) -> str:
    """Returns the field of `Restored` that counts it."""
    if ban.is_over(now):
        return "expired"
    if bans.protection_of(ban.source):
        return "refused"
    present = bans.find(ban.source, ban.table)
    if present and not present.is_over(now):
        return "superseded"
    if room <= 0:
        return "without_room"
    try:
        bans.put(ban)
    except PacketwatchError:
        return "without_room"
    return "restored"


def _is_former(bans: Bans, path: str) -> bool:
    """Whether other maps than these were saved: other ones, or those of another boot."""
    with open(path, encoding="utf-8", errors="replace") as file:
        header = _object(file.readline())
    if header.get("format") != FORMAT:
        return False
    return (header.get("boot"), header.get("map")) != (_boot_id(), bans.identity)


def _read(path: str, clocks: _Clocks) -> t.Iterator[Ban | None]:
    """Bans in the file, None for a line that is none."""
    with open(path, encoding="utf-8", errors="replace") as file:
        file.readline()
        for line in file:
            try:
                yield _from_json(_object(line), clocks)
            except (InvalidInput, KeyError, TypeError, ValueError, OverflowError):
                yield None


def _to_json(ban: Ban, clocks: _Clocks) -> dict[str, t.Any]:
    return {
        "source": ban.source.text,
        "origin": ban.origin_name,
        "since": clocks.to_wall(ban.since),
        "expires": clocks.to_wall(ban.expires) if ban.expires else None,
        "ports": ban.ports,
        "dropped": ban.dropped,
    }


def _from_json(line: dict[str, t.Any], clocks: _Clocks) -> Ban:
    prefix = parse_prefix(line["source"])
    source = Source(mapped_length(prefix), mapped(prefix))
    if source.plen not in (64, 128):
        raise ValueError(line["source"])
    ports, dropped = int(line["ports"]), int(line["dropped"])
    if not (0 <= ports < 1 << 16 and 0 <= dropped < 1 << 63):
        raise ValueError(line["source"])
    since, expires = float(line["since"]), line["expires"]
    left = None
    if expires is not None:
        # A clock that was set back must not make a ban longer than it was.
        left = min(float(expires) - clocks.wall / _SECOND, float(expires) - since)
    return Ban(
        "bans",
        source,
        max(clocks.to_monotonic(since), 0),
        0 if left is None else max(clocks.monotonic + round(left * _SECOND), 1),
        dropped,
        0,
        0,
        ports,
        _ORIGINS[line["origin"]],
        0,
    )


def _object(line: str) -> dict[str, t.Any]:
    """The JSON object in a line, empty if it is none."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _clocks() -> _Clocks:
    return _Clocks(time.monotonic_ns(), time.time_ns())


def _boot_id() -> str:
    with open(_BOOT_ID, encoding="ascii") as file:
        return file.read().strip()
