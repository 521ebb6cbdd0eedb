# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Whether Packetwatch can be installed on a host: all reasons against it at once, and what to do."""

from __future__ import annotations

import typing as t

from .._base.errors import Unsupported
from .._declared.store import Store
from .._network.endpoints import parse_interval
from .interfaces import check_listening, joins_any, resolve_interfaces
from .lists import check_lists, find_idle_entries
from .packages import LIBXDP, LOADER, missing_packages, split_packages
from .program import is_compiled
from .system import check_root, check_system
from .values import read_variables

if t.TYPE_CHECKING:
    from .._base.types import Result
    from .machine import Machine

    Warn = t.Callable[[str], None]


def check_host(machine: Machine, options: t.Mapping[str, t.Any], check: bool, warn: Warn) -> Result:
    """What the role needs to know of the host; raises an error with all reasons against a run.

    options: those of the module. check: leave the lists of apt as they are.
    """
    variables = options["variables"]
    declared = read_variables(variables)
    problems = list(check_root(machine))
    if problems:
        # Without root, the host does not show the rest.
        raise _refusal([*problems, *options["problems"], *declared.problems])
    problems += [*check_system(machine), *options["problems"], *declared.problems]
    dummy, state = Store().read_current()
    interfaces = resolve_interfaces(machine, declared.interfaces, state.interfaces, problems)
    problems += check_listening(machine, declared.policy, interfaces)
    for name in ("packetwatch_readers", "packetwatch_admins"):
        problems += check_users(machine, name, variables.get(name))
    packages: list[str] = []
    compiled = False
    if not problems:
        memory = int(variables["packetwatch_list_memory"])
        problems += check_lists(declared.lists, state, variables["packetwatch_protect"], memory)
        wanted = [*options["packages"], *([LIBXDP] if joins_any(interfaces) else [])]
        packages = missing_packages(machine, wanted)
        loads = not {LOADER, LIBXDP}.intersection(packages)
        compiled = loads and is_compiled(machine, state, options["program"])
        packages, reasons = split_packages(machine, packages, compiled, check, warn)
        problems += reasons
    if problems:
        raise _refusal(problems)
    for text in find_idle_entries(declared.lists).texts:
        warn(text)
    return {
        "changed": False,
        "interfaces": interfaces,
        "packages": packages,
        "compiled": compiled,
        "policy": declared.policy,
        "heartbeat_interval": parse_interval(str(variables["packetwatch_heartbeat_interval"]), ""),
    }


def _refusal(problems: t.Sequence[str]) -> Unsupported:
    # The form of interfaces was judged twice.
    reasons = "; ".join(dict.fromkeys(problems))
    return Unsupported(f"Packetwatch refuses this run, and nothing was changed: {reasons}")


def check_users(machine: Machine, variable: str, names: t.Any) -> t.Iterator[str]:
    """The users that get rights: each must exist on the host. Other values are judged elsewhere."""
    for index, name in enumerate(names if isinstance(names, (list, tuple)) else ()):
        if not isinstance(name, str):
            continue
        # getent also finds a user by number, so the name that it prints is compared.
        found = machine.output("getent", "--", "passwd", name)
        if not name or found.partition(":")[0] != name:
            yield (
                f"{variable}[{index}] is {name!r}, which is not a user of this host: make the user "
                "first, or take the name off the list"
            )
