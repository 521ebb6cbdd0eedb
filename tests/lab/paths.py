# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Where the lab keeps things."""

from __future__ import annotations

import os
from pathlib import Path


def _build() -> Path:
    """The build folder, also when this file runs from the copy that `make` puts into it."""
    here = Path(__file__).resolve()
    for parent in here.parents:
        if parent.name == "ansible_collections":
            return parent.parent
    return here.parents[2] / ".build"


_LAB = _build() / "lab"

RUNS = _LAB / "runs"
IMAGES = Path(os.environ.get("PACKETWATCH_LAB_CACHE") or _LAB / "images")

# One directory per living lab, named by its id: found here after its creator was killed. It is
# also short enough for the path of a Unix socket, which a run directory may not be.
REGISTRY = Path("/run/packetwatch-lab")
