# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A connection plugin for tests: commands run here, if a TCP connection from the peer comes through.

As with SSH and ControlPersist, an open connection goes on without asking the filter again, and
`reset` gives it up. Each opened one leaves a line in a file.
"""

from __future__ import annotations

import os
import shlex
import subprocess

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = """
name: gated
short_description: local, behind the filter
description: local, behind the filter
options:
  pid:
    description: A process in the namespaces of the host, if those are not the controller's.
    type: str
    default: ""
    vars: [{name: gated_pid}]
  lose:
    description: The connection is lost amid the answer of a module with this in its name.
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
    """Open while a file says so, because tasks and workers come and go."""

    transport = "ssh"

    def exec_command(self, cmd, in_data=None, sudoable=True):
        self._come_through()
        loses = self.get_option("lose")
        if self._enter:
            cmd = shlex.join([*self._enter, "/bin/sh", "-c", cmd])
        done = super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        if loses and (loses in cmd or loses.encode() in (in_data or b"")):
            # What ran has run, and its answer is lost.
            raise AnsibleConnectionFailure("lost amid the answer")
        return done

    def put_file(self, *arguments, **options):
        self._come_through()
        return super().put_file(*arguments, **options)

    def reset(self):
        if os.path.exists(self._open):
            os.unlink(self._open)

    @property
    def _enter(self):
        pid = self.get_option("pid")
        return ["nsenter", f"--target={pid}", "--mount", "--net", "--"] if pid else []

    @property
    def _open(self):
        return os.environ["GATED_OPEN"] + self.get_option("pid")

    def _come_through(self):
        if os.path.exists(self._open):
            return
        argv = ["nsenter", "--net=/run/netns/peer", "--", "/usr/bin/python3", "-c", CONNECT]
        done = subprocess.run([*self._enter, *argv], capture_output=True, check=False)
        with open(os.environ["GATED_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{'refused' if done.returncode else 'opened'}\n")
        if done.returncode:
            raise AnsibleConnectionFailure("Connection timed out")
        open(self._open, "w", encoding="utf-8").close()
