# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts of `kernel.controlling` for all tests of a file, beside the fixtures of `kernel.site_fixtures`.

Use them by ``pytest_plugins = ("kernel.agent_fixtures",)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.controlling import Controlled, controlled

pytest_plugins = ("kernel.site_fixtures",)


@pytest.fixture(scope="module")
def shared(bytecode_cache: Path) -> Iterator[Controlled]:
    """One host, whose agent runs."""
    with controlled(bytecode_cache) as found:
        yield found


@pytest.fixture(scope="module")
def resting(shared: Controlled) -> Controlled:
    """That host after its agent was stopped."""
    shared.stop()
    return shared
