# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Edits: wanted changes of the declared state, as functions from one state to the next."""

from __future__ import annotations

import socket
import types
import typing as t

from .._base.address import Prefix, format_prefix
from .._base.errors import InvalidInput
from .._base.interface import text_from_system
from .._kernel.source import check_format
from .bulk import DropIn, make_drop_in, parse_drop_in
from .describe import count_entries, has_entries
from .drop_ins import DropIns
from .entries import (
    BYTE_ORDER_MARK,
    Entry,
    format_list,
    merge_inputs,
    parse_line,
)
from .policy import DEFAULT, canonical_policy, default_policy, resolve_policies
from .search import covering
from .store import State, Store, check_interface, check_name

if t.TYPE_CHECKING:
    from .nexts import Next

Edit = t.Callable[[State], State]


class GivenList(t.NamedTuple):
    """A drop-in; repeated: how many of the given entries were duplicates."""

    text: DropIn
    repeated: int


def list_text(value: t.Any, option: str) -> GivenList:
    """Return the drop-in for an option's value: a list of entries, or such lists by variable.

    An entry with the state absent withdraws its prefix from all variables. Raises InvalidInput, which
    names the variable or option, and the index.
    """
    variables = value if isinstance(value, dict) else {option: value}
    found = merge_inputs({str(name): values for name, values in variables.items()})
    return GivenList(make_drop_in(found.entries, found.origins), found.repeated)


def read_list(path: str) -> DropIn:
    """Return the drop-in that a list file holds.

    Raises InvalidInput, which names file and line.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    return parse_drop_in(text, path)


def set_lists(name: str, texts: t.Mapping[str, str], allow_empty: bool) -> Edit:
    """Set the drop-ins of a name; texts: by kind ("allow", "deny"). Other kinds stay unchanged.

    Without allow_empty, the edit refuses to remove all entries of a drop-in.
    """
    check_name(name)

    def edit(state: State) -> State:
        lists = {kind: DropIns.of(getattr(state, kind)) for kind in texts}
        for kind, text in texts.items():
            former = lists[kind].get(name, "")
            if not allow_empty and has_entries(former) and not has_entries(text):
                raise InvalidInput(
                    f"the {kind} list {name!r} would lose all its entries ({count_entries(former)}); "
                    "if you want that, set allow_empty to true"
                )
            lists[kind] = lists[kind].replaced(name, text)
        return state._replace(
            allow=lists.get("allow", state.allow), deny=lists.get("deny", state.deny)
        )

    return edit


def remove_lists(name: str) -> Edit:
    """Remove both drop-ins of a name."""
    check_name(name)

    def edit(state: State) -> State:
        allow, deny = map(DropIns.of, (state.allow, state.deny))
        return state._replace(allow=allow.replaced(name, None), deny=deny.replaced(name, None))

    return edit


def roll_back(store: Store) -> Edit:
    """Roll back: declare again the state that was confirmed before the current one.

    If the current state is itself a rollback, it stays. So a second rollback does not undo the first.
    Settings stay if the former state has none: they were not declared yet.
    """

    def edit(state: State) -> State:
        if store.took_back():
            return state
        former = store.read_former()
        former = former._replace(settings=former.settings or state.settings)
        return state if former == state else former._replace(took_back=store.number())

    return edit


def put_entries(name: str, kind: str, entries: t.Sequence[Entry]) -> Edit:
    """Add entries to a drop-in of this kind ("allow", "deny"), and remove them from the other kind.

    Comment lines and other entries stay unchanged. An entry that is already there takes the new expiry;
    it keeps its comment if the new entry has none.
    """
    check_name(name)
    other = "deny" if kind == "allow" else "allow"

    def edit(state: State) -> State:
        wanted = {entry.prefix: entry for entry in entries}
        text = getattr(state, kind).get(name, "")
        kept: list[str] = []
        for line, entry in _lines(text, f"{kind}.d/{name}.list"):
            new = wanted.get(entry.prefix) if entry else None
            if entry is None or new is None:
                kept.append(line)
                continue
            new = new if new.comment else new._replace(comment=entry.comment)
            wanted[new.prefix] = new
            if entry == new:
                kept.append(line)
                del wanted[new.prefix]
        kept += format_list(wanted.values()).splitlines()
        state = _with_text(state, kind, name, kept)
        return _without(state, other, name, {entry.prefix for entry in entries})

    return edit


def drop_entries(name: str, prefixes: t.Sequence[Prefix], kinds: t.Sequence[str]) -> Edit:
    """Remove prefixes from the drop-ins of a name and of these kinds.

    A prefix that is on no list at all is ignored. The edit raises InvalidInput for a prefix that is only on
    lists of other names or kinds: it would stay listed.
    """
    check_name(name)

    def edit(state: State) -> State:
        for prefix in sorted(set(prefixes) - prefixes_of(state, name, kinds)):
            owners = ", ".join(_owners(state, prefix))
            if owners:
                raise InvalidInput(
                    f"{format_prefix(prefix)} is not on the {' or '.join(kinds)} list {name!r} but on "
                    f"{owners}: change it there, or allow or deny it here too"
                )
        for kind in kinds:
            state = _without(state, kind, name, set(prefixes))
        return state

    return edit


def prefixes_of(state: State, name: str, kinds: t.Iterable[str]) -> set[Prefix]:
    """Return the prefixes in the drop-ins of a name and of these kinds."""
    return {
        entry.prefix
        for kind in kinds
        for dummy, entry in _lines(getattr(state, kind).get(name, ""), f"{kind}.d/{name}.list")
        if entry
    }


def _without(state: State, kind: str, name: str, prefixes: set[Prefix]) -> State:
    """Return the state without the prefixes on one list."""
    if prefixes.isdisjoint(prefixes_of(state, name, [kind])):
        return state
    lines = _lines(getattr(state, kind)[name], f"{kind}.d/{name}.list")
    kept = [line for line, entry in lines if entry is None or entry.prefix not in prefixes]
    return _with_text(state, kind, name, kept)


def _with_text(state: State, kind: str, name: str, lines: list[str]) -> State:
    """Return the state with these lines as a list; without lines, it has no such list."""
    text = "".join(f"{line}\n" for line in lines)
    lists = DropIns.of(getattr(state, kind)).replaced(name, text or None)
    return state._replace(allow=lists) if kind == "allow" else state._replace(deny=lists)


def _lines(text: str, path: str) -> list[tuple[str, Entry | None]]:
    """Return (line, entry or None) for each line; raises InvalidInput, which names file and line."""
    found = []
    for number, line in enumerate(text.removeprefix(BYTE_ORDER_MARK).splitlines(), 1):
        try:
            found.append((line, parse_line(line)))
        except InvalidInput as error:
            raise InvalidInput(f"{path}, line {number}: {error}") from None
    return found


def _owners(state: State, prefix: Prefix) -> list[str]:
    return [
        f"{kind} list {name!r}"
        for kind, lists in (("allow", state.allow), ("deny", state.deny))
        for name, text in sorted(lists.items())
        if any(entry.prefix == prefix for entry in covering(text, prefix))
    ]


def set_policy(interface: str | None, keys: t.Mapping[str, str], replace: bool) -> Edit:
    """Set keys of an interface's policy (None: of the default policy).

    Other keys stay, unless `replace` is set. The edit refuses an interface that neither exists nor is
    declared.
    """
    return set_policies({interface: keys}, replace)


def set_policies(policies: t.Mapping[str | None, t.Mapping[str, str]], replace: bool) -> Edit:
    """Do the same for several policies at once, so that only the result must be consistent."""
    for interface in policies:
        if interface is not None:
            check_interface(interface)

    def edit(state: State) -> State:
        found = dict(state.policy)
        for interface, keys in policies.items():
            name = interface or DEFAULT
            former = found.pop(name, {})
            wanted = dict(keys) if replace else former | dict(keys)
            if wanted:
                _check_known(interface, state)
            kept = canonical_policy(wanted, f"{name}.conf") if interface else default_policy(wanted)
            if kept:
                found[name] = kept
        resolve_policies(found)
        return state._replace(policy=found)

    return edit


def set_interfaces(
    modes: t.Mapping[str, str], nexts: t.Mapping[str, Next] = types.MappingProxyType({})
) -> Edit:
    """Declare exactly these interfaces, with their modes and next programs.

    The policies of other interfaces are removed.
    """

    def edit(state: State) -> State:
        gone = state.interfaces.keys() - modes.keys()
        policy = {name: keys for name, keys in state.policy.items() if name not in gone}
        return state._replace(interfaces=dict(modes), next=dict(nexts), policy=policy)

    return edit


def set_program(source: str) -> Edit:
    """Declare the program's C source; raises InvalidInput if it reads tables of another format."""
    check_format(source)
    return lambda state: state._replace(program=source)


def set_settings(text: str) -> Edit:
    """Declare the text of the settings file."""
    return lambda state: state._replace(settings=text)


def in_turn(*edits: Edit) -> Edit:
    """One edit that makes all of these."""

    def edit(state: State) -> State:
        for one in edits:
            state = one(state)
        return state

    return edit


def _check_known(interface: str | None, state: State) -> None:
    present = [text_from_system(name) for dummy, name in socket.if_nameindex()]
    if interface is not None and interface not in present and interface not in state.interfaces:
        raise InvalidInput(
            f"there is no interface {interface!r} here; choose one of {', '.join(present)}"
        )
