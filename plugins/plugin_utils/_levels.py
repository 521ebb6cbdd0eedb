# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Lists that a stronger level of the inventory hides.

Variables of different names merge. Of variables of one name, Ansible takes the one from the level with
the highest precedence. A host shows only that one, so this module reads the inventory itself, level by
level.
"""

from __future__ import annotations

import itertools
import os
import typing as t

from ansible.inventory.helpers import sort_groups
from ansible_collections.packetwatch.xdp.plugins.module_utils._preflight.values import LISTS

if t.TYPE_CHECKING:
    from ansible.inventory.group import Group
    from ansible.inventory.host import Host
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader

_ALL = "all"


class Place(t.NamedTuple):
    """Where a variable is set: the group or host, and the file."""

    level: str
    file: str

    def __str__(self) -> str:
        return f"{self.level} ({self.file})"


class Hidden(t.NamedTuple):
    """A variable that has no effect on some hosts, because a stronger place sets it too."""

    name: str
    place: Place
    by: Place
    hosts: list[str]

    def __str__(self) -> str:
        more = f" and {len(self.hosts) - 1} more" if len(self.hosts) > 1 else ""
        return (
            f"{self.name} of {self.place} is hidden from {self.hosts[0]}{more} by that of {self.by}: "
            "give one of the two another NAME after its two underscores, and they merge"
        )


class Levels:
    """An inventory's variables, by the places where they are set; sources: as given by -i."""

    def __init__(
        self, inventory: InventoryManager, loader: DataLoader, sources: t.Sequence[str]
    ) -> None:
        self._inventory = inventory
        self._loader = loader
        self._sources = ", ".join(
            os.path.relpath(path) if os.path.exists(path) else path for path in sources
        )
        folders = [path if os.path.isdir(path) else os.path.dirname(path) for path in sources]
        # A source that is not a path is a list of hosts, which has no folder.
        self._folders = [
            os.path.abspath(folder)
            for folder, path in zip(folders, sources)
            if os.path.exists(path)
        ]
        self._known: dict[tuple[str, str], list[tuple[Place, set[str]]]] = {}

    def hidden(self) -> list[Hidden]:
        """All hidden variables, by name; raises `AnsibleError` for a file that cannot be read."""
        found: dict[tuple[str, Place, Place], list[str]] = {}
        for host in sorted(self._inventory.get_hosts(), key=lambda host: str(host.name)):
            places_of: dict[str, list[Place]] = {}
            for place, names in self._places(host):
                for name in names:
                    places_of.setdefault(name, []).append(place)
            for name, places in places_of.items():
                for weaker, stronger in itertools.pairwise(places):
                    found.setdefault((name, weaker, stronger), []).append(str(host.name))
        return [Hidden(*key, hosts) for key, hosts in sorted(found.items())]

    def _places(self, host: Host) -> t.Iterator[tuple[Place, set[str]]]:
        """Places and their variables, from the weakest (Ansible's default VARIABLE_PRECEDENCE)."""
        groups = sort_groups(host.get_groups())
        for group in groups:
            yield self._inline("group", group)
        common = [group for group in groups if group.name == _ALL]
        for some in (common, [group for group in groups if group.name != _ALL]):
            for folder in self._folders:
                for group in some:
                    yield from self._files(folder, "group", str(group.name))
        yield self._inline("host", host)
        for folder in self._folders:
            yield from self._files(folder, "host", str(host.name))

    def _inline(self, kind: str, entity: Group | Host) -> tuple[Place, set[str]]:
        return Place(f"{kind} {entity.name}", self._sources), _merged(entity.vars)

    def _files(self, folder: str, kind: str, name: str) -> list[tuple[Place, set[str]]]:
        key = (os.path.join(folder, f"{kind}_vars"), name)
        if key not in self._known:
            paths = self._loader.find_vars_files(*key) if os.path.isdir(key[0]) else []
            texts = [path if isinstance(path, str) else path.decode() for path in paths]
            self._known[key] = [
                (
                    Place(f"{kind} {name}", os.path.relpath(path)),
                    _merged(self._read(path)),
                )
                for path in texts
            ]
        return self._known[key]

    def _read(self, path: str) -> t.Any:
        # With a cache, Ansible would take these values, which are not templates, for those of hosts.
        return self._loader.load_from_file(path, cache="none", unsafe=True) or {}


def _merged(variables: t.Any) -> set[str]:
    names = variables if isinstance(variables, t.Mapping) else ()
    return {name for name in names if isinstance(name, str) and LISTS.fullmatch(name)}
