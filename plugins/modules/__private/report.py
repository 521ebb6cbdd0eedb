#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Report on the state of hosts
version_added: 1.0.0
description:
  - This module is B(private) to the playbooks of the collection; it may change or vanish in any release.
  - Asks each host with M(packetwatch.xdp.host_info). A host that cannot be reached is noted, and its task does not fail.
  - The controller then reports on all hosts, and fails if one of them has problems.
  - Reads the policy that a host is to have from the variables of the role.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes.controller
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.action
options:
  phase:
    description: V(ask) one host, or V(show) the report on all.
    type: str
    choices: [ask, show]
    required: true
  allow:
    description: The entries that the host is to have, by variable. For V(ask).
    type: dict
    default: {}
  deny:
    description: The same for those that are denied.
    type: dict
    default: {}
  interfaces:
    description: The interfaces that it is to have, as names or dictionaries. Without this, those that it has. For V(ask).
    type: list
    elements: raw
  dest:
    description: Files on the controller to write the report to. The suffix of each name selects text, JSON or CSV. For V(show).
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Report
  packetwatch.xdp.__private.report:
    phase: show
    dest: report.json
  run_once: true
"""

RETURN = r"""
problems:
  description: What is wrong with the host.
  returned: O(phase=ask)
  type: list
  elements: str
"""
