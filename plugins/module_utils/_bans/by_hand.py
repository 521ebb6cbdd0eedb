# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Manual bans, as a play declares them: idempotent, with check mode."""

from __future__ import annotations

import time
import typing as t

from .._base.address import format_prefix, parse_prefix
from .._base.errors import InvalidInput
from .bans import Ban, Bans
from .facts import facts, name_of
from .story import story

if t.TYPE_CHECKING:
    from .._base.types import Run
    from .._kernel.pins import Pins

_MILLISECOND = 1_000_000


class BanChange(t.NamedTuple):
    """The result for the bans of `source`.

    before, after: for a diff. lifted: for each lifted ban its `facts` and `Story`.
    """

    changed: bool
    source: str
    before: str
    after: str
    lifted: t.Sequence[dict[str, t.Any]] = ()


def ban(pins: Pins, address: str, duration: float | None, check: bool) -> BanChange:
    """Ban a source for `duration` seconds (None: until lifted); raises InvalidInput if it is protected.

    An active ban of the same duration stays as it is, so that a play is idempotent.
    """
    bans = _open(pins)
    source = bans.source_of(address)
    present = bans.find(source, "bans")
    before = _ban_line(present)
    if present and _has_duration(present, duration):
        return BanChange(False, source.text, before, before)
    refusal = bans.protection_of(source)
    if refusal:
        raise InvalidInput(f"{refusal}, so it cannot be banned")
    after = f"{source.text} banned {_length(duration)}\n"
    if not check:
        bans.add(address, duration)
    return BanChange(True, source.text, before, after)


def unban(run: Run, pins: Pins, address: str, check: bool) -> BanChange:
    """Lift all bans that match a source. If nothing is loaded, there are no bans."""
    if not pins.loaded():
        return BanChange(False, format_prefix(parse_prefix(address)), "", "")
    bans = _open(pins)
    found = bans.why(address).bans
    source = bans.source_of(address).text
    if found and not check:
        bans.lift(address)
    before = "".join(_ban_line(ban) for ban in found)
    return BanChange(bool(found), source, before, "", [_lifted(run, ban) for ban in found])


def damaged(pins: Pins) -> list[str]:
    """How many entries of the tables are not bans, in words; empty if all are bans, or nothing is loaded."""
    count = sum(1 for dummy in _open(pins).damaged()) if pins.loaded() else 0
    if not count:
        return []
    return [
        f"{count} entries of the tables of bans are not bans: the agent removes them; if they stay, "
        "systemctl restart packetwatch"
    ]


def _lifted(run: Run, ban: Ban) -> dict[str, t.Any]:
    found = facts(ban, name_of)
    return found | story(run, ban.source.prefix, found["since"])._asdict()


def _open(pins: Pins) -> Bans:
    if not pins.loaded():
        raise InvalidInput(
            "nothing is loaded on this host, so there are no bans: attach the filter first"
        )
    return Bans.open(pins)


def _ban_line(ban: Ban | None) -> str:
    return f"{ban.source.text} banned ({ban.origin_name})\n" if ban else ""


def _has_duration(ban: Ban, duration: float | None) -> bool:
    if ban.has_expired(time.monotonic_ns()):
        return False
    if duration is None or not ban.expires:
        return duration is None and not ban.expires
    if not ban.since:
        # The ban began before this boot, so only the time that is left is known.
        return ban.expires - time.monotonic_ns() <= duration * 1e9
    # A restored ban has lost some precision: its file holds times as decimal seconds.
    return abs(ban.expires - ban.since - duration * 1e9) < _MILLISECOND


def _length(duration: float | None) -> str:
    return "until lifted" if duration is None else f"for {duration:g} s"
