# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of the filter: root reads it from kernel and disk, members of the groups get it from the agent.

Root does not need the agent, which may be dead.
"""

from __future__ import annotations

import contextlib
import typing as t

from packetwatch_core._active.loaded import Loaded
from packetwatch_core._bans.bans import Bans
from packetwatch_core._base.clock import WHY_UNTRUSTED, read_clock
from packetwatch_core._base.errors import PacketwatchError, Pending, Unreadable
from packetwatch_core._base.steps import finish
from packetwatch_core._change.panic import LIFT
from packetwatch_core._declared.describe import count_entries
from packetwatch_core._declared.policy import DEFAULT, resolve_policies
from packetwatch_core._health import active, chain
from packetwatch_core._health.problems import Facts, Unconfirmed, find
from packetwatch_core._kernel import abi
from packetwatch_core._kernel.counters import packets_by_reason, read_pinned

from . import banning, wire
from .commands import FOLLOWING
from .words import moment

if t.TYPE_CHECKING:
    from packetwatch_core._active.generation import Areas
    from packetwatch_core._base.clock import Clock
    from packetwatch_core._change.panic import Panic
    from packetwatch_core._declared.store import State
    from packetwatch_core._host.host import Host


_SECOND = 1_000_000_000


class Interface(t.NamedTuple):
    """The policy that the kernel applies to the packets of an attached interface."""

    name: str
    ifindex: int
    mode: str
    action: str
    counts: str
    scope: str
    link_control: str
    policy: dict[str, t.Any]


def what_if_different(host: Host) -> str:
    """What an operator can do if the kernel has other lists than confirmed state, as it must in some states."""
    pending = host.pending()
    if pending:
        return pending.describe()
    panic = host.panicking()
    return f"{panic.describe()} ({LIFT})" if panic else "packetwatchctl apply"


def bans_of(host: Host) -> Bans:
    """The bans in the kernel; raises `ControlError` if nothing is loaded."""
    if not host.pins.loaded():
        panic = host.panicking()
        if panic:
            raise wire.ControlError(f"{panic.describe()}, so there are no bans ({LIFT})")
        raise wire.ControlError(
            "nothing is loaded on this host, so there are no bans: attach the filter first "
            "(systemctl start packetwatch-xdp@INTERFACE)"
        )
    return Bans.open(host.pins)


def frozen_of(host: Host) -> list[str]:
    """The agent's maps that can never be written again."""
    from ..following import MAPS

    found = []
    for name in MAPS if host.pins.loaded() else ():
        # While a version is replaced, a map may be missing.
        with contextlib.suppress(Unreadable), host.pins.open_run_maps((name,))[name] as opened:
            found += [name] if opened.is_frozen else []
    return found


def is_done(host: Host, request: wire.Request, since: int) -> bool:
    """Whether the kernel has what a request to ban or to lift a ban wants, made at `since` or later."""
    bans = bans_of(host)
    address, seconds = request["address"], request.get("duration")
    if request["command"] == "unban":
        return all(ban.since >= since for ban in bans.why(address).bans)
    ban = bans.find(bans.source_of(address), "bans")
    if ban is None or ban.since < since:
        return False
    return ban.expires == (0 if seconds is None else ban.since + round(seconds * _SECOND))


def top(host: Host, most: int) -> wire.Result:
    """What the kernel knows of what `top` shows."""
    if not host.pins.loaded():
        return {"packets": {}, "drops": []}
    return {
        "packets": packets_by_reason(read_pinned(host.pins)),
        "drops": finish(banning.most_dropped(bans_of(host), most)),
    }


def protected_of(host: Host) -> list[dict[str, t.Any]]:
    """Protected addresses, why they are protected, and until when."""
    if not host.pins.loaded():
        return []
    return list(banning.protected(host.pins.open_run_maps(("hosts", "nets"))))


def interfaces(loaded: Loaded) -> list[Interface]:
    """The interfaces that are filtered now."""
    with loaded.generation() as current:
        return [
            _interface(name, found, current.policy(found.ifindex))
            for name, found in active.interfaces(loaded).items()
        ]


def _interface(name: str, found: active.Interface, policy: dict[str, t.Any]) -> Interface:
    return Interface(
        name,
        found.ifindex,
        found.mode,
        abi.ACTIONS[policy["action"]],
        abi.COUNTS[policy["counts"]],
        abi.SCOPES[policy["scope"]],
        abi.LINK_CONTROLS[policy["link_control"]],
        policy,
    )


def live_areas(host: Host) -> tuple[Areas | None, list[Interface]]:
    """The tables in the kernel, None if nothing is filtered, and the interfaces that they serve."""
    with Loaded(host.pins) as loaded:
        if not loaded.active:
            return None, []
        with loaded.generation() as current:
            return current.areas(), interfaces(loaded)


def chains(host: Host) -> wire.Result:
    """The programs that a packet meets, by interface."""
    dummy, state = host.store.read_current()
    with Loaded(host.pins) as loaded:
        found = chain.read_chains(loaded, state)
    return {name: chain.as_fields(members) for name, members in found.items()}


def list_counts(state: State) -> dict[str, dict[str, int]]:
    """Entries by kind and owner."""
    return {
        kind: {name: count_entries(text) for name, text in sorted(lists.items())}
        for kind, lists in (("allow", state.allow), ("deny", state.deny))
    }


def status(host: Host, agent: wire.Result | None = None, agent_error: str = "") -> wire.Result:
    """The filter, and what is wrong, as root sees it.

    agent: what the agent answers; None, with the reason: it does not.
    """
    dummy, state = host.store.read_current()
    with Loaded(host.pins) as loaded:
        filtered = {item.name: item for item in interfaces(loaded)}
        digest = active.read_active(loaded).digest
        is_whole = loaded.whole
        present, renamed = list(loaded.present), loaded.renamed(state.interfaces)
        chains = chain.read_chains(loaded, state)
    seen = {name: (item.mode, item.action) for name, item in filtered.items()}
    found: wire.Result = {
        "interfaces": _interfaces(state, seen),
        "lists": list_counts(state),
        "entries": host.status.read().get("counts", {}) if filtered else {},
        "notes": about_clock(read_clock(host.paths.clock), host.paths.clock),
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
        found["packets"] = packets_by_reason(read_pinned(host.pins))
    note = host.status.read()
    facts = _facts(state, filtered, host.panicking(), agent)
    facts = facts._replace(
        damaged_bans=[*facts.damaged_bans, *host.damaged_bans()],
        frozen=frozen_of(host),
        nexts=chain.nexts(chains),
        strayed=chain.strayed(chains),
        is_whole=is_whole,
        present=present,
        renamed=renamed,
        agent_error=agent_error,
        unverified=str(note.get("unverified", "")),
        distrusted=host.status.distrusted(),
    )
    if filtered and not facts.panic:
        facts = _with_tables(facts, host)
    return found | {"problems": _problems(facts), "agent": agent}


def about_clock(clock: Clock, path: str) -> list[str]:
    """What is unusual about the clock, which decides on entries that expire. path: of the time kept."""
    if not clock.is_trusted:
        return [
            f"{WHY_UNTRUSTED}: until then, allow entries that expire do not count, and deny entries do"
        ]
    if clock.lags:
        return [
            f"the clock is behind {moment(clock.passed)}, which it has shown before: entries that expire "
            f"by then have expired; if the clock was wrong then, remove {path}"
        ]
    return []


def status_by_agent(
    state: State, panic: Panic | None, agent: wire.Result, notes: list[str]
) -> wire.Result:
    """The filter, and what is wrong, as far as a member of the groups may see it.

    notes: of `about_clock`. The kernel's own policies are root's to read, so `action` is that of confirmed state.
    """
    modes: dict[str, str] = agent.get("interfaces", {})
    policies = resolve_policies(state.policy)
    seen = {
        name: (mode, policies.get(name, policies[DEFAULT]).action)
        for name, mode in modes.items()
        if mode != "none"
    }
    facts = _facts(state, seen, panic, agent)
    return {
        "interfaces": _interfaces(state, seen),
        "bans": agent.get("bans", {}),
        "packets": agent.get("packets", {}),
        "lists": list_counts(state),
        "entries": agent.get("entries", {}),
        "notes": notes,
        "problems": _problems(facts),
        "agent": agent,
    }


def _interfaces(state: State, seen: t.Mapping[str, tuple[str, str]]) -> wire.Result:
    """Interfaces that are declared or filtered; seen: mode and action of those that are filtered."""
    found = {}
    for name in sorted({*state.interfaces, *seen}):
        mode, action = seen.get(name, ("none", ""))
        found[name] = {"wanted": state.interfaces.get(name), "mode": mode, "action": action}
    return found


def _facts(
    state: State,
    filtered: t.Collection[str],
    panic: Panic | None,
    agent: wire.Result | None,
) -> Facts:
    return Facts(
        panic=panic.describe() if panic else "",
        declared=sorted(state.interfaces),
        filtered=sorted(filtered),
        is_declaration_judged=True,
        is_agent_waiting=agent is not None and agent["state"] != FOLLOWING,
        unsaved=agent.get("unsaved", "") if agent else "",
        damaged_bans=agent.get("damaged", []) if agent else [],
    )


def _with_tables(facts: Facts, host: Host) -> Facts:
    """Compare what confirmed state would become with what is active."""
    pending = host.pending()
    if pending:
        unconfirmed = Unconfirmed(pending.owner, pending.left)
        return facts._replace(is_pending=True, unconfirmed=unconfirmed)
    try:
        plan = host.plan(lambda state: state, force=True)
    except Pending:
        # Another process has begun a change since.
        return facts._replace(is_pending=True)
    except PacketwatchError as error:
        return facts._replace(refusal=str(error))
    expired = host.status.read().get("expired_feeds", {})
    return facts._replace(
        matches=not plan.changed, broken_feeds=plan.feeds.broken, expired_feeds=expired
    )


def _problems(facts: Facts) -> list[str]:
    """Each with its remedy."""
    return [str(problem) for problem in find(facts)]
