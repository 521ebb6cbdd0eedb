# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every bus can do. A plug-in is a function that takes settings and returns a `Bus` (see `plugins`)."""

from __future__ import annotations

import typing as t

from ..store.interface import Stepping

# What a bus keeps at most, for a server that does not take it.
MAX_EVENTS = 2000
MAX_BYTES = 4 << 20


class Command(t.NamedTuple):
    """What somebody asks for.

    user: whom the server knows as the sender; empty: the sender did not want to be named. is_again: the server has
    delivered it before, and got no answer. handle: what the bus needs to answer.
    """

    user: str
    verb: str
    body: bytes
    is_again: bool
    handle: t.Any


class Counts(t.NamedTuple):
    """Numbers of events. Each one that was published is in exactly one of them."""

    confirmed: int
    """The server has them."""
    dropped: int
    """There was no room, or the server refuses them."""
    waiting: int


class Bus(Stepping, t.Protocol):
    """A connection to a server, which is made again whenever it is lost."""

    problem: str
    """Why the last connection has failed, or why the server takes nothing; empty: nothing is known to be wrong."""
    connects: int
    """How often a connection was made."""
    is_connected: bool

    def publish(self, topic: str, body: bytes, events: int) -> bool:
        """Send so many events as one message; False: there is no room, and they are dropped."""

    def counts(self) -> Counts:
        """What became of the events."""

    def commands(self) -> t.Iterator[Command]:
        """What has come in since the last call."""

    def answer(self, command: Command, result: t.Mapping[str, t.Any]) -> bool:
        """Answer a command, which is done with it. False: its sender wants no answer, or cannot get one."""

    def step(self) -> None:
        """Do what is due."""


def takes_messages(bus: Bus) -> bool:
    """Whether there is a connection, and the server lets it send."""
    return bus.is_connected and not bus.problem
