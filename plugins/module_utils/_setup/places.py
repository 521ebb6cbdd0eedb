# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Where the role's own files are on a host."""

from __future__ import annotations

import os

LIBRARY = "/usr/lib/packetwatch"
CURRENT = "current"
NODE_LIBRARY = "/usr/lib/packetwatch-fleet-node"
UNITS = "/etc/systemd/system"
# What the fleet process shows to the store. Only root may read it; systemd hands it to the process.
CREDENTIALS = "/etc/packetwatch-fleet"
# The same for the process that publishes events.
BUS_CREDENTIALS = "/etc/packetwatch-fleet-bus"
# Where copies of files go, by their folder in the archive.
COPIES = {
    "sysusers": "/etc/sysusers.d",
    "units": UNITS,
    "bin": "/usr/local/bin",
    "completion": "/usr/local/share/bash-completion/completions",
    "man": "/usr/local/share/man/man8",
}
# Modes of copies by their folder, where they are not those of plain files.
MODES = {"/usr/local/bin": 0o755}
PLAIN = 0o644
# Links first: removing their pins is what detaches.
PINS = ("/sys/fs/bpf/packetwatch/links", "/sys/fs/bpf/packetwatch")
DATA = (
    "/etc/sysusers.d/packetwatch.conf",
    "/etc/default/packetwatch",
    "/var/lib/packetwatch",
    "/run/packetwatch",
    "/run/packetwatch-host",
    "/run/packetwatch-edit.sock",
    "/run/packetwatch-fleet",
    "/var/lib/packetwatch-fleet",
    CREDENTIALS,
    BUS_CREDENTIALS,
    "/usr/local/bin/packetwatchctl",
    "/usr/local/share/bash-completion/completions/packetwatchctl.bash",
    "/usr/local/share/man/man8/packetwatchctl.8",
    LIBRARY,
    "/etc/packetwatch",
)
UNIT_PATTERNS = (
    "packetwatch.service",
    "packetwatch-*.path",
    "packetwatch-*.service",
    "packetwatch-*.socket",
    "packetwatch-*.timer",
)
# Folders that the copies may have needed first; they are removed if they are empty.
FOLDERS = (
    "/usr/local/share/bash-completion/completions",
    "/usr/local/share/bash-completion",
    "/usr/local/share/man/man8",
)


def mode_for(path: str) -> int:
    """The mode that a copy must have."""
    return MODES.get(os.path.dirname(path), PLAIN)


def copy_of(path: str) -> str | None:
    """Where a copy of a file in the archive belongs, if anywhere."""
    folder, dummy, name = path.partition("/")
    return os.path.join(COPIES[folder], name) if folder in COPIES else None
