# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The loaded filter, and replacing its program or its generation.

The links decide what is loaded: they hold the program, and its maps lead to the generation. The pin of
the program is used only if no link holds a program.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import typing as t

from .._base.errors import LoadFailed, TooLarge, Unreadable
from .._kernel import abi
from .._kernel.libbpf import PERCPU_ARRAY, KernelError, Map
from .._kernel.pins import specs
from .._kernel.programs import Link, Program
from .attach import Attached, create_link
from .generation import Generation, activate, new_slot

if t.TYPE_CHECKING:
    from .._kernel.bytecode import Bytecode
    from .._kernel.pins import Pins
    from .generation import Image

_MIB = 1 << 20
_ATTEMPTS = 5


class Held(t.NamedTuple):
    """A pinned link. ifindex: 0 if its device has disappeared."""

    link: Link
    program_id: int
    ifindex: int


class Loaded:
    """The filter as it is in the kernel; a context manager that closes what it opened."""

    def __init__(self, pins: Pins) -> None:
        self.pins = pins
        self._open = contextlib.ExitStack()
        self.links: dict[str, Held] = {}
        self.program: Program | None = None
        self.slot: Map | None = None
        self.whole = True
        """Whether all links and the pin hold the same program. False after a crash during a change, or
        if another tool has put a program into a link."""

    def __enter__(self) -> Loaded:
        for attempt in range(_ATTEMPTS):
            try:
                self._read()
                break
            except Unreadable:
                self._open.close()
                raise
            except KernelError as error:
                # A reader has no lock: a writer may have replaced what it is about to open.
                self._open.close()
                if error.errno != errno.ENOENT or attempt == _ATTEMPTS - 1:
                    raise
            except BaseException:
                self._open.close()
                raise
        return self

    def __exit__(self, *dummy: object) -> None:
        self._open.close()

    @property
    def program_ids(self) -> set[int]:
        ids = {held.program_id for held in self.links.values() if held.ifindex}
        return ids | ({self.program.info().id} if self.program else set())

    @property
    def ifindexes(self) -> dict[str, int]:
        return {name: held.ifindex for name, held in self.links.items() if held.ifindex}

    @property
    def active(self) -> bool:
        """Whether any interface is filtered."""
        return bool(self.ifindexes)

    def generation(self) -> Generation:
        """The active generation; that of an empty slot if nothing is loaded."""
        return Generation.current(self.slot) if self.slot else Generation(None)

    def replace(self, image: Image, bytecode: t.Callable[[], Bytecode]) -> t.Callable[[], None]:
        """Activate the image: through the present slot if it fits, else by loading the program again.

        If a step fails, the former generation stays active. Returns a function that undoes this.
        """
        former = self._keep(self.generation())
        if self.slot and self.whole and former.takes(image):
            slot = self.slot
            activate(slot, image, former.capacity)
            return lambda: former.activate(slot)
        before = self.program, self.slot
        first = self.program is None and not self.links
        try:
            code = bytecode()
            maps = self.pins.ensure()
            slot = self._keep(new_slot(image.made_for(code.digest)))
            program = self._keep(_load(code, maps, slot))
            self._switch(program)
        except BaseException:
            if first:
                self.pins.remove()
            raise
        self.program, self.slot = program, slot
        return functools.partial(self._return, *before)

    def unpinned(self) -> dict[str, Map]:
        """The program's lasting maps that are not pinned any more, or whose pin holds another map."""
        maps = self._maps_of(self.program) if self.program else {}
        return {
            name: maps[name]
            for name in specs()
            if name in maps and not self.pins.holds(name, maps[name])
        }

    def attach(self, interface: str, ifindex: int, mode: str) -> Attached:
        """Attach the loaded program by a pinned link, which replaces a former link."""
        if self.program is None:
            raise LoadFailed(
                f"cannot attach to {interface}: no program is loaded; "
                f"systemctl restart packetwatch-xdp@{interface} loads it"
            )
        self.drop(interface)
        done = create_link(self.program, interface, ifindex, mode)
        link = self._keep(done.link)
        # An operator may have removed the folder with all links, to get rid of the filter at once.
        os.makedirs(self.pins.links, mode=0o700, exist_ok=True)
        link.pin(self.pins.link(interface))
        self.links[interface] = Held(link, self.program.info().id, ifindex)
        return done

    def held_on(self, ifindex: int) -> tuple[str, Held] | tuple[str, None]:
        """Our link on a device, and the device's name when the link was made; "" and None without one."""
        for name, held in self.links.items():
            if held.ifindex == ifindex:
                return name, held
        return "", None

    def rename(self, former: str, interface: str) -> None:
        """Rename the pin of a link whose device was renamed."""
        os.rename(self.pins.link(former), self.pins.link(interface))
        self.links[interface] = self.links.pop(former)

    def restore(self, interface: str, ifindex: int, mode: str) -> None:
        """Attach again in the mode that an interface had before; "none": only detach."""
        self.drop(interface)
        if mode != "none":
            self.attach(interface, ifindex, mode)

    def take_up(self, program: Program, pages: Map) -> None:
        """Activate a former program with its former generation, on all links."""
        self._keep(program)
        self._keep(pages)
        slot = self._slot_of(program)
        if slot is None:
            raise LoadFailed(
                f"the former program (id {program.info().id}) has no map `generation`, so it is not "
                "one of Packetwatch's"
            )
        with Generation.current(slot) as current:
            if current.number != pages.info.id:
                Generation(pages).activate(slot)
        if not self.whole or self.program_ids != {program.info().id}:
            self._switch(program)
        self.program, self.slot = program, slot

    def detach(self, interface: str) -> None:
        """Detach from an interface; with the last one, remove everything that is loaded."""
        self.drop(interface)
        if not self.links:
            self.pins.remove()

    def drop(self, interface: str) -> None:
        """Detach from an interface; what is loaded stays."""
        held = self.links.pop(interface, None)
        if held:
            os.unlink(self.pins.link(interface))
            held.link.close()

    def _switch(self, program: Program) -> None:
        """Put the program into all links and the pin; if one refuses, put the former one back."""
        draft = self.pins.program + "_next"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        program.pin(draft)
        done: list[tuple[Link, Program]] = []
        try:
            for name, held in list(self.links.items()):
                former = self._keep(Program.by_id(held.program_id))
                if _update(held, program):
                    done.append((held.link, former))
                    self.links[name] = held._replace(program_id=program.info().id)
                else:
                    self.drop(name)
            os.rename(draft, self.pins.program)
        except BaseException:
            for link, former in done:
                link.update(former)
            os.unlink(draft)
            raise
        self.whole = True

    def _return(self, program: Program | None, slot: Map | None) -> None:
        """Restore the program and the slot that were loaded before."""
        if program is None:
            self.pins.remove()
        else:
            self._switch(program)
        self.program, self.slot = program, slot

    def _read(self) -> None:
        self.links = {}
        self.program = self.slot = None
        for name in self.pins.interfaces():
            link = self._keep(_opened(Link.open, self.pins.link(name)))
            number, ifindex = link.info()
            self.links[name] = Held(link, number, ifindex)
        held = {item.program_id for item in self.links.values() if item.ifindex}
        pinned = 0
        if os.path.exists(self.pins.program):
            self.program = self._keep(_opened(Program.open, self.pins.program))
            pinned = self.program.info().id
        self.whole = held <= {pinned} and not os.path.exists(self.pins.program + "_next")
        if self.program:
            self.slot = self._slot_of(self.program)
        if held and pinned not in held:
            self._take_first(held)

    def _take_first(self, held: set[int]) -> None:
        """Use the first program that a link holds and that is ours (it has a slot)."""
        for number in sorted(held):
            program = self._keep(Program.by_id(number))
            slot = self._slot_of(program)
            if slot:
                self.program, self.slot = program, slot
                return

    def _slot_of(self, program: Program) -> Map | None:
        return self._maps_of(program).get("generation")

    def _maps_of(self, program: Program) -> dict[str, Map]:
        found = [self._keep(Map.by_id(number)) for number in program.info().map_ids]
        return {bpf_map.info.name: bpf_map for bpf_map in found}

    def _keep(self, item: t.Any) -> t.Any:
        return self._open.enter_context(item)


def _load(bytecode: Bytecode, maps: t.Mapping[str, Map], slot: Map) -> Program:
    """Load a program with the lasting maps and a slot; `LoadFailed` if the kernel refuses it."""
    with Map.create(PERCPU_ARRAY, "scratch", 4, abi.SCRATCH_SIZE, 1) as scratch:
        descriptors = {name: found.fd for name, found in maps.items()}
        descriptors |= {"generation": slot.fd, "scratch": scratch.fd}
        return Program.load(bytecode.resolved(descriptors), "packetwatch")


def check_memory(capacity: int, limit: int) -> None:
    """Raise `TooLarge`, with a sufficient value, if a slot of `capacity` pages is above the limit (MiB)."""
    need = -(-capacity * abi.PAGE // _MIB)
    if need > limit:
        raise TooLarge(
            f"the lists need {need} MiB of kernel memory, but list_memory is {limit}; "
            f"set packetwatch_list_memory (PW_LIST_MEMORY) to {need} or more"
        )


def _update(held: Held, program: Program) -> bool:
    """Replace a link's program; False if the link's device has disappeared."""
    try:
        if held.ifindex:
            held.link.update(program)
        return bool(held.ifindex)
    except KernelError as error:
        if error.errno != errno.ENOLINK:
            raise
        return False


def _opened(opener: t.Callable[[str], t.Any], path: str) -> t.Any:
    try:
        return opener(path)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            raise
        raise Unreadable(
            f"cannot open the pin {path}: {error.strerror}; this needs root"
        ) from error
