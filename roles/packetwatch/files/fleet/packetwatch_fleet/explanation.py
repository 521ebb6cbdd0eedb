# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an enforcer says about one of its last decisions (``rules/NAME``), as untrusted text."""

from __future__ import annotations

import typing as t

from packetwatch_core._base.number import is_a
from packetwatch_core._network.endpoints import is_label

_MAX_SHOWN, _MAX_WHY = 8, 200


class Explanation(t.NamedTuple):
    """For people. hosts, ports: some of those on which the source was seen."""

    why: str
    hosts: list[str]
    ports: list[int]

    @classmethod
    def of(cls, row: t.Mapping[str, t.Any]) -> Explanation:
        why, hosts, ports = row.get("why"), row.get("hosts"), row.get("ports")
        text = why[:_MAX_WHY] if isinstance(why, str) else ""
        return cls(
            "".join(letter for letter in text if letter.isprintable()),
            [one for one in _few(hosts) if isinstance(one, str) and is_label(one)],
            [one for one in _few(ports) if is_a(one, int) and 0 <= one < 1 << 16],
        )


def _few(found: t.Any) -> list[t.Any]:
    return found[:_MAX_SHOWN] if isinstance(found, list) else []
