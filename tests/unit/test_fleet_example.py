# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The example of a fleet has the variables that the page for nodes shows."""

from __future__ import annotations

from pathlib import Path

import yaml
from lab.play import fleet_variables

VARIABLES = Path(__file__).resolve().parents[2] / "examples/fleet/group_vars/packetwatch.yml"


def test_the_example_has_the_variables_of_the_page() -> None:
    wanted = yaml.safe_load(fleet_variables())
    assert wanted.items() <= yaml.safe_load(VARIABLES.read_text(encoding="utf-8")).items()
