# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules and dashboard ask only for metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from unit.catalogue import CATALOGUE, FLEET_CATALOGUE

from packetwatch_agent import metrics
from packetwatch_agent.metrics import Rows

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles/packetwatch/files"
FROM_PROMETHEUS = {"instance", "job"}
ROW = re.compile(r"^\| `(packetwatch_[a-z_]+)` \|(?: (?:gauge|counter) \|)?([^|]*)\|", re.M)
SELECTOR = re.compile(r"(packetwatch_[a-z_]+)(?:\{([^}]*)\})?")


class Kit(NamedTuple):
    """A dashboard and rules, the metrics that must be on it, and the pages about all metrics that may be."""

    board: str
    rules: str
    shown: Rows
    known: Rows
    pages: tuple[str, ...]

    def dashboard(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((FILES / "grafana" / self.board).read_text())
        return found

    def dashboard_queries(self) -> Iterator[str]:
        for panel in self.dashboard()["panels"]:
            for target in panel.get("targets", ()):
                yield target["expr"]
        for annotation in self.dashboard()["annotations"]["list"]:
            yield annotation["expr"]

    def alerts(self) -> list[dict[str, Any]]:
        groups = yaml.safe_load((FILES / "prometheus" / self.rules).read_text())["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def queries(self) -> list[str]:
        return [*self.dashboard_queries(), *(rule["expr"] for rule in self.alerts())]

    def labels(self) -> dict[str, set[str]]:
        """The labels of each metric in the pages: in a column of their own, or in the text about it."""
        rows = [row for page in self.pages for row in ROW.findall((ROOT / page).read_text())]
        return {name: set(re.findall(r"`([a-z_]+)`", text)) for name, text in rows}


KITS = {
    "host": Kit(
        "packetwatch.json", "packetwatch.rules.yml", CATALOGUE, CATALOGUE, ("docs/metrics.md",)
    ),
    "fleet": Kit(
        "packetwatch-fleet.json",
        "packetwatch-fleet.rules.yml",
        FLEET_CATALOGUE,
        CATALOGUE | FLEET_CATALOGUE,
        ("docs/metrics.md", "docs/fleet-host.md", "docs/fleet-metrics.md"),
    ),
}
QUERIES = [(name, query) for name, kit in KITS.items() for query in kit.queries()]


@pytest.mark.parametrize(("kit", "query"), QUERIES)
def test_metrics_and_labels_exist(kit: str, query: str) -> None:
    documented = KITS[kit].labels()
    found = SELECTOR.findall(query)
    assert found
    for name, selector in found:
        assert name in KITS[kit].known
        names = set(re.findall(r"([a-z_]+)=", selector))
        assert names <= documented[name] | FROM_PROMETHEUS
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", query)
    known = FROM_PROMETHEUS.union(*(documented[name] for name, dummy in found))
    assert {name.strip() for names in grouped for name in names.split(",")} <= known


@pytest.mark.parametrize("kit", KITS.values(), ids=KITS)
def test_every_metric_is_on_the_dashboard(kit: Kit) -> None:
    shown = {name for query in kit.dashboard_queries() for name, dummy in SELECTOR.findall(query)}
    assert set(kit.shown) <= shown <= set(kit.known)


def test_the_legend_uses_labels_that_the_query_keeps() -> None:
    for kit in KITS.values():
        for panel in kit.dashboard()["panels"]:
            for target in panel.get("targets", ()):
                used = set(re.findall(r"{{ *([a-z_]+) *}}", target["legendFormat"]))
                grouped = re.search(r"^[a-z]+ by \(([^)]*)\)", target["expr"])
                if grouped:
                    assert used <= {name.strip() for name in grouped[1].split(",")}, target


def test_rates_are_taken_of_counters_only() -> None:
    for name, query in QUERIES:
        for metric in re.findall(r"\b(?:rate|increase)\((packetwatch_[a-z_]+)", query):
            assert KITS[name].known[metric][0] == metrics.COUNTER


@pytest.mark.parametrize("kit", KITS.values(), ids=KITS)
def test_panels_lie_side_by_side(kit: Kit) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in kit.dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
    numbers = [panel["id"] for panel in kit.dashboard()["panels"]]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("kit", KITS.values(), ids=KITS)
def test_rules_say_what_to_do(kit: Kit) -> None:
    for rule in kit.alerts():
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert re.search(r"labels\.(instance|enforcer)", rule["annotations"]["summary"])
        assert rule["annotations"]["description"].endswith(
            (".", "-b -u 'packetwatch-xdp@*' on the host.")
        )
