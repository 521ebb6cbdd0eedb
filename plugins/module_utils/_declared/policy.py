# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Policy: what is a scan, and what follows. ``PW_*`` keys in files, a tuple in the program.

Three forms of the same thing:

- *keys*: ``dict[str, str]``, ``PW_*`` key to text, as in ``policy.d/*.conf``. A key that is missing
  is inherited: by an interface from the default policy, by the default policy from `Policy`.
- *fields*: ``dict[str, Any]``, field of `Policy` to value; missing ones are inherited too.
- `Policy`: complete.

Everything raises `InvalidInput`, naming the file, the key, the value and the allowed values.
"""

from __future__ import annotations

import re
import typing as t

from .._base.errors import InvalidInput
from .._kernel.abi import ACTIONS, COUNTS, LOGS, SCOPES

DEFAULT = "default"
Keys = dict[str, str]
Fields = dict[str, t.Any]
Ports = tuple[tuple[int, int], ...]

_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


class Policy(t.NamedTuple):
    """Detection and enforcement on one interface. All times are seconds.

    published_ports: ranges (first, last) that are served although no local socket listens.
    ban_time_max: where ban times of repeaters stop doubling; None: at ban_time.
    """

    action: str = "enforce"
    scan_ports: int = 5
    scan_window: float = 60.0
    scan_counts: str = "closed"
    published_ports: Ports = ()
    scan_grace: float = 120.0
    ban_time: float = 600.0
    ban_time_max: float | None = None
    ban_scope: str = "connections"
    log_connections: str = "all"

    @property
    def longest_ban(self) -> float:
        """Seconds after which any ban of a scanner ends."""
        return self.ban_time if self.ban_time_max is None else self.ban_time_max


class _Kind(t.NamedTuple):
    """How a key's text is read and written; read raises ValueError for what is not allowed."""

    allowed: str
    read: t.Callable[[str], t.Any]
    write: t.Callable[[t.Any], str]


def _choice(choices: t.Sequence[str]) -> _Kind:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return _Kind(", ".join(choices), read, str)


def _count(least: int, most: int) -> _Kind:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise ValueError
        return int(text)

    return _Kind(f"a whole number from {least} to {most}", read, str)


def _seconds(least: float, most: float) -> _Kind:
    def read(text: str) -> float:
        if not _SECONDS.fullmatch(text) or not least <= float(text) <= most:
            raise ValueError
        return float(text)

    return _Kind(f"seconds from {least:g} to {most:.0f}, up to 6 decimals", read, _write_seconds)


def _write_seconds(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _read_ports(text: str) -> Ports:
    """Sorted ranges without overlaps from ``8080,9000-9010``; neighbours are joined."""
    ranges = []
    for word in text.replace(",", " ").split():
        match = _PORTS.fullmatch(word)
        if not match:
            raise ValueError
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= 65535:
            raise ValueError
        ranges.append((first, last))
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def _write_ports(ports: Ports) -> str:
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ports)


_PORTS_ALLOWED = "ports and ranges from 1 to 65535, for example 8080,9000-9010"
_DAY = 86400.0
_YEAR = 365 * _DAY

# In canonical order.
_KINDS: dict[str, _Kind] = {
    "PW_ACTION": _choice(ACTIONS),
    "PW_SCAN_PORTS": _count(1, 64),
    "PW_SCAN_WINDOW": _seconds(0.001, _DAY),
    "PW_SCAN_COUNTS": _choice(COUNTS),
    "PW_PUBLISHED_PORTS": _Kind(_PORTS_ALLOWED, _read_ports, _write_ports),
    "PW_SCAN_GRACE": _seconds(0, _DAY),
    "PW_BAN_TIME": _seconds(1, _YEAR),
    "PW_BAN_TIME_MAX": _seconds(1, _YEAR),
    "PW_BAN_SCOPE": _choice(SCOPES),
    "PW_LOG_CONNECTIONS": _choice(LOGS),
}
KEYS = tuple(_KINDS)
# One bitmap of the program serves all interfaces.
HOST_WIDE = frozenset({"PW_PUBLISHED_PORTS"})


def field_of(key: str) -> str:
    """Name of a key's field in `Policy`, which is the module option's name too."""
    return key.removeprefix("PW_").lower()


def key_of(field: str) -> str:
    """Key of a field."""
    return f"PW_{field.upper()}"


def nanoseconds(seconds: float) -> int:
    """Seconds as the program wants them."""
    return round(seconds * 1_000_000_000)


def read_policy(text: str, source: str) -> Keys:
    """Read ``KEY=value`` lines; empty lines and lines that begin with ``#`` say nothing.

    The values are checked and come back in canonical form.
    """
    found: Keys = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        where = f"{source}:{number}"
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise InvalidInput(f"{where}: {line!r} is not of the form KEY=value")
        if key in found:
            raise InvalidInput(f"{where}: {key} is already set above; keep one of both")
        found |= canonical_policy({key: value}, where)
    return found


def parse_policy(keys: t.Mapping[str, str], source: str) -> Fields:
    """Values by field, of those keys that are set."""
    return {field_of(key): _read(key, text, source, key) for key, text in keys.items()}


def canonical_policy(keys: t.Mapping[str, str], source: str) -> Keys:
    """Return the keys in canonical order, each value in canonical form."""
    fields = parse_policy(keys, source)
    return {key: kind.write(fields[field_of(key)]) for key, kind in _KINDS.items() if key in keys}


def format_policy(keys: t.Mapping[str, str]) -> str:
    """Lines ``KEY=value`` in canonical order."""
    return "".join(f"{key}={keys[key]}\n" for key in _KINDS if key in keys)


def keys_from_options(options: t.Mapping[str, t.Any]) -> Keys:
    """Keys from options by their fields' names; None is not set, errors name the option.

    Options hold what somebody wrote in YAML: text, numbers, for published_ports a list of these.
    """
    keys: Keys = {}
    for key, kind in _KINDS.items():
        option = field_of(key)
        value = options.get(option)
        if value is not None:
            keys[key] = kind.write(_read(key, _text(value), "", option))
    return keys


def merge_policy(default: Fields, interface: Fields | None = None, source: str = "") -> Policy:
    """Complete what an interface's policy leaves open from the default, that from `Policy`.

    What is inherited never stands against what is an interface's own: a ban_time_max gives way to a
    longer ban_time, and a ban_time to a shorter ban_time_max.
    """
    own = interface or {}
    policy = Policy(**(default | own))
    if policy.longest_ban < policy.ban_time:
        if "ban_time" in own and "ban_time_max" not in own:
            policy = policy._replace(ban_time_max=None)
        elif "ban_time_max" in own and "ban_time" not in own:
            policy = policy._replace(ban_time=policy.longest_ban)
    if policy.longest_ban < policy.ban_time:
        raise InvalidInput(
            f"{_prefix(source)}ban_time_max is {_write_seconds(policy.longest_ban)}, "
            f"less than ban_time, which is {_write_seconds(policy.ban_time)}; "
            "raise ban_time_max or leave it out"
        )
    return policy


def resolve_policies(policies: t.Mapping[str, t.Mapping[str, str]]) -> dict[str, Policy]:
    """Complete policies by interface name, and by `DEFAULT`, from keys by the same names."""
    default = parse_policy(policies.get(DEFAULT, {}), f"{DEFAULT}.conf")
    resolved = {DEFAULT: merge_policy(default, source=f"{DEFAULT}.conf")}
    for name, keys in policies.items():
        if name == DEFAULT:
            continue
        source = f"{name}.conf"
        misplaced = sorted(HOST_WIDE & set(keys))
        if misplaced:
            raise InvalidInput(
                f"{source}: {misplaced[0]} holds for all interfaces; set it in the default policy"
            )
        resolved[name] = merge_policy(default, parse_policy(keys, source), source)
    return resolved


def _text(value: t.Any) -> str:
    """Text of an option's value as it would stand in a file."""
    if value is False:
        # What YAML makes of an action that is off.
        return "off"
    if isinstance(value, (list, tuple)):
        return ",".join(_text(item) for item in value)
    if isinstance(value, float):
        exact = _write_seconds(value)
        # What is finer than six decimals, or no number, is to be refused, not rounded.
        return exact if exact.replace(".", "").isdigit() and float(exact) == value else repr(value)
    return str(value)


def _read(key: str, text: str, source: str, name: str) -> t.Any:
    if key not in _KINDS:
        raise InvalidInput(f"{_prefix(source)}unknown key {name}; allowed: {', '.join(_KINDS)}")
    kind = _KINDS[key]
    try:
        return kind.read(text)
    except ValueError:
        raise InvalidInput(
            f"{_prefix(source)}{name} is {text!r}; allowed: {kind.allowed}"
        ) from None


def _prefix(source: str) -> str:
    return f"{source}: " if source else ""
