# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Whether Packetwatch can be installed on a host: all reasons against it at once, and what to do."""

from __future__ import annotations

import typing as t

from .._base.errors import Unsupported
from .._declared.policy import OVERRIDES
from .._declared.store import Store
from .._feeds.spare import has_feeds
from .interfaces import resolve_interfaces, with_unit
from .packages import LOADER, missing_packages, split_packages
from .program import is_compiled
from .system import agent_is_outdated, check_system
from .values import check_values

if t.TYPE_CHECKING:
    from .._base.types import Result
    from .interfaces import Interface
    from .machine import Machine

    Warn = t.Callable[[str], None]


def check_host(machine: Machine, options: t.Mapping[str, t.Any], check: bool, warn: Warn) -> Result:
    """What the role needs to know of the host; raises `Unsupported` if it cannot be installed.

    options: those of the module. check: leave the lists of apt as they are.
    """
    problems = list(check_system(machine))
    dummy, state = Store().read_current()
    interfaces = resolve_interfaces(machine, options["interfaces"], state.interfaces, problems)
    problems += check_values(machine, options, interfaces)
    packages: list[str] = []
    bare = compiled = False
    if not problems:
        packages = missing_packages(machine, options["packages"])
        bare = not set(packages).isdisjoint(options["packages"])
        compiled = LOADER not in packages and is_compiled(machine, state, options["program"])
        packages, reasons = split_packages(machine, packages, compiled, check, warn)
        problems += reasons
    if problems:
        raise Unsupported(
            "Packetwatch cannot be installed here, and nothing was changed: " + "; ".join(problems)
        )
    wanted = {interface["name"] for interface in interfaces}
    return {
        "changed": False,
        "interfaces": interfaces,
        "detach": [with_unit({"name": name}) for name in state.interfaces if name not in wanted],
        "packages": packages,
        "compiled": compiled,
        "policies": _policies(interfaces, state.policy),
        "bare": bare,
        "installed": machine.path("etc/systemd/system/packetwatch.service").exists(),
        "agent_outdated": agent_is_outdated(machine),
        "feeds": has_feeds(state),
    }


def _policies(
    interfaces: t.Iterable[Interface], declared: t.Container[str]
) -> list[dict[str, t.Any]]:
    """Options of the module policy, for interfaces that have or had a policy of their own."""
    own = [
        {"interface": interface["name"]}
        | {option: interface[option] for option in OVERRIDES if option in interface}
        for interface in interfaces
    ]
    return [options for options in own if len(options) > 1 or options["interface"] in declared]
