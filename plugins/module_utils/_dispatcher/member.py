# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What a dispatcher has: its programs, each with its place."""

from __future__ import annotations

import typing as t

# The name of libxdp's dispatcher.
NAME = "xdp_dispatcher"
# The verdict of a function that no program replaces: the next one always runs.
RETVAL = 1 << 31


class Member(t.NamedTuple):
    """A program in a dispatcher.

    actions: bit N is set if the next program runs after verdict N. has_frags: whether it accepts packets of
    several buffers.
    """

    id: int
    name: str
    tag: str
    loaded: int
    priority: int
    actions: int
    has_frags: bool


class Chain(t.NamedTuple):
    """A dispatcher that is attached to an interface. members: in the order in which they run."""

    ifindex: int
    program_id: int
    mode: str
    members: tuple[Member, ...]

    def find(self, name: str) -> Member | None:
        """The first program of that name."""
        return next((member for member in self.members if member.name == name), None)
