# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layouts of C structs: where fields are, and readers of a few of them."""

from __future__ import annotations

import struct
import sys

import pytest

from packetwatch_core._kernel.abi import Layout

LAYOUT = Layout(
    "pw_test", ("a", "Q"), ("b", "I"), ("c", "B"), ("d", "3B"), ("e", "16s"), ("f", "H")
)
VALUES = {"a": 1, "b": 2, "c": 3, "d": (4, 5, 6), "e": bytes(range(16)), "f": 7}


def test_offsets_and_parts() -> None:
    data = LAYOUT.pack(**VALUES)
    assert [LAYOUT.offset(name) for name in VALUES] == [0, 8, 12, 13, 16, 32]
    assert data[LAYOUT.part("e")] == VALUES["e"]
    assert data[LAYOUT.part("f")] == struct.pack("=H", 7)
    with pytest.raises(ValueError, match="g"):
        LAYOUT.offset("g")


def test_a_reader_skips_what_is_not_wanted() -> None:
    reader = LAYOUT.reader("b", "d", "f")
    assert reader.size == LAYOUT.size
    assert reader.unpack(LAYOUT.pack(**VALUES)) == (2, 4, 5, 6, 7)


def test_a_reader_of_records_in_a_row() -> None:
    record = b"head" + LAYOUT.pack(**VALUES) + b"tail"
    reader = LAYOUT.reader("a", ("b", "Q"), before=4, size=len(record))
    number = int.from_bytes(struct.pack("=IBBBB", 2, 3, 4, 5, 6), sys.byteorder)
    assert list(reader.iter_unpack(record * 3)) == [(1, number)] * 3


@pytest.mark.parametrize("wanted", [("b", "a"), ("a", "a"), (("a", "16s"), "b")])
def test_fields_out_of_order_are_refused(wanted: tuple[str, ...]) -> None:
    with pytest.raises(struct.error):
        LAYOUT.reader(*wanted)


def test_a_size_that_is_too_small_is_refused() -> None:
    with pytest.raises(struct.error):
        LAYOUT.reader("f", size=8)
