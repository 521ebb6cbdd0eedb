# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The record of the one change that is active and not confirmed yet, and of how it ended.

The record is a file under /run, so it does not survive a reboot: a boot activates confirmed state only.
Fields that have their defaults are not written, and unknown ones are ignored, so older and newer versions
can read it. The file is replaced as a whole when the change ends. If the record says that a change is pending and its
state is the confirmed one, the confirming process died before it wrote the record.
"""

from __future__ import annotations

import os
import sys
import time
import typing as t

from .._base.errors import InvalidInput, LoadFailed, Unreadable
from .._base.files import read_json, replace_json
from .._base.number import MAX_TIME, is_a, is_number

PENDING, CONFIRMED, REVERTED = "pending", "confirmed", "rolled_back"
MAX_SECONDS = 86400.0

ENDS = "packetwatchctl confirm keeps it, packetwatchctl rollback reverts it"
"""What an operator on the host can do about a pending change."""

_NAME = "change.json"


class Terms(t.NamedTuple):
    """How a change is to be confirmed: within `seconds`, or at once if they are 0.

    token: needed to confirm the change; made if empty. owner: who makes the change.
    """

    seconds: float = 0
    token: str = ""
    owner: str = ""


AT_ONCE = Terms()


class Change(t.NamedTuple):
    """A change that was or is pending.

    number: number of its state. interfaces: those that were filtered before it, with their modes.
    loaded: whether a program was loaded before it. deadline: by CLOCK_MONOTONIC, the clock of its timer.
    since, ends, ended: wall time. lifts: the change lifts a panic, which goes on if it is reverted.
    ended_by: who reverted it; empty if the host did, because it was not confirmed in time.
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
    ended_by: str = ""

    @property
    def left(self) -> float:
        """Seconds until the host reverts the change."""
        return self.deadline - time.monotonic()

    def describe(self) -> str:
        """Describe owner and time left, for an operator who has to wait."""
        left = max(0, round(self.left))
        return (
            f"a change of {self.owner}, made at {moment(self.since)}, is not confirmed yet: "
            f"it is confirmed or reverted within {left} s ({ENDS})"
        )

    def end(self, status: str, ended_by: str = "") -> Change:
        return self._replace(status=status, ended=time.time(), ended_by=ended_by)


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


def _checked(change: Change) -> Change:
    """The change that a file holds; raises ValueError if a value has another type or no sense."""
    example = Change(PENDING, 0, "", "", {}, False, 0.0, 0.0, 0.0, 0.0)
    for name, value, like in zip(Change._fields, change, example):
        is_right = is_a(value, type(like))
        if isinstance(like, float):
            is_right = is_number(value, MAX_TIME)
        if not is_right:
            raise ValueError(f"{name} is {value!r:.80}")
    texts = [*change.interfaces, *change.interfaces.values()]
    if change.status not in (PENDING, CONFIRMED, REVERTED) or change.number < 0:
        raise ValueError(f"it is {change.status!r:.80}, number {change.number}")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"interfaces are {change.interfaces!r:.80}")
    return change


def check_terms(terms: Terms) -> None:
    """Raise `InvalidInput` if the time is not in the allowed range."""
    if not 0 <= terms.seconds <= MAX_SECONDS:
        raise InvalidInput(
            f"confirm_timeout is {terms.seconds:g}; allowed: 0 (confirm at once) to "
            f"{MAX_SECONDS:g} seconds"
        )


def moment(seconds: float) -> str:
    """Wall time as text."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def caller(name: str = "") -> str:
    """Name and user of this process. name: instead of the program's name."""
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
            found = read_json(self._path)
            return _checked(Change(**{key: found[key] for key in Change._fields if key in found}))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise Unreadable(
                f"cannot read {self._path}: {error}; remove the file: Packetwatch then forgets the change"
            ) from error

    def write(self, change: Change) -> None:
        self.make_folder()
        try:
            defaults = Change._field_defaults
            fields = change._asdict().items()
            replace_json(
                self._path,
                {
                    key: value
                    for key, value in fields
                    if key not in defaults or value != defaults[key]
                },
            )
        except OSError as error:
            raise _not_recorded(error) from error

    def make_folder(self) -> None:
        """Make the folder for root alone, in a folder that all may enter, whatever the umask is."""
        parent = os.path.dirname(self.folder)
        try:
            if not os.path.isdir(parent):
                os.makedirs(parent)
                os.chmod(parent, 0o755)
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise _not_recorded(error) from error

    def remove(self) -> None:
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return


def _not_recorded(error: OSError) -> LoadFailed:
    return LoadFailed(
        f"the change cannot be recorded: {error}; free or repair the file system of /run"
    )


def _user(uid: str) -> str:
    try:
        with open("/etc/passwd", encoding="utf-8", errors="replace") as file:
            rows = [line.split(":") for line in file]
    except OSError:
        return uid
    return next((row[0] for row in rows if len(row) > 2 and row[2] == uid), uid)
