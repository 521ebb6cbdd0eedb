# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Commands that must succeed."""

from __future__ import annotations

import os
import typing as t

from .._base.errors import SetupFailed

if t.TYPE_CHECKING:
    from .._base.types import Run

# systemd may be installed but not running, for example while an image is built.
_BOOTED = "/run/systemd/system"


def must(run: Run, *argv: str) -> None:
    """Run a command; raises `SetupFailed` with its output."""
    status, output, errors = run(argv, None)
    if status:
        reason = errors.strip() or output.strip() or f"exit status {status}"
        raise SetupFailed(f"the command {' '.join(argv)} failed: {reason}")


def has_systemd() -> bool:
    """Whether systemd manages this host."""
    return os.path.isdir(_BOOTED)


def reload_systemd(run: Run) -> None:
    """Let systemd read its units again."""
    if has_systemd():
        must(run, "systemctl", "daemon-reload")
