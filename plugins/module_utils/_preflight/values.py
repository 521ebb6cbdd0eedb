# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The values of the role's variables: what is wrong with each, as far as no host is needed to tell.

All of them would be refused later too, but only after something has changed.
"""

from __future__ import annotations

import re
import typing as t

from .._base.address import parse_prefix
from .._base.duration import duration_text, parse_duration
from .._base.errors import InvalidInput, PacketwatchError, problems_of
from .._declared.edits import list_text
from .._declared.entries import describe_value
from .._declared.policy import OPTIONS, fields_from_options, merge_policy
from .._network.endpoints import (
    NO_STORE,
    check_ports,
    parse_endpoints,
    parse_interval,
    parse_label,
    parse_labels,
    parse_listen,
    parse_url,
    parse_vhost,
)
from .._network.fleet import parse_action, parse_lists, parse_longest, parse_most
from .._network.protect import check_shared
from .._network.settings import MAX_PROTECTED, MAX_SHARED, parse_list_memory
from .interfaces import read_interfaces

if t.TYPE_CHECKING:
    from .._declared.bulk import DropIn
    from .interfaces import Interface

Values = t.Mapping[str, t.Any]
Check = t.Callable[[t.Any, str], t.Iterable[str]]

LISTS = re.compile(r"packetwatch_(allow|deny)(?:__[a-z0-9_]+)?")
"""The names of the variables that merge into the allow list and the deny list."""

_PREFIX = "packetwatch_"
_FLEET = "packetwatch_fleet"
_BUS = "packetwatch_bus"
_INTERFACES = "packetwatch_interfaces"
_PORTS = "packetwatch_published_ports"
# A slow host needs some time to answer.
_MIN_TIMEOUT = 10
_MAX_TIMEOUT = 3600
_SWITCHES = {"true", "false", "yes", "no", "on", "off", "1", "0"}


class Declared(t.NamedTuple):
    """What variables declare. problems: all that is wrong with them; the rest is what is right."""

    problems: list[str]
    lists: dict[str, DropIn]
    """Drop-ins by kind, "allow" and "deny"."""
    interfaces: t.Sequence[t.Any] | None
    policy: dict[str, t.Any]
    """Options of the module policy."""


def read_variables(variables: Values) -> Declared:
    """Read and check variables, given by their full names; other names are ignored."""
    problems: list[str] = []
    lists = {}
    for kind in ("allow", "deny"):
        try:
            lists[kind] = list_text(_lists_of(kind, variables), kind).text
        except PacketwatchError as error:
            problems += problems_of(error)
    interfaces = variables.get(_INTERFACES)
    if interfaces is not None and not isinstance(interfaces, (list, tuple)):
        problems.append(_no_list(interfaces, _INTERFACES))
        interfaces = ()
    ports = variables.get(_PORTS)
    if ports is not None and not isinstance(ports, (list, tuple)):
        problems.append(_no_list(ports, _PORTS))
    policy = {option: variables.get(_PREFIX + option) for option in OPTIONS}
    found = read_interfaces(interfaces or (), problems)
    problems += check_policies(policy, found.values())
    for option, check in _CHECKS.items():
        name = _PREFIX + option
        if name in variables:
            problems += check(variables[name], name)
    problems += check_fleet(variables)
    problems += check_bus(variables)
    problems += check_ports(served_metrics(variables))
    return Declared(problems, lists, interfaces, policy)


def check_policies(policy: Values, interfaces: t.Iterable[Interface]) -> t.Iterator[str]:
    """The default policy, and those of single interfaces."""
    if policy.get("ban_time_max") == policy.get("ban_time"):
        # That is the role's default; what is wrong with one value is not said twice.
        policy = {**policy, "ban_time_max": None}
    try:
        default = fields_from_options(policy)
        merge_policy(default)
    except PacketwatchError as error:
        yield from (_PREFIX + problem for problem in problems_of(error))
        return
    for interface in interfaces:
        try:
            merge_policy(default, fields_from_options(interface))
        except PacketwatchError as error:
            for problem in problems_of(error):
                yield f"{_INTERFACES}: {interface['name']}: {problem}"


def check_fleet(variables: Values) -> t.Iterator[str]:
    """What a host in a fleet needs to reach its store."""
    store = variables.get(_FLEET, NO_STORE)
    if store == NO_STORE:
        return
    needed = {"etcd": ("endpoints", "ca", "certificate", "password"), "folder": ("folder",)}
    for option in ("host", *needed.get(store, ())):
        name = f"{_FLEET}_{option}"
        if not variables.get(name):
            yield f"{name} is empty: a host with {_FLEET} {store!r} needs it"
    yield from _check_fleet_host(variables.get(f"{_FLEET}_host"), f"{_FLEET}_host")


def _check_fleet_host(value: t.Any, name: str) -> t.Iterator[str]:
    # Only in a fleet: other hosts may have names in the inventory that no store could have.
    for problem in _optional(parse_label)(value, name):
        yield f"{problem}; unless you set {name}, it is the host's name in the inventory"


def check_bus(variables: Values) -> t.Iterator[str]:
    """What a host that publishes events needs to reach its broker."""
    bus = variables.get(_BUS, NO_STORE)
    if bus != NO_STORE and variables.get(_FLEET, NO_STORE) == NO_STORE:
        # The first word of its topics. In a fleet, that was checked before.
        yield from _check_fleet_host(variables.get(f"{_FLEET}_host"), f"{_FLEET}_host")
    if bus != "rabbitmq":
        return
    for option in ("endpoints", "ca", "password"):
        name = f"{_BUS}_{option}"
        if not variables.get(name):
            yield f"{name} is empty: a host with {_BUS} 'rabbitmq' needs it"
    if not variables.get(f"{_BUS}_account") and not variables.get(f"{_FLEET}_host"):
        yield f"{_BUS}_account is empty, and so is {_FLEET}_host: write the host's account at the broker"


def served_metrics(variables: Values) -> dict[str, str]:
    """Where the processes of a host serve metrics, by the variable that says so."""
    served = [""]
    served += ["fleet_"] * (variables.get(_FLEET, NO_STORE) != NO_STORE)
    served += ["bus_"] * (variables.get(_BUS, NO_STORE) != NO_STORE)
    names = [f"{_PREFIX}{process}metrics_listen" for process in served]
    return {name: str(variables.get(name) or "") for name in names}


def check_protect(protect: t.Any, name: str) -> t.Iterator[str]:
    """The declared protected sources."""
    yield from _check_items(protect, name, _check_source)
    if isinstance(protect, (list, tuple)) and len(protect) > MAX_PROTECTED:
        yield f"{name} has {len(protect)} entries; allowed: up to {MAX_PROTECTED}"


def check_shared_prefixes(prefixes: t.Any, name: str) -> t.Iterator[str]:
    """The declared shared IPv6 prefixes."""
    yield from _check_items(prefixes, name, _check_shared)
    if isinstance(prefixes, (list, tuple)) and len(prefixes) > MAX_SHARED:
        yield f"{name} has {len(prefixes)} entries; allowed: up to {MAX_SHARED}"


def check_timeout(value: t.Any, name: str) -> t.Iterator[str]:
    """The time for which changes wait."""
    try:
        if parse_duration(value, name, 0, _MAX_TIMEOUT):
            parse_duration(value, name, _MIN_TIMEOUT, _MAX_TIMEOUT)
    except InvalidInput:
        yield (
            f"{name} is {duration_text(value)}; allowed: seconds, or a time such as 90s or 2m, from "
            f"{_MIN_TIMEOUT} to {_MAX_TIMEOUT} seconds, or 0 to confirm everything at once"
        )


def _lists_of(kind: str, variables: Values) -> dict[str, t.Any]:
    """The variables that merge into a list."""
    return {
        name: value
        for name, value in sorted(variables.items())
        if (match := LISTS.fullmatch(name)) and match[1] == kind
    }


def _no_list(value: t.Any, name: str) -> str:
    return f"{name} is {describe_value(value)}: write a list, or [] for none"


def _check_items(value: t.Any, name: str, check: t.Callable[[t.Any], None]) -> t.Iterator[str]:
    """What is wrong with each item of a list; check: raises an error for a wrong item."""
    if not isinstance(value, (list, tuple)):
        yield _no_list(value, name)
        return
    for index, item in enumerate(value):
        try:
            check(item)
        except PacketwatchError as error:
            yield f"{name}[{index}]: {error}"


def _check_source(item: t.Any) -> None:
    if not isinstance(item, str):
        raise InvalidInput(f"{describe_value(item)}: write an address or a prefix, in quotes")
    parse_prefix(item)


def _check_shared(item: t.Any) -> None:
    _check_source(item)
    check_shared(parse_prefix(item))


def _check_user(item: t.Any) -> None:
    if not isinstance(item, str):
        raise InvalidInput(f"{describe_value(item)}: write the name of a user, in quotes")


def _check_state(value: t.Any, name: str) -> t.Iterator[str]:
    if value not in ("present", "absent"):
        yield f"{name} is {value!r}; allowed: present, absent"


def _check_switch(value: t.Any, name: str) -> t.Iterator[str]:
    if str(value).lower() not in _SWITCHES:
        yield f"{name} is {describe_value(value)}: write true or false"


def _check_users(value: t.Any, name: str) -> t.Iterator[str]:
    # Null is like no variable: the group keeps its members.
    if value is not None:
        yield from _check_items(value, name, _check_user)


def _joined(parse: t.Callable[[str, str], object]) -> Check:
    """Check a list as the host parses its items, joined by commas."""

    def check(value: t.Any, name: str) -> t.Iterator[str]:
        if not isinstance(value, (list, tuple)):
            yield _no_list(value, name)
            return
        for item in value:
            yield from _parsed(parse)(item, name)

    return check


def _check_pem(value: t.Any, name: str) -> t.Iterator[str]:
    # The text may be a key, so it is not part of the error.
    if value and not str(value).lstrip().startswith("-----BEGIN "):
        yield f"{name} is not in PEM: write the text of the file, such as a look-up of it"


def _check_folder(value: t.Any, name: str) -> t.Iterator[str]:
    if value and not str(value).startswith("/"):
        yield f"{name} is {describe_value(value)}: write an absolute path"


def _optional(parse: t.Callable[[str, str], object]) -> Check:
    """Check a setting that may be empty."""
    return lambda value, name: _parsed(parse)(value, name) if value else ()


def _parsed(parse: t.Callable[[str, str], object]) -> Check:
    """Check a setting as the host parses its text."""

    def check(value: t.Any, name: str) -> t.Iterator[str]:
        try:
            parse(str(value), name)
        except PacketwatchError as error:
            yield str(error)

    return check


_CHECKS: t.Final[dict[str, Check]] = {
    "state": _check_state,
    "feeds_force": _check_switch,
    "protect": check_protect,
    "shared_prefixes": check_shared_prefixes,
    "readers": _check_users,
    "admins": _check_users,
    "list_memory": _parsed(parse_list_memory),
    "self_heal": _check_switch,
    "confirm_timeout": check_timeout,
    "fleet": _parsed(parse_label),
    "fleet_endpoints": _joined(parse_endpoints),
    "fleet_ca": _check_pem,
    "fleet_certificate": _check_pem,
    "fleet_folder": _check_folder,
    "fleet_enforcers": _joined(parse_labels),
    "fleet_metrics_listen": _parsed(parse_listen),
    "fleet_action": _parsed(parse_action),
    "fleet_longest": _parsed(parse_longest),
    "fleet_most": _parsed(parse_most),
    "fleet_lists": _parsed(parse_lists),
    "bus": _parsed(parse_label),
    "bus_endpoints": _joined(parse_endpoints),
    "bus_ca": _check_pem,
    "bus_certificate": _check_pem,
    "bus_account": _optional(parse_label),
    "bus_vhost": _parsed(parse_vhost),
    "bus_metrics_listen": _parsed(parse_listen),
    "metrics_listen": _parsed(parse_listen),
    "community_id": _check_switch,
    "log_probes": _check_switch,
    "heartbeat_url": _parsed(parse_url),
    "heartbeat_interval": _parsed(parse_interval),
}
