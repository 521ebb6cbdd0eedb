# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Installing one version of the role's own files."""

from __future__ import annotations

import os
import typing as t

from .._base.files import replace_file
from . import accounts, places
from .commands import must, reload_systemd
from .software import make_plan
from .versions import Versions

if t.TYPE_CHECKING:
    from .._base.types import Run
    from .software import Plan


def plan_install(options: t.Mapping[str, t.Any]) -> Plan:
    """What installing the version does; options: those of the module."""
    members = {
        group: options[option]
        for option, group in accounts.GROUPS.items()
        if options[option] is not None
    }
    return make_plan(options["name"], options["manifest"], members)


def install(run: Run, plan: Plan, archive: str | None) -> None:
    """Carry out the plan. archive: needed if the plan unpacks it."""
    if not plan.changed:
        return
    # Members of the groups must be able to read the files, whatever root's own umask is.
    os.umask(0o022)
    versions = Versions(places.LIBRARY)
    if plan.unpack:
        versions.unpack(run, plan.name, plan.manifest, archive or "")
    install_copies(run, plan)
    if plan.switch:
        versions.switch(plan.name)
        versions.prune(plan.name, plan.previous)
    else:
        versions.prune()
    if plan.write or plan.remove:
        reload_systemd(run)


def install_copies(run: Run, plan: Plan) -> None:
    """Copy units and the like, make the accounts, set the groups' members.

    A link would not do: systemd resolves it, and would keep the folder of today's version.
    """
    for path, target in plan.write.items():
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        with open(os.path.join(plan.folder, path), "rb") as file:
            replace_file(target, file.read().decode(), places.mode_for(target))
    for path in plan.remove:
        os.unlink(path)
    if plan.accounts:
        must(run, "systemd-sysusers", "packetwatch.conf")
    for group, (dummy, users) in plan.members.items():
        must(run, "gpasswd", "--members", ",".join(users), group)
