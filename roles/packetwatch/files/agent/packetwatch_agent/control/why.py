# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a packet from an address passes or is dropped: lists first (allow before deny), then bans."""

from __future__ import annotations

import types
import typing as t

from packetwatch_core._active import verdict
from packetwatch_core._base.address import Prefix, format_prefix
from packetwatch_core._declared.search import count_inside, covering_exactly
from packetwatch_core._feeds.spare import NOTHING
from packetwatch_core._tables.ranges import ALLOW, DENY, NONE
from packetwatch_core._tables.reader import verdicts
from packetwatch_core._tables.tables import Tables

from . import wire

if t.TYPE_CHECKING:
    from packetwatch_core._base.clock import Clock
    from packetwatch_core._declared.store import State
    from packetwatch_core._feeds.spare import Note

_MAX_ENTRIES = 50
_VERDICTS = {NONE: "none", ALLOW: "allow", DENY: "deny"}

Fields = dict[str, t.Any]


class Policy(t.Protocol):
    """What `explain` needs to know of an interface."""

    @property
    def name(self) -> str:
        """The name of the interface."""

    @property
    def action(self) -> str:
        """The action: enforce, monitor or off."""

    @property
    def scope(self) -> str:
        """What a ban drops: connections or all."""

    @property
    def link_control(self) -> str:
        """What decides control traffic of the link: pass or lists."""


def declared(
    state: State,
    prefix: Prefix,
    clock: Clock,
    note: Note = NOTHING,
    in_kernel: str | None = None,
) -> Fields:
    """The verdict of the declared lists: entries that cover the prefix, and the number inside it.

    note: root's note with the entries of feeds that were left out. in_kernel: the verdict of the tables; if
    it differs, entries are searched once more, however they are spelled.
    """
    found = verdict.find(state, prefix, clock, note)
    inside = 0
    if not prefix.is_host:
        texts = (*state.allow.values(), *state.deny.values())
        inside = sum(count_inside(text, prefix) for text in texts)
    elif in_kernel is not None and _VERDICTS[verdict.verdict_of(found)] != in_kernel:
        found = verdict.find(state, prefix, clock, note, covering_exactly)
    name = _VERDICTS[verdict.verdict_of(found)]
    if inside and name != "allow":
        name = "mixed"
    entries = [_fields(item) for item in found[:_MAX_ENTRIES]]
    return {"verdict": name, "entries": entries, "inside": inside}


def _fields(item: verdict.Found) -> Fields:
    entry = item.entry
    return {
        "kind": item.kind,
        "owner": item.owner,
        "prefix": entry.text,
        "comment": entry.comment,
        "origin": entry.origin,
        "expires": entry.expires,
        "in_force": item.counts,
        "undecided": item.is_undecided,
    }


def verdict_of(tables: Tables, prefix: Prefix) -> str:
    """The verdict of the tables in the kernel: allow, deny or none; mixed if addresses differ."""
    (found,) = verdicts(tables, prefix.family, [(prefix.value, prefix.last)])
    return _VERDICTS[found.pop()] if len(found) == 1 else "mixed"


def explain(
    prefix: Prefix,
    lists: Fields,
    in_kernel: str | None,
    bans: Fields | None,
    interfaces: t.Sequence[Policy] | None,
    remedy: t.Callable[[], str] = lambda: "packetwatchctl apply",
    chains: t.Mapping[str, t.Any] = types.MappingProxyType({}),
) -> wire.Result:
    """The whole explanation. An argument is None if the caller could not read it; a note reports that.

    remedy: what to do if the kernel has other lists than those that are declared. chains: the
    programs that a packet meets, by interface, as `chain.as_fields` gives them.
    """
    protected = bans["protected"] if bans else ""
    found = bans["bans"] if bans else []
    because = _because(lists["verdict"] if in_kernel is None else in_kernel, protected, found)
    notes = []
    if in_kernel is None and interfaces is not None:
        notes.append("no interface is filtered: everything passes")
    elif in_kernel is None:
        notes.append(
            "only root can read the kernel's tables: this is the verdict of the declared lists"
        )
    elif prefix.is_host and in_kernel != lists["verdict"]:
        notes.append(
            f"the lists declare {lists['verdict']}, but the kernel has {in_kernel}: {remedy()}"
        )
    if bans is None and not prefix.is_host:
        notes.append("a ban is on a single address or an IPv6 /64: packetwatchctl bans")
    elif bans is None:
        notes.append("bans could not be read")
    if because == "allow" and found:
        notes.append("it is also banned, but an allow entry beats the ban")
    if because in ("deny", "mixed") and any(map(_lets_link_control_pass, interfaces or ())):
        notes.append(
            "discovery of neighbours and routers, MLD and DHCP pass from it too (link_control: pass)"
        )
    if because == "protected" and found:
        notes.append("it was banned before it became protected, so the ban has no effect")
    return {
        "address": format_prefix(prefix),
        "because": because,
        "verdict": _verdict(because, found, interfaces),
        "interfaces": [
            {"interface": item.name, "action": item.action, "verdict": _on(item, because)}
            for item in interfaces or []
        ],
        "chains": dict(chains),
        "declared": lists,
        "live": in_kernel,
        "protected": protected,
        "bans": found,
        "notes": notes,
    }


def _lets_link_control_pass(item: Policy) -> bool:
    return item.action == "enforce" and item.link_control == "pass"


def _because(listed: str, protected: str, bans: list[Fields]) -> str:
    if listed != "none":
        return listed
    if bans:
        return "protected" if protected else "ban"
    return "unlisted"


def _verdict(because: str, bans: list[Fields], interfaces: t.Sequence[Policy] | None) -> str:
    """The verdict on all interfaces, or that it depends on the interface."""
    if interfaces is not None and not interfaces:
        return "passes"
    if interfaces is None:
        return _WORDS[because]
    found = {_on(item, because) for item in interfaces}
    return found.pop() if len(found) == 1 else "depends on the interface"


_WORDS = {
    "allow": "passes",
    "deny": "is dropped",
    "mixed": "passes or is dropped, by address",
    "ban": "is banned",
    "protected": "passes",
    "unlisted": "passes",
}


def _on(item: Policy, because: str) -> str:
    if item.action == "off":
        return "passes"
    if because not in ("deny", "ban", "mixed"):
        return _WORDS[because]
    if item.action == "monitor":
        return "passes, and would be dropped" if because != "mixed" else "passes"
    if because == "ban" and item.scope == "connections":
        return "new connections are dropped"
    return _WORDS[because] if because != "ban" else "is dropped"
