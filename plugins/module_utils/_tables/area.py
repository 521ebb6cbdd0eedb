# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""One family's part of a generation: lines, and a filter with 64 bits for each line (docs/tables.md)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

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


class Area(NamedTuple):
    """Lines and filter, as whole pages; both are empty if no address of the family is listed."""

    lines: bytes = b""
    filter: bytes = b""

    @classmethod
    def of(cls, lines: array[int], filters: array[int]) -> Area:
        """Return the area of these lines (32-bit words) and filters (64 bits for each of the first lines).

        Both arrays are padded in place with zeros to whole pages.
        """
        lines.frombytes(bytes(-len(lines) * lines.itemsize % _LINES_SIZE))
        pages = len(lines) * lines.itemsize // _LINES_SIZE
        filters.frombytes(bytes(pages * _FILTER_SIZE - len(filters) * filters.itemsize))
        return cls(lines.tobytes(), filters.tobytes())

    @classmethod
    def from_pages(cls, pages: Iterable[bytes]) -> Area:
        """Return the area that these pages hold: the inverse of `each_page`."""
        found = [memoryview(page) for page in pages]
        return cls(
            b"".join([page[:_LINES_SIZE] for page in found]),
            b"".join([page[_LINES_SIZE:] for page in found]),
        )

    @property
    def pages(self) -> int:
        """The number of pages."""
        return len(self.lines) // _LINES_SIZE

    def each_page(self) -> Iterator[bytes]:
        """Yield the pages as the XDP program reads them: lines, then their filter."""
        for number in range(self.pages):
            parts = (
                self.lines[number * _LINES_SIZE : (number + 1) * _LINES_SIZE],
                self.filter[number * _FILTER_SIZE : (number + 1) * _FILTER_SIZE],
            )
            yield b"".join(parts)

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


def check_lines(count: int) -> None:
    """Raise TooLarge if a family's lists need more lines than the format can number."""
    if count > MAX_LINES:
        raise TooLarge(
            f"the lists need more than {MAX_LINES // PAGE_LINES * abi.PAGE >> 20} MiB of tables: "
            "use shorter lists or larger prefixes"
        )
