# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The values of the role's variables: what is wrong with each.

All of them would be refused later too, but only after something has changed.
"""

from __future__ import annotations

import typing as t

from .._base.address import parse_prefix
from .._base.errors import PacketwatchError
from .._declared.policy import fields_from_options, merge_policy
from .._network.devices import check_listeners
from .._network.endpoints import parse_interval, parse_listen, parse_url
from .._network.settings import MAX_PROTECTED, parse_list_memory

if t.TYPE_CHECKING:
    from .interfaces import Interface
    from .machine import Machine

Options = t.Mapping[str, t.Any]

# A slow host needs some time to answer.
_MIN_TIMEOUT = 10
_MAX_TIMEOUT = 3600
_PARSERS: t.Final[dict[str, t.Callable[[str, str], object]]] = {
    "list_memory": parse_list_memory,
    "metrics_listen": parse_listen,
    "heartbeat_url": parse_url,
    "heartbeat_interval": parse_interval,
}


def check_values(
    machine: Machine, options: Options, interfaces: t.Sequence[Interface]
) -> t.Iterator[str]:
    """All that is wrong; options: those of the module."""
    yield from check_policies(options["policy"], interfaces)
    yield from check_listening(machine, options["policy"], interfaces)
    yield from check_protect(options["protect"])
    yield from check_settings(options, "list_memory", "metrics_listen")
    for option in ("readers", "admins"):
        yield from check_users(machine, f"packetwatch_{option}", options[option])
    yield from check_timeout(options["confirm_timeout"])
    yield from check_settings(options, "heartbeat_url", "heartbeat_interval")


def check_policies(policy: Options, interfaces: t.Iterable[Interface]) -> t.Iterator[str]:
    """The default policy, and those of single interfaces."""
    try:
        default = fields_from_options(policy)
        merge_policy(default)
    except PacketwatchError as error:
        yield f"packetwatch_{error}"
        return
    for interface in interfaces:
        try:
            merge_policy(default, fields_from_options(interface))
        except PacketwatchError as error:
            yield f"packetwatch_interfaces: {interface['name']}: {error}"


def check_listening(
    machine: Machine, policy: Options, interfaces: t.Iterable[Interface]
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


def check_protect(protect: t.Sequence[str]) -> t.Iterator[str]:
    """The declared protected sources."""
    if len(protect) > MAX_PROTECTED:
        yield f"packetwatch_protect has {len(protect)} entries; allowed: up to {MAX_PROTECTED}"
    for index, text in enumerate(protect):
        try:
            parse_prefix(text)
        except PacketwatchError as error:
            yield f"packetwatch_protect[{index}]: {error}"


def check_settings(options: Options, *names: str) -> t.Iterator[str]:
    """Settings of root's one-shots and of the agent, by the names of their options."""
    for name in names:
        try:
            _PARSERS[name](str(options[name]), f"packetwatch_{name}")
        except PacketwatchError as error:
            yield str(error)


def check_users(machine: Machine, variable: str, names: t.Iterable[str]) -> t.Iterator[str]:
    """The users that get rights: each must exist on the host."""
    for index, name in enumerate(names):
        # getent also finds a user by number, so the name that it prints is compared.
        found = machine.output("getent", "--", "passwd", name)
        if not name or found.partition(":")[0] != name:
            yield (
                f"{variable}[{index}] is {name!r}, which is not a user of this host: make the user "
                "first, or take the name off the list"
            )


def check_timeout(seconds: float) -> t.Iterator[str]:
    """The time for which changes wait."""
    if seconds and not _MIN_TIMEOUT <= seconds <= _MAX_TIMEOUT:
        yield (
            f"packetwatch_confirm_timeout is {seconds:g}; allowed: seconds from {_MIN_TIMEOUT} to "
            f"{_MAX_TIMEOUT}, or 0 to confirm everything at once"
        )
