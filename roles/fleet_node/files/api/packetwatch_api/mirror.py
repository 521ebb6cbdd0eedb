# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A copy of some values of the store. A refresh transfers only what has changed."""

from __future__ import annotations

import base64
import typing as t

from packetwatch_core._node.gateway import Gateway, Json, below, encoded
from packetwatch_core._node.keys import KEYS

# Values of one answer.
_PIECE = 64


class Difference(t.NamedTuple):
    """What a refresh has found: keys with other values, keys that are gone."""

    changed: list[str]
    gone: list[str]


class Mirror:
    """wanted: which keys it has."""

    def __init__(self, wanted: t.Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._cluster = ""
        self.revision = 0
        """The store's revision at the last refresh."""
        self.values: dict[str, tuple[int, bytes]] = {}
        """Revision and value by key."""

    def refresh(self, gateway: Gateway) -> Difference:
        """Make the copy what the store has, with the agreement of a majority of nodes."""
        key, end = below(KEYS)
        answer = gateway.call("/v3/kv/range", {"key": key, "range_end": end, "keys_only": True})
        header = answer.get("header", {})
        cluster, revision = str(header.get("cluster_id")), int(header.get("revision", 0))
        # Another store may have the same revisions with other values.
        known = self.values if (cluster, True) == (self._cluster, revision >= self.revision) else {}
        names = {
            name: int(item.get("mod_revision", 0))
            for item in answer.get("kvs", ())
            if self._wanted(name := base64.b64decode(item["key"]).decode(errors="replace"))
        }
        gone = [name for name in self.values if name not in names]
        values = {name: known[name] for name in names if name in known}
        changed = [name for name, found in names.items() if values.get(name, (0,))[0] != found]
        for at in range(0, len(changed), _PIECE):
            some = changed[at : at + _PIECE]
            for name in some:
                values.pop(name, None)
            values |= _read(gateway, some)
        # A key may have vanished since the listing.
        gone += [name for name in changed if name not in values and name in self.values]
        self._cluster, self.revision, self.values = cluster, revision, values
        return Difference([name for name in changed if name in values], gone)


def _read(gateway: Gateway, names: t.Iterable[str]) -> dict[str, tuple[int, bytes]]:
    """The values of keys, at one revision."""
    requests: list[Json] = [{"request_range": {"key": encoded(name)}} for name in names]
    answer = gateway.call("/v3/kv/txn", {"success": requests})
    return {
        base64.b64decode(item["key"]).decode(errors="replace"): (
            int(item["mod_revision"]),
            base64.b64decode(item.get("value", "")),
        )
        for response in answer.get("responses", ())
        for item in response.get("response_range", {}).get("kvs", ())
    }
