# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of the agent: ``PW_*`` environment variables, one line of `Settings` each."""

from __future__ import annotations

import typing as t

from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._base.paths import Paths
from packetwatch_core._network.endpoints import parse_interval, parse_listen, parse_url
from packetwatch_core._network.fleet import (
    OFF,
    parse_action,
    parse_lists,
    parse_longest,
    parse_most,
)
from packetwatch_core._network.protect import parse_declared, parse_shared
from packetwatch_core._network.settings import parse_switch

_PATHS = Paths()
_T = t.TypeVar("_T")


def _optional_path(text: str, name: str) -> str:
    return absolute_path(text, name) if text else ""


def absolute_path(text: str, name: str) -> str:
    """An absolute path, without a slash at its end."""
    if not text.startswith("/"):
        raise InvalidInput(f"{name} is {text!r}: write an absolute path")
    return text.rstrip("/") or "/"


def plain_text(text: str, dummy: str) -> str:
    """The text as it is."""
    return text


class Setting(t.Generic[_T]):
    """A variable, its default, and the function that reads its text.

    The function gets the text without white space around it, and the variable's name for the
    `InvalidInput` that it raises.
    """

    def __init__(self, variable: str, default: str, parse: t.Callable[[str, str], _T]) -> None:
        self.variable = variable
        self.default = default
        self.parse = parse

    if t.TYPE_CHECKING:

        def __get__(self, settings: Settings, owner: type[Settings]) -> _T:
            """Say which type the value has that `read` puts into the instance."""


class Settings:
    """The values of all variables. problems: what is wrong with variables whose default is in force."""

    problems: dict[str, str]

    metrics_listen = Setting("PW_METRICS_LISTEN", "127.0.0.1:9477", parse_listen)
    """Address and port; None: no metrics."""
    heartbeat_url = Setting("PW_HEARTBEAT_URL", "", parse_url)
    """The receiver of heartbeats; None: none are sent."""
    heartbeat_interval = Setting("PW_HEARTBEAT_INTERVAL", "60", parse_interval)
    community_id = Setting("PW_COMMUNITY_ID", "0", parse_switch)
    """Whether the lines of connections and scans have network.community_id."""
    log_probes = Setting("PW_LOG_PROBES", "0", parse_switch)
    """Whether new probes are logged, for `packetwatchctl replay`."""
    protect = Setting("PW_PROTECT", "", parse_declared)
    protect_auto = Setting("PW_PROTECT_AUTO", "1", parse_switch)
    shared_prefixes = Setting("PW_SHARED_PREFIXES", "", parse_shared)
    """IPv6 prefixes whose sources are banned singly."""
    state_dir = Setting("PW_STATE_DIR", "/var/lib/packetwatch/bans", absolute_path)
    """The agent's own folder: bans over a reboot."""
    config_dir = Setting("PW_CONFIG_DIR", _PATHS.state, absolute_path)
    """Confirmed state, which the agent only reads."""
    pins = Setting("PW_PINS", _PATHS.bpffs, absolute_path)
    """Folder below bpffs; the agent sees only its own part of it."""
    status_file = Setting("PW_STATUS_FILE", _PATHS.status, absolute_path)
    """What root notes about the filter for the agent."""
    spared_file = Setting("PW_SPARED_FILE", _PATHS.spared, absolute_path)
    """What root compiled feeds with."""
    apply_request = Setting("PW_APPLY_REQUEST", "/run/packetwatch/apply-request", absolute_path)
    """systemd starts an apply when this file appears."""
    control_socket = Setting("PW_CONTROL_SOCKET", "/run/packetwatch/control.sock", _optional_path)
    """Where packetwatchctl finds the agent; empty: there is no socket."""
    readers = Setting("PW_READERS", "packetwatch", plain_text)
    """Groups, separated by white space, whose members may read."""
    admins = Setting("PW_ADMINS", "packetwatch-admin", plain_text)
    """Groups whose members may also change."""
    self_heal = Setting("PW_SELF_HEAL", "1", parse_switch)
    """Whether the agent asks root to repair drift."""
    heal_request = Setting("PW_HEAL_REQUEST", "/run/packetwatch/heal-request", absolute_path)
    """systemd starts a repair when this file appears."""
    fleet = Setting("PW_FLEET", OFF, parse_action)
    """What the host does with bans of the fleet."""
    fleet_longest = Setting("PW_FLEET_LONGEST", "7d", parse_longest)
    """Maximum length of a fleet ban, in seconds."""
    fleet_most = Setting("PW_FLEET_MOST", "10000", parse_most)
    """Maximum number of fleet bans."""
    fleet_lists = Setting("PW_FLEET_LISTS", "deny", parse_lists)
    """The kinds of lists that the fleet may set."""
    fleet_user = Setting("PW_FLEET_USER", "packetwatch-fleet", plain_text)
    """Name or number of the user that the fleet process has."""
    fleet_file = Setting("PW_FLEET_FILE", "/var/lib/packetwatch-fleet/lists.json", absolute_path)
    """The lists of the fleet, as the fleet process wrote them."""


_S = t.TypeVar("_S", bound=Settings)


def settings_of(kind: type[Settings]) -> dict[str, Setting[t.Any]]:
    """All settings of a class and its bases, by name."""
    return {
        name: value
        for one in reversed(kind.__mro__)
        for name, value in vars(one).items()
        if isinstance(value, Setting)
    }


DEFAULTS = {setting.variable: setting.default for setting in settings_of(Settings).values()}


def read(environment: t.Mapping[str, str]) -> Settings:
    """The agent's settings from variables."""
    return read_as(Settings, environment)


def read_as(kind: type[_S], environment: t.Mapping[str, str]) -> _S:
    """Settings of a class from variables.

    A wrong value does not end the agent: the default is in force, and `problems` names variable and fix.
    """
    found = kind()
    found.problems = {}
    for name, setting in settings_of(kind).items():
        text = environment.get(setting.variable, setting.default)
        try:
            value = setting.parse(text.strip(), setting.variable)
        except InvalidInput as error:
            found.problems[setting.variable] = str(error)
            value = setting.parse(setting.default, setting.variable)
        setattr(found, name, value)
    return found
