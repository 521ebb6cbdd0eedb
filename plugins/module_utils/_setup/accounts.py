# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The users of the agent and of the processes beside it, and the groups that may use the control sockets."""

from __future__ import annotations

import grp
import pwd

USERS = ("packetwatch-agent", "packetwatch-fleet", "packetwatch-events")
# By the option that lists their members.
GROUPS = {"readers": "packetwatch", "admins": "packetwatch-admin"}


def missing_accounts() -> list[str]:
    """The groups and users that do not exist, each with its kind."""
    missing = [f"group {name}" for name in GROUPS.values() if members_of(name) is None]
    return missing + [f"user {name}" for name in USERS if not has_user(name)]


def removals() -> list[list[str]]:
    """The commands that remove the accounts that exist."""
    commands = [["userdel", name] for name in USERS if has_user(name)]
    groups = [name for name in GROUPS.values() if members_of(name) is not None]
    return commands + [["groupdel", name] for name in groups]


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
