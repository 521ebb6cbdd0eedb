# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Where the agent serves metrics and sends heartbeats: the values that these settings can have."""

from __future__ import annotations

import re
import typing as t

from .._base.address import parse_address
from .._base.duration import parse_duration
from .._base.errors import InvalidInput
from .._base.number import read_whole

# The path is copied into the first line of a request, and is quoted in an environment file.
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<authority>(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?)(?P<path>[/?][!#-\[\]-~]*)?"
)
_PORTS = {"http": 80, "https": 443}
_INTERVAL = 10, 86400


class Url(t.NamedTuple):
    """The receiver of heartbeats."""

    is_secure: bool
    host: str
    port: int
    authority: str
    path: str


def parse_listen(text: str, name: str) -> tuple[str, int] | None:
    """Address and port of ``ADDRESS:PORT``, None for an empty text; errors name the setting."""
    if not text:
        return None
    host, dummy, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        family = parse_address(bare).family
    except InvalidInput:
        family = 0
    if family == 0 or (family == 6) == (bare == host) or not _is_port(port):
        raise InvalidInput(
            f"{name} is {text!r}: write ADDRESS:PORT, such as 127.0.0.1:9477 or [::1]:9477, or leave "
            "it empty for no metrics"
        )
    return bare, int(port)


def parse_url(text: str, name: str) -> Url | None:
    """A URL of HTTP or HTTPS, None for an empty text; errors name the setting."""
    if not text:
        return None
    match = _URL.fullmatch(text)
    if not match or (match["port"] and not _is_port(match["port"])):
        raise InvalidInput(
            f"{name} is {text!r}: write http://HOST/PATH or https://HOST/PATH without user and "
            "password, or leave it empty for no heartbeat"
        )
    path = match["path"] or "/"
    return Url(
        match["scheme"] == "https",
        match["host"].strip("[]"),
        int(match["port"] or _PORTS[match["scheme"]]),
        match["authority"],
        path if path.startswith("/") else f"/{path}",
    )


def parse_interval(text: str, name: str) -> int:
    """Seconds between two heartbeats; errors name the setting."""
    seconds = parse_duration(text, name, *_INTERVAL)
    if not seconds.is_integer():
        raise InvalidInput(f"{name} is {text!r}: write whole seconds")
    return int(seconds)


def _is_port(text: str) -> bool:
    return bool(read_whole(text, 65535))
