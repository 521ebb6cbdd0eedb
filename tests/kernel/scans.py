# Copyright: (c) 2026, Packetwatch authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of each scan that nmap can make: one table for the tests and for docs/detection.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

THRESHOLD, SLOW = 5, 20
UNSEEN = None


class Scan(NamedTuple):
    """A scan, and how many of its probes are answered before the ban; UNSEEN: there is none.

    option: of nmap. kind: of the ban. closed, opened: a scan of closed ports, and of open ones. slower: of
    closed ports, with so much time between two probes that the window never holds enough of them. Then the
    agent counts, and the kind is `slow`, unless `slower_kind` says otherwise.
    """

    name: str
    option: str
    kind: str
    closed: int | None
    opened: int | None = UNSEEN
    slower: int | None = SLOW
    families: tuple[int, ...] = (4, 6)
    slower_kind: str = "slow"


DECOYS = {4: "10.79.255.1,10.79.255.2", 6: "fd79:0:0:fff1::1,fd79:0:0:fff2::1"}
SCANS = (
    Scan("SYN", "-sS", "syn", 4),
    Scan("connect", "-sT", "syn", 4),
    # A probe counts twice: its second fragment hides its port.
    Scan("fragments of 8 bytes", "-sS -f", "syn", 2, 4, 2, (4,), "syn"),
    Scan("fragments of 16 bytes", "-sS --mtu 16", "syn", 4, families=(4,)),
    Scan("decoys", "-sS -D DECOYS,ME", "syn", 4),
    Scan("SYN with ECE", "-sS --scanflags SYNECE", "syn", 4),
    Scan("SYN with PSH", "-sS --scanflags SYNPSH", "syn", 4),
    Scan("IP options", "-sS --ip-options R", "syn", 4),
    Scan("source port 53", "-sS -g 53", "syn", 4),
    Scan("SYN with data", "-sS --data-length 40", "syn", 4),
    Scan("wrong checksum", "-sS --badsum", "syn", 0, slower=0),
    # The time between two probes is that of one address.
    Scan("one port of many addresses", "-sS", "syn", 4, slower=4, slower_kind="syn"),
    Scan("SYN with FIN", "-sS --scanflags SYNFIN", "stealth", 4, 0),
    Scan("FIN", "-sF", "stealth", 4, 0),
    Scan("NULL", "-sN", "stealth", 4, 0),
    Scan("XMAS", "-sX", "stealth", 4, 0),
    Scan("Maimon", "-sM", "ack", 4),
    Scan("ACK", "-sA", "ack", 4),
    Scan("window", "-sW", "ack", 4),
    Scan("SYN with ACK", "-sS --scanflags SYNACK", "ack", 4),
    Scan("UDP", "-sU", "udp", 4),
    # Nothing on the host has SCTP, so no port of it is open.
    Scan("SCTP INIT", "-sY", "sctp", 4, 4),
    Scan("SCTP COOKIE ECHO", "-sZ", "sctp", 4, 4),
    Scan("protocols", "-sO", "proto", 4),
)
ADDRESSES, PROTOCOLS = "one port of many addresses", "protocols"


def table() -> Iterator[str]:
    """The lines of the table in docs/detection.md."""
    yield "| scan | `nmap` | kind | closed ports | open ports | closed ports, `-T1` |"
    yield "|---|---|---|---|---|---|"
    for scan in SCANS:
        only = " (IPv4 only)" if scan.families == (4,) else ""
        option = scan.option.replace("DECOYS", "ADDRESS,...")
        yield (
            f"| {scan.name} | `{option}`{only} | {scan.kind} | {_cell(scan.closed)} | "
            f"{_cell(scan.opened)} | {_cell(scan.slower)} |"
        )


def _cell(answered: int | None) -> str:
    return "not seen" if answered is UNSEEN else str(answered)
