# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Documentation that modules on the store of a fleet share."""

from __future__ import annotations


class ModuleDocFragment:
    """Of public modules; `ACCESS` are options of all modules that reach the store."""

    DOCUMENTATION = r"""
options:
  user:
    description: The store's user, who may read everything and write the keys of V(api).
    type: str
    default: api
attributes:
  platform:
    description: Target OS/families that can be operated against.
    platforms: debian
    support: full
    details:
      - Debian 12 and 13 with the etcd of Debian are tested.
requirements:
  - python >= 3.11
  - root on a node of the fleet, for example by C(become=true)
"""

    ACCESS = r"""
options:
  password:
    description: The user's password. The role C(packetwatch.xdp.fleet_node) keeps it on the controller, in C(users/NAME/password) of
      the folder of the fleet's secrets.
    type: str
    required: true
  port:
    description: The port of the node's etcd.
    type: int
    default: 2379
  authority:
    description: Path of the certificates of the nodes' authority, on the node.
    type: path
    default: /etc/packetwatch-fleet-node/nodes-ca.pem
  certificate:
    description: Path of the node's certificate with its key, on the node.
    type: path
    default: /etc/packetwatch-fleet-node/etcd.pem
"""
