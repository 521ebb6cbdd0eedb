# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The folder of boot images: that of the confirmed state, and that of a pending change.

The folder is not part of confirmed state, so that a host whose state is damaged still has them. Only
root's own files are believed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import typing as t

from .._base.errors import Unreadable, reason_of
from .._base.files import make_own_folder, open_own, replace_parts

if t.TYPE_CHECKING:
    from .._kernel.bytecode import Bytecode
    from .kept import Kept

_CONFIRMED, _CANDIDATE = "confirmed", "candidate"


# Longer than an image's first line.
_LINE = 1 << 10


class Images:
    """The images in a folder, which is made when it is needed."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def keep(self, kept: Kept, *, pending: bool) -> None:
        """Write the image of what is active, unless that file has it already; raises OSError."""
        from .kept import pack

        make_own_folder(self._folder)
        path = self._path(_CANDIDATE if pending else _CONFIRMED)
        parts = pack(kept)
        if self._first_line(path) != parts[0]:
            replace_parts(path, parts)
        if not pending:
            self._discard()

    def settle(self, number: int) -> None:
        """End a pending change: its image becomes that of the confirmed state if that has its number."""
        candidate = self._path(_CANDIDATE)
        with contextlib.suppress(Unreadable):
            if os.path.lexists(candidate) and self._read(candidate).number == number:
                os.rename(candidate, self._path(_CONFIRMED))
        self._discard()

    def find(self, number: int | None) -> tuple[Kept | None, str]:
        """The image of the state with this number, else the confirmed one; and why it is not that one.

        number: None if nobody knows which state is confirmed. Without an image: None, and the reason.
        """
        confirmed, problem = self._try(_CONFIRMED)
        if confirmed and number in (None, confirmed.number):
            return confirmed, ""
        candidate, dummy = self._try(_CANDIDATE)
        if candidate and candidate.number == number:
            # The confirming process died before it could rename the image.
            return candidate, ""
        if confirmed:
            problem = f"the boot image is of state {confirmed.number}, and {number} is confirmed"
        return confirmed, problem

    def code(self, key: str) -> Bytecode | None:
        """The bytecode with this key of `Compiler`, if an image has it."""
        for name in (_CONFIRMED, _CANDIDATE):
            kept, dummy = self._try(name)
            if kept and kept.key == key:
                return kept.code
        return None

    def distrusted(self) -> str:
        """Why the next boot would not believe the confirmed image; empty if it would, or without one."""
        path = self._path(_CONFIRMED)
        try:
            open_own(path).close()
        except FileNotFoundError:
            pass
        except (OSError, Unreadable) as error:
            return f"the boot image {path} is not used: {reason_of(error)}"
        return ""

    def last_settings(self) -> dict[str, str]:
        """The settings that were in force when the confirmed state was activated; empty if unknown."""
        kept, dummy = self._try(_CONFIRMED)
        return kept.settings if kept else {}

    def _try(self, name: str) -> tuple[Kept | None, str]:
        try:
            return self._read(self._path(name)), ""
        except Unreadable as error:
            return None, str(error)

    def _read(self, path: str) -> Kept:
        from .kept import unpack

        try:
            with open_own(path) as file:
                return unpack(_contents(file))
        except (OSError, Unreadable) as error:
            raise Unreadable(
                f"cannot use the boot image {path}: {reason_of(error)}; packetwatchctl apply makes it anew"
            ) from error

    def _first_line(self, path: str) -> bytes:
        try:
            with open_own(path) as file:
                return file.readline(_LINE)
        except (OSError, Unreadable):
            return b""

    def _discard(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(_CANDIDATE))

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)


def _contents(file: t.BinaryIO) -> memoryview:
    """The content of a file, which the kernel can drop from memory and read again."""
    size = os.fstat(file.fileno()).st_size
    return memoryview(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) if size else b"")
