# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which store a host has: one of the collection's own, or a plug-in.

A plug-in is a function that takes the ``PW_FLEET_*`` variables and returns a `Store`: an entry point of the group
``packetwatch.stores``, or the function ``open_store`` of a file ``NAME.py`` in the folder of stores.
"""

from __future__ import annotations

import os
import typing as t

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._network.endpoints import NO_STORE, is_label, parse_endpoints

from .interface import Store

GROUP = "packetwatch.stores"
# Not beside the credentials, which only root may read.
FOLDER = "/usr/local/lib/packetwatch-fleet"

Settings = t.Mapping[str, str]
Open = t.Callable[[Settings], Store]


def open_store(name: str, settings: Settings, folder: str = FOLDER) -> Store | None:
    """The store of this name; None for ``none``. Raises `InvalidInput`."""
    if name == NO_STORE:
        return None
    own: dict[str, Open] = {"etcd": _open_etcd, "folder": _open_folder}
    found = own.get(name) or _find(name, folder)
    if found is None:
        raise InvalidInput(
            f"PW_FLEET_STORE is {name!r}: write none, {', '.join(own)}, the name of an entry point of the group "
            f"{GROUP}, or the name of a file in {folder}"
        )
    return found(settings)


def _find(name: str, folder: str) -> Open | None:
    if not is_label(name):
        return None
    path = os.path.join(folder, f"{name}.py")
    if os.path.exists(path):
        import importlib.util

        spec = importlib.util.spec_from_file_location(f"packetwatch_store_{name}", path)
        if spec is None or spec.loader is None:
            return None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found: Open = module.open_store
        return found
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP, name=name):
        loaded: Open = point.load()
        return loaded
    return None


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
    password = _secret(settings, "PW_FLEET_PASSWORD_FILE") if user else ""
    return Etcd(Cluster(endpoints, _tls(settings), Account(user, password)))


def _secret(settings: Settings, name: str) -> str:
    path = settings.get(name, "")
    try:
        with open(path, encoding="ascii") as file:
            return file.read(1024).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{name} is {path!r}: {error}: name a file with the password") from None


def _tls(settings: Settings) -> t.Any:
    """The context of all connections; None without a CA: plain connections."""
    ca = settings.get("PW_FLEET_CA", "")
    if not ca:
        return None
    import ssl

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(ca)
        if certificate := settings.get("PW_FLEET_CERTIFICATE", ""):
            context.load_cert_chain(certificate, settings.get("PW_FLEET_KEY") or None)
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"PW_FLEET_CA, PW_FLEET_CERTIFICATE or PW_FLEET_KEY: {error}: name files in PEM that the user "
            "packetwatch-fleet can read"
        ) from None
    return context
