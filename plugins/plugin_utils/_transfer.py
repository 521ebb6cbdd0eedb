# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The base of action plug-ins that send files from the controller for a module to read."""

from __future__ import annotations

import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import PacketwatchError

Arguments = dict[str, t.Any]
Result = dict[str, t.Any]


class Upload(t.NamedTuple):
    """A file to send: the name that the user gave it, and its content."""

    name: str
    content: bytes


class TransferAction(ActionBase):
    """Runs the module of the same name, with options that name files replaced by copies of them.

    The copies go to the task's temporary folder, which is removed afterwards; so check mode sends them too.
    """

    module_name: str

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> Result:
        result: Result = super().run(tmp, task_vars)
        names: dict[str, str] = {}
        try:
            arguments = dict(self._task.args)
            for option, file in self._gather(arguments).items():
                arguments[option] = self._send(option, file)
                names[arguments[option]] = file.name
            result.update(self.execute(arguments, task_vars))
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return _with_names(result, names)

    def execute(self, arguments: Arguments, task_vars: dict[str, t.Any] | None) -> Result:
        """Run the module, with the names of the copies."""
        result: Result = self._execute_module(
            module_name=self.module_name, module_args=arguments, task_vars=task_vars
        )
        return result

    def files(self, arguments: Arguments) -> dict[str, Upload]:
        """The files to send, by the option that will name the copy; none unless overridden."""
        return {}

    def is_remote(self, arguments: Arguments) -> bool:
        """Whether the options name files on the managed host already."""
        try:
            return bool(boolean(arguments.get("remote_src", False)))
        except TypeError as error:
            value = arguments.get("remote_src")
            raise AnsibleActionFail(f"remote_src is {value!r}: write true or false") from error

    def find(self, path: t.Any) -> str:
        """Return the path of a file on the controller, found as the module copy finds it."""
        return str(self._find_needle("files", os.path.expanduser(str(path))))

    def read(self, path: str) -> bytes:
        """Return a file's content, decrypted if it is a vault."""
        real = self._loader.get_real_file(path)
        try:
            with open(real, "rb") as file:
                return file.read()
        finally:
            self._loader.cleanup_tmp_file(real)

    def _gather(self, arguments: Arguments) -> dict[str, Upload]:
        try:
            return self.files(arguments)
        except OSError as error:
            raise AnsibleActionFail(f"cannot read {error.filename}: {error.strerror}") from error
        except PacketwatchError as error:
            raise AnsibleActionFail(str(error)) from error

    def _send(self, option: str, file: Upload) -> str:
        """Copy to the temporary folder; return the path of the copy."""
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        target = str(shell.join_path(shell.tmpdir, option))
        # The module runs as root and can read it. Fixing permissions would cost a round trip.
        self._transfer_data(target, file.content)
        return target


def _with_names(result: Result, names: t.Mapping[str, str]) -> Result:
    """Replace the names of copies in the message by the names that the user knows."""
    message = result.get("msg")
    if isinstance(message, str):
        for copy, name in names.items():
            message = message.replace(copy, name)
        if message != result["msg"]:
            # Ansible builds the exception from the message; it would repeat the name of the copy.
            result.pop("exception", None)
            result["msg"] = message
    return result
