# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which store a host has: one of the collection's own, or a plug-in.

A plug-in is a function that takes the ``PW_FLEET_*`` variables and returns a `Store`: an entry point of the group
``packetwatch.stores``, or the function ``open_store`` of a file ``NAME.py`` in the folder of stores.
"""

from __future__ import annotations

import typing as t

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._network.endpoints import NO_STORE, parse_endpoints

from ..plugins import FOLDER, Settings, find, secret, tls
from .interface import Store

GROUP = "packetwatch.stores"
Open = t.Callable[[Settings], Store]


def open_store(name: str, settings: Settings, folder: str = FOLDER) -> Store | None:
    """The store of this name; None for ``none``. Raises `InvalidInput`."""
    if name == NO_STORE:
        return None
    own: dict[str, Open] = {"etcd": _open_etcd, "folder": _open_folder}
    found = own.get(name) or find(name, GROUP, "open_store", folder)
    if found is None:
        raise InvalidInput(
            f"PW_FLEET_STORE is {name!r}: write none, {', '.join(own)}, the name of an entry point of the group "
            f"{GROUP}, or the name of a file in {folder}"
        )
    return found(settings)


def _open_folder(settings: Settings) -> Store:
    from .folder import Folder

    path = settings.get("PW_FLEET_FOLDER", "")
    if not path.startswith("/"):
        raise InvalidInput(
            f"PW_FLEET_FOLDER is {path!r}: write the absolute path of the store's folder"
        )
    return Folder(path)


def _open_etcd(settings: Settings) -> Store:
    from .cluster import Cluster
    from .etcd import Etcd
    from .gateway import Account

    endpoints = parse_endpoints(settings.get("PW_FLEET_ENDPOINTS", ""), "PW_FLEET_ENDPOINTS")
    if not endpoints:
        raise InvalidInput("PW_FLEET_ENDPOINTS is empty: name the servers of the store")
    user = settings.get("PW_FLEET_ACCOUNT", "")
    password = secret(settings, "PW_FLEET_PASSWORD_FILE") if user else ""
    return Etcd(
        Cluster(endpoints, tls(settings, "PW_FLEET", "packetwatch-fleet"), Account(user, password))
    )
