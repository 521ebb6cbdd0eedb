# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Options of modules that work on a fleet's store, and how such a module reaches it."""

from __future__ import annotations

import os
import typing as t

from ._base.errors import InvalidInput
from ._front import call_library
from ._node.gateway import Gateway, Identity, Refused, may_pass

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ._base.types import Result

FOLDER = "/etc/packetwatch-fleet-node"
ACCESS: t.Final[dict[str, t.Any]] = {
    "password": {"type": "str", "required": True, "no_log": True},
    "port": {"type": "int", "default": 2379},
    "authority": {"type": "path", "default": f"{FOLDER}/nodes-ca.pem"},
    "certificate": {"type": "path", "default": f"{FOLDER}/etcd.pem"},
}
STORE: t.Final[dict[str, t.Any]] = {"user": {"type": "str", "default": "api"}, **ACCESS}


def gateway_of(options: t.Mapping[str, t.Any], user: tuple[str, str] | None) -> Gateway:
    """Return a connection to the store of this node. options: those of `ACCESS`; user: name and password."""
    identity = Identity(options["authority"], options["certificate"])
    return Gateway(("127.0.0.1", options["port"]), identity, user)


def run_on_store(module: AnsibleModule, call: t.Callable[[Gateway], Result]) -> None:
    """Call with the store of the node that the module runs on; end the module with the result or the error."""
    params = module.params

    def act(dummy: t.Any) -> Result:
        for option in ("authority", "certificate"):
            if not os.path.exists(params[option]):
                raise InvalidInput(
                    f"{option}: there is no {params[option]}: run the module on a node of the fleet"
                )
        gateway = gateway_of(params, (params["user"], params["password"]))
        try:
            gateway.login()
        except Refused as error:
            if may_pass(error):
                raise
            raise InvalidInput(
                f"the store refuses the user {params['user']}: {error.reason}; check the password"
            ) from None
        try:
            return call(gateway)
        finally:
            gateway.close()

    call_library(module, act)
