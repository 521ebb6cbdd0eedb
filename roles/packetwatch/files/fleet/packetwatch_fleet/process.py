# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the main functions of a fleet's processes have in common."""

from __future__ import annotations

import os
import typing as t

from packetwatch_agent.output import Output
from packetwatch_agent.service import Service
from packetwatch_agent.settings import Settings, read_as
from packetwatch_core._base.errors import PacketwatchError

USAGE = 2

_S = t.TypeVar("_S", bound=Settings)


def serve(
    kind: type[_S],
    logger: str,
    assemble: t.Callable[[_S, Output], Service],
    *,
    has_defaults: bool = True,
) -> int:
    """Serve until SIGTERM; return 0, or 2 if a setting is wrong.

    has_defaults: whether the default takes the place of a wrong value.
    """
    settings = read_as(kind, os.environ)
    output = Output(logger=logger)
    for problem in settings.problems.values():
        if has_defaults:
            output.say("warn", f"a setting is not in force: {problem}")
        else:
            output.say("error", problem)
    if settings.problems and not has_defaults:
        return USAGE
    try:
        service = assemble(settings, output)
    except (OSError, PacketwatchError) as error:
        output.say("error", str(error))
        return USAGE
    service.run()
    return 0
