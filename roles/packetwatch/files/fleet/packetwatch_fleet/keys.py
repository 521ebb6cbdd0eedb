# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names in the keys of the store."""

from __future__ import annotations

import typing as t

from packetwatch_core._network.endpoints import is_label
from packetwatch_core._node.keys import BANS, HOSTS


def enforcer_of(key: str) -> str | None:
    """The enforcer whose page a key below `BANS` is; None if the key is not of that form."""
    words = key.removeprefix(BANS).split("/")
    return words[0] if len(words) == 2 and all(map(is_label, words)) else None


def name_of(key: str, prefix: str) -> str | None:
    """The name that a key directly below a prefix ends with; None if the key is not of that form."""
    name = key.removeprefix(prefix)
    return name if is_label(name) else None


def report_of(host: str, kind: t.Literal["seen", "bans", "status"]) -> str:
    """The key of one of a host's own three reports."""
    return f"{HOSTS}{host}/{kind}"
