# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What action plug-ins share that bring files from the controller for a module to read."""

from __future__ import annotations

import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.packetwatch.xdp.plugins.module_utils._base.errors import PacketwatchError

Arguments = dict[str, t.Any]
Result = dict[str, t.Any]


class Brought(t.NamedTuple):
    """A file to bring: what the user calls it, and what is in it."""

    name: str
    content: bytes


class TransferAction(ActionBase):
    """Runs the module of the same name, with options that name files replaced by copies of them.

    Also in check mode: the copies go to the task's temporary folder, which is removed afterwards.
    """

    module_name: str

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> Result:
        result: Result = super().run(tmp, task_vars)
        names: dict[str, str] = {}
        try:
            arguments = dict(self._task.args)
            for option, brought in self._gather(arguments).items():
                arguments[option] = self._send(option, brought)
                names[arguments[option]] = brought.name
            result.update(self.execute(arguments, task_vars))
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return _with_names(result, names)

    def execute(self, arguments: Arguments, task_vars: dict[str, t.Any] | None) -> Result:
        """Run the module, with what has been brought."""
        result: Result = self._execute_module(
            module_name=self.module_name, module_args=arguments, task_vars=task_vars
        )
        return result

    def files(self, arguments: Arguments) -> dict[str, Brought]:
        """What is to be brought, by the option that shall name the copy."""
        raise NotImplementedError

    def is_remote(self, arguments: Arguments) -> bool:
        """Whether the options already name files on the managed host."""
        try:
            return bool(boolean(arguments.get("remote_src", False)))
        except TypeError as error:
            raise AnsibleActionFail(f"remote_src: {error}") from error

    def find(self, path: t.Any) -> str:
        """Return where on the controller a file is, as copy and others would look for it."""
        return str(self._find_needle("files", os.path.expanduser(str(path))))

    def read(self, path: str) -> bytes:
        """Return a file's content, decrypted if it is a vault."""
        real = self._loader.get_real_file(path)
        try:
            with open(real, "rb") as file:
                return file.read()
        finally:
            self._loader.cleanup_tmp_file(real)

    def _gather(self, arguments: Arguments) -> dict[str, Brought]:
        try:
            return self.files(arguments)
        except OSError as error:
            raise AnsibleActionFail(f"cannot read {error.filename}: {error.strerror}") from error
        except PacketwatchError as error:
            raise AnsibleActionFail(str(error)) from error

    def _send(self, option: str, brought: Brought) -> str:
        """Copy to the temporary folder; return where it is there."""
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        target = str(shell.join_path(shell.tmpdir, option))
        # The module needs root, who can read it: no permissions to fix, no further round trip.
        self._transfer_data(target, brought.content)
        return target


def _with_names(result: Result, names: t.Mapping[str, str]) -> Result:
    """Let the message speak of the files by the names that the user knows."""
    message = result.get("msg")
    if isinstance(message, str):
        for copy, name in names.items():
            message = message.replace(copy, name)
        if message != result["msg"]:
            # The core builds it from the message again; it would repeat the copy's name.
            result.pop("exception", None)
            result["msg"] = message
    return result
