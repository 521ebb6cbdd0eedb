# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Notes that the task of one host leaves for the task of another, within one run of ansible-playbook.

They are files on the controller, in the folder that Ansible makes for the run and removes after it.
Facts would work too, but reading the facts of 500 hosts takes Ansible half a minute.
"""

from __future__ import annotations

import json
import pathlib
import typing as t
import urllib.parse

from ansible import constants as C


class Notes:
    """Notes of one kind, one for each host."""

    def __init__(self, kind: str) -> None:
        self._folder = pathlib.Path(C.DEFAULT_LOCAL_TMP) / f"packetwatch-{kind}"

    def leave(self, host: str, note: t.Any) -> None:
        """Write a note, of values that JSON can hold; it replaces the host's earlier note."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / urllib.parse.quote(host, safe="")
        path.write_text(json.dumps(note), encoding="utf-8")

    def read(self) -> dict[str, t.Any]:
        """All notes, by host."""
        if not self._folder.is_dir():
            return {}
        return {
            urllib.parse.unquote(path.name): json.loads(path.read_text(encoding="utf-8"))
            for path in self._folder.iterdir()
        }
