# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The bpffs folder with its maps."""

from __future__ import annotations

import errno
import os
import typing as t

from .._base.errors import LoadFailed, Unreadable, Unsupported
from .._base.interface import escape, unescape
from .._base.number import read_whole
from .._base.paths import BPFFS
from . import abi, tracks
from .libbpf import (
    ARRAY,
    F_MMAPABLE,
    F_NO_PREALLOC,
    HASH,
    LPM_TRIE,
    LRU_HASH,
    PERCPU_ARRAY,
    PROG_ARRAY,
    RINGBUF,
    KernelError,
    Map,
    possible_cpus,
)

AGENT = "packetwatch-agent"
RING_CAPACITY = 16384
PANIC = "panic"
"""File in the state folder: while it exists, nothing is filtered."""

# Around a pin's number. No escaped name contains it.
_NUMBER = "%~"
_USERS = "/etc/passwd"
_SOURCES = 16384
_MAX_ID = (1 << 32) - 2


class Spec(t.NamedTuple):
    """The properties with which a map is created; sizes in bytes."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0


def specs() -> dict[str, Spec]:
    """Return the maps that outlive programs, by name.

    LRU maps evict in batches per CPU, so they have at least 256 entries per CPU. The hash of scan bans has
    128 entries per CPU more than its ring, because CPUs keep free entries in lists of their own.
    """
    source, ban = abi.SOURCE.size, abi.BAN.size
    lru = max(_SOURCES, 256 * possible_cpus())
    spare = 128 * possible_cpus()
    return {
        "bans": Spec(HASH, source, ban, 16384),
        "scan_bans": Spec(HASH, source, ban, RING_CAPACITY + spare),
        "scan_ring": Spec(ARRAY, 4, source, RING_CAPACITY),
        "overflow": Spec(LRU_HASH, source, ban, lru),
        "hosts": Spec(HASH, abi.ADDR.size, abi.HOST.size, 4096),
        "nets": Spec(LPM_TRIE, abi.NET.size, 4, 4096, F_NO_PREALLOC),
        "local": Spec(HASH, abi.ADDR.size, 4, 4096),
        "open_ports": Spec(ARRAY, 4, 8, 65536),
        "events": Spec(RINGBUF, 0, 0, 1 << 20),
        "counters4": Spec(PERCPU_ARRAY, 4, abi.COUNTERS.size, 1),
        "shared": Spec(ARRAY, 4, abi.SHARED.size, 1, F_MMAPABLE),
        "firsts2": Spec(ARRAY, 4, abi.FIRSTS.size, abi.FIRST_SETS, F_MMAPABLE),
        "tracks2": Spec(LRU_HASH, source, abi.TRACK.size, lru),
        "rates": Spec(LRU_HASH, abi.ADDR.size, 8, lru),
        "nexts": Spec(PROG_ARRAY, 4, 4, abi.NEXT_SLOTS),
    }


# These maps belong to root: only the program needs the first one, and a program in the other one decides
# packets.
_PRIVATE = ("rates", "nexts")
# An earlier version's tracks, whose pin an even earlier version had beside the private maps.
_FORMER_TRACKS = "tracks"


class Pins:
    """Packetwatch's folder in bpffs. Names in bpffs cannot contain a dot."""

    def __init__(self, root: str = BPFFS) -> None:
        self.root = root
        self.links = os.path.join(root, "links")
        # An empty folder for each interface in whose dispatcher our program is.
        self.members = os.path.join(root, "members")
        self.dispatchers = os.path.join(os.path.dirname(root), "xdp")
        self.own = os.path.join(root, f"v{abi.ABI}")
        self.run = os.path.join(self.own, "run")
        self.program = os.path.join(self.own, "program")
        # The same program for dispatchers.
        self.extension = os.path.join(self.own, "extension")
        # Exists while a change is pending: what that change has replaced.
        self.former = os.path.join(self.own, "former")
        # Next programs that were compiled here, by the keys of their bytecode.
        self.compiled = os.path.join(self.own, "compiled")

    def link(self, interface: str, number: int = 0) -> str:
        """Return the path of the pin that is labelled with an interface's name.

        number: 0 for the usual one; others for links that are labelled with the same name.
        """
        label = escape(interface, lambda letter: letter == ".")
        return os.path.join(self.links, f"{_NUMBER}{number}{_NUMBER}{label}" if number else label)

    def member(self, interface: str, ifindex: int) -> str:
        """Return the path of the mark of an interface in whose dispatcher our program is."""
        return os.path.join(self.members, os.path.basename(self.link(interface, ifindex)))

    def member_marks(self) -> list[str]:
        """Return the paths of all these marks, sorted."""
        return [os.path.join(self.members, name) for name in sorted(_listed(self.members))]

    def link_pins(self) -> list[str]:
        """Return the paths of all pinned links, sorted."""
        return [os.path.join(self.links, name) for name in sorted(_listed(self.links))]

    def compiled_key(self, path: str) -> str:
        """Return the key of the bytecode of a next program that is pinned there; "" if another tool pins it."""
        folder, name = os.path.split(path)
        return name if folder == self.compiled else ""

    def compiled_pins(self) -> list[str]:
        """Return the paths of all next programs that were compiled here."""
        return [os.path.join(self.compiled, name) for name in sorted(_listed(self.compiled))]

    def interfaces(self) -> list[str]:
        """Return the labels of all pinned links and memberships, sorted."""
        return sorted(label_of(path) for path in (*self.link_pins(), *self.member_marks()))

    def map(self, name: str) -> str:
        return os.path.join(self.own if name in _PRIVATE else self.run, name)

    def open_run_maps(self, names: t.Iterable[str]) -> dict[str, Map]:
        """Open maps that the agent owns; raises Unreadable if one is missing or may not be read."""
        maps = {}
        for name in names:
            try:
                maps[name] = Map.open(self.map(name))
            except OSError as error:
                raise Unreadable(
                    f"cannot open the map {self.map(name)}: {error.strerror}; check that the filter is "
                    "loaded (systemctl status 'packetwatch-xdp@*')"
                ) from error
        return maps

    def holds(self, name: str, found: Map) -> bool:
        """Return whether this map is the one pinned under that name; raises Unreadable."""
        try:
            with Map.open(self.map(name)) as pinned:
                return pinned.info.id == found.info.id
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return False
            raise Unreadable(f"cannot open the map {self.map(name)}: {error.strerror}") from error

    def loaded(self) -> bool:
        """Return whether maps of this version are pinned; raises Unreadable."""
        return bool(_listed(self.run))

    def ensure(self) -> dict[str, Map]:
        """Open the maps of `specs`; create and pin those that are missing.

        Those in the folder `run` belong to the agent, the others to root. Raises LoadFailed, and changes
        nothing, if a pinned map differs from its spec.
        """
        check_bpffs(self.root)
        wanted = specs()
        found: dict[str, Map] = {}
        for name, spec in wanted.items():
            if os.path.exists(self.map(name)):
                found[name] = Map.open(self.map(name))
                _check(self.map(name), found[name], spec)
        self._make_folders()
        missing = [name for name in wanted if name not in found]
        for name in missing:
            found[name] = Map.create(wanted[name].type, name, *wanted[name][1:])
            found[name].pin(self.map(name))
        self._hand_over(found)
        if "tracks2" in missing:
            self._adopt_tracks(found)
        return found

    def pin_again(self, maps: t.Mapping[str, Map]) -> None:
        """Pin maps that are in use; other pins of the same names are replaced."""
        self._make_folders()
        for name, found in maps.items():
            if os.path.lexists(self.map(name)):
                os.unlink(self.map(name))
            found.pin(self.map(name))
        self._hand_over(maps)

    def _adopt_tracks(self, maps: t.Mapping[str, Map]) -> None:
        """Take over what an earlier version has counted, so that an upgrade pardons no scanner."""
        for folder in (self.run, self.own):
            path = os.path.join(folder, _FORMER_TRACKS)
            if os.path.lexists(path):
                with Map.open(path) as former:
                    tracks.adopt(former, maps)

    def _make_folders(self) -> None:
        for folder in (self.root, self.links, self.own):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        os.makedirs(self.run, mode=0o755, exist_ok=True)

    def _hand_over(self, names: t.Iterable[str]) -> None:
        owner = _agent()
        for name in names:
            os.chmod(self.map(name), 0o600)
            if name not in _PRIVATE and owner:
                os.chown(self.map(name), *owner)

    def remove(self) -> None:
        """Remove all pins and folders. Filtering ends when the last link is gone."""
        _remove(self.root)

    def remove_former(self) -> None:
        """Remove the pins of what the last change has replaced."""
        _remove(self.former)


def label_of(path: str) -> str:
    """Return the label of a link's pin: the name of its device when it was last declared."""
    name = os.path.basename(path)
    return unescape(name.rpartition(_NUMBER)[2])


def ifindex_of(mark: str) -> int:
    """Return the index of the interface that a mark stands for; 0 if it is not a mark."""
    words = os.path.basename(mark).split(_NUMBER)
    return (read_whole(words[1], _MAX_ID) or 0) if len(words) == 3 else 0


def check_bpffs(path: str) -> None:
    """Raise Unsupported, with the remedy, unless ``path`` lies in a mounted BPF file system."""
    mounted = "/"
    kind = ""
    try:
        with open("/proc/self/mounts", encoding="utf-8") as file:
            rows = [line.split() for line in file]
    except OSError as error:
        raise Unreadable(f"cannot read /proc/self/mounts: {error.strerror}") from error
    for row in rows:
        point = row[1]
        if (path + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(mounted):
            mounted, kind = point, row[2]
    if kind != "bpf":
        raise Unsupported(
            f"no BPF file system is mounted for {path}: mount it with "
            "'mount -t bpf bpf /sys/fs/bpf' (systemd does so at boot)"
        )


def _agent() -> tuple[int, int] | None:
    """Return user and group number of the agent; None if there is no such user.

    Reads the file, not NSS: other sources of NSS may not be available at boot.
    """
    try:
        with open(_USERS, encoding="utf-8", errors="replace") as file:
            rows = [line.split(":") for line in file]
    except OSError as error:
        raise Unreadable(f"cannot read {_USERS}: {error.strerror}") from error
    row = next((row for row in rows if row[0] == AGENT), None)
    if row is None:
        return None
    user, group = (read_whole(text, _MAX_ID) for text in (*row, "", "", "")[2:4])
    if user is None or group is None:
        raise Unreadable(f"the line of {AGENT} in {_USERS} is damaged: correct it")
    return user, group


def _remove(root: str) -> None:
    for folder, dummy, names in list(os.walk(root, topdown=False)):
        for name in names:
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unreadable(f"cannot read {folder}: {error.strerror}") from error


def _check(path: str, found: Map, spec: Spec) -> None:
    info = found.info
    actual = (info.type, info.key_size, info.value_size, info.max_entries)
    if actual != spec[:4]:
        raise LoadFailed(
            f"{path} is not a map of this version (type, key size, value size, entries: {actual} instead "
            f"of {tuple(spec[:4])}): remove the filter (state: absent) and install it again"
        )
