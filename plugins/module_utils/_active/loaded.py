# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The loaded filter, and replacing its program or its generation.

The links decide what is loaded: they hold the program, and its maps lead to the generation. The pin of
the program is used only if no link holds a program.

The kernel decides which link is on which device. A pin's name is only a label: the name that the device had
when it was last declared. Devices may have been renamed since.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import typing as t

from .._base.errors import LoadFailed, TooLarge, Unreadable
from .._base.interface import attach_command
from .._dispatcher.chain import Dispatchers
from .._dispatcher.membership import NAME, Membership
from .._dispatcher.place import is_dispatcher, read_place
from .._kernel import abi, netlink
from .._kernel.libbpf import PERCPU_ARRAY, PROG_ARRAY, KernelError, Map
from .._kernel.nexts import NAME as NEXTS
from .._kernel.nexts import Nexts
from .._kernel.pins import ifindex_of, label_of, specs
from .._kernel.programs import Link, Program, attached
from .attach import Attached, create_link, enter
from .generation import Generation, activate, new_slot

if t.TYPE_CHECKING:
    from .._kernel.bytecode import Bytecode
    from .._kernel.pins import Pins
    from .generation import Image

_MIB = 1 << 20
_ATTEMPTS = 5


class Held(t.NamedTuple):
    """A pinned link, or a membership in a dispatcher.

    program_id: of our program. runs: of the program that the device runs: our program, or the dispatcher.
    ifindex: 0 if its device has disappeared, or if the dispatcher does not have our program any more. pin:
    the path of the link's pin or of the membership's mark.
    """

    link: Link | Membership
    program_id: int
    ifindex: int
    pin: str
    runs: int

    @property
    def label(self) -> str:
        """The name of its device when that was last declared."""
        return label_of(self.pin)

    @property
    def membership(self) -> Membership | None:
        return self.link if isinstance(self.link, Membership) else None

    def remove(self) -> None:
        """Remove the link: the device does not run our program any more."""
        if self.membership:
            self.membership.leave()
            os.rmdir(self.pin)
        else:
            os.unlink(self.pin)
        self.link.close()


class Loaded:
    """The filter as it is in the kernel; a context manager that closes what it opened."""

    def __init__(self, pins: Pins) -> None:
        self.pins = pins
        self.dispatchers = Dispatchers(pins.dispatchers)
        self._open = contextlib.ExitStack()
        self.links: dict[str, Held] = {}
        """The links on this namespace's devices, by the present names of these."""
        self.away: list[Held] = []
        """The links whose device has disappeared, or is in another network namespace."""
        self._doubtful: list[Link | Membership] = []
        """Those of them that may be on a device here instead of another link."""
        self.devices: list[netlink.Link] = []
        """All devices of this namespace."""
        self.present: dict[str, int] = {}
        """Their ifindexes, by their names."""
        self.program: Program | None = None
        self.extension: Program | None = None
        """The same program for dispatchers, if it was needed once."""
        self.slot: Map | None = None
        self.whole = True
        """Whether all links, memberships and pins hold the same program. False after a crash during a change, or
        if another tool has put a program into a link."""

    def __enter__(self) -> Loaded:
        for attempt in range(_ATTEMPTS):
            try:
                if self._read() or attempt == _ATTEMPTS - 1:
                    break
                self._open.close()
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
        """The programs that devices run because of us."""
        ids = {held.runs for held in self._held if held.ifindex}
        return ids | ({self.program.info().id} if self.program else set())

    @property
    def ifindexes(self) -> dict[str, int]:
        """The filtered devices of this namespace, by their present names."""
        return {name: held.ifindex for name, held in self.links.items()}

    @property
    def has_links(self) -> bool:
        """Whether any link is pinned, also one without a device."""
        return bool(self.links or self.away)

    def owner(self, name: str, declared: t.Container[str]) -> str:
        """The declared name for which a device is filtered: its own, else its label if no device has that."""
        label = self.links[name].label
        is_own = name in declared or label not in declared or label in self.present
        return name if is_own else label

    def owned(self, declared: t.Container[str]) -> dict[str, int]:
        """The filtered devices of this namespace, by the names whose policies they have."""
        return {self.owner(name, declared): held.ifindex for name, held in self.links.items()}

    def renamed(self, declared: t.Container[str]) -> dict[str, str]:
        """The labels of the filtered devices that were declared, and now have names that are not, by name."""
        return {
            name: held.label
            for name, held in self.links.items()
            if name not in declared and held.label != name and held.label in declared
        }

    def displaced(self, declared: t.Container[str]) -> dict[str, str]:
        """Those of `renamed` whose former name another device has now."""
        found = self.renamed(declared)
        return {name: label for name, label in found.items() if label in self.present}

    @property
    def active(self) -> bool:
        """Whether any device is filtered, here or in another namespace."""
        return any(held.ifindex for held in self._held)

    def nexts(self) -> Nexts | None:
        """The next programs of the interfaces; None if the loaded program has none."""
        if self.program is None:
            return None
        found = self._maps_of(self.program).get(NEXTS)
        return Nexts(found, self.program) if found else None

    @property
    def has_nexts(self) -> bool:
        """Whether the active generation says that some interface has a next program."""
        with self.generation() as current:
            return bool(current.header["features"] & abi.F_NEXT)

    def generation(self) -> Generation:
        """The active generation; that of an empty slot if nothing is loaded."""
        return Generation.current(self.slot) if self.slot else Generation(None)

    def replace(
        self, image: Image, bytecode: t.Callable[[], Bytecode], *, extends: bool = False
    ) -> t.Callable[[], None]:
        """Activate the image: through the present slot if it fits, else by loading the program again.

        extends: the program is needed for a dispatcher too. If a step fails, the former generation stays
        active. Returns a function that undoes this.
        """
        former = self._keep(self.generation())
        is_loaded = self.whole and not (extends and self.extension is None)
        if self.slot and is_loaded and former.takes(image):
            slot = self.slot
            activate(slot, image, former.capacity)
            return lambda: former.activate(slot)
        before = self.program, self.extension, self.slot
        first = self.program is None and not self.has_links
        try:
            code = bytecode()
            maps = self.pins.ensure()
            slot = self._keep(new_slot(image.made_for(code.digest)))
            program, extension = _load(code, maps, slot, extends or bool(self.extension))
            self._keep(program)
            if extension:
                self._keep(extension)
            self._switch(program, extension)
        except BaseException:
            if first:
                self.pins.remove()
            raise
        self.slot = slot
        return functools.partial(self._return, *before)

    def unpinned(self) -> dict[str, Map]:
        """The program's lasting maps that are not pinned any more, or whose pin holds another map."""
        maps = self._maps_of(self.program) if self.program else {}
        return {
            name: maps[name]
            for name in specs()
            if name in maps and not self.pins.holds(name, maps[name])
        }

    def attach(self, interface: str, ifindex: int, mode: str, label: str = "") -> Attached:
        """Attach the loaded program by a pinned link, which replaces a former link on that device.

        label: of the pin; empty for the interface's name.
        """
        joins = is_dispatcher(mode)
        program = self.extension if joins else self.program
        if program is None:
            raise LoadFailed(
                f"cannot attach to {interface}: no program is loaded; "
                f"{attach_command(interface)} loads it"
            )
        held = self.held_on(ifindex)
        if joins and held and held.membership:
            place = read_place(mode)
            held.membership.move(program, place)
            self._put(held, held._replace(program_id=program.info().id, runs=held.link.info()[0]))
            return Attached(held.link, place.mode(), "")
        self._clear(ifindex)
        if joins:
            return self._join(program, interface, ifindex, mode, label)
        done = create_link(program, interface, ifindex, mode)
        link = self._keep(done.link)
        # An operator may have removed the folder with all links, to get rid of the filter at once.
        os.makedirs(self.pins.links, mode=0o700, exist_ok=True)
        pin = self._vacate(label or interface)
        link.pin(pin)
        number = program.info().id
        self.links[interface] = Held(link, number, ifindex, pin, number)
        return done

    def _join(
        self, program: Program, interface: str, ifindex: int, mode: str, label: str
    ) -> Attached:
        # Marked first: after a crash, the mark finds our program.
        mark = self.pins.member(label or interface, ifindex)
        os.makedirs(mark, mode=0o700, exist_ok=True)
        # The mark of a membership that was lost is that of the new one.
        self.away = [held for held in self.away if held.pin != mark]
        try:
            done = enter(self.dispatchers, program, interface, ifindex, mode)
        except BaseException:
            os.rmdir(mark)
            raise
        self.links[interface] = Held(
            done.link, program.info().id, ifindex, mark, done.link.info()[0]
        )
        return done

    def mode_on(self, ifindex: int) -> str:
        """The mode of a device: native, generic, none, or our place in its dispatcher."""
        held = self.held_on(ifindex)
        if held and held.membership:
            return held.membership.place.mode()
        return attached(ifindex).mode

    def held_on(self, ifindex: int) -> Held | None:
        """Our link on a device of this namespace."""
        return next((held for held in self.links.values() if held.ifindex == ifindex), None)

    def named(self, name: str, declared: t.Container[str]) -> Held | None:
        """The link that a declared name stands for, which may be away."""
        here = (held for key, held in self.links.items() if self.owner(key, declared) == name)
        return next(here, next((held for held in self.away if held.label == name), None))

    def restore(self, interface: str, ifindex: int, mode: str, label: str = "") -> None:
        """Attach again in the mode that an interface had before; "none": only detach."""
        if mode == "none":
            self._clear(ifindex)
        else:
            self.attach(interface, ifindex, mode, label)

    def tidy(self, declared: t.Container[str]) -> None:
        """Label the links of declared devices with their present names; remove links without a use.

        A link that is away stays while its label is declared and no other device is filtered for that:
        its device may come back. It also stays if it may be the one on a device here (see `_place`). So does
        the mark of a membership: a dispatcher that went with its device to another namespace comes back with it.
        """
        for held in list(self.away):
            is_wanted = held.label in declared and held.label not in self.links
            may_return = held.ifindex or (held.membership and held.label not in self.present)
            if not may_return or not (is_wanted or held.link in self._doubtful):
                self.drop(held)
        for name in list(self.links):
            held = self.links[name]
            if name in declared and held.label != name:
                ifindex = held.ifindex
                pin = self.pins.member(name, ifindex) if held.membership else self._vacate(name)
                self._move(held, pin)

    def take_up(self, program: Program, extension: Program | None, pages: Map) -> None:
        """Activate a former program with its former generation, on all links and in all dispatchers."""
        self._keep(program)
        if extension:
            self._keep(extension)
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
        is_in_use = self.program is not None and self.program.info().id == program.info().id
        if not (self.whole and is_in_use):
            self._switch(program, extension)
        self.slot = slot

    def remove(self) -> None:
        """Remove all that is loaded; the other programs of dispatchers go on."""
        for held in self._held:
            if held.membership:
                self.drop(held)
        self.pins.remove()

    def drop(self, held: Held) -> None:
        """Remove a link; what is loaded stays. Its pin may have got another path since it was read."""
        for found in self._held:
            if found.link is held.link:
                found.remove()
                self._put(found, None)

    @property
    def _held(self) -> list[Held]:
        return [*self.links.values(), *self.away]

    def _clear(self, ifindex: int) -> None:
        """Remove our link from a device of this namespace."""
        held = self.held_on(ifindex)
        if held:
            self.drop(held)

    def _vacate(self, label: str) -> str:
        """The path of the pin with a label. A link that is there already gets another path with that label."""
        pin = self.pins.link(label)
        for held in self._held:
            if held.pin == pin:
                spare = (self.pins.link(label, number) for number in itertools.count(1))
                self._move(held, next(path for path in spare if not os.path.lexists(path)))
        return pin

    def _move(self, held: Held, pin: str) -> None:
        os.rename(held.pin, pin)
        self._put(held, held._replace(pin=pin))

    def _put(self, held: Held, new: Held | None) -> None:
        """Put another entry into the place of a link's entry; None: remove it."""
        links = {name: new if found is held else found for name, found in self.links.items()}
        away = [new if found is held else found for found in self.away]
        self.links = {name: found for name, found in links.items() if found}
        self.away = [found for found in away if found]

    def _switch(self, program: Program, extension: Program | None) -> None:
        """Put the program into all links, dispatchers and pins; if one refuses, put the former one back.

        extension: the same program for dispatchers; None if there is none: then they lose the program.
        """
        draft = self.pins.program + "_next"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        program.pin(draft)
        done: list[tuple[Link | Membership, Program]] = []
        try:
            for held in self._held:
                new = extension if held.membership else program
                former = self._keep(Program.by_id(held.program_id)) if held.ifindex else None
                if new and former and _update(held, new):
                    done.append((held.link, former))
                    number, runs = new.info().id, held.link.info()[0]
                    self._put(held, held._replace(program_id=number, runs=runs))
                elif held.ifindex or not held.membership:
                    self.drop(held)
            self._pin_extension(extension)
            os.rename(draft, self.pins.program)
        except BaseException:
            for link, former in done:
                link.update(former)
            os.unlink(draft)
            raise
        self.program, self.extension = program, extension
        self.whole = True

    def _pin_extension(self, extension: Program | None) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.pins.extension)
        if extension:
            extension.pin(self.pins.extension)

    def _return(self, program: Program | None, extension: Program | None, slot: Map | None) -> None:
        """Restore the program and the slot that were loaded before."""
        if program is None:
            self.remove()
            self.program = self.extension = None
        else:
            self._switch(program, extension)
        self.slot = slot

    def _read(self) -> bool:
        """Read what is loaded; False if a writer has replaced programs meanwhile."""
        self.program = self.extension = self.slot = None
        found = []
        for pin in self.pins.link_pins():
            link = self._keep(_opened(Link.open, pin))
            number, ifindex = link.info()
            found.append(Held(link, number, ifindex, pin, number))
        is_settled = self._place((*found, *self._memberships()))
        held = {item.program_id for item in found if item.ifindex}
        pinned = 0
        if os.path.exists(self.pins.program):
            self.program = self._keep(_opened(Program.open, self.pins.program))
            pinned = self.program.info().id
        if os.path.exists(self.pins.extension):
            self.extension = self._keep(_opened(Program.open, self.pins.extension))
        self.whole = (
            held <= {pinned}
            and self._members() <= {self.extension.info().id if self.extension else 0}
            and not os.path.exists(self.pins.program + "_next")
        )
        if self.program:
            self.slot = self._slot_of(self.program)
        if held and pinned not in held:
            self._take_first(held)
        return is_settled

    def _memberships(self) -> t.Iterator[Held]:
        """Our memberships in dispatchers, as the kernel has them now."""
        for mark in self.pins.member_marks():
            found = Membership.find(self.dispatchers, ifindex_of(mark))
            runs, ifindex = found.info()
            yield Held(found, found.program_id, ifindex, mark, runs)

    def _members(self) -> set[int]:
        """The programs of ours that dispatchers have."""
        return {held.program_id for held in self._held if held.membership and held.ifindex}

    def _place(self, found: t.Iterable[Held]) -> bool:
        """Find the device of each link; return whether links and devices were read at one moment.

        A device in another namespace may have the same ifindex as one here. Then two links may name one
        device. The one that is labelled with its name counts.
        """
        self.devices = netlink.links()
        devices = {device.ifindex: device for device in self.devices}
        self.present = {device.name: ifindex for ifindex, device in devices.items()}
        self.links, self.away, self._doubtful = {}, [], []
        is_settled = True
        for held in found:
            device = devices.get(held.ifindex)
            if device and (held.runs == device.xdp_program or device.xdp_mode == "several"):
                rival = self.links.get(device.name)
                if rival and held.label != device.name:
                    held, rival = rival, held
                if rival:
                    self.away.append(rival)
                    self._doubtful.append(rival.link)
                self.links[device.name] = held
            else:
                self.away.append(held)
                is_settled = is_settled and held.link.info() == (held.runs, held.ifindex)
        return is_settled

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


def _load(
    bytecode: Bytecode, maps: t.Mapping[str, Map], slot: Map, extends: bool
) -> tuple[Program, Program | None]:
    """Load a program with the lasting maps and a slot; `LoadFailed` if the kernel refuses it.

    extends: load it for dispatchers too. Both decide alike, by the same maps.
    """
    with Map.create(PERCPU_ARRAY, "scratch", 4, abi.SCRATCH_SIZE, 1) as scratch:
        descriptors = {name: found.fd for name, found in maps.items()}
        descriptors |= {"generation": slot.fd, "scratch": scratch.fd}
        code = bytecode.resolved(descriptors)
        if not extends:
            return Program.load(code, NAME), None
        # Imported here: most hosts have no dispatcher.
        from .._dispatcher.extension import load_extension

        with contextlib.ExitStack() as stack:
            for name, found in maps.items():
                if found.info.type == PROG_ARRAY:
                    # Programs of one array are of one kind. In a dispatcher, the next program is a member.
                    own = Map.create(PROG_ARRAY, name, 4, 4, found.info.max_entries)
                    descriptors[name] = stack.enter_context(own).fd
            extension = load_extension(bytecode.resolved(descriptors), NAME)
        return Program.load(code, NAME), extension


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
