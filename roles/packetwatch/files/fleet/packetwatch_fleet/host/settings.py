# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of the fleet process: ``PW_FLEET_*``, and those of the agent that it shares."""

from __future__ import annotations

import socket

from packetwatch_agent.settings import Setting, Settings, absolute_path, plain_text
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._network.endpoints import (
    NO_STORE,
    is_label,
    parse_label,
    parse_labels,
    parse_listen,
    parse_url,
)
from packetwatch_core._network.fleet import permitted_lists


def _name(text: str, name: str) -> str:
    return parse_label(text, name) if text else ""


class FleetSettings(Settings):
    """The agent's variables have their own meaning here where the fleet process must not share a place with it."""

    store = Setting("PW_FLEET_STORE", NO_STORE, plain_text)
    """Which store the fleet has; none: there is no fleet."""
    host = Setting("PW_FLEET_HOST", "", _name)
    """The host's name in the store; empty: its host name."""
    enforcers = Setting("PW_FLEET_ENFORCERS", "", parse_labels)
    """The enforcers that this host accepts; none: all."""
    agent_socket = Setting("PW_CONTROL_SOCKET", "/run/packetwatch/control.sock", absolute_path)
    control_socket = Setting(
        "PW_FLEET_CONTROL_SOCKET", "/run/packetwatch-fleet/control.sock", absolute_path
    )
    metrics_listen = Setting("PW_FLEET_METRICS_LISTEN", "127.0.0.1:9478", parse_listen)
    heartbeat_url = Setting("PW_FLEET_HEARTBEAT_URL", "", parse_url)
    state_dir = Setting("PW_FLEET_STATE_DIR", "/var/lib/packetwatch-fleet", absolute_path)

    @property
    def takes(self) -> dict[str, object]:
        """What the fleet may do on this host, for the report."""
        return {
            "action": self.fleet,
            "enforcers": list(self.enforcers),
            "lists": list(permitted_lists(self.fleet, self.fleet_lists)),
        }

    @property
    def host_name(self) -> str:
        """The host's name in the store; raises `InvalidInput`."""
        name = self.host or socket.gethostname().lower()
        if not is_label(name):
            raise InvalidInput(f"the host name {name!r} cannot be a key: set PW_FLEET_HOST")
        return name
