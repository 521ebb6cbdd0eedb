# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent sees of the filter from outside: interfaces, and what root has noted about the tables.

It may ask the kernel which program sits where, but not what is in it: the one-shots note that in a
file (`packetwatch_core._status`), after each change and once an hour.
"""

from __future__ import annotations

import json
import os
import time
import typing as t

from packetwatch_core import _abi, _netlink
from packetwatch_core._errors import PacketwatchError

from .confirmed import Confirmed
from .metrics import Sample, Values, by_label
from .settings import Settings

_STATISTICS = "/sys/class/net/{}/statistics/rx_{}"
# What the kernel calls them, by our label.
_DISCARDS = {
    "dropped": "dropped",
    "missed": "missed_errors",
    "fifo": "fifo_errors",
    "over": "over_errors",
}
_LONGEST_NOTE = 1 << 20
_STALE = 3 * 3600.0
PANIC = "PANIC: nothing is filtered until it is lifted"

Note = dict[str, t.Any]


class Outlook:
    """Reads the note again when it has changed; complain: told what cannot be read."""

    def __init__(
        self, settings: Settings, confirmed: Confirmed, complain: t.Callable[[str], None]
    ) -> None:
        self._path = settings.status_file
        self._confirmed = confirmed
        self._complain = complain
        self._version: tuple[int, int] | None = None
        self._note: Note = {}

    def values(self) -> Values:
        """Metrics of interfaces and tables; what is not known is left out."""
        note = self._read()
        pages = {name: _number(note, name) for name in ("bytes", "capacity", "number", "verified")}
        apply, counts = note.get("apply"), note.get("counts")
        values: Values = {
            "packetwatch_attached": [
                ({"interface": name, "mode": mode}, float(is_ours))
                for name, (mode, is_ours) in self._attached(note).items()
            ],
            "packetwatch_lists_in_kernel": _known(_number(note, "matches")),
            "packetwatch_lists_verified_timestamp_seconds": _known(pages["verified"]),
            "packetwatch_tables_used_bytes": _known(pages["bytes"]),
            "packetwatch_tables_capacity_bytes": _known(pages["capacity"]),
            "packetwatch_confirmed_state": [({}, self._confirmed.number)],
            "packetwatch_panic": [({}, int(self._confirmed.is_panic()))],
            "packetwatch_change_pending": [({}, int(self._confirmed.is_change_pending()))],
            "packetwatch_apply_timestamp_seconds": _known(_number(apply, "time")),
            "packetwatch_apply_success": _known(_number(apply, "success")),
            "packetwatch_interface_receive_discards_total": self._discards(),
        }
        if isinstance(note.get("digest"), str):
            values["packetwatch_generation_info"] = [({"digest": note["digest"]}, 1)]
        if isinstance(counts, dict):
            values["packetwatch_entries_declared"] = by_label(
                "list", {name: _number(counts, name) or 0 for name in ("allow", "deny")}
            )
            values["packetwatch_ranges_in_kernel"] = by_label(
                "family",
                {name: _number(counts, f"ranges_{name}") or 0 for name in _abi.FAMILIES[1:]},
            )
        return values

    def tracks(self) -> float | None:
        """How many sources were being counted when root looked last."""
        return _number(self._read(), "tracks")

    def problems(self) -> list[str]:
        """Why the filter is not what it should be, in words; nothing while a change is pending."""
        if self._confirmed.is_panic():
            return [PANIC]
        note = self._read()
        found = [
            f"{name} is not filtered"
            for name, (dummy, is_ours) in self._attached(note).items()
            if not is_ours
        ]
        if _number(note, "matches") == 0 and not self._confirmed.is_change_pending():
            found.append("the kernel does not have what is confirmed")
        if _number(note.get("apply"), "success") == 0:
            found.append("the last apply has failed")
        verified = _number(note, "verified")
        if verified is not None and time.time() - verified > _STALE:
            found.append("nobody has verified the tables for hours")
        return found

    def _attached(self, note: Note) -> dict[str, tuple[str, bool]]:
        """Of each interface of confirmed state, the mode of its program and whether that is ours.

        While root has noted nothing, whatever sits there is taken for ours.
        """
        try:
            links = {link.name: link for link in _netlink.links()}
        except PacketwatchError as error:
            self._complain(f"what is attached cannot be read: {error}")
            return {}
        noted = note.get("interfaces")
        found = {}
        for name in self._confirmed.interfaces:
            link = links.get(name)
            mode = link.xdp_mode if link else ""
            is_ours = bool(mode)
            if link and mode and isinstance(noted, dict):
                is_ours = _number(noted.get(name), "program") == link.xdp_program
            found[name] = mode or "none", is_ours
        return found

    def _discards(self) -> list[Sample]:
        """Packets that the card or the kernel discarded before anybody could look at them."""
        samples: list[Sample] = []
        for interface in self._confirmed.interfaces:
            for reason, name in _DISCARDS.items():
                try:
                    with open(_STATISTICS.format(interface, name), encoding="ascii") as file:
                        count = int(file.read())
                except (OSError, ValueError):
                    continue
                samples.append(({"interface": interface, "reason": reason}, count))
        return samples

    def _read(self) -> Note:
        try:
            status = os.stat(self._path)
            version = status.st_ino, status.st_mtime_ns
            if version != self._version:
                with open(self._path, encoding="utf-8") as file:
                    found = json.loads(file.read(_LONGEST_NOTE))
                self._note = found if isinstance(found, dict) else {}
                self._version = version
        except FileNotFoundError:
            self._note, self._version = {}, None
        except (OSError, ValueError) as error:
            self._complain(f"{self._path} cannot be read: {error}")
        return self._note


def _number(note: t.Any, name: str) -> float | None:
    value = note.get(name) if isinstance(note, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _known(value: float | None) -> list[Sample]:
    return [] if value is None else [({}, value)]
