# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Where metrics are served, heartbeats sent and the fleet's store found: the values that these settings can have."""

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
_ALL = {"0.0.0.0", "::"}
NO_STORE = "none"
"""The store of a host that is in no fleet."""
_VHOST = re.compile(r"[A-Za-z0-9._/-]{1,64}")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


class Url(t.NamedTuple):
    """The receiver of heartbeats."""

    is_secure: bool
    host: str
    port: int
    authority: str
    path: str


class Endpoint(t.NamedTuple):
    """A server of a store. name: what its certificate is for. The address is a number: looking up a name blocks."""

    name: str
    address: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


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


def check_ports(listeners: t.Mapping[str, str]) -> t.Iterator[str]:
    """What is wrong with services of one machine: two of them have one port.

    listeners: ``ADDRESS:PORT`` by the name of the setting. What `parse_listen` refuses is left to it.
    """
    known: dict[tuple[str, int], str] = {}
    for name, text in listeners.items():
        try:
            found = parse_listen(text, name)
        except InvalidInput:
            continue
        if found is None:
            continue
        for (address, port), other in known.items():
            # Linux gives the port of all addresses to one service only.
            if port == found[1] and (address == found[0] or {address, found[0]} & _ALL):
                yield f"{name} is {text!r}, whose port {other} has too: give each of them a port of its own"
        known[found] = name


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


def is_label(text: str) -> bool:
    """Whether a text can be the name of a host, an enforcer or a list in a store, or of a store."""
    return bool(_LABEL.fullmatch(text))


def parse_label(text: str, name: str) -> str:
    """A name in a store; errors name the setting."""
    if not is_label(text):
        raise InvalidInput(
            f"{name} is {text!r}: write up to 64 of the characters a-z, 0-9, '.', '_' and '-', with a letter or a "
            "digit at both ends"
        )
    return text


def parse_labels(text: str, name: str) -> tuple[str, ...]:
    """Names in a store, separated by commas or white space; errors name the setting."""
    return tuple(parse_label(word, name) for word in text.replace(",", " ").split())


def parse_endpoints(text: str, name: str) -> list[Endpoint]:
    """Endpoints, separated by commas; errors name the setting."""
    return [_endpoint(word.strip(), name) for word in text.split(",") if word.strip()]


def parse_vhost(text: str, name: str) -> str:
    """A virtual host of a broker; errors name the setting."""
    if not _VHOST.fullmatch(text):
        raise InvalidInput(
            f"{name} is {text!r}: write the name of a virtual host: up to 64 of A-Z, a-z, 0-9, '.', '_', '-' and '/'"
        )
    return text


def _endpoint(text: str, name: str) -> Endpoint:
    label, dummy, listen = text.rpartition("=")
    try:
        found = parse_listen(listen, name)
    except InvalidInput:
        found = None
    if found is None or (label and not is_label(label)):
        raise InvalidInput(
            f"{name} has {text!r}: write NAME=ADDRESS:PORT, such as fleet1=192.0.2.11:2378 or "
            "fleet1=[2001:db8::11]:2378, with the name in the server's certificate"
        )
    return Endpoint(label or found[0], *found)


def _is_port(text: str) -> bool:
    return bool(read_whole(text, 65535))
