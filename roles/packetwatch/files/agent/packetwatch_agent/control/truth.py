# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What root reads from the kernel and the disk without the agent, which may be dead."""

from __future__ import annotations

import typing as t

from packetwatch_core._active.loaded import Loaded
from packetwatch_core._bans.bans import Bans
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._declared.describe import count_entries
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.programs import attached

from . import banning, wire
from .commands import packets

if t.TYPE_CHECKING:
    from packetwatch_core._active.generation import Areas
    from packetwatch_core._declared.store import State
    from packetwatch_core._host.host import Host


class Interface(t.NamedTuple):
    """How packets of an attached interface are dealt with, as the kernel has it."""

    name: str
    ifindex: int
    mode: str
    action: str
    counts: str
    scope: str
    policy: dict[str, t.Any]


def bans_of(host: Host) -> Bans:
    """The bans in the kernel; raises `ControlError` if nothing is loaded."""
    if not host.pins.loaded():
        raise wire.ControlError(
            "nothing is loaded on this host, so there are no bans: attach the filter first "
            "(systemctl start packetwatch-xdp@INTERFACE)"
        )
    return Bans.open(host.pins)


def protected_of(host: Host) -> list[dict[str, t.Any]]:
    """Who is never banned, why, and until when."""
    if not host.pins.loaded():
        return []
    return list(banning.protected(host.pins.open_run_maps(("hosts", "nets"))))


def interfaces(loaded: Loaded) -> list[Interface]:
    """Those that are filtered now."""
    found = []
    with loaded.generation() as current:
        for name, ifindex in sorted(loaded.ifindexes.items()):
            policy = current.policy(ifindex)
            words = (
                abi.ACTIONS[policy["action"]],
                abi.COUNTS[policy["counts"]],
                abi.SCOPES[policy["scope"]],
            )
            found.append(Interface(name, ifindex, attached(ifindex).mode, *words, policy))
    return found


def live_areas(host: Host) -> tuple[Areas | None, list[Interface]]:
    """The tables in the kernel, None if nothing is filtered, and the interfaces that they serve."""
    with Loaded(host.pins) as loaded:
        if not loaded.active:
            return None, []
        with loaded.generation() as current:
            return current.areas(), interfaces(loaded)


def list_counts(state: State) -> dict[str, dict[str, int]]:
    """Entries by kind and owner."""
    return {
        kind: {name: count_entries(text) for name, text in sorted(lists.items())}
        for kind, lists in (("allow", state.allow), ("deny", state.deny))
    }


def status(host: Host) -> wire.Result:
    """The filter, and what is not as it should be."""
    dummy, state = host.store.read_current()
    with Loaded(host.pins) as loaded:
        filtered = {item.name: item for item in interfaces(loaded)}
        with loaded.generation() as current:
            digest = current.digest
        whole = loaded.whole
    found: wire.Result = {
        "interfaces": {
            name: {
                "wanted": state.interfaces.get(name),
                "mode": filtered[name].mode if name in filtered else "none",
                "action": filtered[name].action if name in filtered else "",
            }
            for name in sorted({*state.interfaces, *filtered})
        },
        "lists": list_counts(state),
        "digest": digest,
        "bans": {},
        "protected": 0,
        "packets": {},
    }
    if host.pins.loaded():
        numbers = dict.fromkeys(abi.ORIGINS.values(), 0)
        for ban in bans_of(host).active():
            numbers[ban.origin_name] = numbers.get(ban.origin_name, 0) + 1
        found["bans"] = numbers
        found["protected"] = len(protected_of(host))
        found["packets"] = packets(host.pins.open_run_maps(("counters",))["counters"])
    panic = host.panicking()
    found["problems"] = [panic.describe()] if panic else _problems(host, state, filtered, whole)
    return found


def _problems(
    host: Host, state: State, filtered: t.Mapping[str, Interface], whole: bool
) -> list[str]:
    """What is not as it is declared, each with its remedy."""
    found = [
        f"{name} is not filtered: systemctl restart packetwatch-xdp@{name}"
        for name in sorted(state.interfaces)
        if name not in filtered
    ]
    if not state.interfaces and not filtered:
        found.append("no interface is filtered, and none is declared")
    found += [
        f"{name} is filtered but not declared: the next boot does not filter it"
        for name in filtered
        if name not in state.interfaces
    ]
    if not filtered:
        return found
    if not whole:
        found.append("a change was interrupted: packetwatchctl apply")
    try:
        plan = host.plan(lambda state: state, force=True)
        if plan.changed:
            found.append("what is declared is not what is live: packetwatchctl apply")
        found += [f"{name} is left out: {why}" for name, why in sorted(plan.feeds.broken.items())]
    except PacketwatchError as error:
        found.append(f"what is declared cannot go live: {error}")
    return found
