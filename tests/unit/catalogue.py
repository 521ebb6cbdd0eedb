# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All metrics that the parts of the agent, and those of a fleet's processes, declare."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from packetwatch_bus.__main__ import Counter

import packetwatch_agent
import packetwatch_enforcer
import packetwatch_fleet.host
from packetwatch_agent.metrics import COUNTER, GAUGE, Rows
from packetwatch_agent.part import Part
from packetwatch_fleet.bus.publisher import Publisher

API = Path(__file__).resolve().parents[2] / "roles/fleet_node/files/api/packetwatch_api"


def metrics_of(package: ModuleType) -> Rows:
    """The metrics that all modules of a package declare; other packages have parts of their own."""
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    found: Rows = {}
    for part in Part.__subclasses__():
        if part.__module__.startswith(f"{package.__name__}."):
            found |= part.METRICS
    return found


def api_metrics() -> Rows:
    """Those of the API. It is not imported: Flask is on nodes only."""
    tree = ast.parse((API / "metrics.py").read_text())
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "METRICS"
    )
    assert isinstance(table, ast.Dict)
    kinds = {"COUNTER": COUNTER, "GAUGE": GAUGE}
    rows: Rows = {}
    for name, row in zip(table.keys, table.values, strict=True):
        assert isinstance(name, ast.Constant) and isinstance(row, ast.Tuple)
        kind, text = row.elts
        rows |= {str(name.value): (kinds[ast.unparse(kind)], ast.literal_eval(text))}
    return rows


CATALOGUE: Rows = metrics_of(packetwatch_agent)
FLEET_CATALOGUE: Rows = (
    metrics_of(packetwatch_fleet.host)
    | metrics_of(packetwatch_enforcer)
    # Other modules of the bus need a library that only hosts with a bus have.
    | Publisher.METRICS
    | Counter.METRICS
    | api_metrics()
)
