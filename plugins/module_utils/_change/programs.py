# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The program of a state: its source, and its bytecode."""

from __future__ import annotations

import typing as t

from .._base.errors import InvalidInput
from .._kernel.source import check_format, flatten, reads_ours

if t.TYPE_CHECKING:
    from .._active.images import Images
    from .._declared.store import State
    from .._kernel.bytecode import Bytecode, Compiler


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
