# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Interleaving: every round runs every case once, in another order."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping

Case = Callable[[], float]


def interleaved(cases: Mapping[str, Case], rounds: int, what: str = "") -> dict[str, list[float]]:
    """Return each case's figures, one for each round."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    choice = random.Random(rounds)
    started = time.monotonic()
    for number in range(rounds):
        choice.shuffle(order)
        for name in order:
            found[name].append(cases[name]())
        if what and sys.stderr.isatty():
            print(f"\r{what}: round {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
    if what:
        seconds = time.monotonic() - started
        print(f"\r{what}: {rounds} rounds, {seconds:.0f} s", file=sys.stderr, flush=True)
    return found
