# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Builds libxdp's dispatcher for some programs, from the object file in Debian's package libxdp1.

A dispatcher is an XDP program that calls up to ten functions in turn, which extensions replace. Its
configuration is constant, so the kernel removes all that a given number of programs does not need.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import struct
import typing as t

from .._base.errors import LoadFailed, Unsupported
from .._kernel.libbpf import KernelError, call, library
from .._kernel.programs import F_HAS_FRAGS, Link, Program
from .member import NAME, RETVAL

if t.TYPE_CHECKING:
    from .member import Member

MAX_MEMBERS = 10

# struct xdp_dispatcher_config: magic, version, number of programs, whether it supports frags; then for each
# program the actions, the priority and the flags.
CONFIG = struct.Struct(f"=4B{3 * MAX_MEMBERS}I")
MAGIC = 236
VERSION = 2

_OBJECTS = "/usr/lib/*/bpf/xdp-dispatcher.o"
_BTF_FUNC = 12


class Built(t.NamedTuple):
    """A dispatcher that is loaded, not attached. links: they let the members run in it."""

    program: Program
    members: t.Sequence[Member]
    links: list[Link]

    def close(self) -> None:
        for item in (*self.links, self.program):
            item.close()


def find_object() -> str:
    """The path of libxdp's object file; raises `Unsupported` if it is not installed."""
    found = sorted(glob.glob(_OBJECTS))
    if not found:
        raise Unsupported(
            f"libxdp's dispatcher ({_OBJECTS}) is not installed, and mode dispatcher needs it: "
            "apt-get install libxdp1"
        )
    return found[0]


def build(members: t.Sequence[Member]) -> Built:
    """Load a dispatcher for these programs in this order, and let each run in it."""
    if len(members) > MAX_MEMBERS:
        raise LoadFailed(
            f"the dispatcher has no room for another program: it has {len(members) - 1} of {MAX_MEMBERS} "
            "(xdp-loader status lists them)"
        )
    with contextlib.ExitStack() as undo:
        program, functions = _load(members)
        undo.callback(program.close)
        links = []
        for member, function in zip(members, functions):
            try:
                with Program.by_id(member.id) as extension:
                    links.append(Link.replace_function(extension, program, function))
            except KernelError as error:
                raise LoadFailed(
                    f"the kernel refuses {member.name} (id {member.id}) in a dispatcher: {error.strerror}"
                ) from error
            undo.callback(links[-1].close)
        undo.pop_all()
    return Built(program, members, links)


def _load(members: t.Sequence[Member]) -> tuple[Program, list[int]]:
    """The dispatcher, and the numbers of the functions that the programs replace."""
    has_frags = all(member.has_frags for member in members)
    config = _config(members, has_frags)
    path = find_object()
    # It would write to standard error about a section that it does not know.
    library().libbpf_set_print(None)
    opened = _pointer("bpf_object__open_file", os.fsencode(path), None)
    if not opened:
        raise LoadFailed(f"{path} cannot be read: apt-get install --reinstall libxdp1")
    try:
        for name in (NAME, "xdp_pass"):
            found = _pointer("bpf_object__find_program_by_name", opened, name.encode())
            if found:
                _call("bpf_program__set_autoload", found, ctypes.c_bool(name == NAME))
        program = _pointer("bpf_object__find_program_by_name", opened, NAME.encode())
        constants = _pointer("bpf_object__next_map", opened, None)
        if not program or not constants:
            raise LoadFailed(f"{path} has no program {NAME}: apt-get install --reinstall libxdp1")
        if has_frags:
            _call("bpf_program__set_flags", program, ctypes.c_uint32(F_HAS_FRAGS))
        _call("bpf_map__set_initial_value", constants, config, ctypes.c_size_t(len(config)))
        _call("bpf_object__load", opened)
        types = _pointer("bpf_object__btf", opened)
        # A single program replaces the whole dispatcher, as libxdp has it: one call less.
        names = [NAME] if len(members) == 1 else [f"prog{at}" for at in range(len(members))]
        functions = [
            _call("btf__find_by_name_kind", types, name.encode(), _BTF_FUNC) for name in names
        ]
        return Program(os.dup(_call("bpf_program__fd", program))), functions
    except KernelError as error:
        raise LoadFailed(f"the kernel refused the dispatcher of {path}: {error}") from error
    finally:
        closer = library().bpf_object__close
        closer.restype = None
        closer(ctypes.c_void_p(opened))


def _config(members: t.Sequence[Member], has_frags: bool) -> bytes:
    def column(values: t.Iterable[int]) -> list[int]:
        found = list(values)
        return found + [0] * (MAX_MEMBERS - len(found))

    return CONFIG.pack(
        MAGIC,
        VERSION,
        len(members),
        has_frags,
        *column(member.actions | RETVAL for member in members),
        *column(member.priority for member in members),
        *column(F_HAS_FRAGS * member.has_frags for member in members),
    )


def _pointer(name: str, *arguments: t.Any) -> int | None:
    """Call a function of libbpf that returns a pointer."""
    function = getattr(library(), name)
    function.restype = ctypes.c_void_p
    found: int | None = function(*(_argument(value) for value in arguments))
    return found


def _call(name: str, *arguments: t.Any) -> int:
    return call(name, *(_argument(value) for value in arguments), what=name)


def _argument(value: t.Any) -> t.Any:
    """Pointers come as whole numbers, which ctypes would cut to 32 bits."""
    return ctypes.c_void_p(value) if isinstance(value, int) and value > 0xFFFF else value
