# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Whether Packetwatch can be installed on a host: all reasons against it at once, and what to do."""

from __future__ import annotations

import typing as t

from .._base.errors import Unsupported
from .._declared.store import Store
from .interfaces import resolve_interfaces
from .packages import explain_unavailable, missing_packages, unavailable_packages
from .system import check_system
from .values import check_values

if t.TYPE_CHECKING:
    from .._base.types import Result
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
    if not problems:
        packages = missing_packages(machine, options["packages"])
        packages = _check_packages(machine, packages, check, warn, problems)
    if problems:
        raise Unsupported(
            "Packetwatch cannot be installed here, and nothing was changed: " + "; ".join(problems)
        )
    return {
        "changed": False,
        "interfaces": interfaces,
        "packages": packages,
    }


def _check_packages(
    machine: Machine, packages: list[str], check: bool, warn: Warn, problems: list[str]
) -> list[str]:
    """The packages that can be installed; in check mode the others are only a warning."""
    unavailable = unavailable_packages(machine, packages, not check, warn)
    reasons = [explain_unavailable(machine, name) for name in unavailable]
    if not check:
        problems += reasons
        return packages
    for reason in reasons:
        warn(f"{reason} (its lists may be out of date: check mode leaves them so)")
    return [name for name in packages if name not in unavailable]
