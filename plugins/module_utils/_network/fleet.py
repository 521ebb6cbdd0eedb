# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What the fleet may decide on this host: the values that these settings can have."""

from __future__ import annotations

import typing as t

from .._base.duration import parse_duration
from .._base.errors import InvalidInput
from .._base.number import read_whole

ENFORCE, MONITOR, OFF = "enforce", "monitor", "off"
ACTIONS = (ENFORCE, MONITOR, OFF)
LISTS: t.Final[dict[str, tuple[str, ...]]] = {
    "none": (),
    "deny": ("deny",),
    "both": ("allow", "deny"),
}
"""The kinds of lists that the fleet may set, by value."""
MAX_BANS = 12288
"""Three quarters of the map ``bans``. The last quarter is kept for bans by hand."""
_MAX_LONGEST = 366 * 86400


def parse_action(text: str, name: str) -> str:
    """What the host does with bans of the fleet; errors name the setting."""
    # YAML reads an unquoted off as False.
    if text == str(False):
        return OFF
    if text not in ACTIONS:
        raise InvalidInput(f"{name} is {text!r}: write {', '.join(ACTIONS[:-1])} or {OFF}")
    return text


def parse_lists(text: str, name: str) -> tuple[str, ...]:
    """The kinds of lists that the fleet may set; errors name the setting."""
    if text not in LISTS:
        raise InvalidInput(f"{name} is {text!r}: write {', '.join(LISTS)}")
    return LISTS[text]


def permitted_lists(action: str, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds of lists that the fleet may set now, of those that it may set with `ENFORCE`."""
    return kinds if action == ENFORCE else ()


def parse_longest(text: str, name: str) -> float:
    """The maximum length of a fleet ban, in seconds; errors name the setting."""
    return parse_duration(text, name, 1, _MAX_LONGEST)


def parse_most(text: str, name: str) -> int:
    """The maximum number of fleet bans; errors name the setting."""
    value = read_whole(text, MAX_BANS)
    if not value:
        raise InvalidInput(f"{name} is {text!r}: write a whole number from 1 to {MAX_BANS}")
    return value
