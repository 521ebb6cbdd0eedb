# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Restarting the agent when its maps have been made anew."""

from __future__ import annotations

import os
import typing as t

if t.TYPE_CHECKING:
    from .._base.types import Run


def renew_agent(run: Run, units: str) -> None:
    """Restart a running agent, because it sees the maps through a mount made when it started.

    units: the folder of the role's units. Errors are ignored: the filter works without the agent.
    """
    if os.path.exists(os.path.join(units, "packetwatch.service")):
        run(["systemctl", "--no-block", "try-restart", "packetwatch.service"], None)
