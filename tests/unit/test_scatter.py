# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing elements to arbitrary indexes of an array."""

from __future__ import annotations

from array import array
from random import Random

import pytest

from packetwatch_core._tables.scatter import scatter


@pytest.mark.parametrize("code", ["H", "Q"])
@pytest.mark.parametrize("count", [1, 1023, 1025, 100_000])
def test_each_comes_to_its_place(code: str, count: int) -> None:
    random = Random(count)
    places = random.sample(range(count + 50), count)
    values = [random.randrange(1, 1 << 16) for _place in places]
    target = array(code, [0]) * (count + 50)
    scatter(target, array("Q", places), memoryview(array(code, values)))
    expected = dict(zip(places, values))
    assert target.tolist() == [expected.get(place, 0) for place in range(count + 50)]


def test_elements_may_be_several_of_the_target() -> None:
    target = array("Q", [0]) * 6
    scatter(target, array("Q", [2, 0]), memoryview(array("Q", [1, 2, 3, 4])))
    assert target.tolist() == [3, 4, 0, 0, 1, 2]


def test_nothing_changes_nothing() -> None:
    target = array("Q", [7])
    scatter(target, array("Q"), memoryview(array("Q")))
    assert target.tolist() == [7]


def test_a_place_outside_is_refused() -> None:
    target = array("Q", [7]) * 4
    with pytest.raises(IndexError, match="outside"):
        scatter(target, array("Q", [2]), memoryview(array("Q", [1, 2])))
    assert target.tolist() == [7] * 4
