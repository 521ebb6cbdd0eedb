# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""A generation: everything that decides a verdict, in one frozen map that one pointer activates.

docs/tables.md describes its layout. A slot takes only maps of one size, so that the kernel can inline
lookups. For another size the program is loaded again, with another slot.
"""

from __future__ import annotations

import errno
import struct
import typing as t
from itertools import chain, count, islice

from .._base.digest import sha256
from .._base.errors import InvalidInput
from .._kernel import abi
from .._kernel.libbpf import ARRAY, ARRAY_OF_MAPS, F_MMAPABLE, KernelError, Map
from .._tables.area import Area, Place

if t.TYPE_CHECKING:
    from .._tables.tables import Tables

_U32 = struct.Struct("=I")
_SHAPE = struct.Struct("=3I")
_ZERO = _U32.pack(0)
_ATTEMPTS = 5
_WINDOW = 16
_UNDIGESTED = ("digest", "lists", "bytecode", "next_expiry", "valid_from")


class Areas(t.NamedTuple):
    """The tables of both families. lists: digest of the lists from which they were compiled.

    valid_from, next_expiry: the time for which they were compiled, from one to the other (Unix seconds): later,
    an entry has expired; earlier, one that was left out would count. 0: any time.
    """

    v4: Area
    v4_shift: int
    v6: Area
    v6_hosts: Place
    lists: bytes
    next_expiry: int
    valid_from: int = 0

    @classmethod
    def of(cls, tables: Tables, lists: bytes, next_expiry: int, valid_from: int) -> Areas:
        parts = tables.v4, tables.v4_shift, tables.v6, tables.v6_hosts
        return cls(*parts, lists, next_expiry, valid_from)

    def tables(self) -> Tables:
        # Imported here: a boot does not need what compiles tables, and it would cost it memory.
        from .._tables.tables import Tables

        return Tables(self.v4, self.v4_shift, self.v6, self.v6_hosts)

    def digest(self) -> str:
        """Digest of the tables alone: policies and comments in lists do not change it."""
        return _checked(_SHAPE.pack(self.v4_shift, *self.v6_hosts), self.v4, self.v6)


class Image(t.NamedTuple):
    """A generation in memory: page 0 and the pages of both areas."""

    first: bytes
    v4: Area
    v6: Area
    digest: str

    @property
    def pages(self) -> int:
        return 1 + self.v4.pages + self.v6.pages

    @property
    def bytecode(self) -> bytes:
        """Digest of the program that the image is for."""
        code: bytes = abi.HEADER.unpack(self.first)["bytecode"]
        return code

    @property
    def lists(self) -> bytes:
        """Digest of the lists from which its tables were compiled."""
        digest: bytes = abi.HEADER.unpack(self.first)["lists"]
        return digest

    @property
    def next_expiry(self) -> int:
        """Time at which the next of its entries expires, in seconds since 1970; 0: no entry expires."""
        return int(abi.HEADER.unpack(self.first)["next_expiry"])

    def made_for(self, code: bytes) -> Image:
        """The same image for the program whose bytecode has the digest `code`."""
        if code == self.bytecode:
            return self
        header = abi.HEADER.pack(**abi.HEADER.unpack(self.first) | {"bytecode": code})
        return self._replace(first=header + self.first[len(header) :])


class Records(t.NamedTuple):
    """Policies as the program reads them (``struct pw_policy``). own: those of single interfaces."""

    default: bytes
    own: dict[str, bytes]


def assemble(
    header: t.Mapping[str, t.Any],
    records: Records,
    ifindexes: t.Mapping[str, int],
    v4: Area,
    v6: Area,
) -> Image:
    """The image of these parts. header: all fields but the digest. ifindexes: of the filtered interfaces."""
    table = _policy_table(records, ifindexes)
    digest = _digest(_digested(header), table, v4, v6)
    packed = abi.HEADER.pack(**{**header, "digest": bytes.fromhex(digest)})
    first = packed.ljust(abi.POLICY_OFFSET, b"\0") + table
    return Image(first.ljust(abi.PAGE, b"\0"), v4, v6, digest)


def capacity_for(pages: int) -> int:
    """The capacity of a new slot. It has spare pages, so that most changes fit into the same slot."""
    if pages < 16:
        return pages + 2
    return (pages * 5 // 4 + 15) // 16 * 16


def fits(pages: int, capacity: int) -> bool:
    """Whether a slot of that capacity is large enough, and at most four times too large."""
    return pages <= capacity and (pages * 4 >= capacity or capacity == capacity_for(pages))


def make_slot(capacity: int) -> Map:
    """An empty slot for generations of that capacity, in pages."""
    with _pages(capacity) as template:
        return _slot_like(template)


def _slot_like(pages: Map) -> Map:
    return Map.create(ARRAY_OF_MAPS, "generation", 4, 4, 1, inner=pages)


def new_slot(image: Image) -> Map:
    """A slot with spare pages that points to the image."""
    # A map made only as the pattern of the slot would take as much memory as the tables.
    with _filled(image, capacity_for(image.pages)) as pages:
        slot = _slot_like(pages)
        _point(slot, pages)
    return slot


def activate(slot: Map, image: Image, capacity: int) -> None:
    """Put the image into a new frozen map and point the slot to it.

    Returns when no packet reads the former generation any more (the kernel waits for readers).
    """
    with _filled(image, capacity) as pages:
        _point(slot, pages)


def _filled(image: Image, capacity: int) -> Map:
    """A frozen map with the image."""
    pages = _pages(capacity)
    first = (memoryview(image.first),)
    _fill(pages, chain((first,), image.v4.each_page(), image.v6.each_page()))
    pages.freeze()
    return pages


class Generation:
    """The generation that a slot points to, read back from the kernel."""

    def __init__(self, pages: Map | None) -> None:
        self._pages = pages
        self._header: dict[str, t.Any] | None = None

    @classmethod
    def current(cls, slot: Map) -> Generation:
        for attempt in range(_ATTEMPTS):
            value = slot.lookup(_ZERO)
            if value is None:
                break
            try:
                return cls(Map.by_id(_U32.unpack(value)[0]))
            except KernelError as error:
                # A reader has no lock: the slot may point to another map since the lookup.
                if error.errno != errno.ENOENT or attempt == _ATTEMPTS - 1:
                    raise
        return cls(None)

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, *dummy: object) -> None:
        if self._pages is not None:
            self._pages.close()

    def pin(self, path: str) -> None:
        """Pin the generation, so that it stays when the slot points to another one."""
        if self._pages:
            self._pages.pin(path)

    def takes(self, image: Image) -> bool:
        """Whether the image fits into this generation's slot and is for the same program."""
        return self.header["bytecode"] == image.bytecode and fits(image.pages, self.capacity)

    def activate(self, slot: Map) -> None:
        """Point the slot to this generation."""
        if self._pages:
            _point(slot, self._pages)

    @property
    def number(self) -> int:
        """The kernel's number of the map; 0 if the slot is empty."""
        return self._pages.info.id if self._pages else 0

    @property
    def capacity(self) -> int:
        return 0 if self._pages is None else self._pages.info.max_entries

    @property
    def header(self) -> dict[str, t.Any]:
        """Fields of ``struct pw_header``; all zero if the slot is empty."""
        if self._header is None:
            self._header = abi.HEADER.unpack(self._page(0) if self._pages else bytes(abi.PAGE))
        return self._header

    @property
    def digest(self) -> str:
        return str(self.header["digest"].hex()) if self._pages else ""

    def check_digest(self, areas: Areas) -> str:
        """The digest computed from the map's contents, instead of the digest in its header.

        areas: the tables as they were read back.
        """
        first, header = self._page(0), self.header
        end = abi.POLICY_OFFSET + abi.POLICY_SLOTS * abi.POLICY.size
        return _digest(_digested(header), first[abi.POLICY_OFFSET : end], areas.v4, areas.v6)

    def policy(self, ifindex: int) -> dict[str, t.Any]:
        """Fields of the ``struct pw_policy`` that decides an interface's packets."""
        page, size = self._page(0), abi.POLICY.size
        slots = [(ifindex + i) % abi.POLICY_SLOTS for i in range(abi.POLICY_PROBES)]
        for slot in slots:
            found = abi.POLICY.unpack(page, abi.POLICY_OFFSET + slot * size)
            if found["ifindex"] == ifindex:
                return found
        return abi.POLICY.unpack(page, abi.POLICY_OFFSET)

    def areas(self, made: Image | None = None) -> Areas:
        """The tables, copied from the kernel; empty ones if their format is not this version's.

        made: an image that the kernel probably has. Its areas are returned where they have the same bytes,
        which takes less time than hashing a copy.
        """
        header = self.header
        ordered = header["v4_page"] <= header["v6_page"] <= header["pages"] <= self.capacity
        if not ordered or header["format"] != abi.FORMAT:
            return Areas(Area(), 0, Area(), Place(), b"", 0)
        v4 = range(header["v4_page"], header["v6_page"])
        v6 = range(header["v6_page"], header["pages"])
        return Areas(
            self._area(v4, made.v4 if made else Area()),
            header["v4_shift"],
            self._area(v6, made.v6 if made else Area()),
            Place(header["v6_hosts"], header["v6_buckets"]),
            header["lists"],
            header["next_expiry"],
            header["valid_from"],
        )

    def noted(self, areas: Areas, digests: tuple[bytes, bytes]) -> Areas:
        """The same tables with digests of their pages; without them if they do not give this generation's.

        areas: the tables as they were read back.
        """
        found = areas._replace(v4=areas.v4.noted(digests[0]), v6=areas.v6.noted(digests[1]))
        return found if self.check_digest(found) == self.digest else areas

    def _area(self, pages: range, made: Area) -> Area:
        if not pages or self._pages is None:
            return Area()
        with self._pages.mapped(pages.start * abi.PAGE, pages.stop * abi.PAGE) as data:
            each = [data[at : at + abi.PAGE] for at in range(0, len(data), abi.PAGE)]
            try:
                is_made = made.pages == len(pages) and all(map(made.has_page, count(), each))
                return made if is_made else Area.from_pages(each)
            finally:
                for page in each:
                    page.release()

    def _page(self, index: int) -> bytes:
        page = self._pages.lookup(_U32.pack(index)) if self._pages else None
        return page or bytes(abi.PAGE)


def _point(slot: Map, pages: Map) -> None:
    # The former map stays open until the slot points to the new one (CVE-2023-52447).
    with Generation.current(slot) as dummy:
        slot.update(_ZERO, _U32.pack(pages.fd))


def _pages(capacity: int) -> Map:
    # The kernel aligns only an array that may be mapped (F_MMAPABLE) to whole pages. In other arrays
    # each line of the tables would cross the border between two cache lines.
    return Map.create(ARRAY, "pages", 4, abi.PAGE, capacity, F_MMAPABLE)


def _fill(pages: Map, parts: t.Iterable[tuple[memoryview, ...]]) -> None:
    """Write the parts of each page into a new map. Few pages are mapped at once, to save memory."""
    found = iter(parts)
    for first in range(0, pages.info.max_entries, _WINDOW):
        window = list(islice(found, _WINDOW))
        if not window:
            return
        begin = first * abi.PAGE
        with pages.mapped(begin, begin + len(window) * abi.PAGE, writes=True) as memory:
            for number, page in enumerate(window):
                at = number * abi.PAGE
                for part in page:
                    memory[at : at + len(part)] = part
                    at += len(part)


def _digest(values: t.Mapping[str, t.Any], table: bytes, v4: Area, v6: Area) -> str:
    """Digest of all that decides a verdict: the header without `_UNDIGESTED`, policies, tables."""
    return _checked(abi.HEADER.pack(**values) + table, v4, v6)


def _checked(first: bytes, v4: Area, v6: Area) -> str:
    """The digest of these bytes and of both areas."""
    check = sha256()
    for part in (first, v4.digest, v6.digest):
        check.update(part)
    return str(check.hexdigest())


def _digested(header: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    return {name: value for name, value in header.items() if name not in _UNDIGESTED}


def _policy_table(records: Records, ifindexes: t.Mapping[str, int]) -> bytes:
    """All policy slots; `InvalidInput` if too many interface indexes need the same slots."""
    slots = {0: records.default}
    for name, ifindex in sorted(ifindexes.items()):
        if name not in records.own:
            continue
        places = [(ifindex + i) % abi.POLICY_SLOTS for i in range(abi.POLICY_PROBES)]
        free = [place for place in places if place not in slots]
        if not free:
            raise InvalidInput(
                f"no free policy slot for {name}, because other interface indexes collide with its index "
                f"{ifindex}; remove its own policy, so that it has the default policy"
            )
        fields = abi.POLICY.unpack(records.own[name])
        slots[free[0]] = abi.POLICY.pack(**{**fields, "ifindex": ifindex})
    empty = bytes(abi.POLICY.size)
    return b"".join(slots.get(i, empty) for i in range(abi.POLICY_SLOTS))
