# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The collection's own XDP program, as one text."""

from __future__ import annotations

import os

from ansible_collections.packetwatch.xdp.plugins.module_utils._kernel.source import flatten

_COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
OWN = os.path.join(_COLLECTION, "roles", "packetwatch", "files", "bpf")


def own_source() -> str:
    """The text that the role's hosts compile."""
    return flatten(OWN)
