# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The place of a program in a dispatcher: its priority, and after which of its verdicts the next one runs.

As text, it is the mode of an interface: ``dispatcher:10:pass``. ``dispatcher`` alone is the default place.
"""

from __future__ import annotations

import typing as t

from .._base.errors import InvalidInput
from .._base.number import read_whole

DISPATCHER = "dispatcher"
# By the number of the verdict (enum xdp_action).
ACTIONS = ("aborted", "drop", "pass", "tx", "redirect")
CHOICES = tuple(action for action in ACTIONS if action != "drop")
"""The verdicts after which an operator may let the next program run."""
KEYS = ("mode", "priority", "chain_call_actions")
MAX_PRIORITY = 2**31 - 1

_NONE = "none"


class Place(t.NamedTuple):
    """priority: the program with the lowest number runs first. actions: some of `CHOICES`."""

    priority: int = 10
    actions: tuple[str, ...] = ("pass",)

    @property
    def bits(self) -> int:
        """The actions as libxdp writes them: bit N for the verdict N."""
        return sum(1 << ACTIONS.index(action) for action in self.actions)

    def mode(self) -> str:
        """The place as text."""
        return f"{DISPATCHER}:{self.priority}:{','.join(self.actions) or _NONE}"


def is_dispatcher(mode: str) -> bool:
    """Whether the mode of an interface is a place in a dispatcher."""
    return mode.partition(":")[0] == DISPATCHER


def read_place(mode: str) -> Place:
    """Read what `Place.mode` writes; raises `InvalidInput`."""
    name, *words = mode.split(":")
    if name != DISPATCHER or len(words) not in (0, 2):
        raise InvalidInput(f"mode is {mode!r}: write {DISPATCHER}, or as {Place().mode()}")
    if not words:
        return Place()
    return make_place(words[0], [] if words[1] == _NONE else words[1].split(","))


def mode_from_options(options: t.Mapping[str, t.Any]) -> str:
    """The mode of an interface as text, from the keys `KEYS` of an operator; raises `InvalidInput`."""
    mode, *rest = (options.get(key) for key in KEYS)
    if mode == DISPATCHER:
        for key in ("next", "next_src"):
            if options.get(key):
                raise InvalidInput(
                    f"{key} is {options[key]!r}, but mode is {DISPATCHER}: attach that program by xdp-loader "
                    "with a higher priority number, so that it runs after Packetwatch"
                )
        return make_place(*rest).mode()
    for key, value in zip(KEYS[1:], rest):
        if value is not None:
            raise InvalidInput(
                f"{key} is {value!r}, but mode is {mode or 'auto'}: set it only with mode {DISPATCHER}"
            )
    return mode or "auto"


def make_place(priority: object = None, actions: t.Sequence[object] | None = None) -> Place:
    """A place of what an operator has chosen; None: the default. Raises `InvalidInput`."""
    default = Place()
    number = default.priority
    if priority is not None:
        found = read_whole(str(priority), MAX_PRIORITY)
        if found is None:
            raise InvalidInput(
                f"priority is {priority!r}: write a whole number from 0 to {MAX_PRIORITY}"
            )
        number = found
    if actions is None:
        return Place(number)
    if isinstance(actions, (str, bytes)) or not isinstance(actions, t.Iterable):
        raise InvalidInput(
            f"chain_call_actions is {actions!r}: write a list of {', '.join(CHOICES)}"
        )
    for action in actions:
        if action == "drop":
            raise InvalidInput(
                "chain_call_actions contains drop: then packets that Packetwatch drops would reach the next "
                "program, and could pass; to drop nothing, set action to monitor"
            )
        if action not in CHOICES:
            raise InvalidInput(
                f"chain_call_actions contains {action!r}: choose from {', '.join(CHOICES)}"
            )
    return Place(number, tuple(action for action in CHOICES if action in actions))


def actions_of(bits: int) -> tuple[str, ...]:
    """The verdicts in what libxdp has written."""
    return tuple(action for number, action in enumerate(ACTIONS) if bits >> number & 1)
