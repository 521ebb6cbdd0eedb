# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host does with a source: its lists, the fleet's decisions, its own bans, by precedence."""

from __future__ import annotations

import time
import typing as t

from . import values
from .values import Json

if t.TYPE_CHECKING:
    from .fleet import Entry

DROP, DROP_NEW, PASS = "drop", "drop new connections", "pass"


class Policy(t.NamedTuple):
    """What a host takes from the fleet. By default everything, as the fleet has decided it."""

    action: str = "enforce"
    enforcers: tuple[str, ...] = ()
    """Accepted enforcers; none: all are."""
    lists: tuple[str, ...] = ("allow", "deny")

    @classmethod
    def of(cls, status: Json) -> Policy:
        """What a host reports; a part that it does not report is as the role sets it by default."""
        takes = values.table(status.get("takes"))
        default = cls()
        lists = takes.get("lists")
        return cls(
            values.text(takes.get("action")) or default.action,
            tuple(values.texts(takes.get("enforcers"))),
            tuple(values.texts(lists)) if isinstance(lists, list) else ("deny",),
        )


def verdict(
    entries: t.Sequence[Entry],
    decisions: t.Sequence[Json],
    policy: Policy,
    own: float | None = None,
) -> Json:
    """The verdict and its reason. entries: those that match. own: until when the host has banned the source itself."""
    for kind, word in (("allow", PASS), ("deny", DROP)):
        if kind == "deny" and (found := _by_ban(decisions, policy, own)):
            return found
        for entry in entries:
            if entry.kind == kind and kind in policy.lists:
                return _made(word, f"the list {entry.list} has {kind} {entry.address}")
    return _made(PASS, "it is on no list of the fleet and not banned")


def _by_ban(decisions: t.Sequence[Json], policy: Policy, own: float | None) -> Json | None:
    if own is not None:
        return _made(DROP, f"the host has banned it itself until {_moment(own)}")
    counting = [
        one
        for one in decisions
        if one["counts"] and (not policy.enforcers or one["enforcer"] in policy.enforcers)
    ]
    if not counting:
        return None
    last = max(counting, key=lambda one: one["until"])
    why = f"{last['enforcer']}/{last['rule']} has banned it until {_moment(last['until'])}"
    if policy.action != "enforce":
        return _made(PASS, f"{why}, but the host only has {policy.action} for bans of the fleet")
    is_weak = all(one["evidence"] == "syn" for one in counting)
    return _made(DROP_NEW if is_weak else DROP, why)


def _made(found: str, because: str) -> Json:
    return {"verdict": found, "because": because}


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
