# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results as a picture: SVG without a library, which would be larger than the bench."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from bench.figures import Outcome

_NAMES, _WIDTH, _LINE, _TOP = 360, 460, 22, 46
_LOW, _HIGH = -2.0, 1.0  # decades left and right of the goal
_COLOURS = {"ok": "#2a7f4f", "within spread": "#b8860b", "MISSED": "#b22222"}


def _place(value: float) -> float:
    """Return the position of a quotient of ratio and goal, on a logarithmic scale."""
    decades = min(max(math.log10(max(value, 1e-9)), _LOW), _HIGH)
    return _NAMES + (decades - _LOW) / (_HIGH - _LOW) * _WIDTH


def _better(outcome: Outcome, ratio: float) -> float:
    """Return the distance from the goal: below 1 is better, for both senses of a row."""
    goal = outcome.row.goal or 1.0
    return ratio / goal if outcome.row.sense == "max" else goal / max(ratio, 1e-9)


def svg(outcomes: Sequence[Outcome], title: str) -> str:
    """Draw each row's ratio with its spread, relative to its goal: left of the line it is reached."""
    shown = [outcome for outcome in outcomes if outcome.row.goal is not None]
    height = _TOP + _LINE * len(shown) + 30
    total = _NAMES + _WIDTH + 90
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height}" '
        f'font-family="sans-serif" font-size="12">',
        f'<rect width="{total}" height="{height}" fill="white"/>',
        f'<text x="8" y="18" font-size="14">{escape(title)}</text>',
    ]
    for decade in range(int(_LOW), int(_HIGH) + 1):
        x = _place(10.0**decade)
        colour = "#444" if decade == 0 else "#ddd"
        label = "goal" if decade == 0 else f"{10.0**decade:g} x"
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="{_TOP - 6}" y2="{height - 24}" stroke="{colour}"/>'
        )
        parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle">{label}</text>')
    for number, outcome in enumerate(shown):
        parts += _row(outcome, _TOP + _LINE * number + 8)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row(outcome: Outcome, y: int) -> list[str]:
    colour = _COLOURS[outcome.verdict]
    ends = sorted(
        _place(_better(outcome, max(outcome.ratio + side * outcome.spread, 1e-9)))
        for side in (-1, 1)
    )
    x = _place(_better(outcome, outcome.ratio))
    return [
        f'<text x="{_NAMES - 10}" y="{y + 4}" text-anchor="end">{escape(outcome.row.name)}</text>',
        f'<line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{y}" y2="{y}" stroke="{colour}" '
        'stroke-width="3" opacity="0.4"/>',
        f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{colour}"/>',
        f'<text x="{_NAMES + _WIDTH + 10}" y="{y + 4}" fill="{colour}">{outcome.ratio:.3g}</text>',
    ]
