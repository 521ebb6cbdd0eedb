# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Saves bans before a reboot and restores them after it, in a file of JSON lines.

The first line names the boot and the map from which the bans were saved. Each further line is one ban::

    {"source": "2001:db8::/64", "origin": "scan", "since": 1764018600.25, "expires": null, ...}

Times are Unix seconds; expires null means never. Lines are read and written one at a time, so that
100,000 bans need no more memory than one.

The folder is the agent's, so anything may be in the file, and anything else may be in its place. Damaged
lines, or the file, are set aside for an operator: see `evidence_of`.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
import typing as t

from .._base.address import parse_prefix
from .._base.errors import InvalidInput, PacketwatchError, Unreadable
from .._base.files import create_file, open_regular, parse_json
from .._base.number import is_a
from .._base.steps import Steps, finish
from .._kernel import abi
from .bans import Ban, Bans, Source, is_source

FORMAT = 1
# Bytes of a line and of the file, and lines: some four times what full tables need.
MAX_LINE, MAX_BYTES, MAX_LINES = 1024, 1 << 24, 1 << 17
# Bytes of damaged lines that are kept.
MAX_EVIDENCE = 1 << 16
# Bans that are written in about a millisecond.
_STEP = 64
_MAX_TIME = 1 << 63
_SECOND = 1_000_000_000
_ORIGINS = {name: number for number, name in abi.ORIGINS.items()}
# Flags that a ban keeps over a reboot, each a field that is true or missing.
_FLAGS = {"connections": abi.BAN_CONNECTIONS, "answer": abi.BAN_ANSWER}
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


def evidence_of(path: str) -> str:
    """The path beside the file at which damaged lines, or the whole file, are set aside."""
    return f"{path}.damaged"


def save(bans: Bans, path: str) -> int:
    """Do all of `saving` at once."""
    return finish(saving(bans, path))


def saving(bans: Bans, path: str) -> Steps[int]:
    """Write all active bans of ``bans`` and ``scan_bans`` to the file; return how many they are.

    The file is replaced atomically. Raises `OSError`.
    """
    clocks = _clocks()
    draft = f"{path}.new"
    count = 0
    with open(create_file(draft), "w", encoding="utf-8") as file:
        header = {"format": FORMAT, "boot": _boot_id(), "map": bans.identity}
        file.write(json.dumps(header) + "\n")
        for number, ban in enumerate(bans.walk("bans", "scan_bans"), 1):
            if not ban.has_expired(clocks.monotonic):
                file.write(json.dumps(_to_json(ban, clocks)) + "\n")
                count += 1
            if not number % _STEP:
                yield
        file.flush()
        os.fdatasync(file.fileno())
    os.replace(draft, path)
    return count


def restore(bans: Bans, path: str) -> Restored | None:
    """Restore the bans that an earlier boot saved; None if the file holds no bans of an earlier boot.

    Bans that this boot saved are still in the kernel, unless they were lifted. Manual and fleet bans are
    restored first, then scan bans; a quarter of the map stays free. Damaged lines are set aside. Raises
    `Unreadable`; if the reason is what the file is, it is set aside as a whole.
    """
    try:
        with open(open_regular(path, os.O_NOFOLLOW), "rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise _Damaged(f"has more than {MAX_BYTES} bytes")
            header = _object(file.readline(MAX_LINE))
            if header.get("format") != FORMAT:
                raise _Damaged(f"does not begin as a file of bans of format {FORMAT} does")
            if (header.get("boot"), header.get("map")) == (_boot_id(), bans.identity):
                return None
            result, damaged = _restore(bans, file)
        if damaged:
            # Bans are restored even without room for the evidence.
            with (
                contextlib.suppress(OSError),
                open(create_file(evidence_of(path)), "wb") as evidence,
            ):
                evidence.write(damaged)
        return result
    except FileNotFoundError:
        return None
    except _Damaged as error:
        raise Unreadable(f"{path} {error}; {_set_aside(path)}") from None
    except OSError as error:
        what = f"cannot read {path}: {error.strerror}"
        if _is_regular(path):
            raise Unreadable(what) from error
        raise Unreadable(f"{what}; {_set_aside(path)}") from error


class _Damaged(Exception):
    """Nothing in the file can be used."""


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return True


def _set_aside(path: str) -> str:
    """Move whatever is at the path out of the way, in place of former evidence; say where it is."""
    evidence = evidence_of(path)
    try:
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(evidence)
        os.rename(path, evidence)
    except OSError as error:
        return f"it cannot be moved to {evidence}: {error.strerror}; remove both"
    with contextlib.suppress(OSError):
        if _is_regular(evidence):
            os.truncate(evidence, min(os.stat(evidence).st_size, MAX_BYTES))
    return f"it is now {evidence}: read it, then remove it"


def _restore(bans: Bans, file: t.BinaryIO) -> tuple[Restored, bytes]:
    """Restore the bans in the rest of the file; return what became of them, and damaged lines."""
    room = bans.capacity * 3 // 4 - sum(1 for dummy in bans.times("bans"))
    clocks = _clocks()
    result = Restored()
    damaged = bytearray()
    begin = file.tell()
    for scans in (False, True):
        file.seek(begin)
        for line in _lines(file):
            ban = _ban_in(line, clocks)
            if ban is None and not scans:
                result = result._replace(damaged=result.damaged + 1)
                damaged += line[: MAX_EVIDENCE - len(damaged)]
            elif ban is not None and (ban.origin == abi.ORIGIN_SCAN) == scans:
                fate = _restore_one(bans, ban, clocks.monotonic, room - result.restored)
                result = result._replace(**{fate: getattr(result, fate) + 1})
    return result, bytes(damaged)


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


def _lines(file: t.BinaryIO) -> t.Iterator[bytes]:
    """Yield the rest of the file's lines, and only the beginning of one that is too long."""
    for dummy in range(MAX_LINES):
        line = file.readline(MAX_LINE)
        if not line:
            return
        yield line
        while len(line) == MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE)
    if rest := file.readline(MAX_LINE):
        yield b"(more lines than a file of bans has) " + rest


def _ban_in(line: bytes, clocks: _Clocks) -> Ban | None:
    """The ban in a line; None if the line is not a ban."""
    try:
        return _from_json(_object(line), clocks)
    except (InvalidInput, KeyError, TypeError, ValueError, OverflowError):
        return None


def _to_json(ban: Ban, clocks: _Clocks) -> dict[str, t.Any]:
    return {
        "source": ban.source.text,
        "origin": ban.origin_name,
        "kind": ban.kind,
        "since": clocks.to_wall(ban.since),
        "expires": clocks.to_wall(ban.expires) if ban.expires else None,
        "ports": ban.ports,
        "dropped": ban.dropped,
        **{name: True for name, flag in _FLAGS.items() if ban.flags & flag},
    }


def _from_json(line: dict[str, t.Any], clocks: _Clocks) -> Ban:
    source, origin = line["source"], line["origin"]
    if not isinstance(source, str) or not isinstance(origin, str):
        raise TypeError(source)
    key = Source.of(parse_prefix(source))
    if not is_source(key.key):
        raise ValueError(source)
    kind = line.get("kind")
    if kind not in abi.KINDS:
        # Earlier versions saved none, and a later one may have more: the ban counts, whatever its kind.
        kind = abi.KINDS[0]
    ports, dropped = _whole(line["ports"], 1 << 16), _whole(line["dropped"], 1 << 63)
    since, expires = _seconds(line["since"]), line["expires"]
    left = None
    if expires is not None:
        # A clock that was set back must not make a ban last longer than its duration.
        left = min(_seconds(expires) - clocks.wall / _SECOND, _seconds(expires) - since)
    return Ban(
        "bans",
        key,
        max(clocks.to_monotonic(since), 0),
        0 if left is None else max(clocks.monotonic + round(left * _SECOND), 1),
        dropped,
        0,
        0,
        ports,
        _ORIGINS[origin],
        abi.kind_flags(kind) | sum(flag for name, flag in _FLAGS.items() if line.get(name) is True),
    )


def _whole(value: t.Any, limit: int) -> int:
    if is_a(value, int) and 0 <= value < limit:
        return value
    raise ValueError(value)


def _seconds(value: t.Any) -> float:
    """A time that the maps can hold, as Unix seconds."""
    if isinstance(value, (int, float)) and abs(value) * _SECOND < _MAX_TIME:
        return float(value)
    raise ValueError(value)


def _object(line: bytes) -> dict[str, t.Any]:
    """Return the JSON object of a line; empty if the line does not hold one."""
    try:
        value = parse_json(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _clocks() -> _Clocks:
    return _Clocks(time.monotonic_ns(), time.time_ns())


def _boot_id() -> str:
    with open(_BOOT_ID, encoding="ascii") as file:
        return file.read().strip()
