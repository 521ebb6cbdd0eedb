# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare sets of addresses that are lists or arrays: in Python no list equals an array."""

from __future__ import annotations

from packetwatch_core._tables.ranges import Ranges, Spans


def as_lists(spans: Spans) -> Spans:
    return Spans(list(spans.starts), list(spans.ends))


def all_as_lists(ranges: Ranges) -> Ranges:
    return Ranges(as_lists(ranges.allow), as_lists(ranges.deny))
