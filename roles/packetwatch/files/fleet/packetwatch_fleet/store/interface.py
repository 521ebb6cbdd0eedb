# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every store can do. A plug-in is a function that takes settings and returns a `Store` (see `plugins`)."""

from __future__ import annotations

import typing as t

from packetwatch_core._base.errors import PacketwatchError


class Unavailable(PacketwatchError):
    """The store did not answer, or not as it should. Nothing is known: no caller may take this for an empty store."""


class Denied(PacketwatchError):
    """The store knows who asks, and refuses."""


class Conflict(PacketwatchError):
    """The key has another revision than the caller expected."""


class Snapshot(t.NamedTuple):
    """Everything below some prefixes, at one revision.

    cluster: a name that a new, empty store does not have. now: the store's time. items: revision and value by key.
    """

    cluster: str
    revision: int
    now: float
    items: dict[str, tuple[int, bytes]]


class Put(t.NamedTuple):
    """A key has a new value."""

    key: str
    value: bytes
    revision: int


class Gone(t.NamedTuple):
    """A key was deleted, or has ended."""

    key: str
    revision: int


class Relisted(t.NamedTuple):
    """Everything was read anew: whatever is not in the snapshot is gone. The receiver owns the snapshot."""

    snapshot: Snapshot


class Lost(t.NamedTuple):
    """The follower knows no changes from here on, until it has `Relisted`."""

    reason: str


Change = Put | Gone | Relisted | Lost


class Stepping(t.Protocol):
    """Work for a loop without threads: nothing blocks."""

    def fileno(self) -> int:
        """A descriptor that stays the same; when it is readable, `step` is due."""

    def deadline(self) -> float:
        """The monotonic time at which `step` is due at the latest."""

    def close(self) -> None:
        """End all connections."""


class Follower(Stepping, t.Protocol):
    """Everything that changes below some prefixes."""

    endpoint: str
    """The server that it follows; empty: none at the moment."""
    heard: float
    """The monotonic time of the last answer; 0: there was none."""
    revision: int
    """The store's revision in the last answer, also if nothing has changed below the prefixes."""

    def step(self) -> list[Change]:
        """Do what is due, and return what has changed."""


class Writer(Stepping, t.Protocol):
    """Writes values again and again: for each key, only the last one matters."""

    problem: str
    """Why the last attempt failed; empty: it did not."""

    @property
    def waiting(self) -> int:
        """How many values the store does not have yet."""

    def put(self, key: str, value: bytes, *, ends: float | None = None) -> None:
        """Write a value as soon as possible, in place of one that still waits. ends: as in `Store.write`."""

    def compact(self, revision: int) -> None:
        """Let the store forget what was overwritten before this revision, if it keeps that at all."""

    def step(self) -> None:
        """Do what is due."""


class Store(t.Protocol):
    """`read`, `write` and `delete` wait for an answer and raise `Unavailable`, `Denied` or `Conflict`."""

    def read(self, *prefixes: str) -> Snapshot:
        """Everything below the prefixes, linearizable, never a part of it."""

    def write(
        self, key: str, value: bytes, *, ends: float | None = None, expect: int | None = None
    ) -> int:
        """Write a value and return its revision.

        ends: the store's time after which the key is gone. expect: the key's present revision, 0: it does not exist.
        """

    def delete(self, key: str, *, expect: int | None = None) -> None:
        """Delete a value. expect: as in `write`."""

    def follow(self, *prefixes: str) -> Follower:
        """Return what follows these prefixes from now on."""

    def writer(self) -> Writer:
        """Return what writes values without waiting."""

    def offset(self) -> float | None:
        """What to add to the monotonic time for the store's time; None: not known yet."""
