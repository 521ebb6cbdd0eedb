# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The lock of all writers: flock(2) on a file, for which they queue in the order in which they came.

flock(2) alone has no order: a writer that never pauses takes the lock again before a waiting one wakes. So a
writer first locks a byte of the file, its place in the queue, after all bytes that are locked (open file
description locks, fcntl(2)). Its turn comes when no byte before its own is locked. The file's size and
content do not matter, so a full disk does not either.

The kernel unlocks everything when a process dies, so nobody waits for a dead holder or a dead waiter. A version
of Packetwatch without a queue takes the flock alone: both versions still exclude each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
import time

from .._base.errors import Locked

# struct flock of fcntl(2): type, whence, start, length, process. A length of 0 reaches to the end.
_RANGE = struct.Struct("@hhqqi")


class Lock:
    """The lock in a file, which is made when it is needed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = -1

    def acquire(self, wait: float) -> None:
        """Raise `Locked`, which names the holder, after `wait` seconds; OSError if the file cannot be used."""
        deadline = time.monotonic() + wait
        while self._file < 0:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _refuse_other_users(file)
                if not _take(file, deadline):
                    raise Locked(
                        f"{self._path} is held by {_read_holder(file)}; waited {wait:g} s for it: try "
                        "again later"
                    )
                # A removal of Packetwatch may have deleted the file while we waited.
                if _same_file(file, self._path):
                    self._file = file
            finally:
                if self._file < 0:
                    _free(file)
        _write_holder(self._file)

    def release(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
        _free(self._file)
        self._file = -1


def _refuse_other_users(file: int) -> None:
    """Take the file from another user, who could lock it too."""
    found = os.fstat(file)
    if found.st_uid != os.geteuid():
        os.fchown(file, os.geteuid(), os.getegid())
    if found.st_mode & 0o077:
        os.fchmod(file, 0o600)


def _take(file: int, deadline: float) -> bool:
    """Take the lock when it is our turn; False if that has not come at the deadline (CLOCK_MONOTONIC)."""
    place = _join(file)
    while not _is_our_turn(file, place) or not _has_flock(file):
        left = deadline - time.monotonic()
        if left <= 0 or not _watched(file, place, left):
            # A waiter before us may have been stopped (SIGSTOP). The order is a courtesy, the flock is not.
            return _has_flock(file)
    return True


def _join(file: int) -> int:
    """Lock the first byte after all that are locked; return its number, our place in the queue."""
    place = 0
    while True:
        kind, dummy, first, length, dummy2 = _ask(file, place)
        if kind != fcntl.F_UNLCK and length:
            place = first + length
            continue
        try:
            _set(file, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, place, 1)
            return place
        except BlockingIOError:
            # Else another writer was quicker.
            if kind != fcntl.F_UNLCK:
                # A program that does not queue has locked the file up to its end.
                return place


def _is_our_turn(file: int, place: int) -> bool:
    """Whether no byte before ours is locked."""
    with contextlib.suppress(BlockingIOError):
        if place:
            _set(file, fcntl.F_OFD_SETLK, fcntl.F_RDLCK, 0, place)
        return True
    return False


def _has_flock(file: int) -> bool:
    """Take the flock if it is free."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _watched(file: int, place: int, seconds: float) -> bool:
    """Wait until our turn has come and nobody holds the flock; False after so many seconds.

    The kernel's wait has no time limit, so a thread does it. It keeps nothing that it gets, so it harms
    nobody if it outlives the caller's patience.
    """
    # Imported here: a boot hardly ever waits, and it would cost memory.
    import threading

    failed: list[OSError] = []
    own = os.open(f"/proc/self/fd/{file}", os.O_RDONLY)

    def watch() -> None:
        try:
            if place:
                _set(own, fcntl.F_OFD_SETLKW, fcntl.F_RDLCK, 0, place)
            fcntl.flock(own, fcntl.LOCK_EX)
        except OSError as error:
            failed.append(error)
        finally:
            _free(own)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    return not thread.is_alive()


def _ask(file: int, place: int) -> tuple[int, ...]:
    """A range from `place` on that another writer has locked, as in `_RANGE`; its type may be F_UNLCK."""
    asked = _RANGE.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 0, 0)
    return _RANGE.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))


def _set(file: int, command: int, kind: int, first: int, length: int) -> None:
    fcntl.fcntl(file, command, _RANGE.pack(kind, os.SEEK_SET, first, length, 0))


def _free(file: int) -> None:
    """Give back the lock and leave the queue, also if a child process has inherited the descriptor."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)
        _set(file, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, 0, 0)
    os.close(file)


def _same_file(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _write_holder(file: int) -> None:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    text = f"process {os.getpid()} ({' '.join(sys.argv)[:200]}) since {since}"
    # A full disk must not keep anybody from reverting a change or verifying the tables.
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode(errors="replace"), 0)


def _read_holder(file: int) -> str:
    # A holder has the lock for a moment before it writes its name.
    return os.pread(file, 4096, 0).decode(errors="replace") or "another process"
