# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Paths of the lab's runs, images and registry."""

from __future__ import annotations

import os
from pathlib import Path


def _build() -> Path:
    """The build folder, also if this file runs from the copy that `make` puts into it."""
    here = Path(__file__).resolve()
    for parent in here.parents:
        if parent.name == "ansible_collections":
            return parent.parent
    return here.parents[2] / ".build"


_LAB = _build() / "lab"

RUNS = _LAB / "runs"
IMAGES = Path(os.environ.get("PACKETWATCH_LAB_CACHE") or _LAB / "images")

# One directory per running lab, named by its id, so that a lab is found after its creator was killed. The
# path is also short enough for Unix sockets, which a run directory's path may not be.
REGISTRY = Path("/run/packetwatch-lab")
