# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources that a host does not ban, whatever they do."""

from __future__ import annotations

import typing as t

from packetwatch_core._active.verdict import find
from packetwatch_core._base.address import Prefix, parse_prefix
from packetwatch_core._declared.store import State

if t.TYPE_CHECKING:
    from packetwatch_core._base.clock import Clock
    from packetwatch_core._feeds.spare import Note

    from .detector import Ban


class Sparing:
    """Finds the reason not to ban a source.

    protected: sources whose scans the recording calls protected. prefixes: by their reason. allow: the
    allow lists, as in `State`.
    """

    def __init__(
        self,
        protected: t.Collection[str],
        prefixes: t.Mapping[str, t.Sequence[Prefix]],
        allow: t.Mapping[str, str],
        clock: Clock,
        note: Note,
    ) -> None:
        self._protected = protected
        self._prefixes = prefixes
        self._allow = State(allow=allow)
        self._clock = clock
        self._note = note

    def split(self, bans: t.Iterable[Ban]) -> tuple[list[Ban], dict[str, str]]:
        """The bans that are made, and why sources are spared, by source."""
        made: list[Ban] = []
        reasons: dict[str, str] = {}
        for ban in bans:
            reason = reasons.get(ban.source) or self._reason(ban.source)
            if reason:
                reasons[ban.source] = reason
            else:
                made.append(ban)
        return made, reasons

    def _reason(self, source: str) -> str:
        if source in self._protected:
            return "protected while it was recorded"
        prefix = parse_prefix(source)
        for reason, prefixes in self._prefixes.items():
            if any(_overlap(prefix, one) for one in prefixes):
                return reason
        if any(item.counts for item in find(self._allow, prefix, self._clock, self._note)):
            return "on an allow list"
        return ""


def _overlap(one: Prefix, other: Prefix) -> bool:
    return one.family == other.family and one.value <= other.last and other.value <= one.last
