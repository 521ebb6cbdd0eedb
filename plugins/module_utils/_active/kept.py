# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The boot image: all that a boot needs to filter as confirmed, compiled, in one file.

::

    packetwatch boot image 2 SHA256 SIZE   of the facts and all parts before the tables
    {"number": 7, "interfaces": ...}       facts, JSON in one line
    header, policies, instructions, tables as long as the facts say, which also have the tables' digests

So a boot parses no text that a person or a program may have damaged, and needs neither compiler nor kernel
headers. Tables and instructions are used as they are, whatever format this version writes.
"""

from __future__ import annotations

import json
import struct
import typing as t

from .._base.digest import sha256_for
from .._base.errors import Unreadable
from .._base.files import parse_json
from .._base.number import is_a, read_whole
from .._kernel import abi
from .._kernel.bytecode import Bytecode
from .._tables.area import Area
from .generation import Image, Records, assemble

if t.TYPE_CHECKING:
    from .._declared.store import State

# Header, default policy, instructions, lines and filters of both families.
_PARTS = 7
_MAGIC = b"packetwatch boot image 2 "
_WRONG = "its checksum is wrong"
# The facts name all interfaces and the program's loads of maps; the protected addresses are the longest.
_LONGEST_LINE = 1 << 20


class Kept(t.NamedTuple):
    """A confirmed state as it was compiled.

    number: of the state. interfaces: name → wanted mode. nexts: name → pin of the next program. settings: the ``PW_*`` settings that were in
    force. note: what `Status` notes about the lists. header: that of the generation.
    known: what the next small change needs to know of the tables; None if that is unknown.
    has_expiring_allow: whether an allow entry expires, so that the image must not outlive it. key: that
    of the bytecode, by which the cache has it too.
    """

    number: int
    interfaces: dict[str, str]
    nexts: dict[str, str]
    settings: dict[str, str]
    note: dict[str, t.Any]
    known: t.Any
    has_expiring_allow: bool
    header: dict[str, t.Any]
    records: Records
    v4: Area
    v6: Area
    code: Bytecode
    key: str

    def image(self, ifindexes: t.Mapping[str, int]) -> Image:
        """The generation for interfaces with these indexes, which differ from boot to boot."""
        return assemble(self.header, self.records, ifindexes, self.v4, self.v6)

    @property
    def next_expiry(self) -> int:
        """Time at which the next of its entries expires, in seconds since 1970; 0: no entry expires."""
        return int(self.header["next_expiry"])

    @property
    def valid_from(self) -> int:
        """Time before which an entry that it leaves out would count, as in `Areas`."""
        return int(self.header["valid_from"])


# Two versions with the same layout can boot from each other's images.
_LAYOUT = [
    *(abi.ABI, abi.PAGE, abi.POLICY_OFFSET, abi.HEADER.size, abi.POLICY.size),
    *Kept._fields,
]


_TYPES = {
    "number": int,
    "interfaces": dict,
    "nexts": dict,
    "settings": dict,
    "note": dict,
    "has_expiring_allow": bool,
    "own": list,
    "key": str,
    "sizes": list,
}


def keep(number: int, state: State, image: Image, code: Bytecode, key: str) -> Kept:
    """The boot image of a state from the generation that was built for it, without nexts, settings, note, known."""
    # Imported here: a boot does not need it, and it would cost it memory.
    from .._declared.policy import resolve_policies
    from .build import records

    return Kept(
        number=number,
        interfaces=dict(state.interfaces),
        nexts={},
        settings={},
        note={},
        known=None,
        has_expiring_allow=any("expires=" in text for text in state.allow.values()),
        header=abi.HEADER.unpack(image.first),
        records=records(resolve_policies(state.policy)),
        v4=image.v4,
        v6=image.v6,
        code=code,
        key=key,
    )


def pack(kept: Kept) -> list[bytes | bytearray]:
    """The file of a boot image, in parts."""
    own = kept.records.own
    small = [abi.HEADER.pack(**kept.header), kept.records.default, *own.values(), kept.code.code]
    tables = [part for area in (kept.v4, kept.v6) for part in area]
    facts = {
        "layout": _LAYOUT,
        "number": kept.number,
        "interfaces": kept.interfaces,
        "nexts": kept.nexts,
        "settings": kept.settings,
        "note": kept.note,
        "known": kept.known,
        "has_expiring_allow": kept.has_expiring_allow,
        "own": list(own),
        "maps": kept.code.maps,
        "key": kept.key,
        "sizes": [len(part) for part in (*small, *tables)],
        "tables": [kept.v4.digest.hex(), kept.v6.digest.hex()],
    }
    head = b"".join((json.dumps(facts).encode(), b"\n", *small))
    first = b"%s%s %d\n" % (_MAGIC, _digest(head).encode(), len(head))
    return [first, head, *tables]


def unpack(data: bytes | memoryview) -> Kept:
    """The boot image in a file's content; raises `Unreadable` with the reason."""
    first, rest = _line(memoryview(data))
    if not first.startswith(_MAGIC):
        raise Unreadable("it is not a boot image of this version")
    check, dummy, size = first.removeprefix(_MAGIC).decode(errors="replace").partition(" ")
    length = read_whole(size, len(rest))
    if length is None or check != _digest(rest[:length]):
        raise Unreadable(_WRONG)
    try:
        return _kept(*_line(rest))
    except (
        ArithmeticError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        raise Unreadable(f"it is damaged ({error})") from error


def _kept(line: bytes, body: memoryview) -> Kept:
    facts = parse_json(line)
    if facts["layout"] != _LAYOUT:
        raise Unreadable("another version of Packetwatch made it")
    _check_facts(facts)
    if len(body) != sum(facts["sizes"]):
        raise Unreadable(_WRONG)
    parts = _cut(body, facts["sizes"])
    if len(facts["sizes"]) != len(facts["own"]) + _PARTS:
        raise Unreadable("a part of it is missing")
    header = abi.HEADER.unpack(next(parts))
    records = Records(bytes(next(parts)), {name: bytes(next(parts)) for name in facts["own"]})
    code = bytes(next(parts))
    # Views of the file, which the kernel can drop from memory: copies would take as much as the tables.
    areas = (t.cast("bytes", part) for part in parts)
    v4, v6 = (Area(next(areas), next(areas)) for dummy in range(2))
    if [v4.digest.hex(), v6.digest.hex()] != facts["tables"]:
        raise Unreadable(_WRONG)
    return Kept(
        number=facts["number"],
        interfaces=facts["interfaces"],
        nexts=facts["nexts"],
        settings=facts["settings"],
        note=facts["note"],
        known=facts["known"],
        has_expiring_allow=facts["has_expiring_allow"],
        header=header,
        records=records,
        v4=v4,
        v6=v6,
        code=Bytecode(
            code,
            tuple((int(index), str(name)) for index, name in facts["maps"]),
            header["bytecode"],
        ),
        key=facts["key"],
    )


def _check_facts(facts: dict[str, t.Any]) -> None:
    """Raise ValueError if a fact that a boot uses has another type."""
    for name, kind in _TYPES.items():
        if not is_a(facts[name], kind):
            raise ValueError(f"{name} is {facts[name]!r:.80}")
    for name in ("interfaces", "nexts", "settings"):
        if not all(is_a(text, str) for pair in facts[name].items() for text in pair):
            raise ValueError(f"{name} are {facts[name]!r:.80}")
    if not all(is_a(size, int) and size >= 0 for size in facts["sizes"]):
        raise ValueError(f"sizes are {facts['sizes']!r:.80}")


def _cut(body: memoryview, sizes: t.Sequence[int]) -> t.Iterator[memoryview]:
    """The parts of these sizes."""
    at = 0
    for size in sizes:
        yield body[at : at + size]
        at += size


def _line(data: memoryview) -> tuple[bytes, memoryview]:
    """The first line without its end, and what follows."""
    head, end, dummy = bytes(data[:_LONGEST_LINE]).partition(b"\n")
    return head, data[len(head) + len(end) :]


def _digest(head: bytes | memoryview) -> str:
    check = sha256_for(len(head))
    check.update(head)
    return str(check.hexdigest())
