# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stores and buses have in common: how a plug-in is found, and what is shown to a server."""

from __future__ import annotations

import os
import typing as t

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._network.endpoints import is_label

# Not beside the credentials, which only root may read.
FOLDER = "/usr/local/lib/packetwatch-fleet"

Settings = t.Mapping[str, str]


def find(
    name: str, group: str, function: str, folder: str = FOLDER
) -> t.Callable[..., t.Any] | None:
    """The plug-in of this name: a function of a file ``NAME.py`` in the folder, or an entry point of the group."""
    if not is_label(name):
        return None
    path = os.path.join(folder, f"{name}.py")
    if os.path.exists(path):
        import importlib.util

        spec = importlib.util.spec_from_file_location(f"packetwatch_plugin_{name}", path)
        if spec is None or spec.loader is None:
            return None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found: t.Callable[..., t.Any] | None = getattr(module, function, None)
        return found
    from importlib.metadata import entry_points

    for point in entry_points(group=group, name=name):
        loaded: t.Callable[..., t.Any] = point.load()
        return loaded
    return None


def secret(settings: Settings, name: str) -> str:
    path = settings.get(name, "")
    try:
        with open(path, encoding="ascii") as file:
            return file.read(1024).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{name} is {path!r}: {error}: name a file with the password") from None


def tls(settings: Settings, prefix: str, user: str) -> t.Any:
    """The context of all connections; None without a CA: plain connections. user: of the process, for errors."""
    ca = settings.get(f"{prefix}_CA", "")
    if not ca:
        return None
    import ssl

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(ca)
        if certificate := settings.get(f"{prefix}_CERTIFICATE", ""):
            context.load_cert_chain(certificate, settings.get(f"{prefix}_KEY") or None)
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{prefix}_CA, {prefix}_CERTIFICATE or {prefix}_KEY: {error}: name files in PEM that the user {user} "
            "can read"
        ) from None
    return context
