# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab in which the scenario's hosts are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from lab.scenario import machine_of, open_fleet

if TYPE_CHECKING:
    from lab.fleet import Fleet
    from lab.machine import Machine


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return open_fleet()


@pytest.fixture
def machine(host: Any, fleet: Fleet) -> Machine:
    """The host under test, as the lab knows it."""
    return machine_of(host, fleet)
