# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder as a store: for tests, and for a few hosts that share a file system.

Each key is a file below the folder: a line with its revision and its end, then the value.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import tempfile
import time
import typing as t

from packetwatch_core._base.number import read_whole

from .interface import Change, Conflict, Gone, Lost, Put, Relisted, Snapshot, Unavailable

# Seconds between two looks at the revision.
PERIOD = 0.2
_CLUSTER, _REVISION = ".cluster", ".revision"
_MAX_REVISION = 1 << 63


class Folder:
    """Implements `interface.Store`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self, *prefixes: str) -> Snapshot:
        with self._translated(), self._locked(fcntl.LOCK_SH):
            now = time.time()
            items = {
                key: (revision, value)
                for key, revision, ends, value in self._values()
                if key.startswith(prefixes) and not 0 < ends <= now
            }
            return Snapshot(self._text(_CLUSTER), self._revision(), now, items)

    def write(
        self, key: str, value: bytes, *, ends: float | None = None, expect: int | None = None
    ) -> int:
        with self._translated(), self._locked(fcntl.LOCK_EX):
            self._check(key, expect)
            revision = self._revision() + 1
            head = f"{revision} {0 if ends is None else round(ends)}\n"
            self._replace(self._file(key), head.encode() + value)
            self._replace(os.path.join(self._path, _REVISION), str(revision).encode())
            return revision

    def delete(self, key: str, *, expect: int | None = None) -> None:
        with self._translated(), self._locked(fcntl.LOCK_EX):
            self._check(key, expect)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._file(key))
                text = str(self._revision() + 1).encode()
                self._replace(os.path.join(self._path, _REVISION), text)

    def follow(self, *prefixes: str) -> FolderFollower:
        return FolderFollower(self, prefixes)

    def writer(self) -> FolderWriter:
        return FolderWriter(self)

    def offset(self) -> float | None:
        return time.time() - time.monotonic()

    def peek(self) -> tuple[str, str]:
        """What differs once anything was written."""
        with self._translated():
            return self._text(_CLUSTER), self._text(_REVISION)

    def _check(self, key: str, expect: int | None) -> None:
        found = self._value(self._file(key))
        if expect is not None and expect != (found[0] if found else 0):
            raise Conflict(f"{key} does not have revision {expect} any more: read it again")

    def _values(self) -> t.Iterator[tuple[str, int, int, bytes]]:
        for folder, dummy, names in os.walk(self._path):
            for name in names:
                path = os.path.join(folder, name)
                found = None if name.startswith(".") else self._value(path)
                if found:
                    yield f"/{os.path.relpath(path, self._path)}", *found

    def _value(self, path: str) -> tuple[int, int, bytes] | None:
        """Revision, end (0: none) and value; None if there is no such file."""
        try:
            with open(path, "rb") as file:
                head, dummy, value = file.read().partition(b"\n")
        except FileNotFoundError:
            return None
        words = [
            read_whole(word, _MAX_REVISION) for word in head.decode("ascii", "replace").split()
        ]
        if len(words) != 2 or words[0] is None or words[1] is None:
            raise Unavailable(
                f"{path}: the first line is not a revision and an end: remove the file"
            )
        return words[0], words[1], value

    def _file(self, key: str) -> str:
        words = key.strip("/").split("/")
        if any(word.startswith(".") or not word for word in words):
            raise Unavailable(f"{key!r} cannot be the name of a file")
        return os.path.join(self._path, *words)

    def _revision(self) -> int:
        return read_whole(self._text(_REVISION), _MAX_REVISION) or 1

    def _text(self, name: str) -> str:
        try:
            with open(os.path.join(self._path, name), encoding="ascii", errors="replace") as file:
                return file.read(64).strip()
        except FileNotFoundError:
            return ""

    def _replace(self, path: str, data: bytes) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        number, draft = tempfile.mkstemp(prefix=".", dir=os.path.dirname(path))
        with open(number, "wb") as file:
            file.write(data)
        os.chmod(draft, 0o644)
        os.rename(draft, path)

    @contextlib.contextmanager
    def _locked(self, how: int) -> t.Iterator[None]:
        if how == fcntl.LOCK_EX:
            os.makedirs(self._path, exist_ok=True)
        folder = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, how)
            if how == fcntl.LOCK_EX and not self._text(_CLUSTER):
                name = os.path.join(self._path, _CLUSTER)
                self._replace(name, str(time.time_ns()).encode())
            yield
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _translated(self) -> t.Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(f"{self._path}: {error.strerror or error}") from error


class _Timed:
    """Work at fixed intervals; no descriptor ever makes it due."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._due = 0.0

    def fileno(self) -> int:
        return self._epoll.fileno()

    def deadline(self) -> float:
        return self._due

    def close(self) -> None:
        self._epoll.close()

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + PERIOD
        return True


class FolderFollower(_Timed):
    """Implements `interface.Follower`: looks at the folder again and again."""

    def __init__(self, folder: Folder, prefixes: t.Sequence[str]) -> None:
        super().__init__()
        self.endpoint = ""
        self.heard = 0.0
        self.revision = 0
        self._folder = folder
        self._prefixes = prefixes
        self._seen: tuple[str, str] | None = None
        self._known: Snapshot | None = None
        self._look_by = 0.0

    def step(self) -> list[Change]:
        if not self._is_due():
            return []
        try:
            return self._look()
        except Unavailable as error:
            self._seen = self._known = None
            self.endpoint = ""
            return [Lost(str(error))]

    def _look(self) -> list[Change]:
        seen = self._folder.peek()
        now = time.time()
        if seen == self._seen and now < self._look_by:
            self.heard = time.monotonic()
            return []
        found = self._folder.read(*self._prefixes)
        before, self._known, self._seen = self._known, found, seen
        self.revision = found.revision
        # Values may also end without a new revision.
        self._look_by = now + 1
        self.endpoint, self.heard = self._folder._path, time.monotonic()
        if before is None or before.cluster != found.cluster or before.revision > found.revision:
            return [Relisted(found._replace(items=dict(found.items)))]
        gone = [Gone(key, found.revision) for key in before.items.keys() - found.items.keys()]
        new = found.items.items() - before.items.items()
        return [*gone, *(Put(key, value, revision) for key, (revision, value) in new)]


class FolderWriter(_Timed):
    """Implements `interface.Writer`."""

    def __init__(self, folder: Folder) -> None:
        super().__init__()
        self.problem = ""
        self._folder = folder
        self._waiting: dict[str, tuple[bytes, float | None]] = {}

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def put(self, key: str, value: bytes, *, ends: float | None = None) -> None:
        self._waiting[key] = value, ends

    def compact(self, revision: int) -> None:
        """Do nothing: a folder keeps no former values."""

    def step(self) -> None:
        if not self._is_due():
            return
        try:
            for key, (value, ends) in list(self._waiting.items()):
                self._folder.write(key, value, ends=ends)
                del self._waiting[key]
            self.problem = ""
        except Unavailable as error:
            self.problem = str(error)
