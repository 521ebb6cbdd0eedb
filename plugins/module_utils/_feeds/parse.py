# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Published feeds, in any of several formats → the text of a drop-in.

One wrong line makes the whole feed invalid, unless the operator tolerates some: no part of an error page may
become a list.
"""

from __future__ import annotations

import typing as t

from .._base.address import Prefix, format_prefix
from .._base.digest import digest_text
from .._base.errors import InvalidInput
from .._tables.ranges import Blocks, Prefixes, nets_of, split_off
from . import lines, records
from .lines import Format, Wrong
from .spare import KEEP_BOGONS, LeftOut, name_blocks
from .special import special_spans
from .width import Bounds, check_width

__all__ = ["FORMATS", "JSON", "Copy", "Format", "Rules", "read_feed"]

JSON = "json"
FORMATS = (*lines.FORMATS, JSON)


class Rules(t.NamedTuple):
    """What a feed may hold.

    bogons: whether entries in special-purpose space are kept. max_bad: how many wrong lines are skipped.
    bounds: how much it may cover; None: anything.
    """

    bogons: bool = False
    max_bad: int = 0
    bounds: Bounds | None = None


class Copy(t.NamedTuple):
    """A copy of a feed, as it is sent to hosts."""

    text: str
    """The drop-in: canonical, sorted, without duplicates."""
    digest: str
    """SHA-256 of the text."""
    entries: int
    """Number of prefixes; 0 if the publisher says that the list is empty."""
    left_out: LeftOut
    bad: LeftOut
    """Wrong lines that were skipped."""
    published: float | None
    """When it was published, by the feed itself, in Unix seconds; None if it does not say so."""


def read_feed(data: bytes, kind: Format, name: str, rules: Rules | None = None) -> Copy:
    """Return the copy of a published feed; raises InvalidInput, which names the feed and the line.

    data: the published file, unpacked.
    """
    rules = rules or Rules()
    text = data.decode("utf-8-sig", "replace")
    wrong = Wrong(f"feed {name}", rules.max_bad)
    published = None
    if kind.name == JSON:
        found, published = records.read_records(text, kind.column, wrong)
    else:
        found = lines.read_lines(text, kind, wrong)
    left_out = LeftOut(0, []) if rules.bogons else _leave_out_special(found)
    if rules.bounds:
        check_width(found, rules.bounds, wrong.where)
    rows = [*_rows(found.v4, 4, 32), *_rows(found.v6, 6, 128)]
    _check_rows(len(rows), left_out, wrong)
    text = "".join(f"{row}\n" for row in rows)
    text = (KEEP_BOGONS if rules.bogons else "") + text
    bad = LeftOut(wrong.total, wrong.examples)
    return Copy(text, digest_text(text), len(rows), left_out, bad, published)


def _check_rows(rows: int, left_out: LeftOut, wrong: Wrong) -> None:
    """Refuse a feed without entries, unless the publisher says so, and one with more wrong lines than right."""
    if wrong.total > rows + left_out.total:
        raise InvalidInput(
            f"{wrong.where} has {wrong.total} wrong lines and {rows + left_out.total} right ones: check its "
            f"address and format; the first one is {wrong.examples[0]}"
        )
    if left_out.total and not rows:
        raise InvalidInput(
            f"{wrong.where} has {left_out.total} entries, all of them in special-purpose address space: check "
            "its address and format, or remove the feed"
        )


def _leave_out_special(found: Prefixes) -> LeftOut:
    found.v4, out4 = split_off(found.v4, special_spans(4))
    found.v6, out6 = split_off(found.v6, special_spans(6))
    return name_blocks(out4, out6)


def _rows(blocks: Blocks, family: int, bits: int) -> list[str]:
    """Return all prefixes of a family as text, sorted, without duplicates."""
    numbers = {host << 8 | bits for host in blocks.hosts}
    for start, end in nets_of(blocks):
        numbers.add(start << 8 | (bits - (end - start).bit_length()))
    return [format_prefix(Prefix(family, number >> 8, number & 0xFF)) for number in sorted(numbers)]
