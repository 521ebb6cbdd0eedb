# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bytecode that older kernels refuse and the running one may accept: seen on Linux 6.1."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kernel.hosting import run, source_text

from packetwatch_core._kernel.bytecode import Compiler

if TYPE_CHECKING:
    from pathlib import Path

INSTRUCTION = struct.Struct("=BBhi")
JUMPS = (5, 6)
CALL, EXIT, ALWAYS = 0x80, 0x90, 0x00


def edges(code: list[tuple[int, int, int, int]], at: int) -> list[tuple[int, bool]]:
    """Return an instruction's successors, and whether an edge to each may go back (check_cfg, Linux 6.1)."""
    operation, _registers, offset, _value = code[at]
    kind = operation & 0xF0
    if operation & 7 not in JUMPS or kind == CALL:
        return [(at + 1, False)]
    if kind == EXIT:
        return []
    taken = (at + offset + 1, True)
    return [taken] if kind == ALWAYS else [(at + 1, True), taken]


def forbidden_back_edges(code: list[tuple[int, int, int, int]]) -> list[tuple[int, int]]:
    """Return the back edges of the kernel's depth-first walk that are not jumps."""
    found = []
    open_, done = {0}, set()
    path = [(0, iter(edges(code, 0)))]
    while path:
        at, ways = path[-1]
        way = next(ways, None)
        if way is None:
            path.pop()
            open_.discard(at)
            done.add(at)
        elif way[0] in open_:
            if not way[1]:
                found.append((at, way[0]))
        elif way[0] not in done:
            open_.add(way[0])
            path.append((way[0], iter(edges(code, way[0]))))
    return found


def test_loops_use_jumps_only(bytecode_cache: Path) -> None:
    bytecode = Compiler(run, str(bytecode_cache)).get(source_text())
    assert forbidden_back_edges(list(INSTRUCTION.iter_unpack(bytecode.code))) == []


def test_a_loop_that_falls_through_to_its_head_is_seen() -> None:
    nothing, out = (0xB7, 0, 0, 0), (0x95, 0, 0, 0)
    code = [(0x05, 0, 1, 0), nothing, (0x15, 0, -2, 0), out]
    assert forbidden_back_edges(code) == [(1, 2)]
