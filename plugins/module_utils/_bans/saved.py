# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Saves bans before a reboot and restores them after it, in a file of JSON lines.

The first line names the boot and the map from which the bans were saved. Each further line is one ban::

    {"source": "2001:db8::/64", "origin": "scan", "since": 1764018600.25, "expires": null, ...}

Times are Unix seconds; expires null means never. Lines are read and written one at a time, so that
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
    """How many bans of the file had each outcome."""

    restored: int = 0
    expired: int = 0
    refused: int = 0
    """The source is protected now."""
    superseded: int = 0
    """The source was banned again after the boot."""
    without_room: int = 0
    damaged: int = 0
    """The line is not a ban."""


class _Clocks(t.NamedTuple):
    """CLOCK_MONOTONIC and wall clock at the same moment, in nanoseconds."""

    monotonic: int
    wall: int

    def to_wall(self, moment: int) -> float:
        return (moment - self.monotonic + self.wall) / _SECOND

    def to_monotonic(self, seconds: float) -> int:
        return round(seconds * _SECOND) - self.wall + self.monotonic


def save(bans: Bans, path: str) -> int:
    """Write all active bans of ``bans`` and ``scan_bans`` to the file; return how many they are.

    The file is replaced atomically. Raises `OSError`.
    """
    clocks = _clocks()
    draft = f"{path}.new"
    count = 0
    with open(draft, "w", encoding="utf-8") as file:
        header = {"format": FORMAT, "boot": _boot_id(), "map": bans.identity}
        file.write(json.dumps(header) + "\n")
        for ban in bans.walk("bans", "scan_bans"):
            if not ban.has_expired(clocks.monotonic):
                file.write(json.dumps(_to_json(ban, clocks)) + "\n")
                count += 1
        file.flush()
        os.fdatasync(file.fileno())
    os.replace(draft, path)
    return count


def restore(bans: Bans, path: str) -> Restored | None:
    """Restore the bans that an earlier boot saved; None if the file holds no bans of an earlier boot.

    Bans that this boot saved are still in the kernel, unless they were lifted. Manual and fleet bans are
    restored first, then scan bans; a quarter of the map stays free. Raises `Unreadable`.
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
        raise Unreadable(f"cannot read {path}: {error.strerror}") from error


def _restore_one(bans: Bans, ban: Ban, now: int, room: int) -> str:
    """Restore one ban; return the field of `Restored` that counts it."""
    if ban.has_expired(now):
        return "expired"
    if bans.protection_of(ban.source):
        return "refused"
    present = bans.find(ban.source, ban.table)
    if present and not present.has_expired(now):
        return "superseded"
    if room <= 0:
        return "without_room"
    try:
        bans.put(ban)
    except PacketwatchError:
        return "without_room"
    return "restored"


def _is_former(bans: Bans, path: str) -> bool:
    """Return whether the file was saved from other maps, of this boot or an earlier one."""
    with open(path, encoding="utf-8", errors="replace") as file:
        header = _object(file.readline())
    if header.get("format") != FORMAT:
        return False
    return (header.get("boot"), header.get("map")) != (_boot_id(), bans.identity)


def _read(path: str, clocks: _Clocks) -> t.Iterator[Ban | None]:
    """Yield the bans of the file, and None for each line that is not a ban."""
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
        # A clock that was set back must not make a ban last longer than its duration.
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
    """Return the JSON object of a line; empty if the line does not hold one."""
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
