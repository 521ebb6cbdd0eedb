# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Send the copies of feeds that a host lacks, and confirm the change."""

from __future__ import annotations

import time
import typing as t

from ansible.errors import AnsibleActionFail
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._confirm import ChangeAction
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import Upload

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import (
        Arguments,
        Result,
    )

_PASSED = (
    "list",
    "digest",
    "problem",
    "max_change",
    "allow_empty",
    "expire_after",
    "fetched",
    "published",
)


def declared_feeds(names: t.Iterable[str], copies: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """The feeds of a host with their copies, as options of the module."""
    for name in names:
        if name not in copies:
            raise AnsibleActionFail(
                f"feed {name} was not fetched by the first play, which reads variables of the "
                "inventory and of the command line: declare packetwatch_feeds there"
            )
    return [{"name": name} | {key: copies[name][key] for key in _PASSED} for name in names]


class ActionModule(ChangeAction):
    """Asks the module what is missing, and sends only that: long lists seldom change."""

    module_name = "packetwatch.xdp.__private.feeds"

    def execute(self, arguments: Arguments, task_vars: dict[str, t.Any] | None) -> Result:
        copies, names = arguments.pop("copies"), arguments.pop("names")
        feeds = declared_feeds(names, copies)
        arguments = arguments | {"feeds": feeds, "now": time.time()}
        result = super().execute(arguments, task_vars)
        lacks = result.get("lacks")
        if not lacks:
            return result
        sources = {
            name: self._send(name, Upload(name, self.read(copies[name]["path"]))) for name in lacks
        }
        return super().execute(arguments | {"sources": sources}, task_vars)
