# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""XDP programs and links: load, inspect, attach, replace, run on a test packet."""

from __future__ import annotations

import ctypes
import errno
import os
import typing as t

from .._base.errors import LoadFailed
from .libbpf import Descriptor, KernelError, call, info_by_fd, library, obj_get

XDP_GENERIC = 1 << 1
XDP_NATIVE = 1 << 2
F_HAS_FRAGS = 1 << 5

PROG_TYPE_XDP = 6

_IF_NO_PROGRAM = 1 << 0
_PROG_TYPE_EXT = 28
_ATTACH_XDP = 37
_LICENSE = b"Dual BSD/GPL"
# The buffer must hold the whole log: older kernels keep its beginning, and the reason is at its end.
_LOG_BYTES = 1 << 24
_MODES = {1: "native", 2: "generic", 3: "offloaded"}


class _LoadOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_uint32),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
        ("attach_btf_obj_fd", ctypes.c_uint32),
        ("fd_array", ctypes.c_void_p),
        ("func_info", ctypes.c_void_p),
        ("func_info_cnt", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_void_p),
        ("line_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_char_p),
    ]


class _FunctionInfo(ctypes.Structure):
    _fields_ = [("instruction", ctypes.c_uint32), ("type_id", ctypes.c_uint32)]


class _ProgInfo(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_void_p),
        ("name", ctypes.c_char * 16),
        ("others", ctypes.c_uint8 * 136),
        ("verified_insns", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 20),
    ]


class _LinkInfo(ctypes.Structure):
    # The kernel's union is aligned to 8 bytes; for XDP it begins with the ifindex.
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 60),
    ]


class _LinkCreateOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("flags", ctypes.c_uint32),
        ("iter_info", ctypes.c_void_p),
        ("iter_info_len", ctypes.c_uint32),
        ("target_btf_id", ctypes.c_uint32),
        ("extra", ctypes.c_uint64 * 4),
    ]


class _QueryOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("prog_id", ctypes.c_uint32),
        ("drv_prog_id", ctypes.c_uint32),
        ("hw_prog_id", ctypes.c_uint32),
        ("skb_prog_id", ctypes.c_uint32),
        ("attach_mode", ctypes.c_uint8),
    ]


class _AttachOpts(ctypes.Structure):
    _fields_ = [("sz", ctypes.c_size_t), ("old_prog_fd", ctypes.c_int)]


class _TestRunOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_char_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    ]


class XdpContext(ctypes.Structure):
    """``struct xdp_md``: for a test packet, it names the interface on which the packet comes in."""

    _fields_ = [
        ("data", ctypes.c_uint32),
        ("data_end", ctypes.c_uint32),
        ("data_meta", ctypes.c_uint32),
        ("ingress_ifindex", ctypes.c_uint32),
        ("rx_queue_index", ctypes.c_uint32),
        ("egress_ifindex", ctypes.c_uint32),
    ]


class ProgramInfo(t.NamedTuple):
    """What the kernel reports about a program.

    loaded: when, in ns since boot. code: bytes of machine code. verified: instructions that the verifier
    processed, of the million that it allows (BPF_COMPLEXITY_LIMIT_INSNS).
    """

    id: int
    name: str
    tag: str
    loaded: int
    map_ids: tuple[int, ...]
    code: int
    verified: int
    type: int


class Attached(t.NamedTuple):
    """The program on an interface: its id (0: none) and mode (native, generic, offloaded, none)."""

    program_id: int
    mode: str


class Signature(t.NamedTuple):
    """Types (BTF) that the kernel knows, and the number of a program's function among them."""

    btf: Descriptor
    function: int


class Program(Descriptor):
    """A program in the kernel: XDP, or an extension that replaces a function of an XDP program."""

    @classmethod
    def load(
        cls,
        instructions: bytes,
        name: str,
        signature: Signature | None = None,
        extends: Program | None = None,
    ) -> Program:
        """Load bytecode that refers to maps by descriptors of this process.

        extends: a program of the same signature. What is loaded is an extension, which can replace any
        function with this signature. Raises LoadFailed, which quotes the verifier's last lines.
        """
        count = len(instructions) // 8
        opts = _LoadOpts(sz=ctypes.sizeof(_LoadOpts), prog_flags=F_HAS_FRAGS)
        kind, opts.expected_attach_type = PROG_TYPE_XDP, _ATTACH_XDP
        if signature:
            function = _FunctionInfo(0, signature.function)
            opts.prog_btf_fd, opts.func_info_cnt = signature.btf.fd, 1
            opts.func_info = ctypes.addressof(function)
            opts.func_info_rec_size = ctypes.sizeof(function)
        if signature and extends:
            # An extension has the buffers and the attach type of what it extends.
            kind, opts.expected_attach_type, opts.prog_flags = _PROG_TYPE_EXT, 0, 0
            opts.attach_prog_fd, opts.attach_btf_id = extends.fd, signature.function
        arguments = (kind, name.encode(), _LICENSE, instructions, ctypes.c_size_t(count))
        fd: int = library().bpf_prog_load(*arguments, ctypes.byref(opts))
        if fd >= 0:
            return cls(fd)
        # The log costs time and memory, so only a second attempt asks for it.
        if -fd == errno.EPERM:
            raise KernelError(-fd, "load the program")
        log = ctypes.create_string_buffer(_LOG_BYTES)
        opts.log_level, opts.log_size = 1, _LOG_BYTES
        opts.log_buf = ctypes.cast(log, ctypes.c_char_p)
        again: int = library().bpf_prog_load(*arguments, ctypes.byref(opts))
        if again >= 0:
            return cls(again)
        lines = log.value.decode(errors="replace").strip().splitlines()[-4:]
        reason = os.strerror(-fd)
        raise LoadFailed(f"the kernel refused the program ({reason}): {' | '.join(lines)}")

    @classmethod
    def open(cls, path: str) -> Program:
        return cls(obj_get(path))

    @classmethod
    def by_id(cls, number: int) -> Program:
        return cls(call("bpf_prog_get_fd_by_id", number, what=f"program {number}"))

    def info(self) -> ProgramInfo:
        ids = (ctypes.c_uint32 * 64)()
        raw = _ProgInfo(nr_map_ids=len(ids), map_ids=ctypes.addressof(ids))
        info_by_fd(self.fd, raw, "program")
        used = tuple(ids[: raw.nr_map_ids])
        return ProgramInfo(
            raw.id,
            raw.name.decode(),
            bytes(raw.tag).hex(),
            raw.load_time,
            used,
            raw.jited_prog_len,
            raw.verified_insns,
            raw.type,
        )

    def test_run(self, packet: bytes, ifindex: int = 0, repeat: int = 1) -> tuple[int, int]:
        """Run the program on a packet of at least 14 bytes; return (XDP verdict, ns per run).

        The program uses its real maps: it counts, bans and logs. With ``ifindex``, the packet comes in
        on that interface of this network namespace.
        """
        context = XdpContext(data_end=len(packet), ingress_ifindex=ifindex)
        opts = _TestRunOpts(sz=ctypes.sizeof(_TestRunOpts), repeat=repeat)
        opts.data_in, opts.data_size_in = packet, len(packet)
        if ifindex:
            opts.ctx_in = ctypes.addressof(context)
            opts.ctx_size_in = ctypes.sizeof(context)
        call("bpf_prog_test_run_opts", self.fd, ctypes.byref(opts), what="test run")
        return opts.retval, opts.duration


class Link(Descriptor):
    """A program's attachment to an interface. While it is pinned, it outlives its process."""

    @classmethod
    def create(cls, program: Program, ifindex: int, flags: int) -> Link:
        """Attach a program; flags: XDP_NATIVE or XDP_GENERIC. Raises `KernelError` with the driver's errno."""
        opts = _LinkCreateOpts(sz=ctypes.sizeof(_LinkCreateOpts), flags=flags)
        what = f"attach to interface {ifindex}"
        arguments = (program.fd, ifindex, _ATTACH_XDP, ctypes.byref(opts))
        return cls(call("bpf_link_create", *arguments, what=what))

    @classmethod
    def replace_function(cls, extension: Program, target: Program, function: int) -> Link:
        """Let an extension run instead of a function of an XDP program, as long as the link is open."""
        opts = _LinkCreateOpts(sz=ctypes.sizeof(_LinkCreateOpts), target_btf_id=function)
        arguments = (extension.fd, target.fd, 0, ctypes.byref(opts))
        return cls(call("bpf_link_create", *arguments, what="replace a function of a program"))

    @classmethod
    def open(cls, path: str) -> Link:
        return cls(obj_get(path))

    def info(self) -> tuple[int, int]:
        """Return (program id, ifindex); the ifindex is 0 once the device has disappeared."""
        raw = _LinkInfo()
        info_by_fd(self.fd, raw, "link")
        return raw.prog_id, raw.ifindex

    def update(self, program: Program) -> None:
        """Replace the program without a gap: every packet meets the old one or the new one."""
        call("bpf_link_update", self.fd, program.fd, None, what="replace the program")

    def detach(self) -> None:
        """Detach the program from the device, even if other processes hold the link open."""
        call("bpf_link_detach", self.fd, what="detach")


def attached(ifindex: int) -> Attached:
    """Return the program on an interface, also one that another tool attached."""
    opts = _QueryOpts(sz=ctypes.sizeof(_QueryOpts))
    call("bpf_xdp_query", ifindex, 0, ctypes.byref(opts), what=f"query interface {ifindex}")
    ids = {1: opts.drv_prog_id, 2: opts.skb_prog_id, 3: opts.hw_prog_id}
    number = opts.prog_id or ids.get(opts.attach_mode, 0)
    return Attached(number, _MODES.get(opts.attach_mode, "none") if number else "none")


def exchange(ifindex: int, program: Program | None, former: Program | None, flags: int) -> None:
    """Attach a program without a link, in the place of a former one; None: no program.

    flags: XDP_NATIVE or XDP_GENERIC. Raises `KernelError` with EEXIST if the interface has another program
    than the former one.
    """
    opts = _AttachOpts(sz=ctypes.sizeof(_AttachOpts), old_prog_fd=former.fd if former else 0)
    if former is None:
        flags |= _IF_NO_PROGRAM
    arguments = (ifindex, program.fd if program else -1, flags, ctypes.byref(opts))
    call("bpf_xdp_attach", *arguments, what=f"attach to interface {ifindex}")
