#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: _software
short_description: Install or remove Packetwatch's own files
version_added: 0.1.0
description:
  - This module is B(private) to the role P(packetwatch.xdp.packetwatch#role); it may change or vanish in any release.
  - Unpacks the host library, the agent, the C source, units and the command C(packetwatchctl) into a folder named by version and digest,
    and makes it the current one by a rename. The folder before it is kept, older ones are removed.
  - Makes the agent's user and the groups, and sets whom the groups consist of.
  - With O(state=absent) it takes everything of Packetwatch off the host, whatever part of it is there,
    which includes what is attached, lists, policy and bans.
author:
  - Packetwatch authors (@packetwatch)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns what has changed, or would change, when in diff mode.
    support: full
  platform:
    description: Target OS families that can be operated against.
    support: full
    platforms: debian
options:
  state:
    description: Whether the files shall be there.
    type: str
    choices: [absent, present]
    default: present
  readers:
    description: The users in the group that may look. If omitted, they stay who they are.
    type: list
    elements: str
  admins:
    description: The users in the group that may change too. If omitted, they stay who they are.
    type: list
    elements: str
  name:
    description: The folder's name. Set by the action plugin.
    type: str
  manifest:
    description: Path and SHA-256 of each file. Set by the action plugin.
    type: dict
  archive:
    description: Where the archive has been sent to. Set by the action plugin.
    type: path
"""

EXAMPLES = r"""
- name: Install the software
  packetwatch.xdp._software:
    state: present
"""

RETURN = r"""
name:
  description: The folder that is current now.
  returned: success and O(state=present)
  type: str
  sample: 0.1.0-2c26b46b68ff
previous:
  description: The folder that was current before; empty if there was none.
  returned: success and O(state=present)
  type: str
lacks_archive:
  description: Whether nothing was done because the archive must be sent first.
  returned: success and O(state=present)
  type: bool
"""

import dataclasses
import glob
import grp
import hashlib
import os
import pwd
import shutil
import stat
import tarfile
import tempfile
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import PacketwatchError
from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.store import Store

LIBRARY = "/usr/lib/packetwatch"
UNITS = "/etc/systemd/system"
# Where copies of files go, by their folder in the archive.
COPIES = {
    "sysusers": "/etc/sysusers.d",
    "units": UNITS,
    "bin": "/usr/local/bin",
    "completion": "/usr/local/share/bash-completion/completions",
    "man": "/usr/local/share/man/man8",
}
# Their modes, where they are not to be plain files.
MODES = {"/usr/local/bin": 0o755}
PLAIN = 0o644
USER = "packetwatch-agent"
# By the option that names their members.
GROUPS = {"readers": "packetwatch", "admins": "packetwatch-admin"}
# systemd may be installed but not running, as in an image that is being built.
BOOTED = "/run/systemd/system"
# Links first: removing their pins is what detaches.
PINS = ("/sys/fs/bpf/packetwatch/links", "/sys/fs/bpf/packetwatch")
DATA = (
    "/etc/sysusers.d/packetwatch.conf",
    "/etc/default/packetwatch",
    "/var/lib/packetwatch",
    "/run/packetwatch",
    "/run/packetwatch-host",
    "/run/packetwatch-edit.sock",
    "/usr/local/bin/packetwatchctl",
    "/usr/local/share/bash-completion/completions/packetwatchctl.bash",
    "/usr/local/share/man/man8/packetwatchctl.8",
    LIBRARY,
    "/etc/packetwatch",
)
PATTERNS = (
    "packetwatch.service",
    "packetwatch-*.path",
    "packetwatch-*.service",
    "packetwatch-*.socket",
    "packetwatch-*.timer",
)
# Folders that copies may have been the first to need; those that are empty go too.
FOLDERS = (
    "/usr/local/share/bash-completion/completions",
    "/usr/local/share/bash-completion",
    "/usr/local/share/man/man8",
)
LOCK_SECONDS = 60.0


def digest(path: str) -> str | None:
    """The SHA-256 of a file, None if there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def mode_for(path: str) -> int:
    """The mode that a copy is to have."""
    return MODES.get(os.path.dirname(path), PLAIN)


def found_as(path: str) -> str:
    """A file's digest, with its mode where that is not the one it is to have; empty if it is none."""
    found = digest(path)
    if not found:
        return ""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    is_as_wanted = path.startswith(LIBRARY) or mode == mode_for(path)
    return found[:12] if is_as_wanted else f"{found[:12]} mode {mode:04o}"


@dataclasses.dataclass
class Plan:
    """What is there of a version, and what is missing."""

    name: str
    manifest: dict[str, str]
    previous: str = ""
    unpack: bool = False
    switch: bool = False
    # Where to write copies, by path in the archive, and which of former versions to remove.
    write: dict[str, str] = dataclasses.field(default_factory=dict)
    remove: list[str] = dataclasses.field(default_factory=list)
    accounts: list[str] = dataclasses.field(default_factory=list)
    # Users by group, before and after, where they are to be others.
    members: dict[str, tuple[list[str], list[str]]] = dataclasses.field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether anything is to be done."""
        files = self.unpack or self.switch or self.write or self.remove
        return bool(files or self.accounts or self.members)

    @property
    def folder(self) -> str:
        """Where the version is to be."""
        return os.path.join(LIBRARY, self.name)


def copy_of(path: str) -> str | None:
    """Where a copy of a file in the archive belongs, if anywhere."""
    folder, dummy, name = path.partition("/")
    return os.path.join(COPIES[folder], name) if folder in COPIES else None


def make_plan(
    name: str, manifest: dict[str, str], members: t.Mapping[str, t.Collection[str]]
) -> Plan:
    """Compare what is on the host with what shall be; members: users by group."""
    plan = Plan(name, manifest)
    if os.path.lexists(os.path.join(LIBRARY, "current")):
        plan.previous = os.readlink(os.path.join(LIBRARY, "current"))
    plan.switch = plan.previous != name
    for path, wanted in manifest.items():
        plan.unpack |= digest(os.path.join(plan.folder, path)) != wanted
        target = copy_of(path)
        if target and found_as(target) != wanted[:12]:
            plan.write[path] = target
    for folder, target in COPIES.items():
        former = {os.path.basename(path) for path in glob.glob(f"{LIBRARY}/*/{folder}/*")}
        plan.remove += [
            os.path.join(target, name)
            for name in sorted(former)
            if f"{folder}/{name}" not in manifest and os.path.exists(os.path.join(target, name))
        ]
    plan.accounts = [f"group {name}" for name in GROUPS.values() if members_of(name) is None]
    if not has_user(USER):
        plan.accounts.append(f"user {USER}")
    for group, users in members.items():
        before, after = members_of(group) or [], sorted(set(users))
        if before != after:
            plan.members[group] = before, after
    return plan


def members_of(group: str) -> list[str] | None:
    """The users that a group names, sorted; None if there is no such group."""
    try:
        return sorted(grp.getgrnam(group).gr_mem)
    except KeyError:
        return None


def has_user(name: str) -> bool:
    """Whether a user exists."""
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


def describe(plan: Plan) -> dict[str, str]:
    """The difference, a line for each file that has one."""
    before = [f"{LIBRARY}/current -> {plan.previous}"] if plan.previous else []
    after = [*plan.accounts, f"{LIBRARY}/current -> {plan.name}"]
    files = {path: os.path.join(LIBRARY, plan.previous, path) for path in plan.manifest}
    for path, place in (*files.items(), *plan.write.items()):
        shown = path if place == files[path] else place
        found = found_as(place)
        if found:
            before.append(f"{shown} {found}")
        after.append(f"{shown} {plan.manifest[path][:12]}")
    before += [f"{place} {(digest(place) or '')[:12]}" for place in plan.remove]
    for group, users in plan.members.items():
        for lines, names in zip((before, after), users):
            lines.append(f"members of {group}: {' '.join(names) or 'none'}")
    return {"before": "".join(f"{x}\n" for x in before), "after": "".join(f"{x}\n" for x in after)}


def write_file(path: str, data: bytes) -> None:
    """Put a file on disk before it gets its name."""
    draft = f"{path}.new"
    with open(draft, "wb") as file:
        os.fchmod(file.fileno(), mode_for(path))
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, path)


def unpack(module: AnsibleModule, plan: Plan, archive: str) -> None:
    """Make the version's folder; it is complete when it gets its name."""
    os.makedirs(LIBRARY, 0o755, exist_ok=True)
    draft = tempfile.mkdtemp(prefix=".new-", dir=LIBRARY)
    with tarfile.open(archive) as packed:
        for path, wanted in plan.manifest.items():
            member = packed.extractfile(path)
            data = member.read() if member else b""
            if hashlib.sha256(data).hexdigest() != wanted:
                raise PacketwatchError(f"{path} in the archive is not what the controller packed")
            target = os.path.join(draft, path)
            os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
            write_file(target, data)
    # Start-up must not cost a compilation, and the units may not write here. Whoever unpacks vouches
    # for the bytecode, so no start compares times either.
    command = [
        "/usr/bin/python3",
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
    ]
    module.run_command([*command, "-s", draft, "-p", plan.folder, draft], check_rc=True)
    for folder, dummy, files in os.walk(draft):
        os.chmod(folder, 0o755)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o644)
    if os.path.exists(plan.folder):
        damaged = tempfile.mkdtemp(prefix=".old-", dir=LIBRARY)
        os.rename(plan.folder, os.path.join(damaged, plan.name))
    os.rename(draft, plan.folder)


def switch(plan: Plan) -> None:
    """Make the version the current one."""
    draft = os.path.join(LIBRARY, ".current")
    if os.path.lexists(draft):
        os.unlink(draft)
    os.symlink(plan.name, draft)
    os.rename(draft, os.path.join(LIBRARY, "current"))


def prune(plan: Plan) -> None:
    """Remove drafts and, after a switch, all but the current version and the one before it."""
    keep = {plan.name, plan.previous, "current"}
    for entry in os.listdir(LIBRARY):
        if entry.startswith(".") or (plan.switch and entry not in keep):
            shutil.rmtree(os.path.join(LIBRARY, entry))


def install_copies(module: AnsibleModule, plan: Plan) -> None:
    """Copy units and the like (systemd follows a link to today's folder, and keeps that); accounts."""
    for path, target in plan.write.items():
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        with open(os.path.join(plan.folder, path), "rb") as file:
            write_file(target, file.read())
    for path in plan.remove:
        os.unlink(path)
    if plan.accounts:
        module.run_command(["systemd-sysusers", "packetwatch.conf"], check_rc=True)
    for group, (dummy, users) in plan.members.items():
        module.run_command(["gpasswd", "--members", ",".join(users), group], check_rc=True)


def reload_systemd(module: AnsibleModule) -> None:
    """Let systemd read its units again."""
    if os.path.isdir(BOOTED):
        module.run_command(["systemctl", "daemon-reload"], check_rc=True)


def present(module: AnsibleModule) -> dict[str, t.Any]:
    """Install the version, or say that the archive is needed."""
    archive: str | None = module.params["archive"]
    # Whatever root's own is: others are to read what is installed.
    os.umask(0o022)
    members = {
        group: module.params[option]
        for option, group in GROUPS.items()
        if module.params[option] is not None
    }
    plan = make_plan(module.params["name"], module.params["manifest"], members)
    result = {"name": plan.name, "previous": plan.previous, "lacks_archive": False}
    if module.check_mode or not plan.changed:
        return result | {"changed": plan.changed, "diff": describe(plan) if plan.changed else {}}
    if plan.unpack and archive is None:
        return result | {"changed": False, "lacks_archive": True}
    difference = describe(plan)
    if plan.unpack and archive is not None:
        unpack(module, plan, archive)
    install_copies(module, plan)
    if plan.switch:
        switch(plan)
    prune(plan)
    if plan.write or plan.remove:
        reload_systemd(module)
    return result | {"changed": True, "diff": difference}


def unit_files() -> list[str]:
    """Units of ours and the links that enable them."""
    folders = (UNITS, f"{UNITS}/*.wants")
    return [
        path for folder in folders for name in PATTERNS for path in glob.glob(f"{folder}/{name}")
    ]


def remove_empty(folders: t.Iterable[str]) -> None:
    """Remove those folders that are there and empty."""
    for folder in folders:
        if os.path.isdir(folder) and not os.listdir(folder):
            os.rmdir(folder)


def absent(module: AnsibleModule) -> dict[str, t.Any]:
    """Remove everything, in the order in which a second attempt would find what is left."""
    files = unit_files()
    data = [path for path in (*PINS, *DATA) if os.path.lexists(path)]
    accounts = [["userdel", USER]] if has_user(USER) else []
    accounts += [["groupdel", name] for name in GROUPS.values() if members_of(name) is not None]
    found = files + data + [f"{command[0][:-3]} {command[1]}" for command in accounts]
    result = {
        "changed": bool(found),
        "diff": {"before": "".join(f"{path}\n" for path in found), "after": ""},
    }
    if module.check_mode or not found:
        return result
    if os.path.isdir(BOOTED):
        # None of them detaches by stopping; but from here on nobody may attach again.
        module.run_command(["systemctl", "stop", *PATTERNS])
    with Store().lock(LOCK_SECONDS):
        for path in (*files, *PINS, *DATA):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            elif os.path.lexists(path):
                os.unlink(path)
    remove_empty(FOLDERS)
    for command in accounts:
        module.run_command(command, check_rc=True)
    if files:
        # Enabling a unit made them beside its links.
        remove_empty(glob.glob(f"{UNITS}/sys-subsystem-net-devices-*.device.wants"))
        reload_systemd(module)
        if os.path.isdir(BOOTED):
            module.run_command(["systemctl", "reset-failed", "packetwatch*"])
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["absent", "present"], "default": "present"},
            "readers": {"type": "list", "elements": "str"},
            "admins": {"type": "list", "elements": "str"},
            "name": {"type": "str"},
            "manifest": {"type": "dict"},
            "archive": {"type": "path"},
        },
        required_if=[("state", "present", ("name", "manifest"))],
        supports_check_mode=True,
    )
    try:
        result = present(module) if module.params["state"] == "present" else absent(module)
    except (OSError, tarfile.TarError, KeyError, PacketwatchError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
