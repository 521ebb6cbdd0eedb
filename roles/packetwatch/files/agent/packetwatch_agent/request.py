# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests to root, each a file that a path unit of systemd waits for."""

from __future__ import annotations

import os

_ONLY_A_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def ask(path: str) -> None:
    """Make the file; raises `OSError`. Whatever else is at the path does not keep the agent waiting."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | _ONLY_A_FILE, 0o600))
