# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What gunicorn serves."""

from __future__ import annotations

import os

from packetwatch_agent.output import Output

from .app import create_app
from .settings import Settings

application = create_app(Settings.of(os.environ), Output(logger="packetwatch_api"))
