# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Whether the program of this version must still be compiled: only that needs compiler and headers."""

from __future__ import annotations

import typing as t

from .._active.images import Images
from .._base.digest import digest_text
from .._base.errors import PacketwatchError
from .._change.programs import Programs
from .._kernel.bytecode import Compiler
from .._kernel.source import flatten

if t.TYPE_CHECKING:
    from .._declared.store import State
    from .machine import Machine


def is_compiled(machine: Machine, state: State, digest: str) -> bool:
    """Whether the host has the bytecode of the program whose source has this SHA-256.

    It can have it only of the declared program or of the installed one.
    """
    paths = machine.paths
    programs = Programs(Compiler(machine.run, paths.cache), Images(paths.images), paths.source)
    try:
        source = state.program
        if digest_text(source) != digest:
            source = flatten(paths.source)
        return digest_text(source) == digest and programs.cached(source) is not None
    except PacketwatchError:
        return False
