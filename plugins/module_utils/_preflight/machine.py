# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The host before anything is installed on it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import typing as t

from .._base.paths import Paths
from .._kernel import netlink

if t.TYPE_CHECKING:
    from .._base.types import Run


@dataclasses.dataclass
class Machine:
    """The host that is checked. For tests, `root` is a folder; release: of the running kernel. uid: of this process."""

    run: Run
    root: pathlib.Path = pathlib.Path("/")
    release: str = dataclasses.field(default_factory=lambda: os.uname().release)
    uid: int = dataclasses.field(default_factory=os.geteuid)
    links: t.Sequence[netlink.Link] = dataclasses.field(default_factory=netlink.links)
    paths: Paths = dataclasses.field(default_factory=Paths)

    def path(self, name: str) -> pathlib.Path:
        """A path below the root."""
        return self.root / name

    def lines(self, name: str) -> list[str]:
        """The lines of a file; none if there is no such file."""
        try:
            return self.path(name).read_text().splitlines()
        except FileNotFoundError:
            return []

    def output(self, *argv: str) -> str:
        """What a command prints, whatever its exit status."""
        return self.run(argv, None)[1]
