# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command ``watch``: the agent's log as it is written."""

from __future__ import annotations

import typing as t

from ..output import Output
from ..part import Part
from . import wire
from .follow import Follow
from .requests import Command
from .rights import READ


class Watch(Part):
    """Lets clients follow the output."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def commands(self) -> t.Mapping[str, Command]:
        return {"watch": Command(READ, self._watch)}

    def _watch(self, request: wire.Request) -> Follow:
        """All lines, or only those of some actions and of some sources."""
        fields = {"event.action": "actions", "source.ip": "sources"}
        wanted = [
            [f'"{field}":{wire.encode(text)}' for text in wire.texts_of(request, argument)]
            for field, argument in fields.items()
        ]

        def matches(line: str) -> bool:
            return all(any(text in line for text in texts) for texts in wanted if texts)

        return Follow(self._output, matches)
