# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Installing one version of the role's own files."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import typing as t

from .._base.errors import SetupFailed
from .._base.files import replace_file
from . import accounts, places
from .commands import must, reload_systemd
from .software import make_plan

if t.TYPE_CHECKING:
    from .._base.types import Run
    from .software import Plan

# Starting the agent must not compile, and its unit may not write here. The files never change, so no
# start compares times either.
_COMPILE = ("/usr/bin/python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")


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
    if plan.unpack:
        _unpack(run, plan, archive or "")
    install_copies(run, plan)
    if plan.switch:
        _switch(plan)
    _prune(plan)
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


def _unpack(run: Run, plan: Plan, archive: str) -> None:
    """Make the version's folder; it is complete when it gets its name."""
    os.makedirs(places.LIBRARY, 0o755, exist_ok=True)
    draft = tempfile.mkdtemp(prefix=".new-", dir=places.LIBRARY)
    try:
        _extract(plan, archive, draft)
    except (KeyError, tarfile.TarError) as error:
        raise SetupFailed(
            f"the archive {archive} is damaged: {error}; run the role again"
        ) from error
    must(run, *_COMPILE, "-s", draft, "-p", plan.folder, draft)
    for folder, dummy, files in os.walk(draft):
        os.chmod(folder, 0o755)
        for name in files:
            os.chmod(os.path.join(folder, name), places.PLAIN)
    if os.path.exists(plan.folder):
        damaged = tempfile.mkdtemp(prefix=".old-", dir=places.LIBRARY)
        os.rename(plan.folder, os.path.join(damaged, plan.name))
    os.rename(draft, plan.folder)


def _extract(plan: Plan, archive: str, folder: str) -> None:
    """Write the files of the manifest, each if it is what the controller packed."""
    with tarfile.open(archive) as packed:
        for path, wanted in plan.manifest.items():
            member = packed.extractfile(path)
            data = member.read() if member else b""
            if hashlib.sha256(data).hexdigest() != wanted:
                raise SetupFailed(
                    f"{path} in the archive differs from the file on the controller; run the role again"
                )
            target = os.path.join(folder, path)
            os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
            replace_file(target, data.decode(), places.PLAIN)


def _switch(plan: Plan) -> None:
    """Make the version the current one."""
    draft = os.path.join(places.LIBRARY, f".{places.CURRENT}")
    if os.path.lexists(draft):
        os.unlink(draft)
    os.symlink(plan.name, draft)
    os.rename(draft, os.path.join(places.LIBRARY, places.CURRENT))


def _prune(plan: Plan) -> None:
    """Remove drafts and, after a switch, all but the current version and the one before it."""
    keep = {plan.name, plan.previous, places.CURRENT}
    for entry in os.listdir(places.LIBRARY):
        if entry.startswith(".") or (plan.switch and entry not in keep):
            shutil.rmtree(os.path.join(places.LIBRARY, entry))
