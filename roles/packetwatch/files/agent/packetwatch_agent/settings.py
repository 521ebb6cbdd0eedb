# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of the agent: ``PW_*`` environment variables, each with its default here."""

from __future__ import annotations

import typing as t

from packetwatch_core._base.address import Prefix
from packetwatch_core._base.errors import InvalidInput
from packetwatch_core._network.endpoints import Url, parse_interval, parse_listen, parse_url
from packetwatch_core._network.protect import parse_declared

DEFAULTS = {
    "PW_METRICS_LISTEN": "127.0.0.1:9477",
    "PW_HEARTBEAT_URL": "",
    "PW_HEARTBEAT_INTERVAL": "60",
    "PW_COMMUNITY_ID": "0",
    "PW_PROTECT": "",
    "PW_PROTECT_AUTO": "1",
    "PW_STATE_DIR": "/var/lib/packetwatch/bans",
    "PW_CONFIG_DIR": "/etc/packetwatch",
    "PW_PINS": "/sys/fs/bpf/packetwatch",
    "PW_STATUS_FILE": "/run/packetwatch-host/status.json",
    "PW_SPARED_FILE": "/var/lib/packetwatch/spared",
    "PW_APPLY_REQUEST": "/run/packetwatch/apply-request",
    "PW_CONTROL_SOCKET": "/run/packetwatch/control.sock",
    "PW_READERS": "packetwatch",
    "PW_ADMINS": "packetwatch-admin",
    "PW_SELF_HEAL": "1",
    "PW_HEAL_REQUEST": "/run/packetwatch/heal-request",
}
_SWITCH = {"1": True, "0": False}


class Settings(t.NamedTuple):
    """What the variables say."""

    metrics_listen: tuple[str, int] | None
    """Address and port, None: no metrics."""
    heartbeat_url: Url | None
    """Where to tell that the host is well; None: nowhere."""
    heartbeat_interval: int
    community_id: bool
    """Whether connections and scans carry network.community_id."""
    protect: list[Prefix]
    protect_auto: bool
    state_dir: str
    """The agent's own folder: bans over a reboot."""
    config_dir: str
    """Confirmed state; read only."""
    pins: str
    """Folder under bpffs, of which the agent sees only its own part."""
    status_file: str
    """What root notes for the agent."""
    spared_file: str
    """What root compiled feeds with."""
    apply_request: str
    """The file that makes systemd start an apply."""
    control_socket: str
    """Where packetwatchctl finds the agent; empty: nowhere."""
    readers: str
    """Groups, apart by white space, that may look."""
    admins: str
    """Groups that may also change."""
    self_heal: bool
    """Whether to ask root to mend what has drifted."""
    heal_request: str
    """The file that asks for it."""


def read(environment: t.Mapping[str, str]) -> Settings:
    """Settings from variables; raises `InvalidInput` naming the variable and the fix."""
    values = {name: environment.get(name, default) for name, default in DEFAULTS.items()}
    return Settings(
        parse_listen(values["PW_METRICS_LISTEN"].strip(), "PW_METRICS_LISTEN"),
        parse_url(values["PW_HEARTBEAT_URL"].strip(), "PW_HEARTBEAT_URL"),
        parse_interval(values["PW_HEARTBEAT_INTERVAL"].strip(), "PW_HEARTBEAT_INTERVAL"),
        _switch("PW_COMMUNITY_ID", values["PW_COMMUNITY_ID"]),
        parse_declared(values["PW_PROTECT"]),
        _switch("PW_PROTECT_AUTO", values["PW_PROTECT_AUTO"]),
        _folder("PW_STATE_DIR", values["PW_STATE_DIR"]),
        _folder("PW_CONFIG_DIR", values["PW_CONFIG_DIR"]),
        _folder("PW_PINS", values["PW_PINS"]),
        _folder("PW_STATUS_FILE", values["PW_STATUS_FILE"]),
        _folder("PW_SPARED_FILE", values["PW_SPARED_FILE"]),
        _folder("PW_APPLY_REQUEST", values["PW_APPLY_REQUEST"]),
        _socket("PW_CONTROL_SOCKET", values["PW_CONTROL_SOCKET"].strip()),
        values["PW_READERS"],
        values["PW_ADMINS"],
        _switch("PW_SELF_HEAL", values["PW_SELF_HEAL"]),
        _folder("PW_HEAL_REQUEST", values["PW_HEAL_REQUEST"]),
    )


def _switch(name: str, text: str) -> bool:
    try:
        return _SWITCH[text.strip()]
    except KeyError:
        raise InvalidInput(f"{name} is {text!r}: write 1 or 0") from None


def _socket(name: str, text: str) -> str:
    return _folder(name, text) if text else ""


def _folder(name: str, text: str) -> str:
    if not text.startswith("/"):
        raise InvalidInput(f"{name} is {text!r}: write an absolute path")
    return text.rstrip("/") or "/"
