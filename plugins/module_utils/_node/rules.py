# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""The rules of an enforcer as the inventory declares them: actions and thresholds, with their limits."""

from __future__ import annotations

import json
import math
import typing as t

from .._base.duration import parse_duration
from .._base.errors import InvalidInput
from .._base.number import is_a
from .._network.endpoints import parse_label

ENFORCE, MONITOR, OFF = "enforce", "monitor", "off"
ACTIONS = (ENFORCE, MONITOR, OFF)
"""A rule that is ``monitor`` decides, and nobody is banned."""
_ACTION = "action"
_DAY = 86400.0
_MAX_NUMBER, _MAX_TEXT = 1e15, 32


class Threshold(t.NamedTuple):
    """A number that a rule needs, and its limits. is_time: it may be written as a duration."""

    default: float
    minimum: float
    maximum: float
    is_time: bool = False


_SECONDS = Threshold(3600, 10, 7 * _DAY, True)
# With the evidence of a SYN, no ban of the fleet lasts longer.
_SYN = Threshold(600, 10, 600, True)
_WINDOW = Threshold(600, 10, 3600, True)

RULES: dict[str, dict[str, Threshold]] = {
    "quorum": {
        "hosts": Threshold(3, 2, 1000),
        "networks": Threshold(3, 1, 1000),
        "window": _WINDOW,
        "seconds": _SECONDS,
    },
    "sweep": {"hosts": Threshold(5, 2, 1000), "window": _WINDOW, "seconds": _SYN},
    "slow": {
        "probes": Threshold(20, 4, 1000),
        "hosts": Threshold(3, 1, 1000),
        "window": Threshold(_DAY, 3600, 7 * _DAY, True),
        "seconds": _SYN,
    },
    "crowd": {"sources": Threshold(16, 4, 250), "window": _WINDOW},
}
"""The collection's own rules."""


class Declared(t.NamedTuple):
    """A rule with what was declared for it, or the defaults."""

    action: str
    thresholds: dict[str, float]


def parse_rules(declared: t.Any, name: str) -> dict[str, Declared]:
    """Rules by name; raises `InvalidInput`. name: of the variable that has them."""
    if not isinstance(declared, dict):
        raise InvalidInput(
            f"{name} is of type {type(declared).__name__}: write a dictionary of rules"
        )
    return {
        parse_label(str(rule), f"a rule in {name}"): _rule(str(rule), options, f"{name}.{rule}")
        for rule, options in declared.items()
    }


def parse_enforcers(declared: t.Any, name: str) -> dict[str, dict[str, Declared]]:
    """The rules of each enforcer, by its name; raises `InvalidInput`."""
    if not isinstance(declared, dict):
        raise InvalidInput(
            f"{name} is of type {type(declared).__name__}: write a dictionary of enforcers"
        )
    return {
        parse_label(str(enforcer), f"an enforcer in {name}"): parse_rules(
            rules, f"{name}.{enforcer}"
        )
        for enforcer, rules in declared.items()
    }


def format_rules(rules: t.Mapping[str, Declared]) -> str:
    """The text of a file that `read_rules` reads."""
    found = {name: {_ACTION: rule.action} | rule.thresholds for name, rule in sorted(rules.items())}
    return json.dumps({"v": 1, "rules": found}, indent=2, sort_keys=True) + "\n"


def read_rules(path: str) -> dict[str, Declared]:
    """The rules in a file; raises `InvalidInput`."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.loads(file.read(1 << 20))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: {error}: run the playbook again") from None
    if not isinstance(found, dict) or found.get("v") != 1:
        raise InvalidInput(f"{path} has no rules of version 1: run the playbook again")
    return parse_rules(found.get("rules"), path)


def _rule(rule: str, options: t.Any, name: str) -> Declared:
    if options is None:
        options = {}
    if not isinstance(options, dict):
        raise InvalidInput(
            f"{name} is of type {type(options).__name__}: write a dictionary with action and thresholds"
        )
    action = options.get(_ACTION, MONITOR)
    # YAML reads a bare off as false.
    action = OFF if action is False else action
    if action not in ACTIONS:
        raise InvalidInput(f"{name}.{_ACTION} is {action!r}: write one of {', '.join(ACTIONS)}")
    given = {str(key): value for key, value in options.items() if key != _ACTION}
    known = RULES.get(rule)
    if known is None:
        return Declared(
            action, {key: _number(value, f"{name}.{key}") for key, value in given.items()}
        )
    for key in given.keys() - known.keys():
        raise InvalidInput(
            f"{name}.{key} is not a threshold of this rule: write {', '.join(known)}"
        )
    found = {
        key: _threshold(given[key], limits, f"{name}.{key}") if key in given else limits.default
        for key, limits in known.items()
    }
    return Declared(action, found)


def _threshold(value: t.Any, limits: Threshold, name: str) -> float:
    if limits.is_time:
        return parse_duration(value, name, limits.minimum, limits.maximum)
    number = _number(value, name)
    if not number.is_integer() or not limits.minimum <= number <= limits.maximum:
        raise InvalidInput(
            f"{name} is {value!r}: write a whole number from {limits.minimum:g} to {limits.maximum:g}"
        )
    return number


def _number(value: t.Any, name: str) -> float:
    """A number, also one that a template has made a text of."""
    found = value
    if is_a(value, str):
        try:
            found = float(value) if len(value) < _MAX_TEXT else math.nan
        except ValueError:
            found = math.nan
    if not (is_a(found, int) or is_a(found, float)) or not abs(found) <= _MAX_NUMBER:
        raise InvalidInput(f"{name} is {str(value)[:60]!r}: write a number")
    return float(found)
