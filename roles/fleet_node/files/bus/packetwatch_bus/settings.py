# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of the process that takes commands: ``PW_BUS*``."""

from __future__ import annotations

from packetwatch_agent.settings import Setting, Settings, absolute_path, plain_text
from packetwatch_core._network.endpoints import parse_label, parse_listen


class BusSettings(Settings):
    """Those of the bus itself are read by its plug-in."""

    bus = Setting("PW_BUS", "rabbitmq", plain_text)
    api_socket = Setting("PW_BUS_API", "/run/packetwatch-api/api.sock", absolute_path)
    tokens = Setting("PW_BUS_TOKENS", "/etc/packetwatch-fleet-node/bus.tokens", absolute_path)
    """A JSON object: the API's token by the account of its owner at the broker."""
    list = Setting("PW_BUS_LIST", "bus", parse_label)
    """The list that `allow` and `deny` change."""
    control_socket = Setting("PW_BUS_CONTROL_SOCKET", "", plain_text)
    metrics_listen = Setting("PW_BUS_METRICS_LISTEN", "127.0.0.1:9481", parse_listen)
