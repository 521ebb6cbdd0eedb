# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The record of the one change that is live and not confirmed, and of what became of it.

It lies under /run, so that a reboot forgets it: boot reads only what is confirmed. Its file is
replaced as a whole, and by that a change goes from pending to an end. Where it says that a change is
pending whose state is the current one, whoever confirmed it died before saying so.
"""

from __future__ import annotations

import os
import sys
import time
import typing as t

from .._base.errors import InvalidInput, LoadFailed, Unreadable
from .._base.files import read_json, replace_json

PENDING, CONFIRMED, REVERTED = "pending", "confirmed", "rolled_back"
LONGEST = 86400.0

_NAME = "change.json"


class Terms(t.NamedTuple):
    """How a change is to be confirmed: within some seconds, 0: it is confirmed at once.

    token: who knows it may confirm; made if empty. owner: who makes the change.
    """

    seconds: float = 0
    token: str = ""
    owner: str = ""


AT_ONCE = Terms()


class Change(t.NamedTuple):
    """A change that was or is pending.

    number: of its state. interfaces: those that were filtered before it, with their modes.
    loaded: whether anything was loaded before. deadline: by CLOCK_MONOTONIC, which timers go by;
    since, ends, ended: wall time. lifts: it is the end of a panic, which goes on if it is taken back.
    """

    status: str
    number: int
    token: str
    owner: str
    interfaces: dict[str, str]
    loaded: bool
    deadline: float
    since: float
    ends: float
    ended: float = 0
    lifts: bool = False

    @property
    def left(self) -> float:
        """Seconds until the host returns by itself."""
        return self.deadline - time.monotonic()

    def describe(self) -> str:
        """Whose it is and how long it takes, for somebody who has to wait."""
        left = max(0, round(self.left))
        return (
            f"a change of {self.owner}, made at {moment(self.since)}, is not confirmed yet: "
            f"it is confirmed or undone within {left} s"
        )

    def end(self, status: str) -> Change:
        return self._replace(status=status, ended=time.time())


def new_change(terms: Terms, number: int, interfaces: dict[str, str], loaded: bool) -> Change:
    """A change that begins now."""
    now = time.time()
    return Change(
        status=PENDING,
        number=number,
        token=terms.token or os.urandom(16).hex(),
        owner=terms.owner or caller(),
        interfaces=interfaces,
        loaded=loaded,
        deadline=time.monotonic() + terms.seconds,
        since=now,
        ends=now + terms.seconds,
    )


def check_terms(terms: Terms) -> None:
    """Refuse times that are none."""
    if not 0 <= terms.seconds <= LONGEST:
        raise InvalidInput(
            f"confirm_timeout is {terms.seconds:g}; allowed: 0 (none) to {LONGEST:g} seconds"
        )


def moment(seconds: float) -> str:
    """Wall time as text."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def caller(name: str = "") -> str:
    """Who runs this process, and what it is."""
    uid = os.environ.get("SUDO_UID", str(os.getuid()))
    return f"{name or os.path.basename(sys.argv[0]) or 'python3'} (user {_user(uid)})"


class Record:
    """The file of the last change, in a folder that only root may enter."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._path = os.path.join(folder, _NAME)

    def read(self) -> Change | None:
        """The last change since boot; raises `Unreadable`."""
        try:
            return Change(**read_json(self._path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise Unreadable(f"{self._path}: {error}; remove it to have it forgotten") from error

    def write(self, change: Change) -> None:
        self.make_folder()
        try:
            replace_json(self._path, change._asdict())
        except OSError as error:
            raise LoadFailed(f"the change cannot be recorded: {error}") from error

    def make_folder(self) -> None:
        """Root's alone, in one that others may enter, whatever the umask."""
        parent = os.path.dirname(self.folder)
        try:
            if not os.path.isdir(parent):
                os.makedirs(parent)
                os.chmod(parent, 0o755)
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise LoadFailed(f"the change cannot be recorded: {error}") from error

    def remove(self) -> None:
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return


def _user(uid: str) -> str:
    try:
        with open("/etc/passwd", encoding="utf-8", errors="replace") as file:
            rows = [line.split(":") for line in file]
    except OSError:
        return uid
    return next((row[0] for row in rows if len(row) > 2 and row[2] == uid), uid)
