# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fleet bans that an operator has lifted on this host. They stay lifted until the fleet's end, over restarts too."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from packetwatch_core._bans.bans import Source, is_source
from packetwatch_core._base.address import parse_prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._base.files import read_json, replace_json
from packetwatch_core._base.number import MAX_TIME, is_number

from .output import Output, Trouble

FILE = "vetoes.json"
MAX_VETOES = 1024


class Vetoes:
    """Sources by the end (Unix seconds) of the fleet's ban on them. longest: of such a ban, in seconds."""

    def __init__(self, folder: str, longest: float, output: Output) -> None:
        self._path = os.path.join(folder, FILE)
        self._longest = longest
        self._trouble = Trouble(output)
        self._ends = self._read()
        self._is_saved = True

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, source: Source, seconds: float) -> None:
        """Remember a source while the fleet bans it. seconds: until that ban ends."""
        self._forget_ended()
        self._ends.pop(source, None)
        if len(self._ends) >= MAX_VETOES:
            del self._ends[min(self._ends, key=lambda source: self._ends[source])]
        self._ends[source] = self._end(seconds)
        self._is_saved = False
        self.save()

    def holds(self, source: Source, seconds: float) -> bool:
        """Whether the fleet's ban on a source, which now ends in so many seconds, stays lifted."""
        end = self._ends.get(source)
        if end is None:
            return False
        if end <= time.time():
            self._drop(source)
            return False
        if self._end(seconds) > end + 1:
            self._ends[source] = self._end(seconds)
            self._is_saved = False
        return True

    def end(self, source: Source) -> None:
        """Forget a source: the fleet has lifted its ban, or an operator bans it."""
        if source in self._ends:
            self._drop(source)
            self.save()

    def save(self) -> None:
        """Write to disk what has changed; log once if that fails."""
        if self._is_saved:
            return
        try:
            replace_json(self._path, {source.cidr: end for source, end in self._ends.items()})
        except OSError as error:
            self._trouble.log(f"lifted fleet bans are not saved: {self._path}: {error.strerror}")
        else:
            self._is_saved = True
            self._trouble.log("")

    def _end(self, seconds: float) -> float:
        return time.time() + min(seconds, self._longest)

    def _drop(self, source: Source) -> None:
        del self._ends[source]
        self._is_saved = False

    def _forget_ended(self) -> None:
        now = time.time()
        self._ends = {source: end for source, end in self._ends.items() if end > now}

    def _read(self) -> dict[Source, float]:
        """The vetoes on disk; none if the file is damaged, so that at worst a lifted ban comes back."""
        found: dict[Source, float] = {}
        with contextlib.suppress(AttributeError, OSError, ValueError):
            for text, end in list(read_json(self._path).items())[:MAX_VETOES]:
                source = _source(text)
                if source and is_number(end, MAX_TIME):
                    found[source] = float(end)
        latest = time.time() + self._longest
        # A clock that was set back must not make a veto last longer than a ban can.
        return {source: min(end, latest) for source, end in found.items()}


def _source(text: t.Any) -> Source | None:
    """The source that a text is; None if it is not one."""
    try:
        source = Source.of(parse_prefix(str(text)))
    except InvalidInput:
        return None
    return source if is_source(source.key) else None
