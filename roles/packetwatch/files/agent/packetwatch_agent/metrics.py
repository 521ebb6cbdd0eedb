# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics as text in Prometheus' exposition format.

Each part of the agent declares its metrics beside the code that counts. docs/metrics.md describes
them for readers; a test compares both.
"""

from __future__ import annotations

import typing as t

Labels = dict[str, str]
Sample = tuple[Labels, float]
Values = dict[str, list[Sample]]
Row = tuple[str, str]
"""The type of a metric and its help text."""
Rows = dict[str, Row]

COUNTER, GAUGE = "counter", "gauge"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def by_label(label: str, numbers: t.Mapping[str, float]) -> list[Sample]:
    """Samples that differ in one label."""
    return [({label: value}, number) for value, number in numbers.items()]


def render(rows: Rows, values: Values) -> str:
    """The text that Prometheus reads; metrics without samples are left out."""
    lines = []
    for name, (kind, help_text) in rows.items():
        samples = values.get(name)
        if samples:
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(text)}"' for name, text in labels.items()) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
