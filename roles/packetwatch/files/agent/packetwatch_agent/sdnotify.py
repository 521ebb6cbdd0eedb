# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports to systemd that the agent is ready and alive (sd_notify(3)); does nothing without it."""

from __future__ import annotations

import os
import socket
import typing as t


class Notifier:
    """Sends to the socket that the environment names."""

    def __init__(self, environment: t.Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._interval = _watchdog(environment)

    @property
    def interval(self) -> float:
        """Seconds between two signs of life, half of systemd's limit; 0: systemd expects none."""
        return self._interval

    @property
    def is_heard(self) -> bool:
        """Whether systemd expects notifications."""
        return bool(self._address)

    def send(self, *states: str) -> None:
        """Send ``READY=1``, ``WATCHDOG=1``, ``STOPPING=1``, ``STATUS=...``; never fails."""
        if not self._address:
            return
        name = self._address
        if name.startswith("@"):
            name = "\0" + name[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.sendto("\n".join(states).encode(), name)
        except OSError:
            # systemd restarts an agent without signs of life, which is the right thing then.
            pass


def _watchdog(environment: t.Mapping[str, str]) -> float:
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", "0"))
        pid = int(environment.get("WATCHDOG_PID", str(os.getpid())))
    except ValueError:
        return 0.0
    return microseconds / 2_000_000 if pid == os.getpid() else 0.0
