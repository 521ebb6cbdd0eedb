# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bench's conclusions from its figures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest
from bench import addresses, fleet_rows
from bench.figures import Row, Value, compare, half_interquartile_range
from bench.plot import svg
from bench.report import document, figure, table
from bench.rounds import interleaved
from bench.rows import ROWS

RAW = {
    "ours": [20.0, 30.0, 20.0, 22.0],
    "floor": [10.0, 20.0, 10.0, 10.0],
    "theirs": [50.0, 60.0, 35.0, 50.0],
}
NET = Value("ours", "floor")
NET_OF_THEM = Value("theirs", "floor")


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    outcome = compare(Row("row", NET, NET_OF_THEM, 0.3), RAW)
    # 10:40, 10:40, 10:25, 12:40
    assert outcome.ratio == pytest.approx(0.275)
    assert outcome.n == 4
    assert (outcome.ours, outcome.reference) == (10, 40)


def test_the_reference_may_be_a_number() -> None:
    assert compare(Row("row", NET, 350.0, 1.0), RAW).ratio == pytest.approx(10 / 350)


def test_spread_is_half_of_what_holds_the_middle_half() -> None:
    assert half_interquartile_range([1, 2, 3, 4, 5]) == 1
    assert half_interquartile_range([7]) == 0


@pytest.mark.parametrize(
    ("sense", "goal", "verdict", "reached"),
    [
        ("max", 0.3, "ok", True),
        ("max", 0.26, "within spread", True),
        ("max", 0.2, "MISSED", False),
        ("min", 0.2, "ok", True),
        ("min", 0.29, "within spread", True),
        ("min", 0.5, "MISSED", False),
        ("max", None, "stated", True),
    ],
)
def test_verdicts(sense: str, goal: float | None, verdict: str, reached: bool) -> None:
    outcome = compare(Row("row", NET, NET_OF_THEM, goal, sense), RAW)  # type: ignore[arg-type]
    assert 0.015 < outcome.spread < 0.06
    assert (outcome.verdict, outcome.reached) == (verdict, reached)


def test_every_round_runs_every_case_once() -> None:
    seen: list[str] = []

    def case(name: str) -> float:
        seen.append(name)
        return float(len(seen))

    found = interleaved({name: lambda name=name: case(name) for name in "abc"}, 5)  # type: ignore[misc]
    assert {name: len(values) for name, values in found.items()} == {"a": 5, "b": 5, "c": 5}
    rounds = [seen[at : at + 3] for at in range(0, 15, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1


def test_rows_have_names_of_their_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert all(row.cases() for row in ROWS)


def test_reports_say_what_came_out() -> None:
    outcomes = [
        compare(Row("good <", NET, NET_OF_THEM, 0.3), RAW),
        compare(Row("bad", NET, NET_OF_THEM, 0.9, "min", "packets/s"), RAW),
    ]
    lines = table(outcomes).splitlines()
    assert lines[1].endswith("ok") and lines[2].endswith("MISSED")
    rows = json.loads(document(outcomes, RAW, {"kernel": "6.1"}))["rows"]
    assert [(row["name"], row["sense"], row["n"]) for row in rows] == [
        ("good <", "max", 4),
        ("bad", "min", 4),
    ]
    picture = ET.fromstring(svg(outcomes, "title"))
    assert len(picture.findall("{http://www.w3.org/2000/svg}circle")) == 2


def test_what_cannot_be_measured_is_a_row_with_its_reason() -> None:
    outcomes = [compare(Row("one", NET, NET_OF_THEM, None), RAW)]
    lines = table(outcomes, {"a longer name": "no such kernel"}).splitlines()
    assert lines[2] == "a longer name  not measured: no such kernel"
    assert lines[1].startswith(f"one{' ' * 12}")


def test_figures_are_short() -> None:
    assert figure(5_300_000, "packets/s") == "5.3 Mpackets/s"
    assert figure(0.0123, "s") == "0.0123 s"


def test_sources_are_distinct_and_where_they_should_be() -> None:
    numbers = range(20_000)
    assert len({addresses.address4(number) for number in numbers}) == 20_000
    uniform = [addresses.address6(number, addresses.IPV6) for number in numbers]
    assert {address >> 125 for address in uniform} == {1}
    clustered = [addresses.address6(number, addresses.IPV6_CLUSTERED) for number in numbers]
    assert {address >> 112 for address in clustered} == set(addresses.TOPS)
    assert 4500 < len({address >> 96 for address in clustered}) <= addresses.CLUSTERS


def test_rows_of_the_fleet_state_a_figure_its_goal_and_how_many_it_is_from() -> None:
    found = fleet_rows.rows(fleet_rows.FULL)
    assert len({row.name for row in found}) == len(found)
    hundred = fleet_rows.Measured([float(number) for number in range(1, 101)], 0.5)
    slow = fleet_rows.Measured([0.5, 5.2, 0.6], 1.0)
    measured = dict.fromkeys((row.case for row in found), hundred) | {fleet_rows.LISTING: slow}
    figures = [fleet_rows.value_of(row, measured[row.case]) for row in found]
    assert figures[:5] == [50, 99, 100, 5.2, 99]
    lines = fleet_rows.table(found, measured).splitlines()
    assert lines[1].endswith("50 ms  <= 80 ms     100   50%  ok")
    assert [line.rpartition(" ")[2] for line in lines[1:6]] == [
        "ok",
        "ok",
        "MISSED",
        "MISSED",
        "ok",
    ]
    rows = json.loads(fleet_rows.document(found, measured, {"hosts": 50}))["rows"]
    assert (rows[3]["figure"], rows[3]["goal"], rows[3]["n"]) == (5.2, 5, 3)
    assert rows[3]["load"] == 1.0 and rows[3]["verdict"] == "MISSED"
