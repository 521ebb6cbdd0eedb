# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The policy that a host's variables declare."""

from __future__ import annotations

import typing as t

from ansible_collections.packetwatch.xdp.plugins.module_utils._declared.policy import OPTIONS

if t.TYPE_CHECKING:
    from ansible.template import Templar


def declared_policy(variables: t.Mapping[str, t.Any], templar: Templar) -> dict[str, t.Any]:
    """The role's policy variables, as options of the module policy."""
    return {option: templar.template(variables[f"packetwatch_{option}"]) for option in OPTIONS}
