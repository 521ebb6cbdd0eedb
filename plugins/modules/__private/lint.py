#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lint
short_description: Find what is wrong with the variables in an inventory
version_added: 1.0.0
description:
  - This module is B(private) to the playbooks of the collection; it may change or vanish in any release.
  - Works on the controller alone. Finds unknown variables, wrong values, lists that a stronger level of the inventory hides,
    and entries of lists that have no effect.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes.controller
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.action
options: {}
"""

EXAMPLES = r"""
- name: Check the inventory
  packetwatch.xdp.__private.lint:
"""

RETURN = r"""
{}
"""
