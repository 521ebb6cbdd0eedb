# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of the process that publishes events: ``PW_BUS*``, and those that it shares with its neighbours."""

from __future__ import annotations

from packetwatch_agent.control.wire import ACTIONS
from packetwatch_agent.settings import Setting, plain_text
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._network.endpoints import parse_listen, parse_url

from ..host.settings import FleetSettings
from .plugins import NO_BUS


def _actions(text: str, name: str) -> tuple[str, ...]:
    found = tuple(text.replace(",", " ").split())
    for word in found:
        if word not in ACTIONS:
            raise InvalidInput(f"{name} has {word!r}: write some of {', '.join(ACTIONS)}")
    if not found:
        raise InvalidInput(f"{name} is empty: write some of {', '.join(ACTIONS)}")
    return found


class BusSettings(FleetSettings):
    """Those of a fleet process, with a place of its own for metrics and no control socket."""

    bus = Setting("PW_BUS", NO_BUS, plain_text)
    events = Setting("PW_BUS_EVENTS", "scan scan_end ban lift expiry", _actions)
    """The actions of events that are published."""
    control_socket = Setting("PW_BUS_CONTROL_SOCKET", "", plain_text)
    metrics_listen = Setting("PW_BUS_METRICS_LISTEN", "127.0.0.1:9480", parse_listen)
    heartbeat_url = Setting("PW_BUS_HEARTBEAT_URL", "", parse_url)
