# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules and dashboard ask only for metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from unit.catalogue import CATALOGUE

from packetwatch_agent import metrics

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles/packetwatch/files"
FROM_PROMETHEUS = {"instance", "job"}
SELECTOR = re.compile(r"(packetwatch_[a-z_]+)(?:\{([^}]*)\})?")


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FILES / "grafana/packetwatch.json").read_text())
    return found


def dashboard_queries() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for annotation in dashboard()["annotations"]["list"]:
        yield annotation["expr"]


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((FILES / "prometheus/packetwatch.rules.yml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


QUERIES = [*dashboard_queries(), *(rule["expr"] for rule in rules())]


def labels_in_documentation() -> dict[str, set[str]]:
    text = (ROOT / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `(packetwatch_[a-z_]+)` \| [a-z]+ \|([^|]*)\|", text, re.M)
    return {name: set(re.findall(r"`([a-z_]+)`", labels)) for name, labels in rows}


@pytest.mark.parametrize("query", QUERIES)
def test_metrics_and_labels_exist(query: str) -> None:
    documented = labels_in_documentation()
    found = SELECTOR.findall(query)
    assert found
    for name, selector in found:
        assert name in CATALOGUE
        names = set(re.findall(r"([a-z_]+)=", selector))
        assert names <= documented[name] | FROM_PROMETHEUS
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", query)
    known = FROM_PROMETHEUS.union(*(documented[name] for name, dummy in found))
    assert {name.strip() for names in grouped for name in names.split(",")} <= known


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for query in dashboard_queries() for name, dummy in SELECTOR.findall(query)}
    assert shown == set(CATALOGUE)


def test_rates_are_taken_of_counters_only() -> None:
    for query in QUERIES:
        for name in re.findall(r"\b(?:rate|increase)\((packetwatch_[a-z_]+)", query):
            assert CATALOGUE[name][0] == metrics.COUNTER


def test_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
    numbers = [panel["id"] for panel in dashboard()["panels"]]
    assert len(numbers) == len(set(numbers))


def test_rules_say_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert "instance" in rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(
            (".", "-b -u 'packetwatch-xdp@*' on the host.")
        )
