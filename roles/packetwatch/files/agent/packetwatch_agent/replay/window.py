# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The distinct probes of each source within a sliding window, as the program and the agent count them."""

from __future__ import annotations

import typing as t


class Probe(t.NamedTuple):
    """A destination, a port of it, and the protocol of that port."""

    target: str
    port: int
    protocol: str


class Window:
    """Remembers when each source has last made each of its probes. Times are nanoseconds.

    longest: the longest window that `touch` is asked for. unit: times are compared in whole units.
    """

    def __init__(self, longest: int, unit: int) -> None:
        self._longest = longest // unit
        self._unit = unit
        # The source that has paused for longest comes first.
        self._sources: dict[str, dict[Probe, int]] = {}

    def touch(self, source: str, probe: Probe, time: int, length: int) -> tuple[bool, list[Probe]]:
        """Add a probe; return whether it is new, and all distinct probes of the source within the window."""
        now = time // self._unit
        self._prune(now)
        former = self._sources.pop(source, {})
        oldest = now - length // self._unit
        probes = {one: last for one, last in former.items() if last >= oldest}
        is_new = probe not in probes
        probes[probe] = max(now, probes.get(probe, now))
        self._sources[source] = probes
        return is_new, list(probes)

    def has(self, source: str, probe: Probe, time: int) -> bool:
        """Whether the source has made the probe within the longest window."""
        last = self._sources.get(source, {}).get(probe)
        return last is not None and last >= time // self._unit - self._longest

    def forget(self, source: str) -> None:
        self._sources.pop(source, None)

    def _prune(self, now: int) -> None:
        """Remove sources all of whose probes are too old."""
        while self._sources:
            source, probes = next(iter(self._sources.items()))
            if max(probes.values()) >= now - self._longest:
                return
            del self._sources[source]
