# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of an enforcer: ``PW_ENFORCER_*``, and those of the store that it shares with hosts."""

from __future__ import annotations

import socket

from packetwatch_agent.settings import Setting, Settings, absolute_path, plain_text
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._network.endpoints import NO_STORE, parse_label, parse_listen, parse_url
from packetwatch_core._node.never import ALWAYS

from .rules.plugins import FOLDER


def _name(text: str, name: str) -> str:
    return parse_label(text, name) if text else ""


class EnforcerSettings(Settings):
    """The agent's variables have their own meaning here where an enforcer must not share a place with it."""

    store = Setting("PW_FLEET_STORE", NO_STORE, plain_text)
    name = Setting("PW_ENFORCER_NAME", "", _name)
    """The enforcer's name in the store."""
    rules = Setting("PW_ENFORCER_RULES", "/etc/packetwatch-enforcer/rules.json", absolute_path)
    """The file with rules and thresholds, which the role writes."""
    rules_folder = Setting("PW_ENFORCER_RULES_FOLDER", FOLDER, absolute_path)
    never = Setting("PW_FLEET_NEVER", ALWAYS, absolute_path)
    """The file with addresses that nobody bans."""
    metrics_listen = Setting("PW_ENFORCER_METRICS_LISTEN", "127.0.0.1:9482", parse_listen)
    control_socket = Setting("PW_ENFORCER_CONTROL_SOCKET", "", plain_text)
    """An enforcer has none: the API shows what it publishes."""
    heartbeat_url = Setting("PW_ENFORCER_HEARTBEAT_URL", "", parse_url)

    @property
    def own_name(self) -> str:
        """The enforcer's name in the store; raises `InvalidInput`."""
        if not self.name:
            raise InvalidInput(
                f"PW_ENFORCER_NAME is empty on {socket.gethostname()}: write the enforcer's name in the store"
            )
        return self.name
