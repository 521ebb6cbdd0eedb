# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The declared next program of an interface, to which our program hands the packets that pass."""

from __future__ import annotations

import os
import typing as t

from .._base.digest import digest_text
from .._base.errors import InvalidInput
from .._kernel.source import read_source

if t.TYPE_CHECKING:
    from .._kernel.pins import Pins

PATH, SOURCE = ".path", ".c"
"""Suffixes of the files in ``next.d``."""
_SHOWN_DIGITS = 12
_MAX_PATH = 4095


class Next(t.NamedTuple):
    """path: the pin of a program of another tool. source: a C source instead."""

    path: str = ""
    source: str = ""

    @property
    def file(self) -> tuple[str, str]:
        """The suffix and the content of its file."""
        return (PATH, f"{self.path}\n") if self.path else (SOURCE, self.source)

    def __str__(self) -> str:
        return self.path or f"next_src {digest_text(self.source)[:_SHOWN_DIGITS]}"


def pin_of(item: Next, pins: Pins) -> str:
    """The path of a next program's pin. That of a source has the key of its bytecode as its name."""
    if item.path:
        return item.path
    # Imported here: a boot knows all pins by their paths, and compiles nothing.
    from .._kernel.bytecode import NEXT_FUNCTION, key_of

    return os.path.join(pins.compiled, key_of(item.source, NEXT_FUNCTION))


def read_next(suffix: str, text: str) -> Next:
    """Return the next program of a file; raises InvalidInput."""
    if suffix == SOURCE:
        return Next(source=text)
    return Next(path=check_path(text.removesuffix("\n")))


def declared_next(path: str | None, source: str | None) -> Next | None:
    """Return the next program of a module's options `next` and `next_src`, which is a file; raises InvalidInput."""
    if source is not None:
        return Next(source=check_source(read_source(source)))
    return Next(path=check_path(path)) if path is not None else None


def check_path(path: str) -> str:
    """Return the path of a pin; raises InvalidInput if it cannot be one."""
    if not path.startswith("/") or len(path) > _MAX_PATH or not path.isprintable():
        raise InvalidInput(
            f"next is {path[:80]!r}: write the absolute path of a pinned XDP program, such as "
            "/sys/fs/bpf/NAME"
        )
    return path


def check_source(source: str) -> str:
    """Return a C source; raises InvalidInput if it cannot be a next program."""
    if "next(" not in source.replace(" ", ""):
        raise InvalidInput(
            "next_src has no function named next: name the program int next(struct xdp_md *context)"
        )
    return source
