# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""Addresses on which this host depends: resolvers, time servers, live SSH clients, from its own files.

Only literal addresses count; host names are not resolved. A missing file counts as empty; a file that
exists but cannot be read raises `Unreadable`. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d. `root` is
the folder to use as /.
"""

from __future__ import annotations

import glob
import os
import re
import socket
import struct
import typing as t

from .._base.errors import Unreadable
from .._base.number import read_whole

_MAPPED = b"\0" * 10 + b"\xff\xff"
_UNSPECIFIED = frozenset({_MAPPED + bytes(4), bytes(16)})
_RESOLV = ("etc/resolv.conf", "run/systemd/resolve/resolv.conf")
_TIMESYNCD = (
    "etc/systemd/timesyncd.conf",
    "etc/systemd/timesyncd.conf.d/*.conf",
    "run/systemd/timesyncd.conf.d/*.conf",
    "usr/lib/systemd/timesyncd.conf.d/*.conf",
    # Servers that systemd-networkd got by DHCP.
    "run/systemd/netif/links/*",
)
_CHRONY = (
    "etc/chrony/chrony.conf",
    "etc/chrony/conf.d/*.conf",
    "etc/chrony/sources.d/*.sources",
    "run/chrony-dhcp/*.sources",
    "etc/ntpsec/ntp.conf",
)
_SSHD = ("etc/ssh/sshd_config", "etc/ssh/sshd_config.d/*.conf")
# On Debian pam_systemd(8) reports every login to logind, which keeps a file for each session.
_PAM = ("etc/pam.d/common-session",)
_SESSIONS = ("run/systemd/sessions/*",)
_TIME_KEYS = frozenset({"NTP", "FallbackNTP"})
_CHRONY_KEYS = frozenset({"server", "peer", "pool"})
_ESTABLISHED = b"01"
_WORDS = re.compile(r"[\s=]+")
_HEX_PORT = re.compile(rb"[0-9A-Fa-f]{4}")
_HEX_ADDRESS = re.compile(rb"(?:[0-9A-Fa-f]{8}|[0-9A-Fa-f]{32})")


def resolvers(root: str = "/") -> set[bytes]:
    """Return the name servers, including those that systemd-resolved's stub forwards to."""
    found: set[bytes | None] = set()
    for words in _lines(root, _RESOLV):
        if words[0] == "nameserver" and len(words) > 1:
            found.add(to_bytes(words[1]))
    return _usable(found)


def time_servers(root: str = "/") -> set[bytes]:
    """Return the NTP servers of systemd-timesyncd, chrony and ntpsec."""
    found: set[bytes | None] = set()
    for words in _lines(root, _TIMESYNCD):
        if words[0] in _TIME_KEYS:
            found.update(to_bytes(word) for word in words[1:])
    for words in _lines(root, _CHRONY):
        if words[0] in _CHRONY_KEYS and len(words) > 1:
            found.add(to_bytes(words[1]))
    return _usable(found)


def ssh_ports(root: str = "/") -> set[int]:
    """Return the TCP ports of the SSH server; 22 if its configuration names no port."""
    found: set[int] = set()
    for words in _lines(root, _SSHD):
        keyword = words[0].lower()
        if keyword == "port" and len(words) > 1:
            found.add(_port(words[1]))
        elif keyword == "listenaddress" and len(words) > 1:
            found.add(_port_of(words[1]))
    found.discard(0)
    return found or {22}


def ssh_clients(ports: t.Collection[int], root: str = "/") -> set[bytes]:
    """Return the remote addresses of established TCP connections to one of the local `ports`.

    If logind knows of all logins, only addresses of logged-in clients count, because anybody can open a
    connection.
    """
    found: set[bytes] = set()
    marks = [b":%04X " % port for port in ports]
    for name in ("tcp", "tcp6"):
        with _Reading(os.path.join(root, "proc/self/net", name)) as lines:
            for line in lines:
                # A busy server has 100,000 lines: skip most of them before they are split.
                if any(mark in line for mark in marks):
                    found.update(_ssh_client(line, ports))
    inside = _logged_in(root) if found else None
    return found if inside is None else found & inside


def tcp_peers(root: str = "/") -> set[bytes]:
    """Return the remote addresses of all established TCP connections of this network namespace."""
    found: set[bytes] = set()
    for name in ("tcp", "tcp6"):
        with _Reading(os.path.join(root, "proc/self/net", name)) as lines:
            rows = (line.split(None, 4) for line in lines)
            found.update(row[2].partition(b":")[0] for row in rows if _ESTABLISHED in row[3:4])
    return _usable(map(_from_proc, found))


def _logged_in(root: str) -> set[bytes] | None:
    """Return the remote addresses of logind's sessions.

    None if logind may not know of all logins, or knows a client by name only. It knows of all if sshd
    uses PAM, as Debian's sshd_config says, and PAM uses pam_systemd. With another SSH server that is not
    certain.
    """
    uses_pam = [words[1:] for words in _lines(root, _SSHD) if words[0].lower() == "usepam"]
    if uses_pam[:1] != [["yes"]] or not any("pam_systemd.so" in w for w in _lines(root, _PAM)):
        return None
    hosts = [words[1] for words in _lines(root, _SESSIONS) if words[0] == "REMOTE_HOST"]
    found = {to_bytes(host) for host in hosts}
    return None if None in found else _usable(found)


def to_bytes(text: str) -> bytes | None:
    """Return the 16 bytes of a literal address, without its zone; None if the text is not an address."""
    address = text.partition("%")[0].strip("[]")
    try:
        if ":" in address:
            return socket.inet_pton(socket.AF_INET6, address)
        return _MAPPED + socket.inet_pton(socket.AF_INET, address)
    except (OSError, ValueError):
        return None


def _usable(found: t.Iterable[bytes | None]) -> set[bytes]:
    return {address for address in found if address and address not in _UNSPECIFIED}


def _ssh_client(line: bytes, ports: t.Collection[int]) -> t.Iterator[bytes]:
    """Yield the remote address if a line of /proc/net/tcp is a connection to one of the ports.

    The line begins: number, local ADDRESS:PORT, remote ADDRESS:PORT, state; all but the first in hex.
    """
    words = line.split(None, 4)
    if len(words) < 4 or words[3] != _ESTABLISHED:
        return
    dummy, dummy, port = words[1].partition(b":")
    address = _from_proc(words[2].partition(b":")[0])
    if address and _HEX_PORT.fullmatch(port) and int(port, 16) in ports:
        yield address


def _from_proc(text: bytes) -> bytes | None:
    """Return the 16 bytes of an address in /proc: 32-bit words in hex, each in the host's byte order.

    None if the text is not such an address.
    """
    if not _HEX_ADDRESS.fullmatch(text):
        return None
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = struct.pack(f"={len(words)}I", *words)
    return address if len(address) == 16 else _MAPPED + address


def _port(text: str) -> int:
    return read_whole(text, 65535) or 0


def _port_of(text: str) -> int:
    """Return the port of ``192.0.2.1:22``, ``[2001:db8::1]:22`` or ``host:22``; 0 if it has no port."""
    host, colon, port = text.rpartition(":")
    return _port(port) if colon and (":" not in host or host.endswith("]")) else 0


def _lines(root: str, patterns: t.Iterable[str]) -> t.Iterator[list[str]]:
    """Yield the words of each line of the files, without comments and empty lines."""
    for pattern in patterns:
        for path in sorted(glob.glob(os.path.join(glob.escape(root), pattern))):
            with _Reading(path) as lines:
                for line in lines:
                    text = line.decode(errors="replace").strip()
                    if text and text[0] not in "#;!":
                        yield _WORDS.split(text)


class _Reading:
    """A context manager for the lines of a file; there are no lines if it does not exist."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: t.BinaryIO | None = None

    def __enter__(self) -> t.Iterable[bytes]:
        try:
            self._file = open(self._path, "rb")
        except (FileNotFoundError, IsADirectoryError):
            return ()
        except OSError as error:
            raise Unreadable(f"cannot read {self._path}: {error.strerror}") from error
        return self._file

    def __exit__(self, *dummy: object) -> None:
        if self._file:
            self._file.close()
