# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Where things are: the bpffs folder, its maps, and the paths on the host."""

from __future__ import annotations

import errno
import os
import typing as t

from .._base.errors import LoadFailed, Unreadable, Unsupported
from . import abi
from .libbpf import (
    ARRAY,
    F_MMAPABLE,
    F_NO_PREALLOC,
    HASH,
    LPM_TRIE,
    LRU_HASH,
    PERCPU_ARRAY,
    RINGBUF,
    KernelError,
    Map,
    possible_cpus,
)

BPFFS = "/sys/fs/bpf/packetwatch"
AGENT = "packetwatch-agent"
RING_CAPACITY = 16384
# Beside the states: while it is there, nothing is filtered.
PANIC = "panic"

_USERS = "/etc/passwd"
_SOURCES = 16384


class Paths(t.NamedTuple):
    """All places that the library touches; tests give their own."""

    bpffs: str = BPFFS
    state: str = "/etc/packetwatch"
    cache: str = "/var/lib/packetwatch/cache"
    spared: str = "/var/lib/packetwatch/spared"
    source: str = "/usr/lib/packetwatch/current/bpf"
    settings: str = "/etc/default/packetwatch"
    runtime: str = "/run/systemd"
    units: str = "/etc/systemd/system"
    pending: str = "/run/packetwatch-host/change"
    status: str = "/run/packetwatch-host/status.json"


class Spec(t.NamedTuple):
    """How a map is made; sizes in bytes."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0


def specs() -> dict[str, Spec]:
    """Maps that outlive programs, by name.

    LRU maps evict in batches per CPU, so they are never smaller than 256 entries a CPU. The hash
    of scan bans is larger than its ring by what CPUs may hold back in their free lists.
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
        "counters": Spec(PERCPU_ARRAY, 4, abi.COUNTERS.size, 1),
        "shared": Spec(ARRAY, 4, abi.SHARED.size, 1, F_MMAPABLE),
        "firsts": Spec(ARRAY, 4, abi.FIRSTS.size, abi.FIRST_SETS, F_MMAPABLE),
        "tracks": Spec(LRU_HASH, source, abi.TRACK.size, lru),
        "rates": Spec(LRU_HASH, abi.ADDR.size, 8, lru),
    }


# Only root's, because nothing but the program needs them.
_PRIVATE = ("firsts", "tracks", "rates")


class Pins:
    """The folder under bpffs. Names in bpffs cannot contain a dot."""

    def __init__(self, root: str = BPFFS) -> None:
        self.root = root
        self.links = os.path.join(root, "links")
        self.own = os.path.join(root, f"v{abi.ABI}")
        self.run = os.path.join(self.own, "run")
        self.program = os.path.join(self.own, "program")
        # While a change is pending: what it has replaced.
        self.former = os.path.join(self.own, "former")

    def link(self, interface: str) -> str:
        return os.path.join(self.links, interface.replace("%", "%25").replace(".", "%2e"))

    def interfaces(self) -> list[str]:
        """Interfaces that have a pinned link, in order of their names."""
        names = _listed(self.links)
        return sorted(name.replace("%2e", ".").replace("%25", "%") for name in names)

    def map(self, name: str) -> str:
        return os.path.join(self.own if name in _PRIVATE else self.run, name)

    def open_run_maps(self, names: t.Iterable[str]) -> dict[str, Map]:
        """Maps by name; Unreadable if one is not there or not ours to read."""
        maps = {}
        for name in names:
            try:
                maps[name] = Map.open(self.map(name))
            except OSError as error:
                raise Unreadable(
                    f"{self.map(name)}: {error.strerror}; is the filter loaded "
                    "(systemctl status 'packetwatch-xdp@*')?"
                ) from error
        return maps

    def holds(self, name: str, found: Map) -> bool:
        """Whether a map is the one that is pinned; Unreadable if that cannot be told."""
        try:
            with Map.open(self.map(name)) as pinned:
                return pinned.info.id == found.info.id
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return False
            raise Unreadable(f"{self.map(name)}: {error.strerror}") from error

    def loaded(self) -> bool:
        """Whether maps of this version are pinned."""
        return bool(_listed(self.run))

    def ensure(self) -> dict[str, Map]:
        """All lasting maps: found again, or made and pinned; root's, those under run the agent's.

        LoadFailed if a pinned map is not what this version makes: nothing is changed then.
        """
        check_bpffs(self.root)
        wanted = specs()
        found: dict[str, Map] = {}
        for name, spec in wanted.items():
            if os.path.exists(self.map(name)):
                found[name] = Map.open(self.map(name))
                _check(self.map(name), found[name], spec)
        self._make_folders()
        for name, spec in wanted.items():
            if name not in found:
                found[name] = Map.create(spec.type, name, *spec[1:])
                found[name].pin(self.map(name))
        self._hand_over(found)
        return found

    def pin_again(self, maps: t.Mapping[str, Map]) -> None:
        """Pin maps that are in use, in place of whatever has their names."""
        self._make_folders()
        for name, found in maps.items():
            if os.path.lexists(self.map(name)):
                os.unlink(self.map(name))
            found.pin(self.map(name))
        self._hand_over(maps)

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
        """Remove every pin and folder of ours, links first; the filter ends with the last link."""
        _remove(self.root)

    def remove_former(self) -> None:
        """Remove the pins of what a change has replaced."""
        _remove(self.former)


def check_bpffs(path: str) -> None:
    """Unsupported, with the remedy, unless a BPF file system is mounted above ``path``."""
    mounted = "/"
    kind = ""
    try:
        with open("/proc/self/mounts", encoding="utf-8") as file:
            rows = [line.split() for line in file]
    except OSError as error:
        raise Unreadable(f"/proc/self/mounts: {error.strerror}") from error
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
    """User and group of the agent, from the file alone: what else NSS may ask is not up at boot."""
    try:
        with open(_USERS, encoding="utf-8", errors="replace") as file:
            rows = [line.split(":") for line in file]
    except OSError as error:
        raise Unreadable(f"{_USERS}: {error.strerror}") from error
    return next(((int(row[2]), int(row[3])) for row in rows if row[0] == AGENT), None)


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
        raise Unreadable(f"{folder}: {error.strerror}") from error


def _check(path: str, found: Map, spec: Spec) -> None:
    info = found.info
    actual = (info.type, info.key_size, info.value_size, info.max_entries)
    if actual != spec[:4]:
        raise LoadFailed(
            f"{path} is not a map of this version (type, key, value, entries: {actual}, wanted "
            f"{tuple(spec[:4])}): remove the filter (state: absent) and install it again"
        )
