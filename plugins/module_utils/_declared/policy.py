# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Policies: what counts as a scan, and what is done about it.

A new knob is a line of `Policy`, with its type and default, and a line of `KNOBS`. Its key in files, its
option in modules and on interfaces, its checks and its place in the program's record follow from these.

A policy has three forms:

- *keys*: ``dict[str, str]``, ``PW_*`` key to text, as in ``policy.d/*.conf``. A missing key is
  inherited: an interface inherits from the default policy, and that one from `Policy`.
- *fields*: ``dict[str, Any]``, field of `Policy` to value; missing fields are inherited too.
- `Policy`: complete.

All functions raise `InvalidInput`, which names the file, the key, the value and the allowed values.
"""

from __future__ import annotations

import typing as t

from .._base.duration import duration_text, write_seconds
from .._base.errors import InvalidInput, InvalidInputs
from .._kernel.abi import ACTIONS, CLOSED_PORTS, COUNTS, KINDS, LINK_CONTROLS, LOGS, SCOPES
from .kinds import Kind, Ports, choice, choices, count, ports, seconds

DEFAULT = "default"
Keys = dict[str, str]
Fields = dict[str, t.Any]

# The agent counts the other one, slow.
_SCAN_KINDS = KINDS[: KINDS.index("slow")]
_DAY = 86400.0
_YEAR = 365 * _DAY


class Knob(t.NamedTuple):
    """A knob of the policy.

    record: the field of ``struct pw_policy`` that holds it; empty if there is none. host_wide: it can be
    set only in the default policy. added: earlier versions do not know it, and refuse files that set it.
    """

    kind: Kind
    record: str = ""
    host_wide: bool = False
    added: bool = False


class Policy(t.NamedTuple):
    """Detection and enforcement on one interface. All times are seconds.

    The order of the knobs is the order of keys in files.
    published_ports: ranges of ports that are served although no local socket listens; the program has one
    bitmap of them for each protocol and all interfaces.
    slow_scan_ports: as scan_ports, but the agent counts them, within slow_scan_window; 0: none.
    ban_time_max: maximum to which the ban times of repeated scanners double; None: ban_time.
    link_control: whether the control traffic of the link (neighbour discovery, MLD, DHCP) passes the lists.
    scan_kinds: the kinds of probes that count.
    closed_ports: whether the kernel answers a probe of a closed port, or the program drops it.
    """

    action: str = "enforce"
    scan_ports: int = 5
    scan_window: float = 60.0
    scan_counts: str = "closed"
    published_ports: Ports = ()
    scan_grace: float = 120.0
    slow_scan_ports: int = 20
    slow_scan_window: float = 86400.0
    ban_time: float = 600.0
    ban_time_max: t.Optional[float] = None
    ban_scope: str = "connections"
    log_connections: str = "all"
    link_control: str = "pass"
    scan_kinds: tuple[str, ...] = ("syn", "stealth", "ack")
    closed_ports: str = "reset"

    @property
    def longest_ban(self) -> float:
        """Maximum length of a scanner's ban, in seconds."""
        return self.ban_time if self.ban_time_max is None else self.ban_time_max

    @property
    def looks_for_listeners(self) -> bool:
        """Whether the program checks for each port if a socket listens on it."""
        return self.scan_counts == "closed" and self.action != "off"

    def counts(self, *kinds: str) -> bool:
        """Whether some of these kinds of probes count that need more than the packet itself."""
        return self.looks_for_listeners and not set(kinds).isdisjoint(self.scan_kinds)

    def record(self) -> dict[str, int]:
        """Fields of ``struct pw_policy`` without the interface index."""
        return {
            knob.record: knob.kind.encode(getattr(self, field))
            for field, knob in KNOBS.items()
            if knob.record
        }


KNOBS: t.Final = {
    "action": Knob(choice(ACTIONS), "action"),
    "scan_ports": Knob(count(1, 64), "scan_ports"),
    "scan_window": Knob(seconds(0.001, _DAY), "window_ns"),
    "scan_counts": Knob(choice(COUNTS), "counts"),
    "published_ports": Knob(ports(), host_wide=True),
    "scan_grace": Knob(seconds(0, _DAY), "grace_ns"),
    "slow_scan_ports": Knob(count(0, 64), added=True),
    "slow_scan_window": Knob(seconds(1, 7 * _DAY), added=True),
    "ban_time": Knob(seconds(1, _YEAR), "ban_ns"),
    "ban_time_max": Knob(seconds(1, _YEAR)),
    "ban_scope": Knob(choice(SCOPES), "scope"),
    "log_connections": Knob(choice(LOGS), "log"),
    "link_control": Knob(choice(LINK_CONTROLS), "link_control", added=True),
    "scan_kinds": Knob(choices(_SCAN_KINDS), "kinds", added=True),
    "closed_ports": Knob(choice(CLOSED_PORTS), "closed", added=True),
}
"""All knobs by their field in `Policy`, which is also the name of the module's option."""
OPTIONS: t.Final = {field: knob.kind.option for field, knob in KNOBS.items()}
"""The knobs in Ansible's argument spec."""
OVERRIDES: t.Final = tuple(field for field, knob in KNOBS.items() if not knob.host_wide)
"""The knobs that can be set for a single interface."""


def field_of(key: str) -> str:
    """Name of a key's field in `Policy`."""
    return key.removeprefix("PW_").lower()


def key_of(field: str) -> str:
    """Key of a field."""
    return f"PW_{field.upper()}"


_KINDS: t.Final = {key_of(field): knob.kind for field, knob in KNOBS.items()}
KEYS: t.Final = tuple(_KINDS)
_HOST_WIDE = {key_of(field) for field, knob in KNOBS.items() if knob.host_wide}


def read_policy(text: str, source: str) -> Keys:
    """Read ``KEY=value`` lines; empty lines and lines that begin with ``#`` are skipped.

    The values are checked and returned in canonical form, the keys in canonical order.
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
            raise InvalidInput(f"{where}: {key} is already set above; keep one of them")
        found |= canonical_policy({key: value}, where)
    return {key: found[key] for key in KEYS if key in found}


def parse_policy(keys: t.Mapping[str, str], source: str) -> Fields:
    """Parse the values of the keys that are set; return them by field."""
    return {field_of(key): _read(key, text, source, key) for key, text in keys.items()}


def canonical_policy(keys: t.Mapping[str, str], source: str) -> Keys:
    """Return the keys in canonical order, each value in canonical form."""
    fields = parse_policy(keys, source)
    return {key: kind.write(fields[field_of(key)]) for key, kind in _KINDS.items() if key in keys}


def default_policy(keys: t.Mapping[str, str]) -> Keys:
    """The default policy in canonical form, without added knobs that have their defaults.

    So a host can return to a version without these knobs until somebody uses them.
    """
    source = f"{DEFAULT}.conf"
    fields = parse_policy(keys, source)
    defaults = Policy()._asdict()
    unused = {
        key_of(field)
        for field, value in fields.items()
        if KNOBS[field].added and value == defaults[field]
    }
    return {key: text for key, text in canonical_policy(keys, source).items() if key not in unused}


def keys_from_options(options: t.Mapping[str, t.Any]) -> Keys:
    """Keys from a module's options. None means not set. Raises InvalidInputs, which names all wrong options.

    Options come from YAML: they are texts, numbers, or lists of these.
    """
    keys: Keys = {}
    problems = []
    for key, kind in _KINDS.items():
        option = field_of(key)
        value = options.get(option)
        if value is not None:
            try:
                keys[key] = kind.write(_read(key, _text(value), "", option))
            except InvalidInput as error:
                problems.append(str(error))
    if problems:
        raise InvalidInputs(problems)
    return keys


def fields_from_options(options: t.Mapping[str, t.Any]) -> Fields:
    """Fields from a module's options; errors name the option."""
    return parse_policy(keys_from_options(options), "")


def merge_policy(default: Fields, interface: Fields | None = None, source: str = "") -> Policy:
    """Complete an interface's policy from the default policy, and that one from `Policy`.

    A value set for the interface overrides an inherited one that contradicts it: a longer ban_time
    overrides an inherited ban_time_max, and a shorter ban_time_max an inherited ban_time.
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
            f"{_prefix(source)}ban_time_max is {write_seconds(policy.longest_ban)}, "
            f"less than ban_time, which is {write_seconds(policy.ban_time)}; "
            "raise ban_time_max or leave it out"
        )
    if policy.closed_ports == "drop" and policy.scan_counts == "any":
        raise InvalidInput(
            f"{_prefix(source)}closed_ports is drop, but with scan_counts: any nobody checks whether a port "
            "is closed; set scan_counts to closed, or closed_ports to reset"
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
        misplaced = sorted(keys.keys() & _HOST_WIDE)
        if misplaced:
            raise InvalidInput(
                f"{source}: {misplaced[0]} applies to all interfaces; set it in {DEFAULT}.conf"
            )
        resolved[name] = merge_policy(default, parse_policy(keys, source), source)
    return resolved


def _text(value: t.Any) -> str:
    """An option's value in the form that a file has."""
    if value is False:
        # YAML reads an unquoted off as False.
        return "off"
    if isinstance(value, (list, tuple)):
        return ",".join(_text(item) for item in value)
    return duration_text(value) if isinstance(value, float) else str(value)


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
