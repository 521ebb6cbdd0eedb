# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Streams of lines that clients of the control socket follow."""

from __future__ import annotations

import functools
import typing as t

Lines = t.Sequence[str]


class Source(t.Protocol):
    """Writes lines of JSON, and gives them to `tap` unless that is None."""

    tap: t.Callable[[Lines], None] | None


class Follow(t.NamedTuple):
    """The answer to a request to follow a source from now on; not all lines match."""

    source: Source
    matches: t.Callable[[str], bool]


class Taps:
    """Taps the sources that are followed, and only them, so that the others cost nothing."""

    def __init__(self, pass_on: t.Callable[[Source, Lines], None]) -> None:
        self._pass_on = pass_on
        self._tapped: list[Source] = []

    def set(self, follows: t.Iterable[Follow]) -> None:
        """Tap exactly the sources of these."""
        for source in self._tapped:
            source.tap = None
        self._tapped = [follow.source for follow in follows]
        for source in self._tapped:
            source.tap = functools.partial(self._pass_on, source)
