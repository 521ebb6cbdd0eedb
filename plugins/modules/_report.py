#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: _report
short_description: Tell how hosts stand
version_added: 0.1.0
description:
  - This module is B(private) to the playbooks of the collection; it may change or vanish in any release.
  - Each host is asked with M(packetwatch.xdp.host_info); one that cannot be reached is noted, and fails nothing.
  - The controller then tells of all of them, and fails if one of them is not as it should be.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment: packetwatch.xdp._attributes.controller
options:
  phase:
    description: V(ask) one host, or V(tell) of all.
    type: str
    choices: [ask, tell]
    required: true
  allow:
    description: The entries that the host is to have, by variable. For V(ask).
    type: dict
    default: {}
  deny:
    description: The same for those that are denied.
    type: dict
    default: {}
  policy:
    description: The policy that it is to have, with the options of M(packetwatch.xdp.policy). For V(ask).
    type: dict
    default: {}
  interfaces:
    description: The interfaces that it is to have, as names or dictionaries. Without this, those that it has. For V(ask).
    type: list
    elements: raw
  dest:
    description: Files on the controller to write the report to, as text, JSON or CSV by their names' end. For V(tell).
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Tell
  packetwatch.xdp._report:
    phase: tell
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
