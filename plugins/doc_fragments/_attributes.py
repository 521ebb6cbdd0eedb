# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Parts of the documentation that modules share. A module lists the parts that differ from the first
ones before them: the first that says something of an attribute wins."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes and requirements."""

    # For all modules.
    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: full
"""

    # For modules that are not private to the collection.
    PUBLIC = r"""
attributes:
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled/queried by the module has not changed in a relevant way.
    support: full
  action_group:
    description: Use C(group/packetwatch.xdp.all) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - packetwatch.xdp.all
"""

    # For modules that run on filtered hosts.
    HOST = r"""
attributes:
  platform:
    description: Target OS/families that can be operated against.
    platforms: debian
    support: full
    details:
      - Debian 12 and 13 with a kernel of at least 6.1 are tested.
requirements:
  - python >= 3.11
  - root on the managed host, for example by C(become=true)
"""

    # For modules that read or change what the kernel does.
    KERNEL = r"""
options: {}
requirements:
  - the Debian package C(libbpf1) on the managed host
"""

    # For modules with an action plug-in of the same name.
    ACTION = r"""
attributes:
  action:
    description: Indicates this has a corresponding action plug-in, so some parts of the options run on the controller.
    support: full
  async:
    description: Supports being used with the C(async) keyword.
    support: none
"""

    # For modules that consist of an action plug-in alone, and touch no host.
    CONTROLLER = r"""
attributes:
  diff_mode:
    support: none
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: all
"""

    # For modules that change nothing.
    INFO = r"""
attributes:
  check_mode:
    details:
      - This module does not modify state.
  diff_mode:
    support: N/A
    details:
      - This module does not modify state.
"""
