# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The program of a state: its source, and its bytecode. The next programs of its interfaces."""

from __future__ import annotations

import functools
import typing as t

from .._base.errors import InvalidInput
from .._declared.nexts import pin_of
from .._kernel.bytecode import NEXT_FUNCTION, Compiler
from .._kernel.nexts import Wanted, load_compiled
from .._kernel.source import check_format, flatten, reads_ours

if t.TYPE_CHECKING:
    from .._active.images import Images
    from .._base.types import Run
    from .._declared.nexts import Next
    from .._declared.store import State
    from .._kernel.bytecode import Bytecode
    from .._kernel.nexts import NextOf
    from .._kernel.pins import Pins
    from .._kernel.programs import Program


class Programs:
    """images: boot images, which have bytecode that the cache may have lost. installed: folder of the C
    source that the role installed.
    """

    def __init__(self, compiler: Compiler, images: Images, installed: str) -> None:
        self._compiler = compiler
        self._images = images
        self._installed = installed

    def source(self, state: State) -> str:
        """The state's own source if it reads tables of this version's format; else the installed one."""
        if state.program and reads_ours(state.program):
            return state.program
        return flatten(self._installed)

    def reads_ours(self, state: State) -> bool:
        """Whether the state's program, or the installed one, reads tables of this version's format."""
        try:
            return reads_ours(self.source(state))
        except InvalidInput:
            return False

    def bytecode(self, source: str) -> Bytecode:
        """The bytecode of a source, compiled if necessary.

        `InvalidInput` if the program reads another table format than this version writes.
        """
        return self.cached(source) or self._compiler.get(source)

    def of(self, state: State) -> t.Callable[[], Bytecode]:
        """A function that returns the bytecode of a state's program: only a call compiles it."""
        return lambda: self.bytecode(self.source(state))

    def key(self, source: str) -> str:
        """What identifies the bytecode of a source in the cache."""
        return self._compiler.key(source)

    def cached(self, source: str) -> Bytecode | None:
        """As `bytecode`, but None if the source would have to be compiled."""
        check_format(source)
        return self._compiler.cached(source) or self._images.code(self.key(source))

    def kept(self, source: str) -> Bytecode | None:
        """As `cached`; but bytecode whose file is not believed is compiled anew."""
        found = self.cached(source)
        return self.bytecode(source) if found is None and self._compiler.refused else found

    def keep(self, source: str, code: Bytecode) -> None:
        """Put bytecode of this source, which another place had, into the cache, unless it is there."""
        self._compiler.keep(source, code)


class Compilers(t.NamedTuple):
    """Those of our program, and of next programs."""

    filter: Compiler
    next: Compiler


def compilers(run: Run, folder: str) -> Compilers:
    """The compilers with a cache in this folder."""
    return Compilers(Compiler(run, folder), Compiler(run, folder, NEXT_FUNCTION))


class NextPrograms:
    """compiler: of next programs. pins: where their pins are."""

    def __init__(self, compiler: Compiler, pins: Pins) -> None:
        self._compiler = compiler
        self._pins = pins

    def compile(self, state: State) -> None:
        """Compile the sources of a state's next programs, so that a wrong one is refused in time."""
        for item in state.next.values():
            if item.source:
                self._compiler.get(item.source)

    def wanted(
        self,
        before: State,
        after: State,
        ifindexes: t.Mapping[str, int],
        *,
        must: bool = False,
    ) -> NextOf:
        """The next programs of the filtered interfaces after a change. ifindexes: of these interfaces.

        must: whether a new source that the kernel refuses is an error.
        """
        return {
            ifindex: self._wanted(after.next.get(name), before.next.get(name), must)
            for name, ifindex in ifindexes.items()
        }

    def _wanted(self, item: Next | None, former: Next | None, must: bool) -> Wanted | None:
        if item is None:
            return None
        load = functools.partial(self._load, item.source) if item.source else None
        stays = item == former
        return Wanted(
            pin_of(item, self._pins), load, stays, must and not stays and bool(item.source)
        )

    def _load(self, source: str) -> Program:
        return load_compiled(self._compiler.get(source))
