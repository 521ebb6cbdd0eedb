# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""One family's part of a generation: lines, and a filter with 64 bits for each line (docs/tables.md)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

from .._base.digest import sha256_for
from .._base.errors import TooLarge
from .._kernel import abi

PAGE_LINES = 1 << 10
"""Lines in a page."""
WORDS = 16
"""Words of 32 bits in a line."""
MAX_LINES = 1 << 27
"""Lines of an area that the format can number."""
TRIES = 32
"""Buckets that may hold a host: its home, and those after it for as long as all before are full."""

_LINES_SIZE = 4 * WORDS * PAGE_LINES
_FILTER_SIZE = 8 * PAGE_LINES
_DIGEST_SIZE = 32


class _Bytes(NamedTuple):
    lines: bytes | bytearray = b""
    filter: bytes | bytearray = b""


class Area(_Bytes):
    """Lines and filter, as whole pages; both are empty if no address of the family is listed.

    Each page is hashed at most once. An area that was made from another one takes over the digests of the
    pages that did not change.
    """

    @classmethod
    def of(
        cls, lines: Iterable[array[int] | memoryview], filters: Iterable[array[int] | memoryview]
    ) -> Area:
        """Return the area of these parts: lines (32-bit words), and 64 bits of filter for each first line."""
        found, marks = (
            [memoryview(part).cast("B") for part in parts] for parts in (lines, filters)
        )
        size, marked = (sum(map(len, parts)) for parts in (found, marks))
        pages = -(-size // _LINES_SIZE)
        found.append(memoryview(bytes(pages * _LINES_SIZE - size)))
        marks.append(memoryview(bytes(pages * _FILTER_SIZE - marked)))
        return cls(b"".join(found), b"".join(marks))

    @classmethod
    def from_pages(cls, pages: Iterable[bytes | memoryview]) -> Area:
        """Return the area that these pages hold: the inverse of `each_page`."""
        found = [memoryview(page) for page in pages]
        lines = [page[:_LINES_SIZE] for page in found]
        filters = [page[_LINES_SIZE:] for page in found]
        try:
            return cls(b"".join(lines), b"".join(filters))
        finally:
            # The caller cannot unmap pages of a map that are still in use.
            for view in (*lines, *filters, *found):
                view.release()

    @property
    def pages(self) -> int:
        """The number of pages."""
        return len(self.lines) // _LINES_SIZE

    def each_page(self) -> Iterator[tuple[memoryview, memoryview]]:
        """Yield the pages as the XDP program reads them: lines, then their filter."""
        lines, filters = memoryview(self.lines), memoryview(self.filter)
        for number in range(self.pages):
            yield (
                lines[number * _LINES_SIZE : (number + 1) * _LINES_SIZE],
                filters[number * _FILTER_SIZE : (number + 1) * _FILTER_SIZE],
            )

    @cached_property
    def digests(self) -> bytes:
        """The SHA-256 of each page, one after the other."""
        return b"".join(map(self._digest_of, self.each_page()))

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the digests of all pages."""
        check = sha256_for(len(self.digests))
        check.update(self.digests)
        return bytes(check.digest())

    def _digest_of(self, page: tuple[memoryview, memoryview]) -> bytes:
        check = sha256_for(len(self.lines))
        for part in page:
            check.update(part)
        return bytes(check.digest())

    def has_page(self, number: int, page: memoryview) -> bool:
        """Return whether the page of this number has these bytes, without copying them."""
        with page[:_LINES_SIZE] as lines, page[_LINES_SIZE:] as filters:
            return self._has(number, lines, filters)

    def _has(self, number: int, lines: memoryview, filters: memoryview) -> bool:
        return _is_at(self.lines, number * _LINES_SIZE, lines) and _is_at(
            self.filter, number * _FILTER_SIZE, filters
        )

    def made_from(self, former: Area) -> Area:
        """Return this area with the digests of the pages that a former area has too; hash only the others."""
        if self is former:
            return self
        digests = []
        for number, page in enumerate(self.each_page()):
            if number < former.pages and former._has(number, *page):
                digests.append(former.digests[number * _DIGEST_SIZE : (number + 1) * _DIGEST_SIZE])
            else:
                digests.append(self._digest_of(page))
        self.digests = b"".join(digests)
        return self

    def noted(self, digests: bytes) -> Area:
        """Return the same area with digests that are known already; the caller must check `digest`."""
        found = Area(*self)
        found.digests = digests
        return found

    @property
    def words(self) -> memoryview:
        """The lines, as words of 32 bits."""
        return memoryview(self.lines).cast("I")


class Place(NamedTuple):
    """Where in an area the hosts are: the line of the first bucket, and the number of homes."""

    line: int = 0
    homes: int = 0

    @property
    def is_all(self) -> bool:
        """Whether the area has no tree, only hosts."""
        return self.homes > 0 and not self.line

    @property
    def buckets(self) -> int:
        """The number of buckets, including those after the last home."""
        return self.homes + TRIES - 1 if self.homes else 0


def _is_at(data: bytes | bytearray | memoryview, begin: int, part: memoryview) -> bool:
    """Whether the part is in the data, from `begin` on. Comparing memoryviews takes twenty times as long."""
    if isinstance(data, memoryview):
        return bytes(data[begin : begin + len(part)]) == bytes(part)
    return data.startswith(part, begin)


def check_lines(count: int) -> None:
    """Raise TooLarge if a family's lists need more lines than the format can number."""
    if count > MAX_LINES:
        raise TooLarge(
            f"the lists need more than {MAX_LINES // PAGE_LINES * abi.PAGE >> 20} MiB of tables: "
            "use shorter lists or larger prefixes"
        )
