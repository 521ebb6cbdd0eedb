# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bench's own programs and maps: C, compiled by clang and loaded by libbpf."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

from packetwatch_core._kernel.libbpf import Map, call, library
from packetwatch_core._kernel.programs import Program

SOURCE = Path(__file__).with_name("programs.bpf.c")
_HAS_FRAGS = 1 << 5


def compiled(folder: Path) -> Path:
    """Compile the programs into a folder."""
    target = folder / "programs.o"
    multiarch = subprocess.run(
        ["clang", "-print-multiarch"], check=False, capture_output=True, text=True
    ).stdout.strip()
    include = f"/usr/include/{multiarch or f'{os.uname().machine}-linux-gnu'}"
    flags = ["-O2", "-g", "-Wall", "-Wno-unused-function", "-target", "bpf", "-I", include]
    subprocess.run(["clang", *flags, "-c", str(SOURCE), "-o", str(target)], check=True)
    return target


class Object:
    """All programs of the file, with maps of their own.

    Programs with and without support for fragments cannot call each other, so each kind of program
    under test needs its own objects.
    """

    def __init__(self, path: Path, frags: bool = False, **sizes: int) -> None:
        self._object = _pointer("bpf_object__open_file", str(path).encode(), None)
        for name, size in sizes.items():
            call("bpf_map__set_max_entries", self._map(name), ctypes.c_uint32(size))
        program = self._next(None)
        while program:
            flags = _HAS_FRAGS if frags else 0
            call("bpf_program__set_flags", program, ctypes.c_uint32(flags))
            program = self._next(program)
        call("bpf_object__load", self._object, what=f"load {path.name}")

    def _next(self, program: ctypes.c_void_p | None) -> ctypes.c_void_p | None:
        function = library().bpf_object__next_program
        function.restype = ctypes.c_void_p
        found = function(self._object, program)
        return ctypes.c_void_p(found) if found else None

    def close(self) -> None:
        library().bpf_object__close(self._object)

    def program(self, name: str) -> Program:
        found = _pointer("bpf_object__find_program_by_name", self._object, name.encode())
        return Program(os.dup(call("bpf_program__fd", found)))

    def map(self, name: str) -> Map:
        return Map(os.dup(call("bpf_map__fd", self._map(name))))

    def _map(self, name: str) -> ctypes.c_void_p:
        return _pointer("bpf_object__find_map_by_name", self._object, name.encode())


def _pointer(name: str, *arguments: Any) -> ctypes.c_void_p:
    function = getattr(library(), name)
    function.restype = ctypes.c_void_p
    found = function(*arguments)
    if not found:
        raise OSError(f"{name} failed for {arguments[-2:]}")
    return ctypes.c_void_p(found)


class Settings:
    """`struct settings` of programs.bpf.c, in its map."""

    _FIELDS = (
        "random", "first", "count", "layout", "keep", "set", "target", "ifindex",
        "ip_sum", "tcp_sum", "clusters", "pages",
    )  # fmt: skip
    _LAYOUT = struct.Struct("=12I16H")

    def __init__(self, where: Map, tops: tuple[int, ...]) -> None:
        self._map = where
        self._tops = tops

    def set(self, **values: int) -> None:
        """Set all fields; the default is 0, except for a seed and a mask that keeps all bits."""
        fields = {"random": 0x9E3779B9, "keep": 0xFFFFFFFF} | values
        numbers = [fields.pop(name, 0) for name in self._FIELDS]
        if fields:
            raise TypeError(f"no such setting: {sorted(fields)[0]}")
        self._map.update(bytes(4), self._LAYOUT.pack(*numbers, *self._tops))
