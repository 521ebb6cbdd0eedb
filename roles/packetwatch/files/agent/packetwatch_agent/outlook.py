# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent knows about the filter: the attached programs, and root's note on the tables.

Any user may ask the kernel which program is attached to an interface, but only root can read its tables.
The one-shots write what they find there into a note (`packetwatch_core._health.status`), after each
change and every ten minutes.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from packetwatch_core._base.errors import PacketwatchError
from packetwatch_core._base.files import open_regular, parse_json
from packetwatch_core._dispatcher.place import is_dispatcher
from packetwatch_core._health import problems
from packetwatch_core._health.problems import Facts
from packetwatch_core._kernel import abi, netlink

from .confirmed import Confirmed
from .metrics import COUNTER, GAUGE, Rows, Sample, Values, by_label
from .part import Part
from .settings import Settings

_STATISTICS = "/sys/class/net/{}/statistics/rx_{}"
# The kernel's names by our label.
_DISCARDS = {
    "dropped": "dropped",
    "missed": "missed_errors",
    "fifo": "fifo_errors",
    "over": "over_errors",
}
_IDLE = ("shadowed", "impossible", "expired")
_MAX_NOTE = 1 << 20
_MAX_NUMBER = 1 << 64
Note = dict[str, t.Any]


class _Attached(t.NamedTuple):
    """Mode of a program, whether it is ours, and whether the interface exists.

    is_unread: root has seen our program in a dispatcher that another tool has replaced since. libxdp keeps
    all programs when it replaces one, so it counts as ours until root has read it.
    """

    mode: str
    is_ours: bool
    is_there: bool
    is_unread: bool


class Outlook(Part):
    """Reads the note again when it has changed. complain: called with errors of reading."""

    METRICS: t.ClassVar[Rows] = {
        "packetwatch_attached": (
            GAUGE,
            "1 if our program is on the interface, in the mode that the kernel reports, else 0.",
        ),
        "packetwatch_next_program": (
            GAUGE,
            "1 if the next program of the interface is the declared one, 0 if it is missing or another one.",
        ),
        "packetwatch_lists_in_kernel": (
            GAUGE,
            "1 if the tables read back from the kernel are those compiled from confirmed state.",
        ),
        "packetwatch_lists_verified_timestamp_seconds": (
            GAUGE,
            "When confirmed state was last compiled and compared with the kernel.",
        ),
        "packetwatch_lists_verify_success": (
            GAUGE,
            "0 if confirmed state and the kernel could not be compared at the last attempt, else 1.",
        ),
        "packetwatch_entries_declared": (GAUGE, "Entries of the declared lists that count now."),
        "packetwatch_entries_expired": (GAUGE, "Entries of the declared lists that have expired."),
        "packetwatch_entries_undecided": (
            GAUGE,
            "Entries that may have expired, which nobody knows until the clock is trusted.",
        ),
        "packetwatch_entries_without_effect": (
            GAUGE,
            "Entries that decide no packet: shadowed by an allowed prefix, expired, or impossible sources.",
        ),
        "packetwatch_feed_entries_left_out": (
            GAUGE,
            "Entries of feeds that match a connected network or a protected address.",
        ),
        "packetwatch_feeds_broken": (GAUGE, "Feeds left out because they are damaged on disk."),
        "packetwatch_feed_fetched_timestamp_seconds": (
            GAUGE,
            "When the publisher last served the copy that a feed has.",
        ),
        "packetwatch_feed_published_timestamp_seconds": (
            GAUGE,
            "When the copy that a feed has was published, by its publisher.",
        ),
        "packetwatch_feed_expired_timestamp_seconds": (
            GAUGE,
            "When the last copy of a feed that has none any more has expired.",
        ),
        "packetwatch_ranges_in_kernel": (
            GAUGE,
            "Address ranges in the compiled tables, by family.",
        ),
        "packetwatch_tables_used_bytes": (GAUGE, "Kernel memory that the active tables need."),
        "packetwatch_tables_capacity_bytes": (
            GAUGE,
            "Kernel memory reserved for the tables: larger ones need the program loaded again.",
        ),
        "packetwatch_generation_info": (GAUGE, "Digest of all that decides a verdict, always 1."),
        "packetwatch_confirmed_state": (GAUGE, "Number of the confirmed state."),
        "packetwatch_panic": (GAUGE, "1 while everything passes because of panic."),
        "packetwatch_change_pending": (GAUGE, "1 while a change is active but not confirmed."),
        "packetwatch_apply_timestamp_seconds": (
            GAUGE,
            "When tables were last activated, or failed.",
        ),
        "packetwatch_apply_success": (
            GAUGE,
            "1 if the last apply of confirmed state succeeded.",
        ),
        "packetwatch_repairs_total": (
            COUNTER,
            "Attempts of root to repair drift since boot, by outcome.",
        ),
        "packetwatch_repair_timestamp_seconds": (
            GAUGE,
            "When root last tried to repair drift.",
        ),
        "packetwatch_interface_receive_discards_total": (
            COUNTER,
            "Packets that the card or the kernel discarded, usually before any filter.",
        ),
    }

    def __init__(
        self, settings: Settings, confirmed: Confirmed, complain: t.Callable[[str], None]
    ) -> None:
        self._path = settings.status_file
        self._wrong_settings = settings.problems
        self._confirmed = confirmed
        self._complain = complain
        self._version: tuple[int, int] | None = None
        self._note: Note = {}

    def values(self) -> Values:
        """Metrics of interfaces and tables, without unknown values."""
        note = self._read()
        pages = {name: _number(note, name) for name in ("bytes", "capacity", "number", "verified")}
        apply, counts, repair = note.get("apply"), note.get("counts"), self.repair()
        idle = note.get("idle")
        values: Values = {
            "packetwatch_attached": [
                ({"interface": name, "mode": there.mode}, float(there.is_ours))
                for name, there in self._attached(note).items()
            ],
            "packetwatch_next_program": [
                ({"interface": name}, float(not why)) for name, why in _texts(note, "nexts").items()
            ],
            "packetwatch_lists_in_kernel": _known(_number(note, "matches")),
            "packetwatch_lists_verified_timestamp_seconds": _known(pages["verified"]),
            "packetwatch_lists_verify_success": [({}, int("unverified" not in note))],
            "packetwatch_tables_used_bytes": _known(pages["bytes"]),
            "packetwatch_tables_capacity_bytes": _known(pages["capacity"]),
            "packetwatch_confirmed_state": [({}, self._confirmed.number)],
            "packetwatch_panic": [({}, int(self._confirmed.panic() is not None))],
            "packetwatch_change_pending": [({}, int(self._confirmed.is_change_pending()))],
            "packetwatch_repairs_total": by_label(
                "outcome", {name: _number(repair, name) or 0 for name in ("success", "failure")}
            ),
            "packetwatch_repair_timestamp_seconds": _known(_number(repair, "time")),
            "packetwatch_apply_timestamp_seconds": _known(_number(apply, "time")),
            "packetwatch_apply_success": _known(_number(apply, "success")),
            "packetwatch_interface_receive_discards_total": self._discards(),
            **_times(note.get("feeds")),
            "packetwatch_feed_expired_timestamp_seconds": by_label(
                "feed", _numbers(note, "expired_feeds")
            ),
        }
        if isinstance(note.get("digest"), str):
            values["packetwatch_generation_info"] = [({"digest": note["digest"]}, 1)]
        # Root does not look for them during a boot.
        if isinstance(idle, dict):
            values["packetwatch_entries_without_effect"] = by_label(
                "reason", {name: _number(idle, name) or 0 for name in _IDLE}
            )
        if isinstance(counts, dict):
            values["packetwatch_feed_entries_left_out"] = _known(_number(counts, "left_out"))
            values["packetwatch_entries_expired"] = _known(_number(counts, "expired"))
            values["packetwatch_entries_undecided"] = _known(_number(counts, "undecided"))
            values["packetwatch_feeds_broken"] = _known(_number(counts, "broken_feeds"))
            values["packetwatch_entries_declared"] = by_label(
                "list", {name: _number(counts, name) or 0 for name in ("allow", "deny")}
            )
            values["packetwatch_ranges_in_kernel"] = by_label(
                "family",
                {name: _number(counts, f"ranges_{name}") or 0 for name in abi.FAMILIES[1:]},
            )
        return values

    def tracks(self) -> float | None:
        """Number of tracked sources at root's last comparison."""
        return _number(self._read(), "tracks")

    def entries(self) -> dict[str, t.Any]:
        """How many entries root compiled, by kind, as in the metrics; empty if nothing is active."""
        found = self._read().get("counts")
        return found if isinstance(found, dict) else {}

    def facts(self, known: Facts) -> Facts:
        note = self._read()
        attached = self._attached(note)
        panic = self._confirmed.panic()
        return known._replace(
            panic=panic.describe() if panic else "",
            is_pending=self._confirmed.is_change_pending(),
            declared=list(attached),
            filtered=[name for name, there in attached.items() if there.is_ours],
            unread=[name for name, there in attached.items() if there.is_unread],
            present=[name for name, there in attached.items() if there.is_there],
            renamed=self._renamed(note),
            nexts=_texts(note, "nexts"),
            strayed=_list(note, "strayed"),
            is_whole=_number(note, "whole") != 0,
            is_edited=note.get("edited") is True,
            matches=_number(note, "matches") != 0,
            has_failed=_number(note.get("apply"), "success") == 0,
            failure=_text(note.get("apply"), "why"),
            wrong_settings=list((_texts(note, "settings") | self._wrong_settings).values()),
            distrusted=_list(note, "distrusted"),
            broken_feeds=int(_number(note.get("counts"), "broken_feeds") or 0),
            expired_feeds=_numbers(note, "expired_feeds"),
            verified=_number(note, "verified"),
            unverified=_text(note, "unverified"),
        )

    def drift(self, unpinned: t.Collection[str] = (), is_blind: bool = False) -> list[str]:
        """Differences from the state that was confirmed and activated, in words."""
        active = _number(self._read(), "number")
        # Only drift compares these numbers: for a moment after a change, confirmed state is newer than
        # the note, and drift must be seen twice in a row.
        facts = self.facts(Facts())._replace(
            active=None if active is None else int(active),
            confirmed=self._confirmed.number,
            unpinned=unpinned,
            is_blind=is_blind,
        )
        return [problem.text for problem in problems.drift(facts)]

    def nexts(self) -> dict[str, str]:
        """What is wrong with the next program of each interface that has one, and is not drift."""
        note = self._read()
        strayed = _list(note, "strayed")
        return {name: why for name, why in _texts(note, "nexts").items() if name not in strayed}

    def modes(self) -> dict[str, str]:
        """Mode of each interface of confirmed state: that of any program, also another tool's, or none."""
        found = self._attached(self._read())
        return {
            name: found[name].mode if name in found else "none"
            for name in self._confirmed.interfaces
        }

    def repair(self) -> Note:
        """Root's last attempt to repair drift; empty if there was none."""
        found = self._read().get("heal")
        return found if isinstance(found, dict) else {}

    def _attached(self, note: Note) -> dict[str, _Attached]:
        """The program on each interface of confirmed state; if that cannot be read, of the note.

        Without a note, any program counts as ours.
        """
        try:
            links = {link.name: link for link in netlink.links()}
        except PacketwatchError as error:
            self._complain(f"cannot read which programs are attached: {error}")
            return {}
        noted = note.get("interfaces")
        found = {}
        for name in self._confirmed.interfaces or (noted if isinstance(noted, dict) else ()):
            link = links.get(name)
            mode = link.xdp_mode if link else ""
            is_ours, is_unread = bool(mode), False
            if link and mode and isinstance(noted, dict):
                is_noted = _number(noted.get(name), "program") == link.xdp_program
                is_unread = not is_noted and is_dispatcher(_text(noted.get(name), "mode"))
                is_ours = is_noted or is_unread
            found[name] = _Attached(mode or "none", is_ours, link is not None, is_unread)
        return found

    def _renamed(self, note: Note) -> dict[str, str]:
        """Filtered interfaces that root found not to be declared, with the declared names that they had."""
        noted = _texts(note, "renamed")
        if not noted:
            return {}
        filtered: set[str] = set()
        with contextlib.suppress(PacketwatchError):
            filtered = {link.name for link in netlink.links() if link.xdp_mode}
        return {
            name: former
            for name, former in noted.items()
            if name in filtered and name not in self._confirmed.interfaces
        }

    def _discards(self) -> list[Sample]:
        """Packets that the card or the kernel discarded before a filter could see them."""
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
                with open(open_regular(self._path), encoding="utf-8") as file:
                    found = parse_json(file.read(_MAX_NOTE))
                self._note = found if isinstance(found, dict) else {}
                self._version = version
        except FileNotFoundError:
            self._note, self._version = {}, None
        except (OSError, ValueError) as error:
            self._complain(f"cannot read {self._path}: {error}")
        return self._note


def _number(note: t.Any, name: str) -> float | None:
    value = note.get(name) if isinstance(note, dict) else None
    return float(value) if isinstance(value, int | float) and abs(value) < _MAX_NUMBER else None


def _text(note: t.Any, name: str) -> str:
    value = note.get(name) if isinstance(note, dict) else None
    return value if isinstance(value, str) else ""


def _texts(note: Note, name: str) -> dict[str, str]:
    found = note.get(name)
    return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _list(note: Note, name: str) -> list[str]:
    found = note.get(name)
    return [str(value) for value in found] if isinstance(found, list) else []


def _times(feeds: t.Any) -> Values:
    """When the copies of feeds were fetched and published; unknown times are left out."""
    noted = feeds if isinstance(feeds, dict) else {}
    return {
        f"packetwatch_feed_{name}_timestamp_seconds": by_label(
            "feed",
            {
                feed: time
                for feed, times in noted.items()
                if (time := _number(times, name)) is not None
            },
        )
        for name in ("fetched", "published")
    }


def _numbers(note: Note, name: str) -> dict[str, float]:
    found = note.get(name)
    noted = found if isinstance(found, dict) else {}
    return {key: number for key in noted if (number := _number(noted, key)) is not None}


def _known(value: float | None) -> list[Sample]:
    return [] if value is None else [({}, value)]
