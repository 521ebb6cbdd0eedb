# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Compiles the XDP program with bcc, in a child process that exits, and caches the bytecode.

``import bcc`` alone takes 73 MB, a compilation 150 MB and some seconds. Loading cached bytecode needs
neither bcc nor kernel headers. Cached bytecode refers to maps by name; the loader inserts descriptors.
"""

from __future__ import annotations

import os
import re
import struct
import typing as t
from binascii import unhexlify

from .._base.digest import sha256
from .._base.errors import LoadFailed, Unreadable, Unsupported, reason_of
from .._base.files import make_own_folder, open_own, replace_parts
from . import abi

if t.TYPE_CHECKING:
    from .._base.types import Run

PYTHON = "/usr/bin/python3"
FUNCTION = "packetwatch"
NEXT_FUNCTION = "next"
# Without the last flag only the verifier refuses a misspelt function, with an obscure message.
FLAGS = (
    "-Wno-unused-function",
    "-Wno-macro-redefined",
    "-Werror=implicit-function-declaration",
)

_INSTRUCTION = struct.Struct("=BBhi")
_LOAD_64 = 0x18
_PSEUDO_MAP_FD = 1
_SHOWN_LINES = 12
_FORMAT = "2"  # of the cache's files
_KERNEL_INCLUDE = re.compile(r"^\s*#\s*include\s*<(?!uapi/)", re.MULTILINE)

# The child's program. It writes two lines: INDEX:MAP for each instruction that loads the address of a map,
# and all instructions as hex. MAP is the map's name. If `specs` is true, the properties with which bcc has
# created the map follow: NAME=TYPE,KEY,VALUE,ENTRIES,FLAGS.
_SCRIPT = """
import ctypes, sys
from bcc import BPF
from bcc.libbcc import lib
source, function, flags, specs = %s
module = BPF(text=source, cflags=flags)
lib.bpf_num_tables.argtypes, lib.bpf_num_tables.restype = [ctypes.c_void_p], ctypes.c_size_t
lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
lib.bpf_table_name.restype = ctypes.c_char_p
names = {}
for number in range(lib.bpf_num_tables(module.module)):
    name = lib.bpf_table_name(module.module, number)
    text = name.decode()
    if specs:
        values = []
        for item in ("type", "key_size", "leaf_size", "max_entries", "flags"):
            ask = getattr(lib, f"bpf_table_{item}_id")
            ask.argtypes, ask.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_uint32
            values.append(str(ask(module.module, number)))
        text += "=" + ",".join(values)
    names[lib.bpf_table_fd(module.module, name)] = text
code = bytearray(module.dump_func(function))
maps = []
for i in range(0, len(code), 8):
    if code[i] == 0x18 and code[i + 1] >> 4 == 1:
        name = names[int.from_bytes(code[i + 4:i + 8], sys.byteorder)]
        maps.append(f"{i // 8}:{name}")
        code[i + 4:i + 8] = bytes(4)
print(" ".join(maps))
print(code.hex())
"""


class Bytecode(t.NamedTuple):
    """A compiled program."""

    code: bytes
    """Instructions of 8 bytes."""
    maps: tuple[tuple[int, str], ...]
    """(index, map name) of each instruction that loads the address of a map."""
    digest: bytes
    """SHA-256 of the compiler's output, which holds both."""

    def lines(self) -> tuple[bytes, bytes]:
        """Return the compiler's output, whose digest is `digest`."""
        loads = " ".join(f"{index}:{name}" for index, name in self.maps)
        return loads.encode() + b"\n", self.code.hex().encode() + b"\n"

    def resolved(self, descriptors: t.Mapping[str, int]) -> bytes:
        """Return the instructions with map descriptors inserted; raises LoadFailed for an unknown map."""
        code = bytearray(self.code)
        for index, name in self.maps:
            if name not in descriptors:
                raise LoadFailed(
                    f"the program uses a map {name!r} that Packetwatch does not make; "
                    "use the maps of maps_bcc.h"
                )
            is_there = 0 <= index * 8 < len(code)
            place = index * 8 if is_there else 0
            operation, registers, offset, dummy = _INSTRUCTION.unpack_from(code, place)
            if not is_there or operation != _LOAD_64 or registers >> 4 != _PSEUDO_MAP_FD:
                raise LoadFailed(
                    f"the cached bytecode is damaged at instruction {index}: remove the files in "
                    "/var/lib/packetwatch/cache and try again"
                )
            _INSTRUCTION.pack_into(code, index * 8, operation, registers, offset, descriptors[name])
        return bytes(code)


class Compiler:
    """Returns bytecode from the cache in ``folder``; compiles it first if it is not there.

    function: the C function that is the program. Only bytecode of another program than the filter has the
    properties of its maps, because it brings maps of its own. refused: why the last file that was there was
    not used, or could not be made; empty otherwise.
    """

    def __init__(self, run: Run, folder: str, function: str = FUNCTION) -> None:
        self.refused = ""
        self._function = function
        self._unsaved: dict[str, Bytecode] = {}
        self._run = run
        self._folder = folder

    def cached(self, source: str) -> Bytecode | None:
        """Return the source's bytecode from the cache; None if it is missing or refused."""
        return self.cached_as(self.key(source))

    def cached_as(self, key: str) -> Bytecode | None:
        """Return the bytecode of a source with this key, as `cached` does."""
        path = self._at(key)
        try:
            with open_own(path) as file:
                loads, code, check = file.readline(), file.readline(), file.read()
            found = _read(loads, code) if check == self._check(key, loads, code) else None
            why = "" if found else "it is damaged, or of another program"
        except FileNotFoundError:
            return None
        except (OSError, Unreadable) as error:
            found, why = None, reason_of(error)
        if why:
            self.refused = f"the compiled program {path} is not used: {why}"
        return found

    def get(self, source: str) -> Bytecode:
        """Return the source's bytecode. A compilation takes 1-2 s, on slow machines a minute."""
        found = self.cached(source) or self._unsaved.get(self.key(source))
        if found is None:
            text = self._compile(source)
            lines = [line.encode() for line in text.splitlines(keepends=True)]
            found = _read(*lines) if len(lines) == 2 else None
            if found is None:
                raise LoadFailed(
                    f"bcc gave no bytecode, but {text[:200]!r}; check that {PYTHON} can import bcc "
                    "(python3-bpfcc)"
                )
            try:
                self._store(source, *lines)
            except LoadFailed as error:
                # A cache that cannot be written must not keep a host from its filter.
                self.refused = str(error)
                self._unsaved[self.key(source)] = found
        return found

    def keep(self, source: str, found: Bytecode) -> None:
        """Put bytecode of this source, which another place had, into the cache, unless it is there."""
        if self.cached(source) is None:
            self._store(source, *found.lines())

    def key(self, source: str) -> str:
        """Return what `key_of` returns for a source; it is the cache file's name."""
        return key_of(source, self._function)

    def _path(self, source: str) -> str:
        return self._at(self.key(source))

    def _at(self, key: str) -> str:
        return os.path.join(self._folder, key)

    def _compile(self, source: str) -> str:
        has_specs = self._function != FUNCTION
        script = _SCRIPT % ascii((source, self._function, FLAGS, has_specs))
        status, output, errors = self._run([PYTHON, "-"], script)
        if status:
            raise _failure(errors or output, self.refused)
        return output

    def _store(self, source: str, loads: bytes, code: bytes) -> None:
        path = self._path(source)
        try:
            make_own_folder(self._folder)
            replace_parts(path, (loads, code, self._check(self.key(source), loads, code)))
        except OSError as error:
            raise LoadFailed(
                f"the bytecode cannot be written to the cache {path}: {error.strerror}; make room, or "
                "remove what is there: until then, it is compiled at each start"
            ) from error

    @staticmethod
    def _check(key: str, *lines: bytes) -> bytes:
        """Return a checksum, the cache file's third line, of both lines and of what they were compiled from.

        It reveals a truncated or damaged file, and that of another program.
        """
        return b"%s\n" % _digest(key.encode(), *lines).hex().encode()


def key_of(source: str, function: str) -> str:
    """Return a digest of all that decides the bytecode of a function of a source."""
    # Only sources that include internal kernel headers compile differently for each release; ours includes
    # uapi headers alone.
    release = os.uname().release if _KERNEL_INCLUDE.search(source) else ""
    machine = os.uname().machine
    parts = (source, function, *FLAGS, str(abi.ABI), machine, release, _SCRIPT, _FORMAT)
    separated = (part for text in parts for part in (b"\0", text.encode()))
    next(separated)
    return _digest(*separated).hex()


def _digest(*parts: bytes) -> bytes:
    """Return the SHA-256 of the parts in a row, without a copy of them all."""
    check = sha256()
    for part in parts:
        check.update(part)
    return check.digest()


def _read(loads: bytes, code: bytes) -> Bytecode | None:
    """Return the bytecode of the child's two lines; None if they are malformed."""
    try:
        pairs = [item.split(":") for item in loads.decode("ascii").split()]
        maps = tuple((int(index), name) for index, name in pairs)
        instructions = unhexlify(memoryview(code)[: len(code) - code.endswith(b"\n")])
    except ValueError:
        return None
    if not instructions or len(instructions) % 8:
        return None
    return Bytecode(instructions, maps, _digest(loads, code))


def _failure(errors: str, refused: str) -> Exception:
    """Return the error, with a remedy if the cause is known, for the child's error output.

    refused: why it had to be compiled although it is in the cache.
    """
    error = _explain(errors)
    return type(error)(f"{error}; {refused}") if refused else error


def _explain(errors: str) -> LoadFailed | Unsupported:
    release = os.uname().release
    if "No module named 'bcc'" in errors or "from 'bcc'" in errors:
        return Unsupported("bcc is not installed: apt-get install python3-bpfcc")
    if f"{PYTHON}: " in errors:
        return Unsupported(f"{PYTHON} cannot be run: {errors.strip()}")
    if "Unable to find kernel headers" in errors or "chdir(/lib/modules" in errors:
        return Unsupported(
            f"the headers of the running kernel {release} are not installed: apt-get install "
            f"linux-headers-{release}, or reboot into the newest installed kernel"
        )
    if "Operation not permitted" in errors or "need root" in errors:
        return Unsupported(
            "not permitted to use BPF: run as root; in a container, allow CAP_BPF too"
        )
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    at = next((i for i, line in enumerate(lines) if "error:" in line), None)
    shown = lines[-_SHOWN_LINES:] if at is None else lines[at : at + _SHOWN_LINES]
    return LoadFailed("the program does not compile: " + "\n".join(shown))
