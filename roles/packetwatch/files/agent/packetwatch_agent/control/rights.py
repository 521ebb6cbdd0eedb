# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process at the other end of a socket, and what it may do.

The kernel recorded who it was when the connection was made. Names of groups are looked up only in
the file: other sources of NSS could keep the agent waiting.
"""

from __future__ import annotations

import os
import socket
import struct
import typing as t

# Sets of bits. CHANGE includes READ. FLEET is for a few commands, and includes neither.
NOTHING, READ, CHANGE, FLEET = 0, 1, 3, 4

_PEERGROUPS = 59
_CREDENTIALS = struct.Struct("=iII")
_MAX_GROUPS = 1024


class Peer(t.NamedTuple):
    """A process as it was when it connected."""

    pid: int
    uid: int
    groups: frozenset[int]


def peer_of(connection: socket.socket) -> Peer:
    """Ask the kernel. If the user is in more than 256 groups, only the main one is known."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, _PEERGROUPS, _MAX_GROUPS)
    except OSError:
        data = b""
    groups = struct.unpack(f"={len(data) // 4}I", data[: len(data) // 4 * 4])
    return Peer(pid, uid, frozenset((gid, *groups)))


class Rights:
    """Who may do what.

    readers, admins: names or numbers of the groups, separated by white space, that may read, and change too.
    fleet: name or number of the fleet process's user; empty for none. That user has no other right.
    """

    def __init__(
        self,
        readers: str,
        admins: str,
        file: str = "/etc/group",
        *,
        fleet: str = "",
        users: str = "/etc/passwd",
    ) -> None:
        self.readers = readers
        self.admins = admins
        self.fleet = fleet
        self._file = file
        self._users = users
        self._versions: dict[str, tuple[int, ...] | None] = {}
        self._known: dict[tuple[str, str], set[int]] = {}

    def of(self, peer: Peer) -> int:
        """All rights of a peer."""
        if peer.uid == 0:
            return CHANGE | (FLEET if self.fleet else NOTHING)
        if self.fleet and peer.uid in self._numbers(self.fleet, self._users):
            return FLEET
        if peer.groups & self._numbers(self.admins, self._file):
            return CHANGE
        return READ if peer.groups & self._numbers(self.readers, self._file) else NOTHING

    def permit(self, peer: Peer, right: int) -> bool:
        """Whether a peer has a right."""
        return self.of(peer) & right == right

    def explain(self, right: int) -> str:
        """Why a peer without the right is refused."""
        if right == FLEET:
            return f"not permitted: be root or the user {self.fleet}"
        groups = self.admins if right == CHANGE else f"{self.readers} {self.admins}"
        return f"not permitted: be root or a member of the group {' or '.join(groups.split())}"

    def _numbers(self, names: str, file: str) -> set[int]:
        """The groups or users of these names; the file is read again when it has changed."""
        version = _version(file)
        if version != self._versions.get(file):
            self._versions[file] = version
            self._known = {key: found for key, found in self._known.items() if key[1] != file}
        if (names, file) not in self._known:
            words = names.split()
            found = {int(word) for word in words if word.isascii() and word.isdigit()}
            wanted = {word for word in words if not word.isdigit()}
            self._known[names, file] = found | (_numbers_of(wanted, file) if wanted else set())
        return self._known[names, file]


def user_name(uid: int, file: str = "/etc/passwd") -> str:
    """The name of a user in the file, empty if it has none."""
    return next((row[0] for row in _rows(file) if len(row) > 2 and row[2] == str(uid)), "")


def _version(file: str) -> tuple[int, ...] | None:
    """What differs once a file was changed or replaced; None if there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _numbers_of(names: set[str], file: str) -> set[int]:
    rows = (row for row in _rows(file) if len(row) > 2 and row[0] in names)
    return {int(row[2]) for row in rows if row[2].isdigit()}


def _rows(file: str) -> list[list[str]]:
    """The fields of all lines; a file that cannot be read gives no rights."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            return [line.rstrip("\n").split(":") for line in lines]
    except OSError:
        return []
