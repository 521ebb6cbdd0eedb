# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The members of a fleet's etcd. A new one learns first: it has no vote until it has all data.

So an addition never costs the store its majority, also if the new node does not start.
"""

from __future__ import annotations

import time
import typing as t

from .._base.errors import InvalidInput, PacketwatchError, SetupFailed
from .gateway import Gateway, may_pass

_PAUSE = 0.5
_BEHIND = "in sync with leader"
_STATUS = "/v3/maintenance/status"


class Member(t.NamedTuple):
    """A member of the cluster. Its name is empty until it has started once."""

    ident: str
    name: str
    url: str
    learner: bool


def members(gateway: Gateway) -> list[Member]:
    """All members, in the order of their addresses."""
    found = gateway.call("/v3/cluster/member/list", {}).get("members", ())
    return sorted(
        (
            Member(row["ID"], row.get("name", ""), row["peerURLs"][0], bool(row.get("isLearner")))
            for row in found
        ),
        key=lambda member: member.url,
    )


def leader(gateway: Gateway, present: t.Iterable[Member]) -> str:
    """The name of the member that leads the cluster; empty: none of these does."""
    ident = gateway.call(_STATUS, {}).get("leader")
    return next((member.name for member in present if member.ident == ident), "")


def change(
    gateway: Gateway, url: str, state: str, patience: float, dry: bool
) -> tuple[bool, list[Member]]:
    """Let the node at an address for peers learn, vote, or leave. Only the leader can give a vote: others do nothing.

    Returns whether that was a change, and all members after it. etcd refuses for some seconds after another member
    came or left, and gives no vote before the node has all data. Raises SetupFailed if it still does so after
    `patience` seconds.
    """
    act = {"learning": _add, "voting": _promote, "absent": _remove}[state]
    deadline = time.monotonic() + patience
    changed = False
    while True:
        try:
            changed = act(gateway, url, dry) or changed
            return changed, members(gateway)
        except PacketwatchError as error:
            if not may_pass(error) and _BEHIND not in str(error):
                raise
            if time.monotonic() > deadline:
                raise SetupFailed(
                    f"the node at {url} is not {state} within {patience:g} s: {error}; read the log of "
                    "packetwatch-fleet-etcd.service on all nodes, and run the playbook again"
                ) from None
        time.sleep(_PAUSE)


def _add(gateway: Gateway, url: str, dry: bool) -> bool:
    if any(member.url == url for member in members(gateway)):
        return False
    if not dry:
        gateway.call("/v3/cluster/member/add", {"peerURLs": [url], "isLearner": True})
    return True


def _promote(gateway: Gateway, url: str, dry: bool) -> bool:
    learner = next((m for m in members(gateway) if m.url == url and m.learner), None)
    if learner is None:
        return False
    status = gateway.call(_STATUS, {})
    # With passwords, a member that does not lead hands the request on without saying who asks. So it never gets an answer
    # (etcd-io/etcd issue 20757).
    if status.get("leader") != status["header"]["member_id"]:
        return False
    if not dry:
        gateway.call("/v3/cluster/member/promote", {"ID": learner.ident})
    return True


def _remove(gateway: Gateway, url: str, dry: bool) -> bool:
    present = members(gateway)
    gone = next((member for member in present if member.url == url), None)
    if gone is None:
        return False
    if len(present) == 1:
        raise InvalidInput(
            f"{url} is the last node of the fleet, so it cannot leave it: set fleet_node_state to absent on all nodes"
        )
    if not dry:
        gateway.call("/v3/cluster/member/remove", {"ID": gone.ident})
    return True
