# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The role's units on a host: those that attach at boot, the agent, and the processes beside it, with their settings."""

from __future__ import annotations

import glob
import os
import typing as t

from .._base.interface import instance_of
from .._base.paths import Paths
from .._declared.store import Store
from .._network.endpoints import NO_STORE
from .._network.settings import parse_values
from . import places
from .commands import must
from .removal import delete

if t.TYPE_CHECKING:
    from .._base.types import Result, Run
    from .._declared.store import State

AGENT, FLEET = "packetwatch.service", "packetwatch-fleet.service"
BUS = "packetwatch-fleet-bus.service"

_PROPERTIES = "Id,ActiveState,UnitFileState,MainPID,ExecMainStartTimestamp"
_RUNNING = ("active", "activating", "reloading")


class Units(t.NamedTuple):
    """What is to be done with units. link: the settings file must become a link to the settings of confirmed state.

    forget: folders of what services that are not wanted have shown to others.
    """

    enable: list[str]
    start: list[str]
    disable: list[str]
    restart: list[str]
    forget: list[str]
    link: bool

    @property
    def changed(self) -> bool:
        return any(self)

    def describe(self) -> dict[str, str]:
        """The difference: a line for each unit, and for the settings file."""
        before = [f"enabled {unit}\n" for unit in self.disable]
        before += [f"{folder}\n" for folder in self.forget]
        after = [f"enabled {unit}\n" for unit in self.enable]
        after += [f"started {unit}\n" for unit in self.start]
        after += [f"restarted {unit}\n" for unit in self.restart]
        after += [f"link {Paths().settings}\n"] * self.link
        return {"before": "".join(before), "after": "".join(after)}


NOTHING = Units([], [], [], [], [], False)


def unit_of(interface: str) -> str:
    """The unit that attaches an interface at boot."""
    return f"packetwatch-xdp@{instance_of(interface)}.service"


def settle(run: Run, restart: bool) -> Result:
    """Bring the units to what confirmed state declares. restart: the agent, if it runs."""
    dummy, state = Store().read_current()
    plan = plan_units(run, state.interfaces, state.settings, restart)
    if plan.changed:
        _carry_out(run, plan)
    return {"changed": plan.changed, "diff": plan.describe()}


def needs(state: State, installs: bool = False) -> dict[str, t.Any]:
    """What units follow, of a state that check mode has planned. installs: with the role's units."""
    return {
        "interfaces": sorted(state.interfaces),
        "settings": state.settings,
        "installs": installs,
    }


def forecast(run: Run, restart: bool, planned: t.Mapping[str, t.Any] | None) -> Result:
    """What `settle` would do. planned: as `needs` returns it; None: confirmed state stays as it is."""
    found = planned or needs(Store().read_current()[1])
    plan = plan_units(run, found["interfaces"], found["settings"], restart, found["installs"])
    return {"changed": plan.changed, "diff": plan.describe()}


def plan_units(
    run: Run,
    interfaces: t.Iterable[str],
    settings: str,
    restart: bool = False,
    installs: bool = False,
) -> Units:
    """Compare the host with what a state declares. Where the role's units are not installed, do nothing.

    installs: they will be installed before.
    """
    if not installs and not os.path.exists(os.path.join(places.UNITS, AGENT)):
        return NOTHING
    values, dummy = parse_values(settings, Paths().settings)
    services = {
        unit: folder
        for unit, (key, folder) in _services().items()
        if values.get(key, NO_STORE) != NO_STORE
    }
    wanted = [*(unit_of(name) for name in interfaces), AGENT, *services]
    found = _show(run, wanted)
    running = {unit for unit in wanted if found[unit].get("ActiveState") in _RUNNING}
    due = [
        unit
        for unit, folders in (
            (AGENT, ()),
            *((unit, (folder,)) for unit, folder in services.items()),
        )
        if unit in running and (restart or _is_outdated(found[unit], settings, *folders))
    ]
    return Units(
        enable=[unit for unit in wanted if found[unit].get("UnitFileState") != "enabled"],
        start=[unit for unit in wanted if unit not in running],
        disable=sorted(_enabled() - set(wanted)),
        restart=due,
        forget=[
            folder
            for unit, (dummy, folder) in _services().items()
            if unit not in services and os.path.lexists(folder)
        ],
        link=bool(settings) and not Store().has_linked(Paths().settings),
    )


def _services() -> dict[str, tuple[str, str]]:
    """Services of a fleet's hosts: the setting that wants one, and the folder of what it shows to others."""
    return {
        FLEET: ("PW_FLEET_STORE", places.CREDENTIALS),
        BUS: ("PW_BUS", places.BUS_CREDENTIALS),
    }


def _carry_out(run: Run, plan: Units) -> None:
    if plan.link:
        Store().link_settings(Paths().settings)
    if plan.enable:
        must(run, "systemctl", "enable", *plan.enable)
    if plan.disable:
        must(run, "systemctl", "disable", "--now", *plan.disable)
    for folder in plan.forget:
        delete(folder)
    if plan.start:
        must(run, "systemctl", "start", *plan.start)
    if plan.restart:
        must(run, "systemctl", "restart", *plan.restart)


def _show(run: Run, units: t.Sequence[str]) -> dict[str, dict[str, str]]:
    """Properties of units, by unit; one call of systemctl for all."""
    argv = ("systemctl", "show", f"--property={_PROPERTIES}", "--timestamp=unix", *units)
    blocks = run(argv, None)[1].split("\n\n")
    read = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks
    ]
    found = {block["Id"]: block for block in read if "Id" in block}
    return {unit: found.get(unit, {}) for unit in units}


def _enabled() -> set[str]:
    """The enabled units that not every host has: those that attach an interface, and the processes beside the agent."""
    names = ("packetwatch-xdp@*.service", FLEET, BUS)
    links = [path for name in names for path in glob.glob(f"{places.UNITS}/*.wants/{name}")]
    return {os.path.basename(path) for path in links}


def _is_outdated(unit: t.Mapping[str, str], settings: str, *files: str) -> bool:
    """Whether a process runs with other settings, or started before its code or these files were changed.

    If a run fails after such a change, no later run knows from its own changes that a restart is due.
    """
    started = unit.get("ExecMainStartTimestamp", "")
    code = os.path.join(places.LIBRARY, places.CURRENT)
    if not started.startswith("@"):
        return False
    # systemd gives whole seconds. A run installs the code and starts the agent within one of them.
    if any(
        int(os.lstat(path).st_mtime) > int(started[1:])
        for path in (code, *files)
        if os.path.lexists(path)
    ):
        return True
    environment = _environment(unit.get("MainPID", "0"))
    values, dummy = parse_values(settings, Paths().settings)
    return bool(environment) and any(environment.get(key) != values[key] for key in values)


def _environment(process: str) -> dict[str, str]:
    """The environment of a process; empty if it has ended."""
    try:
        with open(f"/proc/{process}/environ", encoding="utf-8", errors="replace") as file:
            words = file.read().split("\0")
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)
