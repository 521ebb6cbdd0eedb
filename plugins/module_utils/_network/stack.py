# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is PRIVATE to the collection.

"""What the program cannot ask the network stack itself: which ports clients have, which protocols are in use.

All users may read it in /proc. docs/detection.md says what follows from it.
"""

from __future__ import annotations

import typing as t

from .._base.errors import Unreadable
from .._base.number import read_whole
from .._kernel.abi import STACK, STACK_PROTOCOLS, STACK_SCTP, UNUSED_PROTOCOLS

if t.TYPE_CHECKING:
    from .._kernel.libbpf import Map

_SYSCTL = "/proc/sys/net"
_NET = "/proc/net"
_FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
# Linux gives out ports from here on by itself; nmap and traceroute use them too.
_FIRST_CLIENT_PORT = 32768
# Translation of addresses chooses among all ports from here on.
_FIRST_TRANSLATED_PORT = 1024
_MAX_PORT = 65535
_SCTP = 132


def read_stack(sysctl: str = _SYSCTL, net: str = _NET) -> int:
    """The word ``pw_shared.stack``; raises `Unreadable`."""
    first = min(_FIRST_CLIENT_PORT, _first_local_port(f"{sysctl}/ipv4/ip_local_port_range"))
    if any(_text(f"{sysctl}/{name}", "0").strip() != "0" for name in _FORWARDING):
        first = min(first, _FIRST_TRANSLATED_PORT)
    raw = {number for name in ("raw", "raw6") for number in _raw_protocols(f"{net}/{name}")}
    # A row for each socket that listens, after the heading. Without SCTP there is no such file.
    listens = len(_text(f"{net}/sctp/eps", "").splitlines()) > 1
    word = first
    if listens or _SCTP in raw:
        word |= STACK_SCTP
    if any(UNUSED_PROTOCOLS[number >> 6] >> (number & 63) & 1 for number in raw):
        word |= STACK_PROTOCOLS
    return word


def write_stack(maps: t.Mapping[str, Map]) -> None:
    """Write the word. If it cannot be read, it is 0, so that less counts; then raises `Unreadable`."""
    word = 0
    try:
        word = read_stack()
    finally:
        maps["shared"].write_word(STACK, word)


def _first_local_port(path: str) -> int:
    text = _text(path)
    first = read_whole((text.split() or [""])[0], _MAX_PORT)
    if first is None:
        raise Unreadable(f"{path} has {text[:80]!r} instead of two ports")
    return first


def _raw_protocols(path: str) -> t.Iterator[int]:
    """The protocols of raw sockets, which stand where others have their local port."""
    for row in _text(path, "").splitlines()[1:]:
        words = row.split()
        try:
            yield int(words[1].rpartition(":")[2], 16) & 0xFF
        except (ValueError, IndexError):
            raise Unreadable(f"{path} has the row {row[:80]!r}") from None


def _text(path: str, missing: str | None = None) -> str:
    """Contents of a file; `missing` if there is no such file, as without IPv6."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except FileNotFoundError as error:
        if missing is not None:
            return missing
        raise Unreadable(f"cannot read {path}: {error.strerror}") from error
    except OSError as error:
        raise Unreadable(f"cannot read {path}: {error.strerror}") from error
