# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Options of the modules whose changes wait to be confirmed."""

from __future__ import annotations


class ModuleDocFragment:
    """How a change is confirmed."""

    DOCUMENTATION = r"""
options:
  confirm_timeout:
    description:
      - For how many seconds a change waits to be confirmed. The task confirms it over a fresh connection, so that one that cuts
        the controller off is never confirmed. The host then returns by itself to what was in force before, and the task fails.
      - V(0) confirms it at once. It is the only value that is accepted where systemd does not run.
      - Nothing waits where no packet meets a difference, such as lists on a host on which nothing is attached yet.
      - At most one change waits on a host. As long as it does, every other one is refused.
    type: float
    default: 60
  confirm_by:
    description:
      - V(connection) confirms a change as soon as a fresh connection has come through.
      - V(self_test) asks the loaded program on the host whether every protected address can still open a connection to the SSH
        server, and confirms it if so. Otherwise the host returns at once and the task fails.
      - Set by the action plugin, if it is not given, to V(self_test) for connections that are not made over the network, such
        as C(local), C(chroot) and those into containers, and for those that it does not know.
    type: str
    choices: [connection, self_test]
    default: connection
  confirm_token:
    description: Word that confirms the change. Set by the action plugin.
    type: str
    default: ""
"""
