# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""This host's network and settings at one moment."""

from __future__ import annotations

import typing as t
from functools import cached_property

from .._kernel import netlink
from . import protect
from .settings import read_settings, unknown_protection

if t.TYPE_CHECKING:
    from .settings import HostSettings


class Snapshot:
    """What one operation reads of the host: each part once, when it is first used.

    So all checks of a change decide on the same facts. settings: path of the settings file. last: returns
    the settings that were in force before; called only if one is wrong. text: the settings that a change
    brings, which count instead of the file. links: if the operation has read them already. The parts raise
    `Unreadable`.
    """

    def __init__(
        self,
        settings: str,
        last: t.Callable[[], t.Mapping[str, str]] = dict,
        text: str | None = None,
        links: list[netlink.Link] | None = None,
    ) -> None:
        self._path = settings
        self._last = last
        self._text = text
        self._links = links

    @cached_property
    def settings(self) -> HostSettings:
        found = read_settings(self._path, text=self._text)
        if found.problems:
            found = read_settings(self._path, self._last(), self._text)
        return found

    @cached_property
    def network(self) -> protect.Network:
        return protect.read_network()

    @cached_property
    def links(self) -> list[netlink.Link]:
        return netlink.links() if self._links is None else self._links

    @cached_property
    def protection(self) -> protect.Protection:
        """The sources that must not be banned."""
        settings = self.settings
        found = protect.compute(
            settings.protect, settings.protect_auto, self.network, shared=settings.shared
        )
        # What a wrong setting protected is unknown: no present entry is removed because of it.
        found.problems.extend(unknown_protection(settings.problems))
        return found
