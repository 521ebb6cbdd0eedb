# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The next program of each interface, to which our program hands the packets that pass.

The map `nexts` is an array of programs; an interface's entry is at ifindex % `NEXT_SLOTS`. The kernel
replaces an entry between two packets, and an empty one lets packets pass.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import typing as t

from .._base.errors import LoadFailed, PacketwatchError, Unsupported
from .._base.number import read_whole
from . import abi
from .libbpf import PROG_ARRAY, KernelError, Map
from .programs import PROG_TYPE_XDP, Program

if t.TYPE_CHECKING:
    from .bytecode import Bytecode

NAME = "nexts"
LACKING = (
    "the loaded program calls no next program: a program of your own must call nexts_call() where packets "
    "pass, as packetwatch.bpf.c does"
)
_KEY = struct.Struct("=I")
_PIN = "next-"
_PROPERTIES = 5  # of a map: type, key size, value size, entries, flags
_MAX_VALUE = (1 << 32) - 1
_MAX_NAME = 15


class Wanted(t.NamedTuple):
    """The program that is to be next.

    path: its pin. load: loads it if nothing is pinned there; None if another tool pins it. stays: whether the
    program that is next now stays if this one is not there. must: whether a failure is an error.
    """

    path: str
    load: t.Optional[t.Callable[[], Program]] = None
    stays: bool = False
    must: bool = False


NextOf = t.Mapping[int, t.Optional[Wanted]]
"""The next program of each filtered interface, by ifindex; None: it has none."""


class Nexts:
    """The array of our loaded program. ours: that program, which must be able to call what is in it."""

    def __init__(self, array: Map, ours: Program) -> None:
        self._array = array
        self._ours = ours

    def id_on(self, ifindex: int) -> int:
        """The id of the interface's next program; 0 if it has none."""
        return self._id_at(_slot(ifindex))

    def fill(self, wanted: NextOf) -> dict[int, str]:
        """Put the next programs into their places; return by ifindex why some of them are not there."""
        problems = {}
        for ifindex, item in wanted.items():
            if item is None:
                continue
            try:
                self.check_place(ifindex, wanted)
                with open_program(item) as program:
                    self.check(program)
                    if self.id_on(ifindex) != program.info().id:
                        self._set(_slot(ifindex), program)
            except (PacketwatchError, OSError) as error:
                if item.must:
                    raise
                problems[ifindex] = str(error)
                if not item.stays:
                    self._array.delete(_key(_slot(ifindex)))
        return problems

    def check_place(self, ifindex: int, filtered: t.Iterable[int]) -> None:
        """Raise `Unsupported` if the packets of another filtered interface would meet the same program."""
        for other in filtered:
            if other != ifindex and _slot(other) == _slot(ifindex):
                raise Unsupported(
                    f"the interfaces with the indexes {ifindex} and {other} share a place, because these "
                    f"differ by a multiple of {abi.NEXT_SLOTS}: make one of the two devices anew"
                )

    def check(self, program: Program) -> None:
        """Raise `Unsupported` if our program cannot call this one."""
        info, ours = program.info(), self._ours.info()
        name = f"the program {info.name!r} (id {info.id}) cannot be next"
        if info.id == ours.id:
            raise Unsupported(f"{name}: it is Packetwatch's own; name another one")
        if info.type != PROG_TYPE_XDP:
            raise Unsupported(
                f"{name}: it is not an XDP program, but of type {info.type}; name another one"
            )
        if bool(info.code) != bool(ours.code):
            raise Unsupported(
                f"{name}: only one of it and ours is compiled to machine code; set net.core.bpf_jit_enable "
                "to 1 and load both again"
            )
        if not _are_alike(self._ours, program):
            raise Unsupported(
                f"{name}: it was loaded without BPF_F_XDP_HAS_FRAGS, or without the attach type BPF_XDP, or "
                'for one device; load it with libbpf from the section "xdp.frags", or declare its source as '
                "next_src"
            )

    def settle(self, wanted: NextOf) -> dict[int, str]:
        """Do the same, and empty all other places."""
        problems = self.fill(wanted)
        self.keep_only(wanted)
        return problems

    def keep_only(self, wanted: NextOf) -> None:
        """Empty the places of interfaces that have no next program."""
        kept = {_slot(ifindex) for ifindex, item in wanted.items() if item}
        for slot in self._ids():
            if slot not in kept:
                self._array.delete(_key(slot))

    def snapshot(self) -> dict[int, Program]:
        """The programs that are there now, by slot, for `restore`."""
        found = {}
        for slot, number in self._ids().items():
            with _vanishing():
                found[slot] = Program.by_id(number)
        return found

    def restore(self, programs: t.Mapping[int, Program]) -> None:
        """Put back exactly these programs."""
        for slot, program in programs.items():
            self._set(slot, program)
        for slot in self._ids():
            if slot not in programs:
                self._array.delete(_key(slot))

    def pin_all(self, folder: str) -> None:
        """Pin all programs that are there in a folder, for `restore_pinned`."""
        for slot, program in self.snapshot().items():
            with program:
                program.pin(os.path.join(folder, f"{_PIN}{slot}"))

    def restore_pinned(self, folder: str) -> None:
        """Put back exactly the programs that are pinned in a folder."""
        slots = [name for name in os.listdir(folder) if name.startswith(_PIN)]
        with contextlib.ExitStack() as opened:
            self.restore(
                {
                    int(name.removeprefix(_PIN)): opened.enter_context(
                        Program.open(os.path.join(folder, name))
                    )
                    for name in slots
                }
            )

    def _set(self, slot: int, program: Program) -> None:
        self._array.update(_key(slot), _KEY.pack(program.fd))

    def _id_at(self, slot: int) -> int:
        found = self._array.lookup(_key(slot))
        return _KEY.unpack(found)[0] if found else 0

    def _ids(self) -> dict[int, int]:
        """The ids of all programs that are there, by slot."""
        found = ((slot, self._id_at(slot)) for slot in range(abi.NEXT_SLOTS))
        return {slot: number for slot, number in found if number}


def open_program(item: Wanted) -> Program:
    """Open the wanted program; load and pin it if nothing is pinned there and it is ours to load."""
    try:
        return Program.open(item.path)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise LoadFailed(
                f"{item.path} cannot be opened as a pinned program: {error.strerror}; name the pin of an "
                "XDP program (bpftool prog pin id ID PATH)"
            ) from error
        if item.load is None:
            raise LoadFailed(
                f"nothing is pinned at {item.path}: pin the program there (bpftool prog pin id ID PATH), "
                "then packetwatchctl apply"
            ) from error
    program = item.load()
    try:
        os.makedirs(os.path.dirname(item.path), mode=0o700, exist_ok=True)
        program.pin(item.path)
    except BaseException:
        program.close()
        raise
    return program


def load_compiled(code: Bytecode) -> Program:
    """Load a next program with maps of its own, which live as long as it does."""
    with contextlib.ExitStack() as opened:
        maps = {
            text: opened.enter_context(_make_map(text))
            for text in {name for dummy, name in code.maps}
        }
        return Program.load(code.resolved({text: found.fd for text, found in maps.items()}), "next")


def _make_map(text: str) -> Map:
    """Make a map as bcc has made it; text: NAME=TYPE,KEY,VALUE,ENTRIES,FLAGS."""
    name, dummy, values = text.partition("=")
    numbers = [read_whole(value, _MAX_VALUE) for value in values.split(",")]
    found = [number for number in numbers if number is not None]
    if len(found) != _PROPERTIES:
        raise LoadFailed(
            f"the cached bytecode of a next program is damaged: its map is {text[:80]!r}; remove the files in "
            "/var/lib/packetwatch/cache and try again"
        )
    kind, key, value, entries, flags = found
    return Map.create(kind, name[:_MAX_NAME], key, value, entries, flags)


def _are_alike(one: Program, other: Program) -> bool:
    """Whether the kernel lets one of these programs call the other: an array takes both, or only one."""
    with Map.create(PROG_ARRAY, "alike", 4, 4, 2) as array:
        try:
            for slot, program in enumerate((one, other)):
                array.update(_key(slot), _KEY.pack(program.fd))
        except KernelError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
    return True


def _slot(ifindex: int) -> int:
    return ifindex % abi.NEXT_SLOTS


def _key(slot: int) -> bytes:
    return _KEY.pack(slot)


@contextlib.contextmanager
def _vanishing() -> t.Iterator[None]:
    """Ignore that a program has been freed since its id was read."""
    try:
        yield
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
