# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python3 -m packetwatch_enforcer``: an enforcer of the fleet."""

from __future__ import annotations

import os
import signal
import sys

from packetwatch_agent.loop import Loop
from packetwatch_agent.output import Output
from packetwatch_agent.part import Parts
from packetwatch_agent.presence import Presence
from packetwatch_agent.service import Service
from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._node.never import Never, read_always
from packetwatch_core._node.rules import read_rules
from packetwatch_fleet.process import serve
from packetwatch_fleet.sources import Sources
from packetwatch_fleet.store.plugins import open_store

from .announce import Announcer
from .judge import Judge
from .memory import Memory
from .roster import Roster
from .rules.panel import Panel
from .scribe import Scribe
from .settings import EnforcerSettings
from .watcher import Watcher

# A rule that is still running after so many seconds of processor time, twice, is interrupted.
_PATIENCE = 0.5


def assemble(settings: EnforcerSettings, output: Output) -> Service:
    """Make the process: its parts, and what each of them is given. Raises `PacketwatchError`."""
    name = settings.own_name
    store = open_store(settings.store, os.environ)
    if store is None:
        raise PacketwatchError("PW_FLEET_STORE is none: there is no fleet to decide for")
    roster = Roster()
    panel = Panel(read_rules(settings.rules), roster, settings.rules_folder)
    judge = Judge(name, Never(read_always(settings.never)), roster, settings.shared_prefixes)
    announcer = Announcer(judge, panel, output)
    sources = Sources(settings.shared_prefixes)
    watcher = Watcher(store, judge, panel, roster, sources, announcer, output)
    scribe = Scribe(store, name, judge, panel, watcher, output)
    parts = Parts(watcher, scribe, announcer, Memory())
    loop = Loop()
    _interrupt(panel)
    presence = Presence(loop, settings, output, parts)
    return Service(loop, parts, presence, output, "deciding")


def _interrupt(panel: Panel) -> None:
    """Let a timer of processor time end a rule that does not come to an end."""
    signal.signal(signal.SIGVTALRM, lambda number, frame: panel.interrupt())
    signal.setitimer(signal.ITIMER_VIRTUAL, _PATIENCE, _PATIENCE)


def main() -> int:
    """Serve until SIGTERM; return 0, or 2 if a setting is wrong."""
    return serve(
        EnforcerSettings,
        "packetwatch_enforcer",
        assemble,
        # A wrong never-list or name must not be replaced by a default.
        has_defaults=False,
    )


if __name__ == "__main__":
    sys.exit(main())
