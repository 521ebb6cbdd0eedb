# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which bus a process has: RabbitMQ, or a plug-in.

A plug-in is a function that takes the ``PW_BUS_*`` variables and returns a `Bus`: an entry point of the group
``packetwatch.buses``, or the function ``open_bus`` of a file ``NAME.py`` in the folder of plug-ins.
"""

from __future__ import annotations

import typing as t

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._network.endpoints import parse_endpoints

from ..plugins import FOLDER, Settings, find, secret, tls
from .interface import Bus

GROUP = "packetwatch.buses"
NO_BUS = "none"
Open = t.Callable[[Settings], Bus]


def open_bus(name: str, settings: Settings, folder: str = FOLDER) -> Bus:
    """The bus of this name. Raises `InvalidInput`."""
    own: dict[str, Open] = {"rabbitmq": _open_rabbitmq}
    found = own.get(name) or find(name, GROUP, "open_bus", folder)
    if found is None:
        raise InvalidInput(
            f"PW_BUS is {name!r}: write {', '.join(own)}, the name of an entry point of the group {GROUP}, or the "
            f"name of a file in {folder}"
        )
    return found(settings)


def _open_rabbitmq(settings: Settings) -> Bus:
    try:
        from .rabbitmq import Account, RabbitMQ
    except ImportError as error:
        raise InvalidInput(f"PW_BUS is 'rabbitmq': {error}: install python3-amqp") from None
    endpoints = parse_endpoints(settings.get("PW_BUS_ENDPOINTS", ""), "PW_BUS_ENDPOINTS")
    if not endpoints:
        raise InvalidInput("PW_BUS_ENDPOINTS is empty: name the servers of the bus")
    account = Account(
        settings.get("PW_BUS_ACCOUNT", ""),
        secret(settings, "PW_BUS_PASSWORD_FILE"),
        settings.get("PW_BUS_VHOST", "") or "/",
    )
    context = tls(settings, "PW_BUS", "of its unit")
    return RabbitMQ(endpoints, context, account, settings.get("PW_BUS_QUEUE", ""))
