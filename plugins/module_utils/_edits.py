# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Edits: what somebody wants declared, as a function from one state to the next."""

from __future__ import annotations

import socket
import typing as t

from ._describe import count_entries
from ._entries import Entry, entries_from_input, format_list, merge_entries
from ._errors import InvalidInput
from ._policy import DEFAULT, resolve_policies
from ._store import State, check_interface, check_name

Edit = t.Callable[[State], State]


def list_text(value: t.Any, option: str) -> str:
    """Text of a drop-in from what an option holds: entries, or entries by variable.

    Errors name the variable, or else the option, and the index. An entry with the state absent
    withdraws its prefix from all variables.
    """
    variables = value if isinstance(value, dict) else {option: value}
    named = [
        (entry, str(variable))
        for variable, values in variables.items()
        for entry in entries_from_input(values, str(variable))
    ]
    withdrawn = {
        entry.prefix
        for variable, values in variables.items()
        for entry in _withdrawn(values, str(variable))
    }
    return format_list(merge_entries(pair for pair in named if pair[0].prefix not in withdrawn))


def _withdrawn(values: t.Any, variable: str) -> list[Entry]:
    """Entries that a variable withdraws; all of its items have been checked before."""
    absent = [item for item in values if isinstance(item, dict) and item.get("state") == "absent"]
    return entries_from_input([{"address": item["address"]} for item in absent], variable)


def set_lists(name: str, texts: t.Mapping[str, str], allow_empty: bool) -> Edit:
    """Set the drop-ins of a name; texts by kind ("allow", "deny"), a kind left out stays as it is.

    Refuses to empty one that has entries unless told to.
    """
    check_name(name)

    def edit(state: State) -> State:
        lists = {kind: dict(getattr(state, kind)) for kind in texts}
        for kind, text in texts.items():
            before = count_entries(lists[kind].get(name, ""))
            if before and not count_entries(text) and not allow_empty:
                raise InvalidInput(
                    f"the {kind} list {name!r} would lose all its entries ({before}); "
                    "if that is what you want, set allow_empty to true"
                )
            lists[kind][name] = text
        return state._replace(
            allow=lists.get("allow", state.allow), deny=lists.get("deny", state.deny)
        )

    return edit


def remove_lists(name: str) -> Edit:
    """Remove both drop-ins of a name."""
    check_name(name)

    def edit(state: State) -> State:
        allow = {key: text for key, text in state.allow.items() if key != name}
        deny = {key: text for key, text in state.deny.items() if key != name}
        return state._replace(allow=allow, deny=deny)

    return edit


def set_policy(interface: str | None, keys: t.Mapping[str, str], replace: bool) -> Edit:
    """Set keys of an interface's policy, or of the default; the others stay, or go if `replace`.

    Refuses an interface that neither exists nor is declared.
    """
    if interface is not None:
        check_interface(interface)
    name = interface or DEFAULT

    def edit(state: State) -> State:
        wanted = dict(keys) if replace else state.policy.get(name, {}) | dict(keys)
        policy = {key: value for key, value in state.policy.items() if key != name}
        if wanted:
            _check_known(interface, state)
            policy[name] = wanted
        resolve_policies(policy)
        return state._replace(policy=policy)

    return edit


def _check_known(interface: str | None, state: State) -> None:
    present = [name for dummy, name in socket.if_nameindex()]
    if interface is not None and interface not in present and interface not in state.interfaces:
        raise InvalidInput(
            f"there is no interface {interface!r} here; there are {', '.join(present)}"
        )
