# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The interfaces that the role attaches to: as declared, or that of the default route."""

from __future__ import annotations

import difflib
import typing as t

from .._base.errors import InvalidInput, PacketwatchError
from .._base.interface import text_of
from .._declared.nexts import check_path
from .._declared.policy import OVERRIDES, fields_from_options, merge_policy
from .._declared.store import MODES, check_interface, check_mode
from .._dispatcher.place import DISPATCHER, is_dispatcher, mode_from_options
from .._dispatcher.place import KEYS as MODE_KEYS
from .._network.devices import check_device, check_listeners

if t.TYPE_CHECKING:
    from .machine import Machine

Interface = dict[str, t.Any]
"""A name, and if declared a mode, a next program and policy options."""

_NEXT = ("next", "next_src")
_KEYS = ("name", *MODE_KEYS, *_NEXT, *OVERRIDES)
# Flags of routes (linux/route.h).
_UP = 0x1
_UP_GATEWAY = 0x3


def resolve_interfaces(
    machine: Machine,
    wanted: t.Sequence[t.Any] | None,
    attached: t.Mapping[str, str],
    problems: list[str],
) -> list[Interface]:
    """The interfaces to attach to; what is wrong with them is appended to `problems`.

    wanted: None for those that are attached already, else that of the default route. attached: name to
    mode.
    """
    if wanted is None:
        wanted = _chosen(machine, attached)
        if not wanted:
            problems.append(
                "the host has no default route, whose interface would be filtered: set "
                "packetwatch_interfaces"
            )
    found = read_interfaces(wanted, problems)
    for index, interface in found.items():
        try:
            check_device(interface["name"], machine.links)
        except PacketwatchError as error:
            problems.append(f"packetwatch_interfaces[{index}]: {error}")
    return list(found.values())


def read_interfaces(wanted: t.Sequence[t.Any], problems: list[str]) -> dict[int, Interface]:
    """The interfaces by their index; what is wrong with the form of others is appended to `problems`."""
    found: dict[int, Interface] = {}
    for index, entry in enumerate(wanted):
        try:
            interface = _read(entry)
            name = interface["name"]
            if any(other["name"] == name for other in found.values()):
                raise InvalidInput(f"{name} is listed twice; keep one of them")
            check_interface(name)
            found[index] = interface
        except PacketwatchError as error:
            problems.append(f"packetwatch_interfaces[{index}]: {error}")
    return found


def joins_any(interfaces: t.Iterable[Interface]) -> bool:
    """Whether the program will be in the dispatcher of an interface."""
    return any(is_dispatcher(interface.get("mode", "")) for interface in interfaces)


def check_listening(
    machine: Machine, policy: t.Mapping[str, t.Any], interfaces: t.Iterable[Interface]
) -> t.Iterator[str]:
    """Interfaces on which all ports would look closed."""
    for interface in interfaces:
        try:
            merged = merge_policy(fields_from_options(policy), fields_from_options(interface))
        except PacketwatchError:
            # `check_policies` reports it.
            continue
        if merged.looks_for_listeners:
            try:
                check_listeners(interface["name"], machine.links)
            except PacketwatchError as error:
                yield f"packetwatch_interfaces: {error}"


def _chosen(machine: Machine, attached: t.Mapping[str, str]) -> list[Interface]:
    names = list(attached) or _default_route(machine)
    return [{"name": name, "mode": attached.get(name, MODES[0])} for name in names]


def _default_route(machine: Machine) -> list[str]:
    """The interface of the default route: IPv4's with the lowest metric, else IPv6's."""
    found: list[tuple[int, int, bytes]] = []
    for fields in _rows(machine, "proc/net/route")[1:]:
        if int(fields[1], 16) == int(fields[7], 16) == 0 and int(fields[3], 16) & _UP:
            found.append((4, int(fields[6]), fields[0]))
    for fields in _rows(machine, "proc/net/ipv6_route"):
        gateway = int(fields[8], 16) & _UP_GATEWAY == _UP_GATEWAY
        if int(fields[0], 16) == int(fields[1], 16) == 0 and gateway:
            found.append((6, int(fields[5], 16), fields[9]))
    return [text_of(min(found)[2])] if found else []


def _rows(machine: Machine, name: str) -> list[list[bytes]]:
    """The words of each line of a file; none if there is no such file.

    Bytes, because the name of a device need not be UTF-8, and may hold what ends a line of text.
    """
    try:
        return [line.split() for line in machine.path(name).read_bytes().split(b"\n") if line]
    except FileNotFoundError:
        return []


def _read(wanted: t.Any) -> Interface:
    """Check the form of one entry."""
    entry: Interface = {"name": wanted} if isinstance(wanted, str) else wanted
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise InvalidInput(
            f"{wanted!r} is not an interface: write a name, or a dictionary with a name"
        )
    for key in entry:
        if key not in _KEYS:
            raise InvalidInput(f"{entry['name']} has the unknown key {key}: {_hint(str(key))}")
    mode = entry.get("mode", MODES[0])
    if mode not in MODES and not is_dispatcher(str(mode)):
        choices = ", ".join((*MODES, DISPATCHER))
        raise InvalidInput(f"{entry['name']} has the mode {mode!r}: choose one of {choices}")
    try:
        check_mode(mode_from_options(entry))
    except InvalidInput as error:
        raise InvalidInput(f"{entry['name']}: {error}") from error
    _check_next(entry)
    return entry


def _check_next(entry: Interface) -> None:
    declared = {key: entry[key] for key in _NEXT if entry.get(key) is not None}
    if len(declared) > 1:
        raise InvalidInput(
            f"{entry['name']} has next and next_src: an interface has one next program, so keep one of them"
        )
    for key, value in declared.items():
        if not isinstance(value, str) or not value:
            raise InvalidInput(f"{entry['name']} has the {key} {value!r}: write a path")
    if "next" in declared:
        check_path(declared["next"])


def _hint(key: str) -> str:
    if key == "published_ports":
        return "it holds for all interfaces: set packetwatch_published_ports"
    near = difflib.get_close_matches(key, _KEYS, 1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(_KEYS)}"
