# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The program as an extension: the kernel can run it instead of a function of another XDP program.

The kernel compares the types of both functions, so it must know those of our program, which bcc does not
give it. One function with one argument needs five types.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
import typing as t

from .._base.errors import LoadFailed, Unsupported
from .._kernel.libbpf import Descriptor, KernelError, call
from .._kernel.programs import Program, Signature

# Documentation/bpf/btf.rst
_HEADER = struct.Struct("=HBBIIIII")
_MAGIC = 0xEB9F
_INT, _PTR, _STRUCT, _FUNC, _FUNC_PROTO = 1, 2, 4, 12, 13
_SIGNED = 1 << 24
_GLOBAL = 1
_CONTEXT_BYTES = 24
_FUNCTION_ID = 5
_TAIL_CALL = struct.pack("=BBhi", 0x85, 0, 0, 12)
# mov r0, 0
_RETURN_ZERO = struct.pack("=BBhi", 0xB7, 0, 0, 0)
# mov r0, XDP_PASS; exit
_PASS = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)


class _BtfLoadOpts(ctypes.Structure):
    _fields_ = [("sz", ctypes.c_size_t), ("rest", ctypes.c_uint8 * 40)]


def load_extension(instructions: bytes, name: str) -> Program:
    """Load bytecode as an extension of XDP programs; it can replace each of their functions.

    It makes no tail calls: in a dispatcher the next program is a member. Newer kernels would refuse them,
    because a program that is called may change the packet, and libxdp's functions do not.
    Raises `Unsupported` if this kernel has no extensions, `LoadFailed` if it refuses this one, and `KernelError` if
    this process may load no program at all.
    """
    # Any program will do: where it is attached to is decided by its link.
    with _signature(name) as signature, Program.load(_PASS, name, signature) as target:
        try:
            return Program.load(_without_tail_calls(instructions), name, signature, target)
        except KernelError as error:
            raise _unsupported(error.strerror) from error


def check_kernel() -> None:
    """Raise `Unsupported` unless this kernel loads extensions."""
    try:
        load_extension(_PASS, "check").close()
    except LoadFailed as error:
        raise _unsupported(error) from error


def _unsupported(reason: object) -> Unsupported:
    return Unsupported(
        f"this kernel loads no extensions of XDP programs ({reason}), so no program can join a dispatcher: attach "
        "with mode native or generic, and name the other program in `next`"
    )


def _without_tail_calls(instructions: bytes) -> bytes:
    steps = (instructions[at : at + 8] for at in range(0, len(instructions), 8))
    return b"".join(_RETURN_ZERO if step == _TAIL_CALL else step for step in steps)


def types_of(name: str) -> bytes:
    """The types of ``int name(struct xdp_md *ctx)``, as BTF; the function's number is 5."""
    strings = b"\0"

    def text(word: str) -> int:
        nonlocal strings
        at = len(strings)
        strings += word.encode() + b"\0"
        return at

    def entry(word: str, kind: int, size_or_type: int, *more: int, count: int = 0) -> bytes:
        head = (text(word) if word else 0, kind << 24 | count, size_or_type)
        return struct.pack(f"={3 + len(more)}I", *head, *more)

    types = b"".join(
        (
            entry("int", _INT, 4, _SIGNED | 32),
            # Its name decides that the argument is the context of an XDP program.
            entry("xdp_md", _STRUCT, _CONTEXT_BYTES),
            entry("", _PTR, 2),
            entry("", _FUNC_PROTO, 1, text("ctx"), 3, count=1),
            entry(name, _FUNC, 4, count=_GLOBAL),
        )
    )
    sizes = (0, len(types), len(types), len(strings))
    return _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, *sizes) + types + strings


@contextlib.contextmanager
def _signature(name: str) -> t.Iterator[Signature]:
    """The types of a function, known to the kernel while this is open."""
    types = types_of(name)
    opts = _BtfLoadOpts(sz=ctypes.sizeof(_BtfLoadOpts))
    size = ctypes.c_size_t(len(types))
    with Descriptor(
        call("bpf_btf_load", types, size, ctypes.byref(opts), what="load types")
    ) as btf:
        yield Signature(btf, _FUNCTION_ID)
