# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What the store of a fleet says: its hosts, its nodes, its bans."""

from __future__ import annotations

import time
import typing as t

from .._base.number import MAX_TIME, is_a, is_number
from .decisions import Snapshot, items
from .keys import HOSTS

if t.TYPE_CHECKING:
    from .._base.types import Result
    from .gateway import Gateway

SUBSETS = ("hosts", "nodes", "bans")


def gather(gateway: Gateway, subsets: t.Collection[str]) -> Result:
    """Return the parts that are wanted. Reports of hosts are not trusted: what has no sense is left out."""
    snapshot = Snapshot(gateway)
    found: Result = {"revision": snapshot.revision}
    if "hosts" in subsets:
        found["hosts"] = hosts(gateway, snapshot.revision)
    if "nodes" in subsets:
        found["nodes"] = nodes(gateway)
        found["store"] = store(gateway)
    if "bans" in subsets:
        found["bans"] = [ban._asdict() for dummy, ban in sorted(snapshot.bans().items())]
    return found


def hosts(gateway: Gateway, revision: int) -> dict[str, t.Any]:
    """The last report of each host, by its name. revision: the newest one of a decision."""
    now = time.time()
    found = {}
    for key, value, dummy in items(gateway, HOSTS):
        name, dummy2, report = key.removeprefix(HOSTS).partition("/")
        if report != "status":
            continue
        reported = value.get("t")
        applied = _count(value.get("applied"))
        version, refused = value.get("version"), value.get("refused")
        found[name] = {
            "age": round(now - reported, 1) if is_number(reported, MAX_TIME) else None,
            "version": version[:64] if isinstance(version, str) else "",
            "applied": applied,
            "current": applied is not None and applied >= revision,
            "bans": _count(value.get("bans")),
            "missing": _count(value.get("missing")),
            "refused": {
                str(reason)[:64]: number
                for reason, number in (refused.items() if isinstance(refused, dict) else ())
                if is_a(number, int)
            },
        }
    return found


def nodes(gateway: Gateway) -> list[str]:
    """The names of the store's nodes."""
    answer = gateway.call("/v3/cluster/member/list", {})
    return sorted(str(member.get("name", "")) for member in answer.get("members", ()))


def store(gateway: Gateway) -> dict[str, t.Any]:
    """The health of the node that answers."""
    answer = gateway.call("/v3/maintenance/status", {})
    errors = [str(error) for error in answer.get("errors", ())]
    has_leader = str(answer.get("leader", "0")) != "0"
    return {
        "version": str(answer.get("version", "")),
        "bytes": int(answer.get("dbSize", 0)),
        "has_leader": has_leader,
        "problems": errors if has_leader else [*errors, "there is no leader"],
    }


def _count(value: t.Any) -> int | None:
    return value if is_a(value, int) and value >= 0 else None
