#!/usr/bin/python

# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout
short_description: Stop a rollout if a batch is incomplete
version_added: 1.0.0
description:
  - This module is B(private) to the playbooks of the collection; it may change or vanish in any release.
  - Works on the controller alone.
author:
  - Packetwatch authors (@packetwatch)
extends_documentation_fragment:
  - packetwatch.xdp._attributes.controller
  - packetwatch.xdp._attributes
  - packetwatch.xdp._attributes.action
options:
  phase:
    description:
      - V(begin) fails if a host of an earlier batch has not reached its V(end), for whatever reason.
      - V(end) notes that this host is done.
    type: str
    choices: [begin, end]
    required: true
"""

EXAMPLES = r"""
- name: Continue only if all earlier batches are done
  packetwatch.xdp.__private.rollout:
    phase: begin
  run_once: true
"""

RETURN = r"""
{}
"""
