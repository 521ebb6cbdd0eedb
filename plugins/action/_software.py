# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Send the archive to hosts that lack it."""

from __future__ import annotations

import pathlib
import tempfile
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.packetwatch.xdp.plugins.plugin_utils._archive import Software, collect

_COLLECTION = pathlib.Path(__file__).resolve().parents[2]
_MODULE = "packetwatch.xdp._software"


class ActionModule(ActionBase):
    """Ask the module what is there, and only then bring what is missing."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        """Run the module once, and again with the archive if the host needs it."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        options = dict(self._task.args)
        if options.get("state", "present") == "absent":
            return result | self._execute_module(_MODULE, options, task_vars=task_vars)

        try:
            software = collect(_COLLECTION)
        except (KeyError, OSError, ValueError) as error:
            raise AnsibleActionFail(f"cannot gather the software: {error}") from error
        options |= {"name": software.name, "manifest": software.manifest}
        first = self._execute_module(_MODULE, options, task_vars=task_vars)
        if first.get("failed") or not first.get("lacks_archive"):
            return result | first
        options["archive"] = self._send(software)
        return result | self._execute_module(_MODULE, options, task_vars=task_vars)

    def _send(self, software: Software) -> str:
        """Copy the archive into the task's temporary folder on the host, which Ansible removes."""
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        remote: str = self._connection._shell.join_path(
            self._connection._shell.tmpdir, f"{software.name}.tar.gz"
        )
        with tempfile.NamedTemporaryFile(suffix=".tar.gz") as local:
            local.write(software.pack())
            local.flush()
            self._transfer_file(local.name, remote)
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        return remote
