# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What the host library raises; every message names the value and the remedy."""

from __future__ import annotations

import typing as t


class PacketwatchError(Exception):
    """Base of all errors that the host library raises on purpose."""


class InvalidInput(PacketwatchError):
    """A value that somebody wrote is wrong; nothing was changed."""


class Unsupported(PacketwatchError):
    """This host, kernel or device cannot do what was asked for."""


class Unreadable(PacketwatchError):
    """State exists but could not be read: never to be taken for absent."""


class Foreign(PacketwatchError):
    """Another program or another owner holds the place."""


class TooLarge(PacketwatchError):
    """Does not fit into a configured bound; the message names the value that would do."""


class LoadFailed(PacketwatchError):
    """The program could not be compiled, loaded or attached."""


class Locked(PacketwatchError):
    """Another writer holds the lock on this host's state."""


class Pending(PacketwatchError):
    """A change that somebody made is not confirmed yet, so there can be no other one."""


class Reverted(PacketwatchError):
    """The change is no more: the host has gone back to what was confirmed before it."""


class Panicked(PacketwatchError):
    """Somebody wants everything to pass, so nothing may be attached."""


def some_of(texts: t.Sequence[str], most: int) -> str:
    """The first of the texts for a message, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return f"{', '.join(texts[:most])}{more}"
