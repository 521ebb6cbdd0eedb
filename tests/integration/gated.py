# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A connection plugin for tests: commands run here, if a TCP connection from the peer comes through.

As with SSH and ControlPersist, an open connection goes on without asking the filter again, and
`reset` gives it up. Each opened one leaves a line in a file.
"""

from __future__ import annotations

import os
import subprocess

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = """
name: gated
short_description: local, behind the filter
description: local, behind the filter
options: {}
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

    def exec_command(self, *arguments, **options):
        self._come_through()
        if os.environ.get("GATED_LOSE") and b"access_lists" in (options.get("in_data") or b""):
            # What runs goes on, and its answer is lost.
            super().exec_command(*arguments, **options)
            raise AnsibleConnectionFailure("lost amid the answer")
        return super().exec_command(*arguments, **options)

    def put_file(self, *arguments, **options):
        self._come_through()
        return super().put_file(*arguments, **options)

    def reset(self):
        if os.path.exists(os.environ["GATED_OPEN"]):
            os.unlink(os.environ["GATED_OPEN"])

    def _come_through(self):
        if os.path.exists(os.environ["GATED_OPEN"]):
            return
        argv = ["nsenter", "--net=/run/netns/peer", "--", "/usr/bin/python3", "-c", CONNECT]
        done = subprocess.run(argv, capture_output=True, check=False)
        with open(os.environ["GATED_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{'refused' if done.returncode else 'opened'}\n")
        if done.returncode:
            raise AnsibleConnectionFailure("Connection timed out")
        open(os.environ["GATED_OPEN"], "w", encoding="utf-8").close()
