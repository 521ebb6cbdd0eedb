# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""ctypes bindings for a part of Debian's ``libbpf.so.1``: calls, errors, maps.

libbpf 1.x returns ``-errno``; every wrapper here turns that into `KernelError`. Option structs start
with their own size, so newer libraries accept these (libbpf.h, "extensible opts").
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import mmap
import os
import sys
import typing as t

from .._base.errors import PacketwatchError, Unsupported

HASH = 1
ARRAY = 2
PROG_ARRAY = 3
PERCPU_ARRAY = 6
LRU_HASH = 9
LPM_TRIE = 11
ARRAY_OF_MAPS = 12
RINGBUF = 27

F_NO_PREALLOC = 1 << 0
F_MMAPABLE = 1 << 10

_ENOENT = 2
_ENOSPC = 28
CAPABILITIES = "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
_NOT_PERMITTED = (errno.EPERM, errno.EACCES)
_BATCH = 4096


class KernelError(PacketwatchError, OSError):
    """The kernel refused a BPF call; errno as in any ``OSError``."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(number, os.strerror(number), what)

    def __str__(self) -> str:
        text = f"{self.filename}: {self.strerror}"
        if self.errno in _NOT_PERMITTED:
            return f"{text}; this needs root with {CAPABILITIES}"
        return text


class _BatchOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    ]


class _MapCreateOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
    ]


class _MapInfo(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
        ("rest", ctypes.c_uint8 * 64),
    ]


class MapInfo(t.NamedTuple):
    """What the kernel reports about a map; sizes in bytes."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


@functools.cache
def library() -> ctypes.CDLL:
    """Return the loaded library; raises `Unsupported`, which names the Debian package."""
    try:
        return ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise Unsupported(f"libbpf.so.1 cannot be loaded ({error}): install libbpf1") from error


def call(name: str, *arguments: t.Any, what: str = "") -> int:
    """Call a libbpf function that returns an int; raises `KernelError` if that is negative."""
    result: int = getattr(library(), name)(*arguments)
    if result < 0:
        raise KernelError(-result, what or name)
    return result


def possible_cpus() -> int:
    """Return the number of possible CPUs: a per-CPU map holds so many values for each key."""
    return call("libbpf_num_possible_cpus")


def info_by_fd(fd: int, info: ctypes.Structure, what: str) -> None:
    """Fill ``info`` with what the kernel reports about the BPF object of descriptor ``fd``."""
    length = ctypes.c_uint32(ctypes.sizeof(info))
    call("bpf_obj_get_info_by_fd", fd, ctypes.byref(info), ctypes.byref(length), what=what)


def obj_get(path: str) -> int:
    """Return a new descriptor of the object pinned at ``path``."""
    return call("bpf_obj_get", os.fsencode(path), what=path)


def obj_pin(fd: int, path: str) -> None:
    """Pin the object of ``fd`` at ``path`` in bpffs, where names cannot contain a dot."""
    call("bpf_obj_pin", fd, os.fsencode(path), what=path)


class Descriptor:
    """Owns a file descriptor; a context manager."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *dummy: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def pin(self, path: str) -> None:
        obj_pin(self.fd, path)


class Map(Descriptor):
    """A BPF map: keys and values are bytes of the map's sizes.

    A value of a per-CPU map is the values of all possible CPUs in a row, each padded to a multiple of
    8 bytes.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        raw = _MapInfo()
        info_by_fd(fd, raw, "map")
        self.info = MapInfo(
            raw.type,
            raw.id,
            raw.key_size,
            raw.value_size,
            raw.max_entries,
            raw.map_flags,
            raw.name.decode(),
        )
        self.value_bytes = raw.value_size
        if raw.type == PERCPU_ARRAY:
            self.value_bytes = (raw.value_size + 7) // 8 * 8 * possible_cpus()

    @classmethod
    def open(cls, path: str) -> Map:
        """Open the map pinned at ``path``."""
        return cls(obj_get(path))

    @classmethod
    def by_id(cls, number: int) -> Map:
        return cls(call("bpf_map_get_fd_by_id", number, what=f"map {number}"))

    @classmethod
    def create(
        cls,
        map_type: int,
        name: str,
        key_size: int,
        value_size: int,
        max_entries: int,
        flags: int = 0,
        inner: Map | None = None,
    ) -> Map:
        """Create a map. Only the descriptor keeps it alive until it is pinned or a program uses it."""
        opts = _MapCreateOpts(sz=ctypes.sizeof(_MapCreateOpts), map_flags=flags)
        if inner is not None:
            opts.inner_map_fd = inner.fd
        fd = call(
            "bpf_map_create",
            map_type,
            name.encode(),
            key_size,
            value_size,
            max_entries,
            ctypes.byref(opts),
            what=f"create map {name} of {max_entries} x {value_size} bytes",
        )
        return cls(fd)

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of ``key``, or None if the map has no such key."""
        value = ctypes.create_string_buffer(self.value_bytes)
        result: int = library().bpf_map_lookup_elem(self.fd, key, value)
        if result == -_ENOENT:
            return None
        if result < 0:
            raise KernelError(-result, f"lookup in {self.info.name}")
        return value.raw

    def update(self, key: bytes, value: bytes | bytearray, flags: int = 0) -> None:
        """Set ``key`` to ``value`` (flags: 0 always, 1 only a new key, 2 only an existing key)."""
        data = value if isinstance(value, bytes) else bytes(value)
        call(
            "bpf_map_update_elem",
            self.fd,
            key,
            data,
            ctypes.c_uint64(flags),
            what=f"update {self.info.name}",
        )

    def update_many(self, keys: bytes, values: bytes) -> None:
        """Set many keys at once; keys and values are the items one after the other."""
        count = ctypes.c_uint32(len(keys) // self.info.key_size)
        opts = _BatchOpts(sz=ctypes.sizeof(_BatchOpts))
        arguments = (keys, values, ctypes.byref(count), ctypes.byref(opts))
        call("bpf_map_update_batch", self.fd, *arguments, what=f"update {self.info.name}")

    def write_word(self, index: int, number: int) -> None:
        """Set one 64-bit word in a mappable array, and leave the words beside it alone.

        An update would overwrite what the program writes to the same value meanwhile.
        """
        with mmap.mmap(self.fd, mmap.PAGESIZE) as memory:
            words = memoryview(memory).cast("Q")
            words[index] = number
            words.release()

    @contextlib.contextmanager
    def mapped(self, begin: int, end: int, *, writes: bool = False) -> t.Iterator[memoryview]:
        """Yield the bytes from begin to before end of a mappable array; both are whole memory pages."""
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if writes else 0)
        with (
            mmap.mmap(self.fd, end - begin, prot=prot, offset=begin) as memory,
            memoryview(memory) as view,
        ):
            yield view

    def delete(self, key: bytes) -> bool:
        """Remove ``key``; return False if the map has no such key."""
        result: int = library().bpf_map_delete_elem(self.fd, key)
        if result == -_ENOENT:
            return False
        if result < 0:
            raise KernelError(-result, f"delete in {self.info.name}")
        return True

    def keys(self) -> list[bytes]:
        """Return all keys. While others write to the map, a key can be missing or appear twice."""
        return [key for key, dummy in self.items()]

    def items(self) -> list[tuple[bytes, bytes]]:
        """Return all (key, value) pairs, under the same reservation as `keys`."""
        return list(self.each())

    def each(self) -> t.Iterator[tuple[bytes, bytes]]:
        """Yield all (key, value) pairs, with only one batch in memory at a time.

        Reads one by one if the kernel cannot read this map in batches.
        """
        count = 0
        try:
            for entry in self._in_batches():
                count = self._count(count)
                yield entry
        except OSError as error:
            if count or (error.errno != _ENOSPC and self.info.type in (HASH, LRU_HASH)):
                raise
            for entry in self._one_by_one():
                count = self._count(count)
                yield entry

    def _count(self, count: int) -> int:
        """Count one more entry; a reader must not follow for ever who keeps changing the keys."""
        if count > 2 * self.info.max_entries:
            raise KernelError(errno.EAGAIN, f"read {self.info.name}, which changes all the time")
        return count + 1

    def freeze(self) -> None:
        """Forbid all later writes from user space (BPF_MAP_FREEZE)."""
        call("bpf_map_freeze", self.fd, what=f"freeze {self.info.name}")

    @property
    def is_frozen(self) -> bool:
        """Whether the map can never be written again from user space."""
        with open(f"/proc/self/fdinfo/{self.fd}", encoding="ascii") as file:
            return any(line.split() == ["frozen:", "1"] for line in file)

    def _in_batches(self) -> t.Iterator[tuple[bytes, bytes]]:
        key_size, value_size = self.info.key_size, self.value_bytes
        room = max(_BATCH, 1)
        keys = ctypes.create_string_buffer(room * key_size)
        values = ctypes.create_string_buffer(room * value_size)
        cursor = ctypes.create_string_buffer(max(key_size, 8))
        opts = _BatchOpts(sz=ctypes.sizeof(_BatchOpts))
        started: t.Any = None
        while True:
            count = ctypes.c_uint32(room)
            result: int = library().bpf_map_lookup_batch(
                self.fd, started, cursor, keys, values, ctypes.byref(count), ctypes.byref(opts)
            )
            if result < 0 and result != -_ENOENT:
                raise KernelError(-result, f"read {self.info.name}")
            raw_keys, raw_values = keys.raw, values.raw
            for i in range(count.value):
                yield (
                    raw_keys[i * key_size : (i + 1) * key_size],
                    raw_values[i * value_size : (i + 1) * value_size],
                )
            if result == -_ENOENT:
                return
            started = cursor

    def _one_by_one(self) -> t.Iterator[tuple[bytes, bytes]]:
        key: bytes | None = None
        following = ctypes.create_string_buffer(self.info.key_size)
        while True:
            result: int = library().bpf_map_get_next_key(self.fd, key, following)
            if result == -_ENOENT:
                return
            if result < 0:
                raise KernelError(-result, f"read {self.info.name}")
            key = following.raw
            value = self.lookup(key)
            if value is not None:
                yield key, value


def wait_for_running_programs() -> None:
    """Return when no program runs any more that ran at the call.

    The kernel waits for that when a map in another map is replaced.
    """
    with (
        Map.create(ARRAY, "inner", 4, 4, 1) as inner,
        Map.create(ARRAY_OF_MAPS, "outer", 4, 4, 1, inner=inner) as outer,
    ):
        outer.update(bytes(4), inner.fd.to_bytes(4, sys.byteorder))
