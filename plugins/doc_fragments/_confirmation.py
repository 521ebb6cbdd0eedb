# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Options of the modules whose changes must be confirmed."""

from __future__ import annotations


class ModuleDocFragment:
    """How a change is confirmed."""

    DOCUMENTATION = r"""
options:
  confirm_timeout:
    description:
      - Time in which a change must be confirmed, as seconds or such as V(90s) or V(2m). The task confirms it over a fresh connection, so a change that cuts
        the controller off is never confirmed. The host then reverts it by itself, and the task fails.
      - V(0) confirms the change at once. It is the only value that is accepted where systemd does not run.
      - A change that alters no verdict is confirmed at once, for example lists on a host where no interface is attached yet.
      - At most one change is pending on a host. Every other change is refused meanwhile.
    type: str
    default: "60"
  confirm_by:
    description:
      - V(connection) confirms a change as soon as a fresh connection has come through.
      - V(self_test) asks the loaded program on the host whether every protected address can still open a connection to the SSH
        server, and confirms the change if so. Otherwise the host reverts it at once and the task fails.
      - If it is omitted, the action plugin sets it. It sets V(self_test) for connections that are not made over the network, such
        as C(local), C(chroot) and connections into containers, and for connection types that it does not know.
    type: str
    choices: [connection, self_test]
    default: connection
  confirm_token:
    description: Word that confirms the change. Set by the action plugin.
    type: str
    default: ""
"""
