# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent needs of confirmed state: policies, interfaces, and whether a change or a panic is on.

It does not read the lists: only the one-shots need them, and they may be large.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from packetwatch_core._base.errors import Unreadable
from packetwatch_core._change.panic import Flag, Panic
from packetwatch_core._declared.policy import DEFAULT, Policy, resolve_policies
from packetwatch_core._declared.store import Store, read_interfaces, read_policies

_Read = t.TypeVar("_Read")


class Confirmed:
    """Reads ``current`` below the configuration folder again when that link has moved."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._store = Store(folder)
        self._panic = Flag(folder)
        self._target = ""
        self._policies: dict[str, Policy] = {DEFAULT: Policy()}
        self.interfaces: list[str] = []

    def refresh(self, force: bool = False) -> None:
        """Read what has changed. If a file is wrong, the former state stays, and the error is raised."""
        link = os.path.join(self._folder, "current")
        target = _target(link)
        if target == self._target and not force:
            return
        keys = _if_there(read_policies, os.path.join(link, "policy.d"))
        modes = _if_there(read_interfaces, os.path.join(link, "interfaces"))
        self._policies, self.interfaces = resolve_policies(keys), list(modes)
        self._target = target

    @property
    def number(self) -> int:
        """Number of the state that was read last; 0 if ``current`` names none."""
        return int(self._target) if self._target.isdigit() else 0

    def is_change_pending(self) -> bool:
        """Whether there is a state newer than the confirmed one."""
        try:
            numbers = self._store.numbers()
        except Unreadable:
            return False
        # While `current` names no state, it is unknown which one is confirmed.
        return self._target.isdigit() and any(number > self.number for number in numbers)

    def panic(self) -> Panic | None:
        """The panic that holds, if there is one."""
        with contextlib.suppress(Unreadable):
            return self._panic.read()
        return None

    def policy(self, interface: str) -> Policy:
        """The policy of an interface."""
        return self._policies.get(interface, self._policies[DEFAULT])

    def counts(self, *kinds: str) -> bool:
        """Whether some of these kinds of probes count on some interface."""
        return any(policy.counts(*kinds) for policy in self._policies.values())


def _target(link: str) -> str:
    """The target of a link, which need not exist: the agent reports a broken link as drift."""
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Unreadable(f"cannot read {link}: {error.strerror}") from error


def _if_there(read: t.Callable[[str], dict[str, _Read]], path: str) -> dict[str, _Read]:
    return read(path) if os.path.lexists(path) else {}
