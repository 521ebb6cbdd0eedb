# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recent decisions of enforcers, and changes through the API, in one form."""

from __future__ import annotations

import json
import typing as t

from packetwatch_core._node.decisions import OWN

from . import values
from .values import Json

MAX_EVENTS = 64
"""Changes that the store keeps."""


def decision(enforcer: str, found: t.Any) -> Json | None:
    """A decision of an enforcer, as `rules/NAME` has it; None if it is not understood."""
    row = values.table(found)
    then, source = values.moment(row.get("t")), values.text(row.get("source"))
    if then is None or not source:
        return None
    # In monitor mode, nothing was written.
    action = "ban" if row.get("action") == "enforce" else values.text(row.get("action"))
    return _event(then, f"{enforcer}/{values.text(row.get('rule'))}", action, source, row)


def change(found: t.Any) -> Json | None:
    """A change through the API, as the store has it; None if it is not understood."""
    row = values.table(found)
    then, address = values.moment(row.get("t")), values.text(row.get("address"))
    if then is None or not address:
        return None
    by = f"{OWN}/{values.text(row.get('by'))}"
    return _event(then, by, values.text(row.get("action")), address, row)


def with_change(value: bytes, row: Json) -> str:
    """The value of the key of changes with one more."""
    kept = values.rows(values.object_of(value).get("recent"))[: MAX_EVENTS - 1]
    return json.dumps({"v": 1, "recent": [row, *kept]}, separators=(",", ":"))


def _event(then: float, by: str, action: str, address: str, row: Json) -> Json:
    return {
        "t": then,
        "by": by,
        "action": action,
        "address": address,
        "seconds": values.moment(row.get("seconds")),
        "until": values.moment(row.get("until")),
        "evidence": values.text_or_none(row.get("evidence")),
        "seen": values.count(row.get("seen")),
        "hosts": values.texts(row.get("hosts")),
        "ports": [port for port in map(values.count, values.rows(row.get("ports"))) if port][:8],
        "list": values.text_or_none(row.get("list")),
        "why": values.text(row.get("why")),
    }
