# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Panic: everything passes until somebody lifts it, whatever is declared or pending.

A file beside the states says so. It outlives reboots, and as long as it is there nobody attaches.
Whatever it holds, it counts: ``touch`` makes one.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._base.errors import PacketwatchError, Panicked, Unreadable
from .._base.files import read_json, replace_json
from .._kernel.pins import PANIC
from .._kernel.programs import Link
from . import pending

if t.TYPE_CHECKING:
    from .._kernel.pins import Pins

_BY_HAND = "somebody on the host"


class Panic(t.NamedTuple):
    """Since when, in wall time, and who wanted it."""

    since: float
    owner: str

    def describe(self) -> str:
        return describe(self.owner, pending.moment(self.since))


def describe(owner: str, since: str) -> str:
    """A panic in words."""
    return f"PANIC of {owner} since {since}: nothing is filtered until it is lifted"


class Flag:
    """The file, below the folder of confirmed state."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._path = os.path.join(root, PANIC)

    def read(self) -> Panic | None:
        """The panic that holds, if one does; raises `Unreadable`."""
        try:
            status = os.lstat(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unreadable(f"cannot read {self._path}: {error.strerror}") from error
        owner = _BY_HAND
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            owner = str(read_json(self._path)["owner"])
        return Panic(status.st_mtime, owner)

    def refuse(self) -> None:
        """Panicked, with the remedy, if one holds."""
        panic = self.read()
        if panic:
            raise Panicked(
                f"{panic.describe()} (ansible-playbook packetwatch.xdp.panic -e "
                "packetwatch_panic=absent); what is declared meanwhile goes live then"
            )

    def raise_up(self, owner: str) -> None:
        """On disk when this returns."""
        try:
            if not os.path.isdir(self._root):
                os.mkdir(self._root)
                # For the agent to read, whatever the umask.
                os.chmod(self._root, 0o755)
            replace_json(self._path, {"owner": owner}, 0o644)
            folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise PacketwatchError(
                f"cannot write {self._path}: {error.strerror}; everything passes now, but the next "
                "boot filters again"
            ) from error

    def take_down(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


def detach(pins: Pins) -> list[str]:
    """Take the filter off all interfaces, also where another process holds a link open.

    What is loaded stays, with bans and counters. Returns the interfaces.
    """
    names = pins.interfaces()
    problems = []
    for name in names:
        path = pins.link(name)
        try:
            with Link.open(path) as link:
                link.detach()
        except (PacketwatchError, OSError) as error:
            if not isinstance(error, FileNotFoundError):
                problems.append(f"{name}: {error}")
        # Where that failed, the pin may have been the last reference.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    if problems:
        raise PacketwatchError(f"cannot detach everything: {'; '.join(problems)}")
    return names
