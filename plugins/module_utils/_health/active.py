# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What is active: the program of each interface, its mode, and the generation."""

from __future__ import annotations

import typing as t

from .._kernel.programs import attached

if t.TYPE_CHECKING:
    from .._active.loaded import Loaded


class Interface(t.NamedTuple):
    """An interface that has one of our links.

    held: id of the program that runs because of us: ours, or the dispatcher that has it. attached: id of
    the program that the kernel runs for the interface. program: id of our program. mode: native, generic, or our place in a dispatcher.
    """

    ifindex: int
    held: int
    mode: str
    attached: int
    program: int

    @property
    def is_ours(self) -> bool:
        """Whether the kernel runs the program that the link holds."""
        return self.attached == self.held


class Active(t.NamedTuple):
    """What decides packets now.

    interfaces: by the present names of their devices. digest: of the generation, from its
    header; empty if there is none. lists: digest of the lists from which it was compiled.
    """

    interfaces: dict[str, Interface]
    digest: str
    lists: bytes


def read_active(loaded: Loaded) -> Active:
    """Read the kernel's present state."""
    with loaded.generation() as current:
        return Active(interfaces(loaded), current.digest, current.header["lists"])


def interfaces(loaded: Loaded) -> dict[str, Interface]:
    """The filtered interfaces, sorted by name."""
    found = {}
    for name, link in sorted(loaded.links.items()):
        there = attached(link.ifindex)
        mode = loaded.mode_on(link.ifindex)
        found[name] = Interface(link.ifindex, link.runs, mode, there.program_id, link.program_id)
    return found
