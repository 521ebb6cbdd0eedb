# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A connection plugin for tests: commands run on this machine if a TCP connection from the peer passes.

An open connection stays open without another test of the filter, like SSH with ControlPersist. `reset`
closes it. Each attempt to open one writes a line to a file, and so does each module to another one, if
pipelining is on.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = """
name: gated
short_description: local, behind the filter
description: local, behind the filter
options:
  pid:
    description: A process in the namespaces of the host, if they are not the controller's.
    type: str
    default: ""
    vars: [{name: gated_pid}]
  lose:
    description: The connection is lost during the answer of a module whose name contains this.
    type: str
    default: ""
    env: [{name: GATED_LOSE}]
    vars: [{name: gated_lose}]
extends_documentation_fragment:
  - connection_pipelining
"""

CONNECT = """
import socket
try:
    socket.create_connection(("192.0.2.1", 9), 1)
except ConnectionRefusedError:
    pass
"""


class Connection(Local):
    """A connection that is open while a file exists, because tasks and workers come and go."""

    transport = "ssh"

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> Any:
        self._come_through()
        loses = self.get_option("lose")
        if self._enter:
            cmd = shlex.join([*self._enter, "/bin/sh", "-c", cmd])
        if in_data:
            with open(os.environ["GATED_LOG"] + "-modules", "a", encoding="utf-8") as log:
                log.write("module\n")
        done = super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        if loses and (loses in cmd or loses.encode() in (in_data or b"")):
            # The command has run, and only its answer is lost.
            raise AnsibleConnectionFailure("the connection was lost during the answer")
        return done

    def put_file(self, *arguments: Any, **options: Any) -> Any:
        self._come_through()
        return super().put_file(*arguments, **options)

    def reset(self) -> None:
        if os.path.exists(self._open):
            os.unlink(self._open)

    @property
    def _enter(self) -> list[str]:
        pid = self.get_option("pid")
        return ["nsenter", f"--target={pid}", "--mount", "--net", "--"] if pid else []

    @property
    def _open(self) -> str:
        return os.environ["GATED_OPEN"] + str(self.get_option("pid"))

    def _come_through(self) -> None:
        if os.path.exists(self._open):
            return
        argv = ["nsenter", "--net=/run/netns/peer", "--", "/usr/bin/python3", "-c", CONNECT]
        done = subprocess.run([*self._enter, *argv], capture_output=True, check=False)
        with open(os.environ["GATED_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{'refused' if done.returncode else 'opened'}\n")
        if done.returncode:
            raise AnsibleConnectionFailure("Connection timed out")
        open(self._open, "w", encoding="utf-8").close()
