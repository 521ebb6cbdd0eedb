# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The IPv4 area of docs/tables.md: a top table, whose lines hold what is left of the addresses."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from ._lanes import as_number, low_halves, repeated
from ._lines import LEAST_TOP, Lines, table_width


def build4(words: Sequence[int]) -> tuple[array[int], int]:
    """Return the area (unpadded) and the top table's shift for start words, as _ranges has them."""
    width, cuts = table_width(words, 0, len(words), 32, LEAST_TOP)
    bits = 32 - width
    every = array("Q", words)
    count = len(every)
    keys = low_halves(as_number(every) & repeated((1 << bits + 4) - 1, 8, count), count)
    buckets = [words[cut] >> bits + 4 for cut in cuts[:-1]]
    lines = Lines()
    lines.table(keys, cuts, buckets, width, bits)
    return lines.area, bits
