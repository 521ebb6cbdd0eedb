# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent needs of confirmed state: how long bans are, and which interfaces are meant.

The lists are not read: they are the one-shots' business, and may be large.
"""

from __future__ import annotations

import os

from packetwatch_core._base.errors import Unreadable
from packetwatch_core._declared.policy import DEFAULT, Policy, read_policy, resolve_policies
from packetwatch_core._kernel.pins import PANIC

_SUFFIX = ".conf"


class Confirmed:
    """Reads ``current`` below the configuration folder again when that link has moved."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._current = os.path.join(folder, "current")
        self._number = ""
        self._policies: dict[str, Policy] = {DEFAULT: Policy()}
        self.interfaces: list[str] = []

    def refresh(self, force: bool = False) -> None:
        """Read what has changed; on an error the former state stays, and the error is raised."""
        number = _link(self._current)
        if number == self._number and not force:
            return
        policies = _policies(os.path.join(self._current, "policy.d"))
        interfaces = _interfaces(os.path.join(self._current, "interfaces"))
        self._policies, self.interfaces, self._number = policies, interfaces, number

    @property
    def number(self) -> int:
        """Of the state that was read last, 0 if there is none."""
        return int(self._number) if self._number.isdigit() else 0

    def is_change_pending(self) -> bool:
        """Whether a state that is not confirmed lies beside the one that is."""
        try:
            names = os.listdir(self._folder)
        except OSError:
            return False
        # Without a number nothing is known to be confirmed: `current` is broken.
        return self._number.isdigit() and any(
            name.isdigit() and int(name) > self.number for name in names
        )

    def is_panic(self) -> bool:
        """Whether somebody wants everything to pass."""
        return os.path.lexists(os.path.join(self._folder, PANIC))

    def policy(self, interface: str) -> Policy:
        """The policy of an interface."""
        return self._policies.get(interface, self._policies[DEFAULT])


def read_text(path: str) -> str:
    """Content of a small file, empty if it does not exist; raises `Unreadable`."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error


def _policies(folder: str) -> dict[str, Policy]:
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(_SUFFIX))
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise Unreadable(f"{folder} cannot be read: {error.strerror}") from error
    paths = {name.removesuffix(_SUFFIX): os.path.join(folder, name) for name in names}
    return resolve_policies(
        {name: read_policy(read_text(path), path) for name, path in paths.items()}
    )


def _interfaces(path: str) -> list[str]:
    lines = (line.partition("#")[0].split() for line in read_text(path).splitlines())
    return [words[0] for words in lines if words]
