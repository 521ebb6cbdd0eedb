# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a packet from an address passes or is dropped: lists first (allow before deny), then bans."""

from __future__ import annotations

import time
import typing as t

from packetwatch_core._base.address import Prefix, format_prefix, parse_prefix
from packetwatch_core._base.clock import clock_synchronised, counts
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._declared.entries import Entry, expires_at, parse_line
from packetwatch_core._feeds.spare import NOTHING, is_left_out
from packetwatch_core._tables.ranges import ALLOW, DENY, NONE
from packetwatch_core._tables.reader import verdicts
from packetwatch_core._tables.tables import Tables

from . import wire

if t.TYPE_CHECKING:
    from packetwatch_core._declared.store import State
    from packetwatch_core._feeds.spare import Note

_MAX_ENTRIES = 50
_VERDICTS = {NONE: "none", ALLOW: "allow", DENY: "deny"}

Fields = dict[str, t.Any]


class Policy(t.Protocol):
    """What `explain` needs to know of an interface."""

    @property
    def name(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def scope(self) -> str: ...
    @property
    def link_control(self) -> str: ...


def declared(state: State, prefix: Prefix, note: Note = NOTHING) -> Fields:
    """The verdict of the declared lists: entries that cover the prefix, and the number inside it.

    note: root's note with the entries of feeds that were left out.
    """
    now, synchronised = time.time(), clock_synchronised()
    covering: list[Fields] = []
    inside = 0
    for kind, lists in (("allow", state.allow), ("deny", state.deny)):
        for owner, text in sorted(lists.items()):
            for line in text.splitlines():
                word = line.split(None, 1)[:1]
                if not word or word[0].startswith("#") or (":" in word[0]) != (prefix.family == 6):
                    continue
                other = _prefix(word[0])
                if other is None or other.family != prefix.family:
                    continue
                if other.value <= prefix.value and prefix.last <= other.last:
                    entry = parse_line(line)
                    if entry:
                        is_active = _counts(kind, entry, now, synchronised)
                        is_active = is_active and not is_left_out(kind, owner, text, other, note)
                        covering.append(_fields(kind, owner, entry, is_active))
                elif prefix.value <= other.value and other.last <= prefix.last:
                    inside += 1
    covering.sort(key=lambda item: (item["kind"] != "allow", -parse_prefix(item["prefix"]).length))
    kinds = {item["kind"] for item in covering if item["in_force"]}
    verdict = "allow" if "allow" in kinds else "deny" if "deny" in kinds else "none"
    if inside and verdict != "allow":
        verdict = "mixed"
    return {"verdict": verdict, "entries": covering[:_MAX_ENTRIES], "inside": inside}


def _prefix(word: str) -> Prefix | None:
    try:
        return parse_prefix(word.partition("#")[0])
    except InvalidInput:
        return None


def _counts(kind: str, entry: Entry, now: float, is_synchronised: bool) -> bool:
    if not entry.expires:
        return True
    return counts(kind, expires_at(entry.expires), now, is_synchronised)


def _fields(kind: str, owner: str, entry: Entry, is_active: bool) -> Fields:
    return {
        "kind": kind,
        "owner": owner,
        "prefix": entry.text,
        "comment": entry.comment,
        "expires": entry.expires,
        "in_force": is_active,
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
) -> wire.Result:
    """The whole explanation. An argument is None if the caller could not read it; a note reports that."""
    verdict = lists["verdict"] if in_kernel is None else in_kernel
    protected = bans["protected"] if bans else ""
    found = bans["bans"] if bans else []
    because = _because(verdict, protected, found)
    notes = []
    if in_kernel is None and interfaces is not None:
        notes.append("no interface is filtered: everything passes")
    elif in_kernel is None:
        notes.append(
            "only root can read the kernel's tables: this is the verdict of the declared lists"
        )
    elif prefix.is_host and in_kernel != lists["verdict"]:
        notes.append(
            f"the lists declare {lists['verdict']}, but the kernel has {in_kernel}: packetwatchctl apply"
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
        "declared": lists,
        "live": in_kernel,
        "protected": protected,
        "bans": found,
        "notes": notes,
    }


def _lets_link_control_pass(item: Policy) -> bool:
    return item.action == "enforce" and item.link_control == "pass"


def _because(verdict: str, protected: str, bans: list[Fields]) -> str:
    if verdict != "none":
        return verdict
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
