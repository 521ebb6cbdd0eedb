# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""One version of the role's own files: what a host has of it, and what is missing."""

from __future__ import annotations

import dataclasses
import glob
import os
import stat
import typing as t

from . import accounts, places
from .versions import Versions, digest

Manifest = dict[str, str]
"""Path in the archive to SHA-256."""


@dataclasses.dataclass
class Plan:
    """What installing a version does.

    previous: the version that was current. unpack: its folder is missing or damaged. switch: another
    version is current. write: path in the archive to the place of a copy. remove: copies that only
    earlier versions have. accounts: users and groups to make. members: group to its users before and
    after.
    """

    name: str
    manifest: Manifest
    previous: str = ""
    unpack: bool = False
    switch: bool = False
    write: dict[str, str] = dataclasses.field(default_factory=dict)
    remove: list[str] = dataclasses.field(default_factory=list)
    accounts: list[str] = dataclasses.field(default_factory=list)
    members: dict[str, tuple[list[str], list[str]]] = dataclasses.field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        files = self.unpack or self.switch or self.write or self.remove
        return bool(files or self.accounts or self.members)

    @property
    def folder(self) -> str:
        """The folder of the version."""
        return os.path.join(places.LIBRARY, self.name)


def make_plan(name: str, manifest: Manifest, members: t.Mapping[str, t.Collection[str]]) -> Plan:
    """Compare the host with the version; members: users by group."""
    versions = Versions(places.LIBRARY)
    plan = Plan(name, manifest, versions.current)
    plan.switch = plan.previous != name
    plan.unpack = versions.is_damaged(name, manifest)
    for path, wanted in manifest.items():
        target = places.copy_of(path)
        if target and _found(target) != wanted[:12]:
            plan.write[path] = target
    plan.remove = list(_former_copies(manifest))
    plan.accounts = accounts.missing_accounts()
    for group, users in members.items():
        before, after = accounts.members_of(group) or [], sorted(set(users))
        if before != after:
            plan.members[group] = before, after
    return plan


def describe(plan: Plan) -> dict[str, str]:
    """The difference: a line for each file, account and group that has one."""
    current = f"{places.LIBRARY}/{places.CURRENT} -> "
    before = [current + plan.previous] if plan.previous else []
    after = [*plan.accounts, current + plan.name]
    files = {path: os.path.join(places.LIBRARY, plan.previous, path) for path in plan.manifest}
    for path, place in (*files.items(), *plan.write.items()):
        shown = path if place == files[path] else place
        found = _found(place)
        if found:
            before.append(f"{shown} {found}")
        after.append(f"{shown} {plan.manifest[path][:12]}")
    before += [f"{place} {(digest(place) or '')[:12]}" for place in plan.remove]
    for group, users in plan.members.items():
        for lines, names in zip((before, after), users):
            lines.append(f"members of {group}: {' '.join(names) or 'none'}")
    return {"before": "".join(f"{x}\n" for x in before), "after": "".join(f"{x}\n" for x in after)}


def _found(path: str) -> str:
    """A file's digest, and its mode if a copy has a wrong one; empty if there is no such file."""
    found = digest(path)
    if not found:
        return ""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    is_right = path.startswith(places.LIBRARY) or mode == places.mode_for(path)
    return found[:12] if is_right else f"{found[:12]} mode {mode:04o}"


def _former_copies(manifest: Manifest) -> t.Iterator[str]:
    """Copies of files that versions in the library have, and this one has not."""
    for folder, target in places.COPIES.items():
        versions = glob.glob(f"{places.LIBRARY}/*/{folder}/*")
        for name in sorted({os.path.basename(path) for path in versions}):
            place = os.path.join(target, name)
            if f"{folder}/{name}" not in manifest and os.path.exists(place):
                yield place
