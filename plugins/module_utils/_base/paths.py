# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The paths on a host. Settings need them, also in processes that never touch a map."""

from __future__ import annotations

import typing as t

BPFFS = "/sys/fs/bpf/packetwatch"


class Paths(t.NamedTuple):
    """All paths that the library uses; tests pass their own."""

    bpffs: str = BPFFS
    state: str = "/etc/packetwatch"
    cache: str = "/var/lib/packetwatch/cache"
    images: str = "/var/lib/packetwatch/boot"
    spared: str = "/var/lib/packetwatch/spared"
    ages: str = "/var/lib/packetwatch/feeds"
    clock: str = "/var/lib/packetwatch/clock"
    source: str = "/usr/lib/packetwatch/current/bpf"
    settings: str = "/etc/default/packetwatch"
    runtime: str = "/run/systemd"
    units: str = "/etc/systemd/system"
    pending: str = "/run/packetwatch-host/change"
    status: str = "/run/packetwatch-host/status.json"
    tables: str = "/run/packetwatch-host/tables.json"
