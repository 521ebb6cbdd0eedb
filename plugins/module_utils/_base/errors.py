# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The exceptions that the host library raises; every message names the value and the remedy."""

from __future__ import annotations

import errno
import typing as t

_MAX_PROBLEMS = 20


class PacketwatchError(Exception):
    """Base of all errors that the host library raises on purpose."""


class InvalidInput(PacketwatchError):
    """A value that an operator, a file or a feed gave is wrong; nothing was changed."""


class NotDeclared(InvalidInput):
    """Confirmed state does not have the interface, so it is not filtered on purpose."""


class InvalidInputs(InvalidInput):
    """Several wrong values, each with its remedy."""

    def __init__(self, problems: t.Sequence[str]) -> None:
        super().__init__(some_of(problems, _MAX_PROBLEMS, "; "))
        self.problems = problems


class Unsupported(PacketwatchError):
    """This host, kernel or device cannot do what was asked for."""


class Unreadable(PacketwatchError):
    """State exists but could not be read. Callers must not take it for absent."""


class Unwritable(PacketwatchError):
    """Something cannot be written that its owner may keep from being written."""


class Foreign(PacketwatchError):
    """Another program or another owner uses the device, pin or file."""


class TooLarge(PacketwatchError):
    """The data exceeds a configured limit; the message names the limit that would be enough."""


class LoadFailed(PacketwatchError):
    """The program could not be compiled, loaded or attached."""


class Unavailable(PacketwatchError):
    """A feed cannot be fetched, or is not what it should be; the options of the task are right."""


class SetupFailed(PacketwatchError):
    """Packetwatch's own files, units or users could not be installed or removed."""


class Locked(PacketwatchError):
    """Another writer holds the lock on this host's state."""


class Pending(PacketwatchError):
    """Another change is pending; a host has at most one pending change."""


class Reverted(PacketwatchError):
    """The change was reverted: the host uses again what was confirmed before it."""


class Panicked(PacketwatchError):
    """An operator has switched filtering off (panic), so nothing may be attached."""


def problems_of(error: PacketwatchError) -> t.Sequence[str]:
    """Return what is wrong, one text for each wrong value."""
    return error.problems if isinstance(error, InvalidInputs) else [str(error)]


def reason_of(error: Exception) -> str:
    """An error as a part of a message that names the file itself."""
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def remedy_of(error: OSError) -> str:
    """What an operator can do about an error of writing, as the end of a message; "" if that is unknown."""
    remedies = {
        errno.EACCES: "this needs root",
        errno.EPERM: "this needs root",
        errno.ENOSPC: "free space on that file system",
        errno.EDQUOT: "free space on that file system",
        errno.EROFS: "mount that file system writable",
    }
    found = remedies.get(error.errno or 0)
    return f"; {found}" if found else ""


def failures_of(*steps: t.Callable[[], object]) -> list[str]:
    """Do all steps, whichever fail; return what failed.

    For what follows a change: it has happened, so an error must not make it look as if it had not.
    """
    failures = []
    for step in steps:
        try:
            step()
        except PacketwatchError as error:
            failures.append(str(error))
        except OSError as error:
            failures.append(f"{error}{remedy_of(error)}")
    return failures


def some_of(texts: t.Sequence[str], limit: int, separator: str = ", ") -> str:
    """Return the texts for a message: at most `limit` of them, and how many more there are."""
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return f"{separator.join(texts[:limit])}{more}"
