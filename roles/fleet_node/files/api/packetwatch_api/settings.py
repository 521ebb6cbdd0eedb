# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of the API: ``PW_API_*``, which its unit sets."""

from __future__ import annotations

import typing as t

from packetwatch_core._base.address import Prefix
from packetwatch_core._network.protect import parse_shared
from packetwatch_core._node.gateway import Gateway, Identity
from packetwatch_core._node.never import ALWAYS, read_always

FOLDER = "/etc/packetwatch-fleet-node"
_PATIENCE = 3.0
ACCOUNT = "api"


class Settings(t.NamedTuple):
    """Where the store is, how the API logs in, and where its tokens are."""

    port: int
    authority: str
    certificate: str
    password: str
    tokens: str
    always: list[tuple[str, str]]
    """Prefixes that are never banned, with the reason."""
    shared: tuple[Prefix, ...]

    @classmethod
    def of(cls, environment: t.Mapping[str, str]) -> Settings:
        """Raises `OSError` if there is no password, and `InvalidInput`."""
        credentials = environment.get("CREDENTIALS_DIRECTORY", FOLDER)
        with open(f"{credentials}/api.password", encoding="ascii") as file:
            password = file.read(1024).strip()
        return cls(
            int(environment.get("PW_API_STORE_PORT", "2379")),
            environment.get("PW_API_AUTHORITY", f"{FOLDER}/nodes-ca.pem"),
            environment.get("PW_API_CERTIFICATE", f"{credentials}/inner.pem"),
            password,
            environment.get("PW_API_TOKENS", f"{FOLDER}/tokens"),
            read_always(environment.get("PW_FLEET_NEVER", ALWAYS)),
            tuple(parse_shared(environment.get("PW_SHARED_PREFIXES", ""), "PW_SHARED_PREFIXES")),
        )

    def connect(self) -> Gateway:
        """A connection to the etcd of this node."""
        identity = Identity(self.authority, self.certificate)
        user = (ACCOUNT, self.password)
        return Gateway(("127.0.0.1", self.port), identity, user, timeout=_PATIENCE)
