# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An hour of scans and honest clients, from a seed, and compressed into seconds.

What decides lies far from the ends of the window, so that a sender who is a little late changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from kernel.packets import FIN, HOST4, HOST6, SYN, syn4, syn6

SEED = 20261129
WINDOW = 0.4
"""scan_window, in seconds; stands for 60."""
BAN = 1.0
LENGTH = 7.0
LATE = 0.1
"""Seconds by which the sender may be late."""
OPEN = 8722
OTHER4 = "10.77.3.3"
ALLOWED, PROTECTED = "198.51.100.200", "198.51.100.201"
THRESHOLDS = (5, 8)


class Packet(NamedTuple):
    """When a frame is sent, in seconds after the beginning, and the frame."""

    at: float
    frame: bytes


class Hour:
    """The packets of one hour, by their times."""

    def __init__(self, seed: int = SEED) -> None:
        self._choice = random.Random(seed)
        self._packets: list[Packet] = []
        self._number = 0
        for make, count in (
            (self._fast, 12),
            (self._few, 12),
            (self._paused, 6),
            (self._refreshed, 6),
            (self._one_port_of_two_addresses, 4),
            (self._network, 4),
            (self._stealth, 4),
            (self._repeated, 4),
            (self._clients, 12),
        ):
            for dummy in range(count):
                self._number += 1
                make()
        for source in (ALLOWED, PROTECTED):
            self._scan(source, self._ports(9), self._begin(1))
        self.packets = sorted(self._packets)

    def _begin(self, span: float) -> float:
        """When a source begins, so that it ends within the hour."""
        return self._choice.uniform(0, LENGTH - span)

    def _source(self) -> str:
        if self._choice.random() < 0.3:
            return f"2001:db8:0:{self._number:x}::{self._choice.randrange(1, 0xFFFF):x}"
        return f"198.51.100.{self._number}"

    def _ports(self, count: int) -> list[int]:
        return self._choice.sample(range(1, 8000), count)

    def _send(self, at: float, source: str, port: int, target: str = "", flags: int = SYN) -> None:
        make, host = (syn6, HOST6) if ":" in source else (syn4, HOST4)
        self._packets.append(Packet(at, make(source, port, target or host, flags)))

    def _scan(self, source: str, ports: list[int], begin: float, flags: int = SYN) -> None:
        """Probe these ports within a part of the window."""
        for at, port in zip(self._moments(len(ports), 0.4 * WINDOW), ports, strict=True):
            self._send(begin + at, source, port, flags=flags)

    def _moments(self, count: int, span: float) -> Iterator[float]:
        yield from sorted(self._choice.uniform(0, span) for dummy in range(count))

    def _fast(self) -> None:
        """A scan of as many ports as one threshold, or more."""
        self._scan(self._source(), self._ports(self._choice.randrange(5, 13)), self._begin(1))

    def _few(self) -> None:
        """Up to four ports, again and again."""
        source, ports = self._source(), self._ports(self._choice.randrange(1, 5))
        for round_ in range(4):
            self._scan(source, ports, 0.2 + round_ * self._choice.uniform(0.5, 1.5))

    def _paused(self) -> None:
        """Four ports, a long pause, and four others."""
        source, ports, begin = self._source(), self._ports(8), self._begin(3)
        self._scan(source, ports[:4], begin)
        self._scan(source, ports[4:], begin + 3 * WINDOW)

    def _refreshed(self) -> None:
        """A port that is tried again counts from then on."""
        source, ports, begin = self._source(), self._ports(5), self._begin(2)
        self._send(begin, source, ports[0])
        self._send(begin + 0.6 * WINDOW, source, ports[0])
        for number, port in enumerate(ports[1:]):
            self._send(begin + 1.3 * WINDOW + number * 0.001, source, port)

    def _one_port_of_two_addresses(self) -> None:
        source, ports, begin = f"198.51.100.{self._number}", self._ports(4), self._begin(1)
        for number, port in enumerate(ports):
            self._send(begin + number * 0.002, source, port)
            self._send(begin + number * 0.002 + 0.001, source, port, OTHER4)

    def _network(self) -> None:
        """A scan from the addresses of one /64."""
        begin = self._begin(1)
        for number, port in enumerate(self._ports(9)):
            self._send(begin + number * 0.002, f"2001:db8:1:{self._number:x}::{number + 1:x}", port)

    def _stealth(self) -> None:
        """Packets of a FIN scan."""
        self._scan(f"198.51.100.{self._number}", self._ports(6), self._begin(1), FIN)

    def _repeated(self) -> None:
        """A scanner that comes back after each ban."""
        source = self._source()
        for begin in (0.3, 0.3 + BAN + 0.5, 0.3 + BAN + 0.5 + 2 * BAN + 0.5):
            self._scan(source, self._ports(9), begin)

    def _clients(self) -> None:
        """A client of a service."""
        source = self._source()
        for dummy in range(8):
            self._send(self._begin(0.5), source, OPEN)


def options(threshold: int) -> list[str]:
    """The options of a replay with the policy of the hour."""
    window = str(WINDOW)
    return [
        *("--json", "--scan-ports", str(threshold), "--scan-window", window),
        *("--recorded-window", window, "--ban-time", str(BAN), "--ban-time-max", str(4 * BAN)),
    ]
