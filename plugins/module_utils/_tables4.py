# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The IPv4 area of docs/tables.md: a top table of buckets, each with a short run of starts."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import pairwise
from operator import sub

from ._errors import TooLarge

PAGE_WORDS = 1 << 14
"""32-bit words in a page of 64 KiB."""
MIN_WIDTH = 8
MAX_WIDTH = 20

_ESCAPE = 63
_MAX_STARTS = 8191
_MAX_WORDS = 1 << 24


def build4(words: list[int]) -> tuple[array[int], int]:
    """Return the area (unpadded) and the shift of the top table for start words, as _ranges has them.

    Raises TooLarge when offsets do not fit into their field of 24 bits.
    """
    width = min(max((len(words) - 1).bit_length(), MIN_WIDTH), MAX_WIDTH)
    cuts = _cuts(words, 32 - width)
    while width < MAX_WIDTH and max(map(sub, cuts[1:], cuts)) > _MAX_STARTS:
        width += 1
        cuts = _cuts(words, 32 - width)
    shift = 32 - width
    area = array("I", bytes(4 << width))
    low_bits = (1 << shift) - 1 << 4 | 15
    starts = array("I", [word & low_bits for word in words])
    _place_runs(area, words, starts, cuts, shift)
    if len(area) > _MAX_WORDS:
        raise TooLarge(
            f"the IPv4 lists need {len(area) >> 8} KiB of tables, more than the {_MAX_WORDS >> 8} "
            f"KiB that one generation can address: use shorter lists or larger prefixes"
        )
    return area, shift


def _cuts(words: list[int], shift: int) -> list[int]:
    """Return where in the words a bucket begins, and at last their count."""
    bucket_shift = shift + 4
    cuts = [
        index
        for index, (former, word) in enumerate(pairwise(words), 1)
        if (former ^ word) >> bucket_shift
    ]
    return [0, *cuts, len(words)]


def _place_runs(
    area: array[int], words: list[int], starts: array[int], cuts: list[int], shift: int
) -> None:
    """Write the top table and append the runs.

    Neighbouring runs are copied together: up to the end of a page, or to where something stands
    between them.
    """
    bucket_shift = shift + 4
    low_mask = (1 << shift) - 1 << 4
    buckets = 1 << (32 - shift)
    position = buckets  # where the next run goes
    page_end = position + -position % PAGE_WORDS
    copied = 0  # starts[copied:begin] belong right before that place
    state = filled = 0  # the verdict that holds, and the first bucket whose word is not written
    for run, end in pairwise(cuts):
        begin = run
        first = words[begin]
        bucket = first >> bucket_shift
        if state and filled < bucket:
            area[filled:bucket] = array("I", (state,)) * (bucket - filled)
        filled = bucket + 1
        if not first & low_mask and first >> 2 & 3 == first & 3:
            # The top word says already what holds from the bucket's first address on.
            state = first & 3
            area.extend(starts[copied:begin])
            begin += 1
            copied = begin
            if begin == end:
                area[bucket] = state
                continue
        shown = count = end - begin
        if position + count > page_end or count >= _ESCAPE:
            area.extend(starts[copied:begin])
            copied = begin
            if position + count + (count >= _ESCAPE) > page_end:
                area.frombytes(bytes(4 * (page_end - position)))
                position = page_end
                page_end += PAGE_WORDS
            if count >= _ESCAPE:
                area.append(count)
                shown = _ESCAPE
        area[bucket] = position << 8 | shown << 2 | state
        position += count + (shown == _ESCAPE)
        state = words[end - 1] >> 2 & 3
    area.extend(starts[copied:])
    if state:
        area[filled:buckets] = array("I", (state,)) * (buckets - filled)


def lookup4(words: memoryview, shift: int, address: int) -> int:
    """Return an address's verdict as the XDP program finds it; words are the area's, of 32 bits."""
    top = words[address >> shift]
    low = address & ((1 << shift) - 1)
    count = top >> 2 & 63
    begin = top >> 8
    if count == _ESCAPE:
        count = words[begin]
        begin += 1
    end = begin + count
    first = begin
    while begin < end:
        middle = (begin + end) // 2
        if words[middle] >> 4 <= low:
            begin = middle + 1
        else:
            end = middle
    if begin == first:
        return top & 3
    word = words[begin - 1]
    return word & 3 if word >> 4 == low else word >> 2 & 3


def walk4(words: memoryview, shift: int) -> Iterator[int]:
    """Yield the area's start words with whole addresses, as start_words gives them."""
    state = 0
    for bucket, top in enumerate(words[: 1 << (32 - shift)]):
        if top == state:
            continue
        base = bucket << (shift + 4)
        count = top >> 2 & 63
        begin = top >> 8
        if count == _ESCAPE:
            count = words[begin]
            begin += 1
        if top & 3 != state and not (count and words[begin] < 16):
            yield base | (top & 3) * 5
        state = top & 3
        if count == 1:
            word = words[begin]
            yield base | word
            state = word >> 2 & 3
        elif count:
            for word in words[begin : begin + count]:
                yield base | word
            state = word >> 2 & 3
