# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``watch``: the agent's log as it is written."""

from __future__ import annotations

import typing as t

from packetwatch_core._base.address import format_prefix, parse_address
from packetwatch_core._base.errors import InvalidInput

from ..output import Output
from ..part import Part
from . import wire
from .follow import Follow
from .requests import Command
from .rights import READ

_MAX_NAME = 64
_ACTION, _SOURCE = '"event.action":"', '"source.ip":"'


class Watch(Part):
    """Lets clients follow the output."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def commands(self) -> t.Mapping[str, Command]:
        return {"watch": Command(READ, self._watch)}

    def _watch(self, request: wire.Request) -> Follow:
        """All lines, or only those of some actions and of some sources.

        A line costs the same, however many there are of both.
        """
        actions, sources = _actions(request), _sources(request)

        def matches(line: str) -> bool:
            return (not actions or _text(line, _ACTION) in actions) and (
                not sources or _text(line, _SOURCE) in sources
            )

        return Follow(self._output, matches)


def _actions(request: wire.Request) -> frozenset[str]:
    found = frozenset(wire.texts_of(request, "actions"))
    for name in sorted(found - frozenset(wire.ACTIONS)):
        raise InvalidInput(
            f"actions: {name[:_MAX_NAME]!r} is not an event: send some of {', '.join(wire.ACTIONS)}"
        )
    return found


def _sources(request: wire.Request) -> frozenset[str]:
    found = frozenset(wire.texts_of(request, "sources"))
    if len(found) > wire.MAX_SOURCES:
        raise InvalidInput(
            f"sources: {len(found)} addresses: send at most {wire.MAX_SOURCES}, or none for all sources"
        )
    return frozenset(format_prefix(parse_address(text)) for text in found)


def _text(line: str, field: str) -> str:
    """The text of a field in a line as `output.encode` writes it; empty if the line does not have it.

    Quotes inside a text are escaped, so no text contains the name of a field like this.
    """
    begin = line.find(field)
    if begin < 0:
        return ""
    begin += len(field)
    return line[begin : line.find('"', begin)]
