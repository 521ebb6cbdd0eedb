# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Panic: everything passes until an operator lifts it, whatever is declared or pending.

A file beside the states marks it. The file survives reboots, and while it exists every attach is refused.
Its content does not matter: ``touch`` is enough.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._base.errors import PacketwatchError, Panicked, Unreadable
from .._base.files import read_json, replace_json
from .._dispatcher.chain import Dispatchers
from .._dispatcher.membership import Membership
from .._kernel.pins import PANIC, ifindex_of, label_of
from .._kernel.programs import Link
from . import pending

if t.TYPE_CHECKING:
    from .._kernel.pins import Pins

LIFT = "ansible-playbook packetwatch.xdp.panic -e packetwatch_panic=absent"
"""What ends a panic."""

_UNKNOWN_OWNER = "an unknown owner"


class Panic(t.NamedTuple):
    """since: wall time of its beginning. owner: who began it."""

    since: float
    owner: str

    def describe(self) -> str:
        return describe(self.owner, pending.moment(self.since))


def describe(owner: str, since: str) -> str:
    """Describe a panic in a sentence."""
    return f"PANIC of {owner} since {since}: nothing is filtered until it is lifted"


class Flag:
    """The file, below the folder of confirmed state."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._path = os.path.join(root, PANIC)

    def read(self) -> Panic | None:
        """The panic, if there is one; raises `Unreadable`."""
        try:
            status = os.lstat(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unreadable(f"cannot read {self._path}: {error.strerror}") from error
        owner = _UNKNOWN_OWNER
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            owner = str(read_json(self._path)["owner"])
        return Panic(status.st_mtime, owner)

    def refuse(self) -> None:
        """Raise `Panicked`, with the remedy, if there is a panic."""
        panic = self.read()
        if panic:
            raise Panicked(
                f"{panic.describe()} ({LIFT}); what is declared until then is activated with that"
            )

    def raise_up(self, owner: str) -> None:
        """Write the file and wait until it is on disk."""
        try:
            if not os.path.isdir(self._root):
                os.mkdir(self._root)
                # The agent must be able to read it, whatever the umask is.
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
                "boot filters again: repair the file system, then begin the panic again"
            ) from error

    def take_down(self) -> None:
        """Remove the file; an OSError means that it is still there."""
        try:
            os.unlink(self._path)
        except OSError:
            if os.path.lexists(self._path):
                raise


def leave(pins: Pins, mark: str) -> None:
    """Leave the dispatcher of an interface."""
    Membership.find(Dispatchers(pins.dispatchers), ifindex_of(mark)).leave()
    os.rmdir(mark)


def detach(pins: Pins) -> list[str]:
    """Detach the filter from all interfaces, also where another process holds a link open.

    The loaded program stays, with bans and counters. The other programs of dispatchers go on. Returns the
    names of the interfaces.
    """
    names = []
    problems = []
    for mark in pins.member_marks():
        names.append(label_of(mark))
        try:
            leave(pins, mark)
        except (PacketwatchError, OSError) as error:
            problems.append(f"{names[-1]}: {error}")
    for path in pins.link_pins():
        name = label_of(path)
        names.append(name)
        try:
            with Link.open(path) as link:
                link.detach()
        except (PacketwatchError, OSError) as error:
            if not isinstance(error, FileNotFoundError):
                problems.append(f"{name}: {error}")
        # If that failed, removing the pin detaches too, unless another process holds the link open.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    if problems:
        raise PacketwatchError(
            f"cannot detach from all interfaces: {'; '.join(problems)}; bpftool net shows what is still "
            "attached, bpftool link detach removes it"
        )
    return names
