# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, Packetwatch authors
"""Where the lab keeps things."""

from __future__ import annotations

import os
from pathlib import Path


def _repository() -> Path:
    """The working copy, also when this file runs from the copy that `make` puts below `.build`."""
    here = Path(__file__).resolve().parents[2]
    for parent in here.parents:
        if parent.name == ".build":
            return parent.parent
    return here


REPOSITORY = _repository()
RUNS = REPOSITORY / ".build" / "lab" / "runs"
IMAGES = Path(os.environ.get("PACKETWATCH_LAB_CACHE") or REPOSITORY / ".build" / "lab" / "images")

# One directory per living lab, named by its id: found here after its creator was killed. It is
# also short enough for the path of a Unix socket, which a run directory may not be.
REGISTRY = Path("/run/packetwatch-lab")
