# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Send the files that a host lacks, and confirm the one change of everything that the role declares."""

from __future__ import annotations

import os
import pathlib
import time
import typing as t

from ansible.errors import AnsibleActionFail
from ansible_collections.packetwatch.xdp.plugins.action.__private.feeds import declared_feeds
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.digest import digest_text
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import PacketwatchError
from ansible_collections.packetwatch.xdp.plugins.module_utils._kernel.source import flatten_alone
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._archive import collect
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._confirm import ChangeAction
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._program import own_source
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import Upload

if t.TYPE_CHECKING:
    from ansible_collections.packetwatch.xdp.plugins.plugin_utils._transfer import (
        Arguments,
        Result,
    )

_COLLECTION = pathlib.Path(__file__).resolve().parents[3]
_FEED = "feed "


class ActionModule(ChangeAction):
    """Asks the module what is missing, and sends only that: software and long lists seldom change."""

    module_name = "packetwatch.xdp.__private.declare"

    def execute(self, arguments: Arguments, task_vars: dict[str, t.Any] | None) -> Result:
        names, copies = arguments.pop("names"), arguments.pop("copies")
        try:
            software, source = collect(_COLLECTION), own_source()
        except (KeyError, OSError, ValueError) as error:
            raise AnsibleActionFail(
                f"cannot read the collection's software: {error}; install the collection again"
            ) from error
        arguments = arguments | {
            "interfaces": [self._with_source(found) for found in arguments.get("interfaces") or ()],
            "feeds": declared_feeds(names, copies),
            "now": time.time(),
            "program": digest_text(source),
            "name": software.name,
            "manifest": software.manifest,
        }
        result = super().execute(arguments, task_vars)
        lacks = result.get("lacks")
        if not lacks:
            return result
        sent: Arguments = {"sources": {}}
        for item in lacks:
            if item == "archive":
                sent[item] = self._send(item, Upload(software.name, software.pack()))
            elif item == "src":
                sent[item] = self._send(item, Upload("the program", source.encode()))
            else:
                name = item.removeprefix(_FEED)
                file = Upload(name, self.read(copies[name]["path"]))
                sent["sources"][name] = self._send(name, file)
        return super().execute(arguments | sent, task_vars)

    def _with_source(self, interface: dict[str, t.Any]) -> dict[str, t.Any]:
        """The interface with the text of the file that `next_src` names, which is short enough to be an option."""
        path = interface.get("next_src")
        if path is None:
            return interface
        kept = {key: value for key, value in interface.items() if key != "next_src"}
        try:
            return kept | {"next_source": flatten_alone(os.path.abspath(self.find(path)))}
        except PacketwatchError as error:
            raise AnsibleActionFail(f"{interface.get('name')}: next_src: {error}") from error
