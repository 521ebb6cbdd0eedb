# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What is loaded now, and loading another program or another generation in its place.

The links are the truth: the program is the one that they hold, its generation is found through its
maps. The pin of the program only serves where every link was severed.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from . import _abi, _attach
from ._errors import LoadFailed, TooLarge, Unreadable
from ._generation import Generation, capacity_for, fits, go_live, make_slot
from ._libbpf import PERCPU_ARRAY, Map
from ._prog import Link, Program

if t.TYPE_CHECKING:
    from ._compile import Bytecode
    from ._generation import Image
    from ._pins import Pins

_MIB = 1 << 20


class Held(t.NamedTuple):
    """A pinned link; ifindex 0: its device is gone."""

    link: Link
    program_id: int
    ifindex: int


class Loaded:
    """The filter as it is in the kernel; a context manager that closes what it opened."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self._open = contextlib.ExitStack()
        self.links: dict[str, Held] = {}
        self.program: Program | None = None
        self.slot: Map | None = None

    def __enter__(self) -> Loaded:
        try:
            self._read()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *dummy: object) -> None:
        self._open.close()

    @property
    def program_ids(self) -> set[int]:
        ids = {held.program_id for held in self.links.values()}
        return ids | ({self.program.info().id} if self.program else set())

    @property
    def whole(self) -> bool:
        """Whether all links hold the one program; not so after a crash amid a replacement."""
        return len(self.program_ids) <= 1

    @property
    def ifindexes(self) -> dict[str, int]:
        return {name: held.ifindex for name, held in self.links.items() if held.ifindex}

    @property
    def active(self) -> bool:
        """Whether any interface is filtered."""
        return bool(self.ifindexes)

    def generation(self) -> Generation:
        """The live generation; that of an empty slot if nothing is loaded."""
        return Generation.current(self.slot) if self.slot else Generation(None)

    def replace(self, image: Image, bytecode: t.Callable[[], Bytecode], limit: int) -> None:
        """Make the image live: through the slot if it fits, else with the program loaded anew.

        limit: MiB that a generation may take. Until the last step the old state is in force.
        """
        with self.generation() as current:
            capacity, made_for = current.capacity, current.header["bytecode"]
        same = self.whole and made_for == _code_of(image)
        if self.slot and same and fits(image.pages, capacity):
            go_live(self.slot, image, capacity)
            return
        self._load(image, bytecode(), limit)

    def attach(self, interface: str, ifindex: int, mode: str) -> _attach.Attached:
        """Attach the loaded program by a pinned link; a former link of a device gone is dropped."""
        if self.program is None:
            raise LoadFailed("no program is loaded")
        self._drop(interface)
        done = _attach.attach(self.program, interface, ifindex, mode)
        done.link.pin(self._pins.link(interface))
        self.links[interface] = Held(done.link, self.program.info().id, ifindex)
        return done

    def detach(self, interface: str) -> None:
        """Take the filter off an interface; with the last one goes everything that was loaded."""
        self._drop(interface)
        if not self.links:
            self._pins.remove()

    def _drop(self, interface: str) -> None:
        held = self.links.pop(interface, None)
        if held:
            os.unlink(self._pins.link(interface))
            held.link.close()

    def _load(self, image: Image, bytecode: Bytecode, limit: int) -> None:
        capacity = capacity_for(image.pages)
        check_memory(capacity, limit)
        maps = self._pins.ensure()
        slot = self._keep(make_slot(capacity))
        go_live(slot, image, capacity)
        with Map.create(PERCPU_ARRAY, "scratch", 4, _abi.SCRATCH_SIZE, 1) as scratch:
            descriptors = {name: found.fd for name, found in maps.items()}
            descriptors |= {"generation": slot.fd, "scratch": scratch.fd}
            program = self._keep(Program.load(bytecode.resolved(descriptors), "packetwatch"))
        draft = self._pins.program + "_next"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        program.pin(draft)
        number = program.info().id
        for name, held in self.links.items():
            if held.ifindex:
                held.link.update(program)
                self.links[name] = held._replace(program_id=number)
        os.rename(draft, self._pins.program)
        self.program, self.slot = program, slot

    def _read(self) -> None:
        for name in self._pins.interfaces():
            link = self._keep(_opened(Link.open, self._pins.link(name)))
            number, ifindex = link.info()
            self.links[name] = Held(link, number, ifindex)
        if os.path.exists(self._pins.program):
            self.program = self._keep(_opened(Program.open, self._pins.program))
        held = [item.program_id for item in self.links.values() if item.ifindex]
        if held and (self.program is None or self.program.info().id not in held):
            self.program = self._keep(Program.by_id(held[0]))
        if self.program:
            for number in self.program.info().map_ids:
                found = self._keep(Map.by_id(number))
                if found.info.name == "generation":
                    self.slot = found

    def _keep(self, item: t.Any) -> t.Any:
        return self._open.enter_context(item)


def check_memory(capacity: int, limit: int) -> None:
    """TooLarge, with the value that would do, if a slot of `capacity` pages is above the limit."""
    need = -(-capacity * _abi.PAGE // _MIB)
    if need > limit:
        raise TooLarge(
            f"the lists need {need} MiB of kernel memory, list_memory allows {limit}: "
            f"set packetwatch_list_memory (PW_LIST_MEMORY) to {need} or more"
        )


def _code_of(image: Image) -> bytes:
    code: bytes = _abi.HEADER.unpack(image.first)["bytecode"]
    return code


def _opened(opener: t.Callable[[str], t.Any], path: str) -> t.Any:
    try:
        return opener(path)
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}; are you root?") from error
